"""The program unrolled over time in Python: a NumPyro model, and the same program under a handler as a guide.

NumPyro's sampled estimators are silently wrong over `scan`, and right over a Python loop with one scope a step.
"""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers
from numpyro.primitives import Messenger

from rlinf_ppl.program.changes import as_final, as_initial, as_step
from rlinf_ppl.program.data import OnSupport
from rlinf_ppl.program.evaluation import check_joint, common_inverse_temperature
from rlinf_ppl.program.families import unmasked
from rlinf_ppl.program.finite import Finite
from rlinf_ppl.program.language import DECISION, check_handled
from rlinf_ppl.program.laws import GaussianLaw, SiteLaw, as_law
from rlinf_ppl.program.parameters import learns_arguments
from rlinf_ppl.program.readable import check_readable
from rlinf_ppl.program.supports import Real, Support, is_finite, positions_of
from rlinf_ppl.types import ArrayLike

# Makes the handler of a step, or of the end, from the time (None: the end), the state, and whether it is alive, if it
# can be otherwise.
Handled = Callable[[int | None, dict[str, Any], Any], Any]


def run(program: Any, handled: Handled) -> None:
    """Run initial, every step and final, each part in its own scope under the handler that `handled` makes for it."""
    check_handled("a program's model or guide")
    read, step = (arguments(program), program.changes), as_step(program.step, len(program.args))
    with handlers.scope(prefix="init"):
        state = as_initial(program.initial)(*read)
    alive = None
    for t in range(program.horizon):
        with handlers.scope(prefix=f"t{t}"):
            alive = survive(program, t, alive)
            time = {"t": jnp.asarray(t)} if program.structure.takes_time else {}
            with handled(t, state, alive):
                state = step(*read, **state, **time)
    if program.final is not None:
        with handlers.scope(prefix="final"):
            alive = survive(program, program.horizon, alive)
            with handled(None, state, alive):
                as_final(program.final, program.horizon)(*read, **state)


def survive(program: Any, t: int, alive: Any) -> Any:
    """Sample whether the process is still alive; None without a discount."""
    if not program.structure.discounted or t == 0:
        return alive
    still = numpyro.sample("alive", dist.Bernoulli(probs=program.discount))
    return still if alive is None else alive * still


def as_model(program: Any) -> Handled:
    """The handler of the model: multiplies optimality by the common inverse temperature."""
    tau, parts = common_inverse_temperature(program), program.parts
    factors = {name: {site.name for site in part.form.sites if site.is_factor} for name, part in parts.items()}
    return lambda t, state, alive: Tempered(tau, factors["final" if t is None else "step"], alive)


def as_guide(program: Any) -> Handled:
    """The handler of the guide; declares its parameters."""
    check_joint(program)
    if program.learned is not None:
        return as_own_guide(program)
    check_readable(program.structure)
    supports = program.supports
    learned = {name: parameters(program, name) for name in program.scopes}

    def handled(t: int | None, state: dict[str, Any], alive: Any) -> Learned:
        now = {} if t is None else jax.tree.map(lambda array: array[t], learned)
        return Learned(program.scopes, supports, now, state, alive)

    return handled


def as_own_guide(program: Any) -> Handled:
    """The handler of a guide of the user's; declares its arrays as parameters."""
    guide, supports = program.learned, program.supports
    laws = guide.conditionals(program, declared(guide))
    return lambda t, state, alive: Given(laws, supports, state, t, alive)


def arguments(program: Any) -> Any:
    """The program's arguments; those that its guide learns are made of NumPyro's parameters, in the model, too."""
    guide = program.learned
    if guide is None or not learns_arguments(guide.module):
        return program.args
    return guide.arguments(program.args, declared(guide))


def declared(guide: Any) -> dict[str, Array]:
    """The arrays of a guide of the user's as parameters of NumPyro's."""
    starts = zip(guide.params.items(), guide.bounds, strict=True)
    return {name: numpyro.param(name, start, constraint=bound) for (name, start), bound in starts}


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
    """Multiplies optimality by an inverse temperature; neither it nor data count where a step is dead.

    What else runs the step may state factors of its own, as NumPyro does of transforms: they count once, as laws do,
    whatever masks stand in the step.
    """

    def __init__(self, tau: Array | None, factors: set[str], alive: Any):
        self.tau, self.factors, self.alive = tau, factors, alive
        super().__init__()

    def process_message(self, msg: Any) -> None:
        """Scale the log factor, let data outside their law's support have probability zero, and draw unmasked."""
        if msg["type"] != "sample":
            return
        if msg["name"] not in self.factors:
            msg["fn"] = unmasked(msg["fn"])
            return
        if not is_factor(msg):
            msg["fn"] = OnSupport(msg["fn"])
        elif self.tau is not None:
            msg["fn"] = tempered(msg["fn"], self.tau)
        if self.alive is not None:
            msg["fn"] = msg["fn"].mask(self.alive == 1)


class Guided(Messenger, abc.ABC):
    """Gives decisions other laws, where they are alive, and drops every factor and all data.

    Stands inside the scope of its step, so that it sees the sites' own names; a site's value is known once the site
    has run, hence it keeps the messages.
    """

    def __init__(self, supports: dict[str, Support], state: dict[str, Any], alive: Any):
        self.supports, self.alive = supports, alive
        self.seen: dict[str, Any] = {name: {"value": value} for name, value in state.items()}
        super().__init__()

    def process_message(self, msg: Any) -> None:
        """Drop a factor, replace a decision's prior, note the rest."""
        if is_factor(msg) or msg.get("is_observed"):
            msg["stop"] = True
        elif msg["type"] == "sample":
            name = msg["name"]
            if msg["infer"].get(DECISION):
                at = {other: jax.tree.map(jnp.asarray, each["value"]) for other, each in self.seen.items()}
                msg["fn"] = self.law(name, as_law(unmasked(msg["fn"]), self.supports[name]), at)
            self.seen[name] = msg

    @abc.abstractmethod
    def law(self, name: str, prior: SiteLaw, at: dict[str, Array]) -> dist.Distribution:
        """The law of a decision.

        Args:
            name: the decision.
            prior: its prior.
            at: the values of all that stands before it.
        """


class Learned(Guided):
    """Replaces each decision's prior by what was learned of it, tables.

    A finite prior becomes prior * exp(logits[scope]), normalised; a Gaussian one N(M z + d, F F') becomes
    N(M z + d + gain scope + offset, F factor factor' F').
    """

    def __init__(
        self,
        scopes: dict[str, tuple[str, ...]],
        supports: dict[str, Support],
        learned: dict[str, Any],
        state: dict[str, Any],
        alive: Any,
    ):
        self.scopes, self.learned = scopes, learned
        super().__init__(supports, state, alive)

    def law(self, name: str, prior: SiteLaw, at: dict[str, Array]) -> dist.Distribution:
        """The learned conditional at the values that the scope has now."""
        learned = self.finite if is_finite(self.supports[name]) else self.affine
        return learned(name, prior, {axis: at[axis] for axis in self.scopes[name]})

    def finite(self, name: str, prior: SiteLaw, scope: dict[str, Array]) -> dist.Distribution:
        """The learned conditional of a decision with finitely many values."""
        index = tuple(positions_of(self.supports[n], value) for n, value in scope.items())
        base, logits = prior.distribution, self.learned[name][index]
        assert isinstance(base, Finite)
        return Finite(base.logits + (logits if self.alive is None else self.alive * logits), base.values)

    def affine(self, name: str, prior: SiteLaw, scope: dict[str, Array]) -> dist.Distribution:
        """The learned conditional of a Gaussian decision."""
        assert isinstance(prior, GaussianLaw)
        gain, offset, factor = self.learned[name]
        if self.alive is not None:
            gain, offset = self.alive * gain, self.alive * offset
            factor = jnp.where(self.alive == 1, factor, jnp.eye(len(factor)))
        z = jnp.concatenate([jnp.zeros(0), *(jnp.reshape(value, -1) for value in scope.values())])
        return GaussianLaw(prior.mean + gain @ z + offset, prior.factor @ factor, prior.support).distribution


class Given(Guided):
    """Gives decisions the laws of a guide of one's own."""

    def __init__(self, laws: dict[str, Any], supports: dict[str, Support], state: dict[str, Any], t: Any, alive: Any):
        self.laws, self.t = laws, jnp.asarray(0 if t is None else t)
        super().__init__(supports, state, alive)

    def law(self, name: str, prior: SiteLaw, at: dict[str, Array]) -> dist.Distribution:
        """What the guide's function returns, or the prior where the decision is dead."""
        law = self.laws[name](at, self.t, prior).distribution
        return law if self.alive is None else Either(self.alive == 1, law, prior.distribution)


class Either(dist.Distribution):
    """One of two laws of one shape, by a condition.

    Args:
        which: whether it is the first.
        one, other: the laws.
    """

    pytree_data_fields = ("which", "one", "other")

    def __init__(self, which: Array, one: dist.Distribution, other: dist.Distribution):
        self.which, self.one, self.other = which, one, other
        super().__init__(one.batch_shape, one.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the first."""
        return self.one.support

    @property
    def has_rsample(self) -> bool:
        """Whether a draw moves along with the parameters of both."""
        return self.one.has_rsample and self.other.has_rsample

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw from the law."""
        drawn = self.one.sample(key, sample_shape)
        return jnp.where(self.which, drawn, self.other.sample(key, sample_shape).astype(drawn.dtype))

    def log_prob(self, value: ArrayLike) -> Array:
        """Log probability of the law."""
        return jnp.where(self.which, self.one.log_prob(value), self.other.log_prob(value))


def is_factor(msg: Any) -> bool:
    """Whether a message is an optimality factor; a handler in the step may have masked it."""
    fn = msg["fn"] if msg["type"] == "sample" else None
    return isinstance(fn.base_dist if isinstance(fn, dist.MaskedDistribution) else fn, dist.Unit)


def tempered(factor: Any, tau: Array) -> dist.Distribution:
    """A factor times an inverse temperature."""
    if isinstance(factor, dist.MaskedDistribution):
        return tempered(factor.base_dist, tau).mask(factor._mask)
    return dist.Unit(tau * factor.log_factor)
