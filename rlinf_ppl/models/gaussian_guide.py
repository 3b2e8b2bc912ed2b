"""A Gaussian guide of one decision of real numbers, affine in the state, for systems that no closed form reads.

    q(u | x, t) = N(K_t x + k_t, L_t L_t'),        K, k and L learned

Of a linear system with a quadratic cost it is the guide that the program has by itself, and holds the optimum. Of
another one it is the best that may be had of its kind:

    guide = models.GaussianGuide(optimum.policy["u"])            # begins at the answer of the linearised system
    fit = svi.fit(program, key, 1000, guide=guide, loss=svi.ParticleELBO(100), optimizer=optax.adam(0.01))
    fit.guide.module.policy                                      # (gain, offset, cov)
"""

from collections.abc import Sequence
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import MultivariateNormal, constraints

from rlinf_ppl.program import parameter
from rlinf_ppl.tasks import checks, matrices
from rlinf_ppl.types import ArrayLike


@final
class GaussianGuide(eqx.Module):
    """A Gaussian law of the decision `u` given the state `x`, at each time.

    Attributes:
        gain: K, (T, m, n).
        offset: k, (T, m).
        factor: L, lower triangular with a positive diagonal, (T, m, m).
    """

    gain: Float[Array, "T m n"]
    offset: Float[Array, "T m"]
    factor: Float[Array, "T m m"] = parameter(constraints.lower_cholesky)

    def __init__(self, policy: Sequence[ArrayLike]) -> None:
        """Make a guide that begins at a policy.

        Args:
            policy: (K, k, S) with shapes (T, m, n), (T, m), (T, m, m), as solutions of linear systems have them.

        Raises:
            TypeError: it does not hold real numbers.
            ValueError: shapes do not fit, numbers are not finite, or a covariance is not positive definite.
        """
        if len(policy) != 3:
            raise ValueError(f"policy has {len(policy)} entries; it must be (gain, offset, covariance).")
        gain, offset, cov = (
            checks.as_reals(f"policy's {name}", given)
            for name, given in zip(("gain", "offset", "cov"), policy, strict=True)
        )
        if gain.ndim != 3:
            raise ValueError(f"policy's gain has shape {gain.shape}; it must be (T, m, n), with a row for each time.")
        horizon, m, _ = gain.shape
        for name, array, shape in (("offset", offset, (horizon, m)), ("cov", cov, (horizon, m, m))):
            checks.check_shape(f"policy's {name}", array.shape, [shape], "its gain", gain.shape)
        for name, array in (("gain", gain), ("offset", offset), ("cov", cov)):
            checks.check_finite(f"policy's {name}", array)
        matrices.check_symmetric("policy's cov", cov)
        if checks.is_concrete(cov) and not np.linalg.eigvalsh(np.asarray(cov, float)).min() > 0:
            raise ValueError(
                "policy's cov is singular: a guide that is to learn needs some variance in every direction."
            )
        self.gain, self.offset, self.factor = gain, offset, jnp.linalg.cholesky(cov)

    def u(self, x: Float[Array, " n"], t: Any) -> MultivariateNormal:
        """The decision's law.

        Raises:
            ValueError: the state has another dimension than the policy that the guide began at.
        """
        if x.shape != self.gain.shape[2:]:
            raise ValueError(f"x has shape {x.shape}, and the guide's gain {self.gain.shape}: it is for other states.")
        # A time that the guide has no row for must not pass for its last one.
        gain, offset, factor = (
            part.at[t].get(mode="fill", fill_value=jnp.nan) for part in (self.gain, self.offset, self.factor)
        )
        return MultivariateNormal(gain @ x + offset, scale_tril=factor)

    @property
    def policy(self) -> tuple[Float[Array, "T m n"], Float[Array, "T m"], Float[Array, "T m m"]]:
        """Gain, offset and covariance."""
        return self.gain, self.offset, self.factor @ jnp.swapaxes(self.factor, -1, -2)
