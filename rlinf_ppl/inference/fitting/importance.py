"""How far a policy is from the posterior given optimality, by the weights that would turn one into the other.

A trajectory tau drawn under a policy has the weight p(O, tau) / q(tau) = prod_t p(O_t | .) p(d_t | .) / q(d_t | .): the
dynamics cancel. The weights' mean is the evidence; the shape k of their tail says how well it can be estimated, and
whether the policy stands in for the posterior (Vehtari et al. 2024, Pareto smoothed importance sampling).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import distributions as dist
from numpyro.infer import psis_diagnostic

from rlinf_ppl.algebra import Chain, Law, Slice
from rlinf_ppl.inference.arguments import check_count, check_key, check_tabular
from rlinf_ppl.inference.chains.policies import Policy, as_laws
from rlinf_ppl.inference.chains.trajectories import draw_positions
from rlinf_ppl.inference.fitting.estimators import Positions, alive, decisions, each_step, last_reward, total
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.checks import check_ends
from rlinf_ppl.program.evaluation import common_inverse_temperature

FEWEST_SAMPLES = 25


def k_hat(program: ControlProgram, key: PRNGKeyArray | Array, policy: Policy, num_samples: int = 1000) -> float:
    """The shape of the tail of a policy's importance weights, by NumPyro's Pareto smoothing.

    Below 0.7 (or 1 - 1 / log10 num_samples, where that is less) the policy can stand in for the posterior given
    optimality, or be corrected by weights; above it cannot. Under noisy dynamics even the best policy differs from
    the posterior, which conditions the dynamics as well.

    Args:
        program: a tabular step program with an end and one inverse temperature.
        key: a JAX random key.
        policy: for each decision (T, scope, K) probabilities, such as `fit.policy`.
        num_samples: number of trajectories, at least 25.

    Returns:
        k; -inf where there is no tail, as the largest weight is that of every draw which would be in it; inf where no
        trajectory that was drawn is possible in the model.

    Raises:
        ValueError: on a program without a joint model or end, or of real vectors; on too few samples.
    """
    chain, tau = read(program), common_inverse_temperature(program)
    check_ends(chain.horizon, "trajectories")
    check_tabular(program, "importance weights")
    if check_count("num_samples", num_samples) < FEWEST_SAMPLES:
        raise ValueError(f"num_samples must be at least {FEWEST_SAMPLES}, to have a tail; got {num_samples}.")
    laws, scale = as_laws(chain, policy), jnp.asarray(1.0 if tau is None else tau)
    look_key, tail_key = jax.random.split(check_key(key))
    weights = np.asarray(log_weights(chain, look_key, laws, scale, num_samples))
    largest = weights.max()
    if largest == -np.inf:
        return math.inf
    alike = np.sum(weights >= largest - 1e-6 * max(1.0, abs(largest)))
    if alike >= min(0.2 * num_samples, 3 * math.sqrt(num_samples)):
        return -math.inf

    def guide() -> None:
        weight = log_weights(chain, numpyro.prng_key(), laws, scale, 1)[0]
        numpyro.sample("log_weight", dist.Delta(weight))

    def model() -> None:
        numpyro.factor("weight", numpyro.sample("log_weight", dist.ImproperUniform(dist.constraints.real, (), ())))

    return psis_diagnostic(tail_key, {}, model, guide, num_particles=num_samples)


@eqx.filter_jit
def log_weights(chain: Chain, key: Array, policy: dict[str, Law], tau: Array, n: int) -> Float[Array, " N"]:
    """The log of p(O, tau) / q(tau) for trajectories under a policy.

    Args:
        chain: the program.
        key: a random key.
        policy: for each decision its law.
        tau: the inverse temperature that all decisions share.
        n: number of trajectories.
    """

    def part(step: Slice, met: Positions, q: dict[str, Law]) -> Array:
        rewards = total((site.content for site in step.sites if site.kind == "optimality"), met, n)
        priors = [(site.content.table.rows(met), q[site.name].table.rows(met)) for site in decisions(step)]
        return tau * rewards + sum(jnp.log(p) - jnp.log(chosen) for p, chosen in priors)

    drawn = draw_positions(chain, key, policy, n)
    living = alive(chain, drawn)
    parts = jnp.where(living[:-1] > 0, each_step(chain, part, drawn, policy), 0.0)
    return jnp.sum(parts, 0) + living[-1] * tau * last_reward(chain, drawn, n)
