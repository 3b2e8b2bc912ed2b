"""How far a policy is from the posterior given optimality, by the weights that would turn one into the other.

A trajectory tau drawn under a policy has the weight p(O, tau) / q(tau) = prod_t p(O_t | .) p(d_t | .) / q(d_t | .): the
dynamics cancel. The weights' mean is the evidence; the shape k of their tail says how well it can be estimated, and
whether the policy stands in for the posterior (Vehtari et al. 2024, Pareto smoothed importance sampling).
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Array, PRNGKeyArray
from numpyro.infer.importance import _psis_khat

from rlinf_ppl.inference.arguments import check_count, check_key
from rlinf_ppl.inference.particles import episodes
from rlinf_ppl.inference.particles.faults import check_faults
from rlinf_ppl.inference.particles.proposals import as_policy
from rlinf_ppl.inference.particles.simulator import as_simulator
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import check_ends
from rlinf_ppl.program.reading import check_program

FEWEST_SAMPLES = 25


def k_hat(program: ControlProgram, key: PRNGKeyArray | Array, policy: Any, num_samples: int = 1000) -> float:
    """The shape of the tail of a policy's importance weights, by NumPyro's Pareto smoothing.

    Below 0.7 (or 1 - 1 / log10 num_samples, where that is less) the policy can stand in for the posterior given
    optimality, or be corrected by weights; above it cannot. Under noisy dynamics even the best policy differs from
    the posterior, which conditions the dynamics as well.

    Args:
        program: any step program with an end and one inverse temperature.
        key: a JAX random key.
        policy: for each decision (T, scope, K) probabilities, such as `fit.policy`, or whatever else `smc.run` takes as
            a proposal; a fit or solution that holds them.
        num_samples: number of trajectories, at least 25.

    Returns:
        k; -inf where there is no tail, as the largest weight is that of every draw which would be in it; inf where no
        trajectory that was drawn is possible in the model.

    Raises:
        TypeError, ValueError: on a program without a joint model or end, a policy that does not fit, too few samples.
        FloatingPointError: where a site's numbers are no law or factor.
    """
    check_program(program)
    check_ends(program.horizon, "trajectories")
    if check_count("num_samples", num_samples) < FEWEST_SAMPLES:
        raise ValueError(f"num_samples must be at least {FEWEST_SAMPLES}, to have a tail; got {num_samples}.")
    simulator = replace(as_simulator(program, None, None), proposal=as_policy(program, policy))
    found, faults = episodes.log_weights(simulator, check_key(key), num_samples)
    check_faults(faults)
    # In double precision, where a tail of hundreds of nats does not vanish.
    weights = np.asarray(found, float)
    largest = weights.max()
    if largest == -np.inf:
        return math.inf
    alike = np.sum(weights >= largest - 1e-6 * max(1.0, abs(largest)))
    if alike >= min(0.2 * num_samples, 3 * math.sqrt(num_samples)):
        return -math.inf
    return _psis_khat(weights)
