"""The likelihood of what was seen of a trajectory, by every history that it leaves open.

A history is the values of everything that was drawn so far. Histories are listed one by one, each with its probability,
and never merged; what was observed of a site keeps those that agree with it. The score of an observation is the share
of the probability that it keeps.
"""

import numpy as np

from .trajectories import Program


def prequential(program: Program, rows, data, scored):
    """For each site of `scored` log p(what was seen of it | all that was seen before), (T,); 0 where nothing was seen.

    The arguments are those of `told`.
    """
    return told(program, rows, data, scored, {})[0]


def told(program: Program, rows, data, scored, available):
    """The terms of `prequential`, and for each site of `scored` what each value was expected with, (T, K).

    Args:
        program: the program; what its optimality says does not matter, nor its discount.
        rows: (t, decision, values at hand) -> probabilities; None: the priors.
        data: name of a site or state variable -> what was seen at each time, None where nothing; state variables may
            have one more.
        scored: the names of sites.
        available: name of a decision -> (T, K) whether an alternative is there; its law is that given one that is.
    """
    steps = min(len(seen) for seen in data.values())

    def mass(site, values):
        of_policy = site.kind == "decision" and rows is not None
        p = np.asarray(rows(values["t"], site.name, values) if of_policy else site.function(values), float)
        if site.name in available:
            p = p * available[site.name][values["t"]]
            p = p / p.sum()
        return p

    def drawn(histories, site, seen):
        found = []
        for weight, values in histories:
            for value, p in zip(site.support, mass(site, values), strict=True):
                if p > 0 and (seen is None or value == seen):
                    found.append((weight * p, values | {site.name: value}))
        return found

    def kept(histories, t):
        """Those that agree with what was seen of the state at a time."""
        for name in program.state:
            seen = data[name][t] if name in data and t < len(data[name]) else None
            histories = [(w, values) for w, values in histories if seen is None or values[name] == seen]
        return histories

    histories = [(1.0, {})]
    for site in program.initial:
        histories = drawn(histories, site, None)
    histories = kept([(w, dict(program.initial_state(values))) for w, values in histories], 0)
    terms = {name: np.zeros(steps) for name in scored}
    shares = {name: np.zeros((steps, len(program.supports[name]))) for name in scored}
    for t in range(steps):
        histories = [(w, values | {"t": t}) for w, values in histories]
        following = {name: data[name][t + 1] for name in program.state if name in data and t + 1 < len(data[name])}
        for site in program.step:
            if site.kind == "optimality":
                continue
            seen = data[site.name][t] if site.name in data else None
            if site.name not in data and site.name in agreed(program, site.name):
                seen = following.get(agreed(program, site.name)[site.name])
            before = sum(w for w, _ in histories)
            if site.name in scored:
                each = drawn(histories, site, None)
                values = [sum(w for w, found in each if found[site.name] == value) for value in site.support]
                shares[site.name][t] = np.array(values) / before
            histories = drawn(histories, site, seen)
            if site.name in scored and seen is not None:
                terms[site.name][t] = np.log(sum(w for w, _ in histories) / before)
        histories = kept([(w, dict(program.next_state(values))) for w, values in histories], t + 1)
    return terms, shares


def agreed(program: Program, name: str) -> dict[str, str]:
    """The state variable, if any, that becomes the value of a site, whatever the values are."""
    rng = np.random.default_rng(0)
    supports, found = program.supports, {}
    for state in program.state:
        same = True
        for _ in range(50):
            values = {each: supports[each][rng.integers(len(supports[each]))] for each in supports} | {"t": 0}
            same &= program.next_state(values)[state] == values[name]
        if same:
            found[name] = state
    return found
