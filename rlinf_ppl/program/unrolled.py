"""The program unrolled over time in Python: a NumPyro model, and the same program under a handler as a guide.

NumPyro's sampled estimators are silently wrong over `scan`, and right over a Python loop with one scope a step.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers
from numpyro.primitives import Messenger

from rlinf_ppl.program.data import data_log_prob
from rlinf_ppl.program.evaluation import check_joint, common_inverse_temperature
from rlinf_ppl.program.finite import Finite
from rlinf_ppl.program.language import DECISION, check_handled
from rlinf_ppl.program.laws import GaussianLaw, SiteLaw, as_law
from rlinf_ppl.program.readable import check_readable
from rlinf_ppl.program.supports import Real, Support, is_finite, positions_of
from rlinf_ppl.types import ArrayLike


def run(program: Any, handled: Callable[[int | None, dict[str, Array]], Any]) -> None:
    """Run initial, every step and final, each part in its own scope under the handler that `handled` makes for it."""
    check_handled("a program's model or guide")
    with handlers.scope(prefix="init"):
        state = program.initial(*program.args)
    alive = None
    for t in range(program.horizon):
        with handlers.scope(prefix=f"t{t}"):
            alive = survive(program, t, alive)
            time = {"t": jnp.asarray(t)} if program.structure.takes_time else {}
            with masked(alive), handled(t, state):
                state = program.step(*program.args, **state, **time)
    if program.final is not None:
        with handlers.scope(prefix="final"):
            alive = survive(program, program.horizon, alive)
            with masked(alive), handled(None, state):
                program.final(*program.args, **state)


def survive(program: Any, t: int, alive: Any) -> Any:
    """Sample whether the process is still alive; None without a discount."""
    if not program.structure.discounted or t == 0:
        return alive
    still = numpyro.sample("alive", dist.Bernoulli(probs=program.discount))
    return still if alive is None else alive * still


@contextmanager
def masked(alive: Any) -> Any:
    """Let a dead step contribute nothing."""
    with ExitStack() as stack:
        if alive is not None:
            stack.enter_context(handlers.mask(mask=alive == 1))
        yield


def as_model(program: Any) -> Callable[[int | None, dict[str, Array]], Any]:
    """The handler of the model: multiplies optimality by the common inverse temperature."""
    tau = common_inverse_temperature(program)
    return lambda t, state: Tempered(tau)


def as_guide(program: Any) -> Callable[[int | None, dict[str, Array]], Any]:
    """The handler of the guide; declares its parameters."""
    check_joint(program)
    check_readable(program.structure)
    supports = program.supports
    learned = {name: parameters(program, name) for name in program.scopes}

    def handled(t: int | None, state: dict[str, Array]) -> Learned:
        now = {} if t is None else jax.tree.map(lambda array: array[t], learned)
        return Learned(program.scopes, supports, now, state)

    return handled


def parameters(program: Any, name: str) -> Any:
    """What a guide learns of a decision: logits, or the gain, offset and factor that it puts on its Gaussian prior."""
    sizes, scope, steps = program.sizes, program.scopes[name], program.horizon
    if not isinstance(program.supports[name], Real):
        return numpyro.param(f"{name}_logits", jnp.zeros([steps, *(sizes[parent] for parent in scope), sizes[name]]))
    m, n = sizes[name], sum(sizes[parent] for parent in scope)
    return (
        numpyro.param(f"{name}_gain", jnp.zeros((steps, m, n))),
        numpyro.param(f"{name}_offset", jnp.zeros((steps, m))),
        numpyro.param(
            f"{name}_factor", jnp.tile(jnp.eye(m), (steps, 1, 1)), constraint=dist.constraints.lower_cholesky
        ),
    )


class Tempered(Messenger):
    """Multiplies every factor by an inverse temperature."""

    def __init__(self, tau: Array | None):
        self.tau = tau
        super().__init__()

    def process_message(self, msg: Any) -> None:
        """Scale the log factor, and let data outside their law's support have probability zero."""
        if is_factor(msg):
            msg["fn"] = msg["fn"] if self.tau is None else tempered(msg["fn"], self.tau)
        elif msg["type"] == "sample" and msg["is_observed"]:
            msg["fn"] = OnSupport(msg["fn"])


class OnSupport(dist.Distribution):
    """A law of data that is minus infinity outside its support, which NumPyro's own laws need not be.

    Args:
        law: of the data.
    """

    pytree_data_fields = ("law",)

    def __init__(self, law: dist.Distribution):
        self.law = law
        super().__init__(law.batch_shape, law.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the law."""
        return self.law.support

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw from the law."""
        return self.law.sample(key, sample_shape)

    def log_prob(self, value: ArrayLike) -> Array:
        """Log probability, minus infinity outside the support."""
        return data_log_prob("the model", "data", self.law, value)


class Learned(Messenger):
    """Replaces each decision's prior by what was learned, and drops every factor and all data.

    A finite prior becomes prior * exp(logits[scope]), normalised; a Gaussian one N(M z + d, F F') becomes
    N(M z + d + gain scope + offset, F factor factor' F').

    Stands inside the scope of its step, so that it sees the sites' own names; a site's value is known once the site
    has run, hence it keeps the messages.
    """

    def __init__(
        self,
        scopes: dict[str, tuple[str, ...]],
        supports: dict[str, Support],
        learned: dict[str, Any],
        state: dict[str, Array],
    ):
        self.scopes, self.supports, self.learned = scopes, supports, learned
        self.seen: dict[str, Any] = {name: {"value": value} for name, value in state.items()}
        super().__init__()

    def process_message(self, msg: Any) -> None:
        """Drop a factor, replace a decision's prior, note the rest."""
        if is_factor(msg) or msg.get("is_observed"):
            msg["stop"] = True
        elif msg["type"] == "sample":
            self.seen[msg["name"]] = msg
            if msg["infer"].get(DECISION):
                msg["fn"] = self.tilted(msg["name"], msg["fn"])

    def tilted(self, name: str, prior: Any) -> dist.Distribution:
        """The learned conditional at the values that the scope has now."""
        support, mask = self.supports[name], None
        if isinstance(prior, dist.MaskedDistribution):
            prior, mask = prior.base_dist, prior._mask
        scope = {n: jnp.asarray(self.seen[n]["value"]) for n in self.scopes[name]}
        learned = self.finite if is_finite(support) else self.affine
        fn = learned(name, as_law(prior, support), scope)
        return fn if mask is None else fn.mask(mask)

    def finite(self, name: str, prior: SiteLaw, scope: dict[str, Array]) -> dist.Distribution:
        """The learned conditional of a decision with finitely many values."""
        index = tuple(positions_of(self.supports[n], value) for n, value in scope.items())
        base = prior.distribution
        assert isinstance(base, Finite)
        return Finite(base.logits + self.learned[name][index], base.values)

    def affine(self, name: str, prior: SiteLaw, scope: dict[str, Array]) -> dist.Distribution:
        """The learned conditional of a Gaussian decision."""
        assert isinstance(prior, GaussianLaw)
        gain, offset, factor = self.learned[name]
        z = jnp.concatenate([jnp.zeros(0), *(jnp.reshape(value, -1) for value in scope.values())])
        return GaussianLaw(prior.mean + gain @ z + offset, prior.factor @ factor, prior.support).distribution


def is_factor(msg: Any) -> bool:
    """Whether a message is an optimality factor; a handler in the step may have masked it."""
    fn = msg["fn"] if msg["type"] == "sample" else None
    return isinstance(fn.base_dist if isinstance(fn, dist.MaskedDistribution) else fn, dist.Unit)


def tempered(factor: Any, tau: Array) -> dist.Distribution:
    """A factor times an inverse temperature."""
    if isinstance(factor, dist.MaskedDistribution):
        return tempered(factor.base_dist, tau).mask(factor._mask)
    return dist.Unit(tau * factor.log_factor)
