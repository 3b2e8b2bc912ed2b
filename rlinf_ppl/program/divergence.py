"""The KL divergence of two Gaussian laws."""

import jax.numpy as jnp
from jaxtyping import Array
from numpyro import distributions as dist

from rlinf_ppl.program.laws import GaussianLaw, SampledLaw, SiteLaw, gaussian


def gaussian_kl(law: SiteLaw, other: SiteLaw) -> Array | None:
    """The KL divergence of two Gaussians in nats, infinite where one is certain; None where they are none.

    For factors L and M of their covariances 1/2 (|M^-1 L|^2 + |M^-1 (m - n)|^2 - k) - log det M^-1 L.
    """
    if isinstance(law, GaussianLaw) and isinstance(other, GaussianLaw):
        right = jnp.concatenate([law.factor, (law.mean - other.mean)[:, None]], 1)
        total, rows = jnp.zeros(()), list[Array]()
        for k in range(len(right)):
            scale = other.factor[k, k]
            row = right[k] - sum((other.factor[k, j] * rows[j] for j in range(k)), jnp.zeros_like(right[k]))
            certain, lost = (scale == 0) & jnp.all(row == 0), (scale == 0) & jnp.any(row != 0)
            rows.append(row / jnp.where(scale > 0, scale, 1.0))
            log_scale = jnp.log(jnp.where(scale > 0, rows[k][k], 1.0))
            cost = 0.5 * (jnp.sum(rows[k] ** 2) - 1) - log_scale
            total = total + jnp.where(certain, 0.0, jnp.where(lost, jnp.inf, cost))
        return total
    if isinstance(law, SampledLaw) and isinstance(other, SampledLaw):
        one, two = gaussian(law.base), gaussian(other.base)
        if isinstance(one, dist.Normal) and isinstance(two, dist.Normal):
            ratio, away = one.scale / two.scale, (one.loc - two.loc) / two.scale
            return jnp.sum(0.5 * (ratio**2 + away**2 - 1) - jnp.log(ratio) + jnp.zeros(law.base.shape()))
    return None
