"""Behaviour as an observed site of a NumPyro model: `behaviour.site`."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints

from rlinf_ppl.inference import exact
from rlinf_ppl.inference.arguments import check_count
from rlinf_ppl.inference.histories.likelihood import log_prob
from rlinf_ppl.inference.histories.observed import as_seen
from rlinf_ppl.inference.histories.simulated import simulate
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.reading import check_program
from rlinf_ppl.types import ArrayLike

SINGLE = (
    "behaviour without end is inferred in float32, where the slopes of its likelihood lose digits as the discount "
    'comes near 1; jax.config.update("jax_enable_x64", True), at the start of the program, has more.'
)
Solver = Callable[[ControlProgram], Any]


class Sequences(dist.Distribution):
    """Sequences of decisions, as they are probable given all else that was seen; see `site`.

    Its values are those of one decision, (n, T), and only their log probability is known.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector

    def __init__(self, of_values: Callable[[Array], Array], n: int, steps: int):
        self.of_values = of_values
        super().__init__(batch_shape=(n,), event_shape=(steps,), validate_args=False)

    def log_prob(self, value: Array) -> Array:
        """Nats of each sequence."""
        return self.of_values(value)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """It is drawn with all else that belongs to it: `site` without data."""
        raise NotImplementedError(
            "behaviour is simulated by behaviour.site(name, program, num_sequences=, num_steps=)."
        )


def solved(program: ControlProgram, tolerance: float | None = None, start: Array | None = None) -> Any:
    """The soft-optimal policy where there is something to optimise; None, the priors, where there is not."""
    return exact.solve(program, tolerance, start).policy if is_rewarded(program) else None


def is_rewarded(program: ControlProgram) -> bool:
    """Whether there is something to optimise."""
    rewarded = any(site.kind == "optimality" for site in program.structure.step.sites)
    return rewarded or program.structure.final is not None


def site(
    name: str,
    program: ControlProgram,
    data: Mapping[str, Any] | None = None,
    *,
    policy: Solver | None = None,
    of: str | Sequence[str] | None = None,
    lengths: ArrayLike | None = None,
    num_sequences: int | None = None,
    num_steps: int | None = None,
) -> Any:
    """Behaviour of a program, observed inside of a NumPyro model: what its parameters are inferred from.

        def model(data):
            beta = numpyro.sample("beta", LogNormal(0.0, 1.0))
            behaviour.site("choices", models.single_agent(task, 50, beta=beta), data)

        def each(data):                                     # one beta a subject, which has one row of the data
            with numpyro.plate("subject", len(data["a"])):
                beta = numpyro.sample("beta", LogNormal(0.0, 1.0))
                behaviour.site("choices", jax.vmap(lambda b: models.single_agent(task, 50, beta=b))(beta), data)

    The log likelihood is that of `exact.log_prob`, one number a sequence, and ArviZ finds it under the name.

    Args:
        name: of the site.
        program: any step program; or one for each sequence, made by `jax.vmap`.
        data: what was seen, as `exact.log_prob` takes it. None: behaviour is drawn instead.
        policy: makes the policy from a program; None: `exact.solve`, or the priors where there is no optimality.
        of: the sites whose probabilities count; None: the decisions.
        lengths: how many steps of each sequence there are, (n,).
        num_sequences: of drawn behaviour how many; where there are several programs, one each.
        num_steps: of drawn behaviour how many; None: the horizon.

    Returns:
        The data; or of drawn behaviour a dictionary like them, whose arrays are sites of their own, `name_a`.

    Raises:
        TypeError, ValueError: as `exact.log_prob`; several programs that are not one for each sequence.
    """
    check_program(program)
    several = program.discount.ndim == 1
    policy = solved if policy is None else policy
    if data is None:
        return drawn(name, program, policy, num_sequences, num_steps, several)
    if program.horizon is None and jnp.zeros(()).dtype == jnp.float32:
        warnings.warn(SINGLE, stacklevel=2)
    # Known data are checked once, before anything of them is traced.
    seen, _ = as_seen(program.structure, data, lengths)
    told = {each: x.value if x.there is None else (x.value, x.there) for each, x in seen.items()}
    n = len(jax.tree.leaves(seen)[0])
    if several and len(program.discount) != n:
        raise ValueError(
            f"there are {len(program.discount)} programs for {n} sequences; make one for each row of data."
        )
    first = next((each for each in program.scopes if each in seen), None)

    def one(program: ControlProgram, data: Any, lengths: Any) -> Array:
        return log_prob(program, policy(program), data, of, lengths)

    def of_values(value: Any) -> Array:
        there = None if first is None else seen[first].there
        whole = told if first is None else told | {first: value if there is None else (value, there)}
        if not several:
            return one(program, whole, lengths)
        rows = jax.tree.map(lambda x: jnp.asarray(x)[:, None], (whole, lengths))
        return jax.vmap(one)(program, *rows)[:, 0]

    value = jnp.zeros((n, 1)) if first is None else seen[first].value
    numpyro.sample(name, Sequences(of_values, n, value.shape[1]), obs=value)
    return data


def drawn(
    name: str, program: ControlProgram, policy: Solver, num_sequences: Any, num_steps: Any, several: bool
) -> dict[str, Array]:
    """Behaviour that nobody saw, as sites of a model."""
    steps = program.horizon if num_steps is None else num_steps
    if steps is None:
        raise ValueError("behaviour without end has no number of steps: give num_steps.")
    steps = check_count("num_steps", steps)
    if program.horizon is not None and steps > program.horizon:
        raise ValueError(f"num_steps is {steps}, and the program's horizon is {program.horizon}.")
    if several and num_sequences not in (None, len(program.discount)):
        raise ValueError(f"there are {len(program.discount)} programs, and num_sequences is {num_sequences}.")
    if not several and num_sequences is None:
        raise ValueError("give num_sequences: how many sequences are drawn.")
    n = 1 if several else check_count("num_sequences", num_sequences)
    key = numpyro.prng_key()
    if key is None:
        raise ValueError("behaviour is drawn in a model that is seeded: by Predictive, or numpyro.handlers.seed.")

    def one(program: ControlProgram, key: Array) -> dict[str, Array]:
        return simulate(program, policy(program), key, n, steps)

    if several:
        rows = jax.vmap(one)(program, jax.random.split(key, len(program.discount)))
        rows = jax.tree.map(lambda x: x[:, 0], rows)
    else:
        rows = one(program, key)
    return {each: numpyro.deterministic(f"{name}_{each}", array) for each, array in rows.items()}
