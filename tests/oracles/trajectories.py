"""Brute force for step programs: list every trajectory, then add up.

A program is plain data (`Program`): the sites of one step in order, each with a function from the values at hand to
probabilities (decision, chance) or to log p(O_t = 1) (optimality), and a function to the next state. With discount
below 1 a Bernoulli site `alive` stands before every step but the first and before the final factor: alive_t can be
1 only if alive_{t-1} is. A dead step contributes no factor, and its sites follow the prior and the dynamics.

    p(path, alive, O) = p(alive) p(path) exp(tau * sum_t alive_t r_t),     tau the decisions' inverse temperature

Nothing is recursive backwards in time: a list grows forwards and every answer is a sum over it. Settings of
probability zero are left out of the list, so policies must be zero wherever the prior is.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

Values = dict[str, int]
Policy = Mapping[str, np.ndarray]
Scopes = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Site:
    """One site of a step; `support` holds the values of a latent site in increasing order."""

    name: str
    kind: str
    function: Callable[[Values], object]
    support: tuple[int, ...] = ()
    inverse_temperature: float = 1.0


def _support(values: int | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(values)) if isinstance(values, int) else values


def decision(name, support, function, inverse_temperature=1.0) -> Site:
    """A site that the agent chooses, with its prior probabilities."""
    return Site(name, "decision", function, _support(support), inverse_temperature)


def chance(name, support, function) -> Site:
    """A site that nature draws, with its probabilities."""
    return Site(name, "chance", function, _support(support))


def optimality(function, name="optimality") -> Site:
    """A factor with its log probability."""
    return Site(name, "optimality", function)


@dataclass(frozen=True)
class Program:
    """A tabular step program as data.

    Attributes:
        state: Support of each state variable (a number K stands for 0..K-1), in the order of its axes.
        initial: Chance sites before the first step.
        initial_state: Values of the initial sites -> first state.
        step: The sites of one step; their functions also see the time index `t`.
        next_state: Values of a step -> next state.
        horizon: Number of steps T.
        discount: Probability that a step is followed by another one.
        final: State after the last step -> log probability of a last optimality factor.
    """

    state: Mapping[str, int | tuple[int, ...]]
    initial: tuple[Site, ...]
    initial_state: Callable[[Values], Values]
    step: tuple[Site, ...]
    next_state: Callable[[Values], Values]
    horizon: int
    discount: float = 1.0
    final: Callable[[Values], float] | None = None

    @property
    def latent(self) -> tuple[Site, ...]:
        """Decisions and chance sites, in order."""
        return tuple(site for site in self.step if site.kind != "optimality")

    @property
    def decisions(self) -> tuple[Site, ...]:
        """Decisions, in order."""
        return tuple(site for site in self.step if site.kind == "decision")

    @property
    def supports(self) -> dict[str, tuple[int, ...]]:
        """Values of every state variable and latent site."""
        states = {name: _support(values) for name, values in self.state.items()}
        return states | {site.name: site.support for site in self.latent}

    @property
    def common_inverse_temperature(self) -> float:
        """The inverse temperature that all decisions share."""
        found = {site.inverse_temperature for site in self.decisions}
        if len(found) != 1:
            raise ValueError(f"no common inverse temperature: {sorted(found)}")
        return found.pop()

    def states(self) -> list[Values]:
        """Every combination of the state variables' values."""
        supports = self.supports
        return [dict(zip(self.state, values, strict=True)) for values in product(*map(supports.get, self.state))]


@dataclass(frozen=True)
class Trajectories:
    """Every trajectory of positive prior probability from time `start` on: N rows, L = T - start steps.

    Attributes:
        program: What was listed.
        start: Time index of the first column.
        position: State variable -> (N, L+1), latent site -> (N, L): positions in the supports.
        chance: (N,) product of all chance probabilities.
        prior: Decision -> (N, L) prior probabilities.
        log_optimality: (N, L+1) sum of a step's factors; the last column is the final one.
    """

    program: Program
    start: int
    position: dict[str, np.ndarray]
    chance: np.ndarray
    prior: dict[str, np.ndarray]
    log_optimality: np.ndarray

    @property
    def steps(self) -> int:
        """Number of steps listed."""
        return self.log_optimality.shape[1] - 1

    @property
    def prior_probability(self) -> np.ndarray:
        """(N,) probability of each path before optimality is known."""
        return self.chance * np.prod([np.prod(p, axis=1) for p in self.prior.values()], axis=0)


def settings(sites: tuple[Site, ...], given: Values) -> list[tuple[Values, dict[str, float], float]]:
    """Lists every setting of the sites: values, probability of each latent site, sum of the factors."""
    found = [(given, {}, 0.0)]
    for site in sites:
        if site.kind == "optimality":
            found = [(v, p, factor + float(site.function(v))) for v, p, factor in found]
        else:
            found = [
                (v | {site.name: x}, p | {site.name: float(mass)}, factor)
                for v, p, factor in found
                for x, mass in zip(site.support, site.function(v), strict=True)
                if mass > 0
            ]
    return found


def enumerate_trajectories(program: Program, start: int = 0, state: Values | None = None) -> Trajectories:
    """Lists every trajectory, from the initial sites or from a given state at time `start`."""
    if state is None:
        drawn = settings(program.initial, {})
        first = [(program.initial_state(values), float(np.prod(list(p.values())))) for values, p, _ in drawn]
    else:
        first = [(state, 1.0)]
    paths = [([], s, mass) for s, mass in first]
    for t in range(start, program.horizon):
        paths = [
            (steps + [(s, *setting)], program.next_state(setting[0]), mass)
            for steps, s, mass in paths
            for setting in settings(program.step, dict(s) | {"t": t})
        ]
    return _columns(program, start, paths)


def _columns(program: Program, start: int, paths: list) -> Trajectories:
    supports, names = program.supports, [site.name for site in program.decisions]
    final = program.final or (lambda state: 0.0)

    def position(name, rows):
        values = np.array(rows, dtype=int).reshape(len(paths), -1)
        found = np.searchsorted(supports[name], values)
        assert (np.asarray(supports[name])[found] == values).all(), f"{name} leaves its support"
        return found

    def column(pick):
        return np.array([[pick(*step) for step in steps] for steps, _, _ in paths]).reshape(len(paths), -1)

    where = {n: position(n, [[*(step[0][n] for step in steps), s[n]] for steps, s, _ in paths]) for n in program.state}
    where |= {site.name: position(site.name, column(lambda s, v, p, r, n=site.name: v[n])) for site in program.latent}
    natural = column(lambda s, v, p, r: np.prod([mass for name, mass in p.items() if name not in names]))
    prior = {name: column(lambda s, v, p, r, n=name: p[n]) for name in names}
    last = np.array([[float(final(s))] for _, s, _ in paths])
    factors = np.concatenate([column(lambda s, v, p, r: r), last], axis=1)
    mass = np.array([mass for _, _, mass in paths]) * np.prod(natural, axis=1)
    return Trajectories(program, start, where, mass, prior, factors)


def lifetimes(discount: float, steps: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yields every setting of the alive sites, (steps + 1,) zeros and ones, with its probability."""
    for later in product((1, 0), repeat=steps):
        alive, probability = (1, *later), 1.0
        for before, now in pairwise(alive):
            survives = discount * before
            probability *= survives if now else 1.0 - survives
        if probability > 0:
            yield probability, np.array(alive, dtype=float)
