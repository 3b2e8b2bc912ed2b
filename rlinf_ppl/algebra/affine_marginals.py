"""Marginals of vectors under a policy: every variable of a step as an affine function of the state and of its noise.

Given the policy, a step is x' = F x + G v + c, with F the closed loop. What a decision takes away from a wide state is
taken away from F, and not from covariances: a difference of their sizes would have half of the digits.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import block_diag
from jaxtyping import Array, Float

from rlinf_ppl.algebra.affine import AffineArrival
from rlinf_ppl.algebra.chain import Chain, Slice
from rlinf_ppl.algebra.gaussians import LinearGaussian
from rlinf_ppl.algebra.messages import Law
from rlinf_ppl.algebra.quadratics import Gaussian
from rlinf_ppl.algebra.times import at_time, by_time


class Affine(NamedTuple):
    """The variables of a step.

    Attributes:
        rows: for each variable its rows [F, G, c]: over the state before, the noise of all sites, and 1.
        one: the row of 1.
        noise: the covariance of the noise.
    """

    rows: dict[str, Float[Array, "n K"]]
    one: Float[Array, "1 K"]
    noise: Float[Array, "R R"]

    def joint(self, names: tuple[str, ...], state: Gaussian) -> Gaussian:
        """Mean and covariance of variables side by side, given those of the state before."""
        rows, n = jnp.concatenate([self.rows[name] for name in names]), len(state.mean)
        loop, noise = rows[:, :n], rows[:, n:-1]
        return Gaussian(loop @ state.mean + rows[:, -1], loop @ state.cov @ loop.T + noise @ self.noise @ noise.T)

    def mean(self, law: LinearGaussian) -> Float[Array, "n K"]:
        """The mean of a law as rows."""
        return law.map @ jnp.concatenate([*(self.rows[name] for name in law.axes), self.one])


def affine_forward(chain: Chain, policy: dict[str, Law]) -> tuple[Gaussian, dict[str, Gaussian]]:
    """Marginals of the states and decisions at a finite horizon, about the chain's origin.

    Args:
        chain: a program of vectors.
        policy: for each decision its law with the leading axis of time.

    Returns:
        The state's mean (T + 1, n) and covariance (T + 1, n, n), and for each decision those of its scope and itself.
    """
    size = chain.size()
    state = {name: size[name] for name in chain.state}
    varying, constant = by_time(chain.step)
    first = following(chain.initial, walked(chain.initial, {}, {})).joint(
        chain.state, Gaussian(jnp.zeros(0), jnp.zeros((0, 0)))
    )

    def body(
        here: Gaussian, now: tuple[Slice, dict[str, Law]]
    ) -> tuple[Gaussian, tuple[Gaussian, dict[str, Gaussian]]]:
        step = at_time(eqx.combine(now[0], constant))
        found = walked(step, at_time(now[1]), state)
        decisions = {name: found.joint(own, here) for name, own in chain.axes().items()}
        return following(step, found).joint(chain.state, here), (here, decisions)

    last, (states, decisions) = lax.scan(body, first, (varying, policy), length=chain.horizon)
    return Gaussian(*(jnp.concatenate([x, end[None]]) for x, end in zip(states, last, strict=True))), decisions


def walked(part: Slice, policy: dict[str, Law], state: dict[str, int]) -> Affine:
    """The variables of one part under a policy, by name."""
    laws: list[Any] = [policy.get(site.name, site.law) for site in part.sites if not site.is_factor]
    before = sum(state.values())
    noise = block_diag(*(law.cov for law in laws)) if laws else jnp.zeros((0, 0))
    whole, place = jnp.eye(before + len(noise) + 1), 0
    found = Affine({}, whole[-1:], noise)
    for name, n in state.items():
        found.rows[name], place = whole[place : place + n], place + n
    for law in laws:
        n = law.map.shape[0]
        found.rows[law.name], place = found.mean(law) + whole[place : place + n], place + n
    return found


def following(part: Slice, found: Affine) -> Affine:
    """The next state, in terms of what was before the step."""
    assert isinstance(part.arrival, AffineArrival)
    maps = part.arrival.maps
    rows = {
        name: found.mean(maps[name]) if source is None else found.rows[source] for name, source in part.arrival.sources
    }
    return found._replace(rows=rows)


def second_moments(joint: Gaussian) -> Float[Array, "... N N"]:
    """E [z, 1] [z, 1]', which the expectation of a quadratic is taken with."""
    mean = joint.mean[..., None]
    above = jnp.concatenate([joint.cov + mean @ jnp.swapaxes(mean, -1, -2), mean], -1)
    below = jnp.concatenate([jnp.swapaxes(mean, -1, -2), jnp.ones_like(mean[..., :1, :])], -1)
    return jnp.concatenate([above, below], -2)
