"""E log p_hat, the bound of a particle filter whose proposal is the guide, with its gradient.

    L_K(guide) = E log p_hat,        p_hat the evidence that K particles estimate when decisions come from the guide.

With one particle it is the ELBO of trajectories in nats. With more it rises, and tends to log p(O). Then the guide is
a proposal, and what stands for the posterior is a trajectory drawn from the weighted particles: log p(O) - L_K bounds
its KL from the posterior given optimality, dynamics conditioned as well (variational SMC: Maddison et al. 2017; Le et
al. 2018; Naesseth et al. 2018). The guide alone does not tend to that posterior: it makes the weights even.

What is real is moved along with the parameters of its law (reparameterised). What is finite has a score: whatever is
drawn at time t is credited with what the estimate gained from t on,

    grad = E [ grad log p_hat + sum_t (grad log q_t) (log p_hat - log Z_{t-1} - b_t) ],

log Z_{t-1} the estimate before t, and the baseline b_t the mean of the same over the other runs (Kool, van Hoof &
Welling 2019). Where a reward or a next state jumps with something real, as at a threshold, what moves along with the
guide misses the jump: smooth it, or integrate by nodes. Drawing ancestors has a score of the same kind. It is left out
by default, for its noise: then the gradient is biased where K is more than 1.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra import resampling
from rlinf_ppl.inference.fitting.estimators import with_gradient
from rlinf_ppl.inference.particles.filtering import particle_filter
from rlinf_ppl.inference.particles.simulator import Simulator

# The share of the particles that an effective number falls below as soon as weights differ.
UNEQUAL = 1 - 1e-6


def log_evidence(
    simulator: Simulator, key: Array, num_particles: int, num_runs: int, threshold: float, resampling_term: bool
) -> Float[Array, ""]:
    """The mean of log p_hat over independent runs, differentiable in whatever the proposal is made of.

    Args:
        simulator: the program, with the guide as its proposal.
        key: a random key.
        num_particles: K, of each run.
        num_runs: the number of runs; with one there is no baseline.
        threshold: the share of K below which an effective number lets particles be drawn anew.
        resampling_term: whether to add the score of the ancestors, which are drawn independently then.
    """
    share = jnp.asarray(min(threshold, UNEQUAL))
    draw = resampling.multinomial if resampling_term else resampling.systematic

    def one(key: Array) -> tuple[Array, Array, Array]:
        found = particle_filter(simulator, key, num_particles, share, draw=draw)
        scores = found.drawn.sites
        if resampling_term:
            scores = scores.at[1:].add(found.drawn.ancestors)
        before = jnp.concatenate([jnp.zeros(1), found.drawn.log_evidence[:-1]])
        return found.log_evidence, found.log_evidence - before, scores

    total, ahead, scores = jax.vmap(one)(jax.random.split(key, num_runs))
    ahead = lax.stop_gradient(ahead)
    others = (jnp.sum(ahead, 0, keepdims=True) - ahead) / max(num_runs - 1, 1)
    surrogate = total + jnp.sum(scores * (ahead - others), 1)
    return with_gradient(jnp.mean(total), jnp.mean(surrogate))
