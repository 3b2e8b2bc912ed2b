"""What acting apart does, by listing the settings of a step and adding up (see `trajectories`)."""

import numpy as np

from .answers import path_probability, policy_along
from .trajectories import Policy, Program, Scopes, Trajectories, settings


def executed(program: Program, policy: Policy, scopes: Scopes) -> dict[str, np.ndarray]:
    """(T, states, K) for each decision: the sum over all settings of a step that agree with a state and a value.

    Settings of probability zero under the prior are left out, so the policy must be zero there.
    """
    sizes = {name: len(support) for name, support in program.supports.items()}
    found = {
        site.name: np.zeros((program.horizon, *(sizes[n] for n in program.state), sizes[site.name]))
        for site in program.decisions
    }
    for t in range(program.horizon):
        for state in program.states():
            for values, prior, _ in settings(program.step, state | {"t": t}):
                at = {name: program.supports[name].index(values[name]) for name in sizes}
                weight = 1.0
                for site in program.latent:
                    taken = site.kind == "decision"
                    row = policy[site.name][(t, *(at[n] for n in scopes[site.name]))] if taken else None
                    weight *= prior[site.name] if row is None else row[at[site.name]]
                for name, table in found.items():
                    table[(t, *(at[n] for n in program.state), at[name])] += weight
    return found


def expected_return(trajectories: Trajectories, policy: Policy, scopes: Scopes) -> float:
    """E_q sum_t gamma^t log p(O_t), the final factor included."""
    weights = trajectories.program.discount ** np.arange(trajectories.steps + 1)
    along = policy_along(trajectories, policy, scopes)
    return float(path_probability(trajectories, along) @ (trajectories.log_optimality @ weights))
