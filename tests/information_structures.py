"""Who sees what: small programs of finite variables, each as a spec for the oracle and as a ControlProgram."""

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Categorical

from rlinf_ppl import ControlProgram, decide, optimality

RNG = np.random.default_rng(7)


def law(*sizes):
    return RNG.dirichlet(np.full(sizes[-1], 0.7), size=sizes[:-1])


def reward(*sizes):
    return 2 * RNG.normal(size=sizes)


def spec(sizes, sites, following, unseen, horizon=3, **more):
    initial = RNG.dirichlet(np.ones(int(np.prod([sizes[name] for name in following])))).reshape(
        [sizes[name] for name in following]
    )
    return {
        "sizes": sizes,
        "sites": sites,
        "next": following,
        "unseen": unseen,
        "horizon": horizon,
        "initial": initial,
    } | more


def half(name, *parents, size=2, sizes=()):
    return ("decision", name, parents, law(*sizes, size))


def memoryless(**more):
    return spec(
        {"s": 2, "o": 2, "a": 2, "n": 2},
        [
            ("chance", "o", ("s",), law(2, 2)),
            half("a"),
            ("reward", "r", ("s", "a"), reward(2, 2)),
            ("chance", "n", ("s", "a"), law(2, 2, 2)),
        ],
        {"s": "n"},
        {"a": ("s",)},
        **more,
    )


STRUCTURES = {
    "memoryless": (memoryless(), {"a": ("o",)}),
    "discounted": (memoryless(discount=0.8), {"a": ("o",)}),
    "controller": (
        spec(
            {"s": 2, "m": 2, "o": 2, "a": 2, "k": 2, "n": 2},
            [
                ("chance", "o", ("s",), law(2, 2)),
                half("a"),
                ("reward", "r", ("s", "a"), reward(2, 2)),
                half("k"),
                ("chance", "n", ("s", "a"), law(2, 2, 2)),
            ],
            {"s": "n", "m": "k"},
            {"a": ("s",), "k": ("s",)},
            horizon=2,
        ),
        {"a": ("m", "o"), "k": ("m", "o", "a")},
    ),
    "private observations": (
        spec(
            {"s": 2, "x": 2, "y": 2, "a": 2, "b": 2, "n": 2},
            [
                ("chance", "x", ("s",), law(2, 2)),
                ("chance", "y", ("s",), law(2, 2)),
                half("a"),
                half("b"),
                ("reward", "r", ("s", "a", "b"), reward(2, 2, 2)),
                ("chance", "n", ("s",), law(2, 2)),
            ],
            {"s": "n"},
            {"a": ("s", "y"), "b": ("s", "x")},
            horizon=2,
        ),
        {"a": ("x",), "b": ("y", "a")},
    ),
    "public message": (
        spec(
            {"s": 3, "m": 2, "a": 3, "n": 3},
            [
                half("m"),
                half("a", size=3),
                ("reward", "r", ("s", "a"), reward(3, 3)),
                ("chance", "n", (), law(3)),
            ],
            {"s": "n"},
            {"a": ("s",)},
            horizon=2,
        ),
        {"m": ("s",), "a": ("m",)},
    ),
    "delayed sight": (
        spec(
            {"s": 2, "last": 2, "a": 2, "n": 2},
            [
                half("a"),
                ("reward", "r", ("s", "a"), reward(2, 2)),
                ("chance", "n", ("s", "a"), law(2, 2, 2)),
            ],
            {"s": "n", "last": "s"},
            {"a": ("s",)},
        ),
        {"a": ("last",)},
    ),
    "a decision forgotten": (
        spec(
            {"s": 2, "before": 2, "a": 2, "n": 2},
            [
                half("a"),
                ("reward", "r", ("s", "before", "a"), reward(2, 2, 2)),
                ("chance", "n", ("s", "a"), law(2, 2, 2)),
            ],
            {"s": "n", "before": "a"},
            {"a": ("before",)},
        ),
        {"a": ("s",)},
    ),
    "a function of the state": (
        spec(
            {"s": 4, "o": 2, "a": 2, "n": 4},
            [
                ("chance", "o", ("s",), np.eye(2)[[0, 0, 1, 1]]),
                half("a"),
                ("reward", "r", ("s", "a"), reward(4, 2)),
                ("chance", "n", ("s", "a"), law(4, 2, 4)),
            ],
            {"s": "n"},
            {"a": ("s",)},
            horizon=2,
        ),
        {"a": ("o",)},
    ),
    "a team at once": (
        spec(
            {"s": 2, "x": 2, "y": 2, "a": 2, "b": 2, "n": 2},
            [
                ("chance", "x", ("s",), law(2, 2)),
                ("chance", "y", ("s",), law(2, 2)),
                half("a"),
                half("b"),
                ("reward", "r", ("s", "a", "b"), reward(2, 2, 2)),
                ("chance", "n", ("s", "b"), law(2, 2, 2)),
            ],
            {"s": "n"},
            {"a": ("s", "y"), "b": ("s", "x", "a")},
            horizon=2,
        ),
        {"a": ("x",), "b": ("y",)},
    ),
    "temperatures": (
        memoryless(tau={"a": 0.6}) | {"horizon": 2},
        {"a": ("o",)},
    ),
    "a decision in between": (
        # b sees neither the state nor what a saw, but a, which tells of both.
        spec(
            {"s": 2, "a": 2, "z": 2, "b": 2, "n": 2},
            [
                half("a"),
                ("chance", "z", ("a",), law(2, 2)),
                half("b"),
                ("reward", "r", ("s", "b"), reward(2, 2)),
                ("chance", "n", ("s", "a"), law(2, 2, 2)),
            ],
            {"s": "n"},
            {"b": ("s", "a")},
            horizon=2,
        ),
        {"a": ("s",), "b": ("z",)},
    ),
    "options under partial sight": (
        # A noisy sensor instead of the state: whether the last option goes on, which one follows, and what it does.
        spec(
            {"s": 2, "z_prev": 2, "o": 2, "b": 2, "z": 2, "a": 2, "n": 2},
            [
                ("chance", "o", ("s",), law(2, 2)),
                half("b", "z_prev", sizes=(2,)),
                ("decision", "z", ("z_prev", "b"), np.stack([0.1 + 0.8 * np.eye(2), law(2, 2)], 1)),
                half("a", "z", sizes=(2,)),
                ("reward", "r", ("s", "a"), reward(2, 2)),
                ("chance", "n", ("s", "a"), law(2, 2, 2)),
            ],
            {"s": "n", "z_prev": "z"},
            {"b": ("s",), "z": ("s",), "a": ("s",)},
            horizon=2,
        ),
        {"b": ("z_prev", "o"), "z": ("z_prev", "o", "b"), "a": ("z_prev", "o", "z")},
    ),
}


def program(spec, horizon="own"):
    """The ControlProgram of a spec, with its horizon or another."""
    names = list(spec["next"])
    horizon = spec["horizon"] if horizon == "own" else horizon

    def initial():
        joint, at = jnp.asarray(spec["initial"], float), {}
        for name in names:
            left = joint.sum(tuple(range(1, joint.ndim)))
            at[name] = numpyro.sample(f"{name}_0", Categorical(probs=left / left.sum()))
            joint = joint[at[name]]
        return at

    def step(**state):
        at = dict(state)
        for kind, name, parents, table in spec["sites"]:
            row = jnp.asarray(table, float)[tuple(at[parent] for parent in parents)]
            if kind == "reward":
                optimality(row, name)
            elif kind == "chance":
                at[name] = numpyro.sample(name, Categorical(probs=row))
            else:
                tau = spec.get("tau", {}).get(name, 1.0)
                at[name] = decide(name, Categorical(probs=row), tau, unseen=spec["unseen"].get(name, ()))
        return {name: at[source] for name, source in spec["next"].items()}

    # A step names its state in its signature.
    namespace = {"inner": step}
    exec(f"def step({', '.join(names)}): return inner({', '.join(f'{name}={name}' for name in names)})", namespace)
    return ControlProgram(initial, namespace["step"], horizon, spec.get("discount", 1.0))
