"""Posteriors of groups of learners in a process of its own, which has a device for each chain.

    python -m benchmarks.learners_apart posterior bandit 1000 [FILE]      # one, of simulated data or of hBayesDM's file
    python -m benchmarks.learners_apart recovery "two steps" 500 10       # of ten groups that are drawn from the prior

Figures are printed as JSON, with the time at which the last draw was there and the CPU seconds until then.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpyro

CHAINS = 4
numpyro.set_host_device_count(CHAINS)

import jax  # noqa: E402
import numpy as np  # noqa: E402
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin  # noqa: E402
from numpyro.infer import MCMC, NUTS  # noqa: E402

from benchmarks.hierarchies import KINDS, Data, Kind, drawn, model, read  # noqa: E402


def sampler(kind: Kind, draws: int) -> MCMC:
    """NUTS with as many steps before as after."""
    return MCMC(
        NUTS(model, target_accept_prob=0.85),
        num_warmup=draws,
        num_samples=draws,
        num_chains=CHAINS,
        chain_method="parallel",
        progress_bar=False,
    )


def sampled(chains: MCMC, kind: Kind, data: Data, lengths: Any, key: int) -> dict[str, np.ndarray]:
    """Draws by name, (chains, draws, ...), once they are there."""
    n, trials = next(iter(data.values())).shape
    fields = ("diverging", "num_steps")
    chains.run(jax.random.key(key), kind, n, trials, data, lengths, extra_fields=fields)
    found = chains.get_samples(group_by_chain=True) | chains.get_extra_fields(group_by_chain=True)
    return {name: np.asarray(array) for name, array in jax.block_until_ready(found).items()}


def worst(function: Any, found: dict[str, np.ndarray], *names: str) -> float:
    """The largest of a diagnostic."""
    return float(max(np.max(function(found[name])) for name in names))


def posterior(kind: Kind, draws: int, path: str | None = None) -> dict[str, float]:
    """One posterior."""
    if path is None:
        data, lengths = drawn(kind, kind.subjects, kind.trials, jax.random.key(0), True), None
        data = {name: data[name] for name in kind.seen}
    else:
        data, lengths = read(kind, Path(path))
    found = sampled(sampler(kind, draws), kind, data, lengths, 1)
    return {
        "ended": time.time(),
        "cpu": time.process_time(),
        "r_hat_group": worst(split_gelman_rubin, found, "mu", "sigma"),
        "r_hat_subjects": worst(split_gelman_rubin, found, "own"),
        "effective": -worst(lambda x: -effective_sample_size(x), found, "mu", "sigma", "own"),
        "divergences": int(found["diverging"].sum()),
        "steps": float(found["num_steps"].mean()),
    }


def recovery(kind: Kind, draws: int, groups: str) -> dict[str, Any]:
    """Truths and posteriors of groups from the prior: means, and whether the truth is in the interval of 90 %."""
    chains, names = sampler(kind, draws), ("mu", "sigma", "own")
    truth: dict[str, list[np.ndarray]] = {name: [] for name in names}
    mean: dict[str, list[np.ndarray]] = {name: [] for name in names}
    inside: dict[str, list[np.ndarray]] = {name: [] for name in names}
    r_hat, divergences = [], 0
    for i in range(int(groups)):
        data = drawn(kind, kind.subjects, kind.trials, jax.random.key(100 + i), False)
        found = sampled(chains, kind, {name: data[name] for name in kind.seen}, None, i)
        r_hat.append(worst(split_gelman_rubin, found, "mu", "sigma"))
        divergences += int(found["diverging"].sum())
        for name in names:
            low, high = np.quantile(found[name], [0.05, 0.95], axis=(0, 1))
            truth[name].append(np.asarray(data[name]))
            mean[name].append(found[name].mean((0, 1)))
            inside[name].append((low <= truth[name][-1]) & (truth[name][-1] <= high))
    size, figures = len(kind.names), {}
    for name in names:
        x, y, z = (np.stack(each[name]).reshape(-1, size) for each in (truth, mean, inside))
        figures[name] = {
            "correlation": [float(np.corrcoef(x[:, k], y[:, k])[0, 1]) for k in range(size)],
            "inside": [float(z[:, k].mean()) for k in range(size)],
            "number": len(x),
        }
    return {
        "ended": time.time(),
        "cpu": time.process_time(),
        "r_hat_group": max(r_hat),
        "divergences": divergences,
        "figures": figures,
    }


def main(what: str, kind: str, draws: str, *rest: str) -> None:
    """Print the figures."""
    print(json.dumps({"posterior": posterior, "recovery": recovery}[what](KINDS[kind], int(draws), *rest)))


if __name__ == "__main__":
    main(*sys.argv[1:])
