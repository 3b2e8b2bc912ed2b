"""Where an answer does not exist: a Gaussian integral, at which time and over which variable; a sum without end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlinf_ppl.algebra import Chain, Message, Rules, through
from rlinf_ppl.algebra.elimination import survive
from rlinf_ppl.algebra.times import at_one_time
from rlinf_ppl.inference.chains.answers import Posterior, Solution, growth


def check_exists(chain: Chain, answer: Solution | Posterior, rules: Rules) -> None:
    """Raise where concrete values are not finite.

    Raises:
        ValueError: a reward is not concave in a decision, or an expectation in the exponent does not exist.
    """
    scalar = answer.value.scalar
    if isinstance(scalar, jax.core.Tracer) or np.all(np.isfinite(scalar)):
        return
    step, following, when = chain.step, chain.zero.over(chain.carried, chain.size()), ""
    if chain.horizon is not None:
        t = int(np.flatnonzero(~np.isfinite(scalar)).max())
        step, when = at_one_time(chain.step, t), f"at t = {t} "
        matrix, vector, constant = (np.asarray(part[t + 1]) for part in answer.value)
        whole = np.block([[matrix, vector[:, None] / 2], [vector[None] / 2, constant[None, None]]])
        everywhere = chain.zero.over(chain.state, chain.size())
        following = everywhere.renewed(jnp.asarray(whole)).shifted(chain.origin)
    met = through(step, survive(chain, following, rules), rules)[1].message
    site = culprit(chain, met)
    if site in dict(chain.scopes):
        tau = next(each.inverse_temperature for each in chain.step.sites if each.name == site)
        if tau is not None and np.any(np.isinf(tau.array)):
            raise ValueError(
                f"the inverse temperature of {site!r} is infinite: where values are real, what maximises has no "
                "density. Give it a large finite one."
            )
        raise ValueError(
            f"{when}the decision {site!r} has no maximum (or minimum, if its inverse temperature is negative): the "
            "value grows faster in it than its prior falls, so that the prior's precision - 2 tau W is not positive "
            "definite. Bring the inverse temperature nearer to 0, give a narrower prior, or make the reward concave in "
            "it (convex, to minimise)."
        )
    raise ValueError(
        f"{when}the expectation of exp(tau V) over {site!r} does not exist: the value grows faster in it than its "
        "density falls. Lower the inverse temperature or the noise; exact.solve needs no such expectation."
    )


def check_forgets(chain: Chain, posterior: Posterior, tau: Array | None) -> None:
    """Raise where it is known that a posterior without end has none.

    Raises:
        ValueError: rewards grow faster than the discount forgets them.
    """
    if chain.horizon is None and not isinstance(posterior.converged, jax.core.Tracer) and not posterior.converged:
        low, high = growth(chain, tau)
        raise ValueError(
            "there is no posterior given optimality at an infinite horizon: what one step makes of exp V has a "
            f"spectral radius between {low:.6g} and {high:.6g}, and it must be below 1. Lower the rewards, the inverse "
            "temperature or the discount, or condition program.unroll(T)."
        )


def culprit(chain: Chain, met: dict[str, Message]) -> Any:
    """The variable whose elimination left something that is not a number: the last one with a message that is."""
    finite = [name for name, message in met.items() if bool(jnp.all(jnp.isfinite(message.whole.array)))]
    return finite[-1] if finite else next(iter(met))
