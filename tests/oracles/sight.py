"""Programs of a few finite variables whose decisions see less, by enumeration of all trajectories in plain NumPy.

A program is a list of sites, each (kind, name, parents, table): chance and decision with p(name | parents), reward with
a number for each value of its parents. A policy is a table over the time, what it sees and the decision itself.
"""

import itertools

import numpy as np


def trajectories(spec, policies):
    """Every trajectory: its probability under the policies, its return and its KL from the prior, and what was met."""
    found = []
    size = spec["sizes"]

    def steps(t, state, probability, gain, cost, met):
        if t == spec["horizon"]:
            found.append((probability, gain, cost, met))
            return
        latent = [site for site in spec["sites"] if site[0] != "reward"]
        for values in itertools.product(*(range(size[site[1]]) for site in latent)):
            at = state | {site[1]: value for site, value in zip(latent, values, strict=True)}
            chance, more, pays = 1.0, 0.0, 0.0
            for kind, name, parents, table in spec["sites"]:
                row = np.asarray(table)[tuple(at[parent] for parent in parents)]
                if kind == "reward":
                    more += row
                elif kind == "chance":
                    chance *= row[at[name]]
                else:
                    axes, policy = policies[name]
                    q = policy[t][tuple(at[axis] for axis in axes)][at[name]]
                    chance *= q
                    pays += np.log(q / row[at[name]]) / spec.get("tau", {}).get(name, 1.0) if q > 0 else 0.0
            following = {name: at[source] for name, source in spec["next"].items()}
            alive = spec.get("discount", 1.0) ** t
            steps(
                t + 1, following, probability * chance, gain + alive * more, cost + alive * pays, [*met, at]
            ) if chance > 0 else None

    for values in itertools.product(*(range(size[name]) for name in spec["next"])):
        steps(0, dict(zip(spec["next"], values, strict=True)), np.asarray(spec["initial"])[values], 0.0, 0.0, [])
    return found


def elbo(spec, policies):
    """E[sum of discounted rewards - KL / tau]."""
    return sum(p * (gain - cost) for p, gain, cost, _ in trajectories(spec, policies))


def joint(spec, policies, t, names):
    """The joint law of some variables of one step."""
    array = np.zeros([spec["sizes"][name] for name in names])
    for probability, _, _, met in trajectories(spec, policies):
        array[tuple(met[t][name] for name in names)] += probability
    return array
