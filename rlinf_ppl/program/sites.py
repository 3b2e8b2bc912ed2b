"""Run a part of a program on given values of its sites, and record what they are: kinds, supports, probabilities."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.primitives import Messenger

from rlinf_ppl.algebra.regularizers import Regularizer
from rlinf_ppl.program.data import data_log_prob
from rlinf_ppl.program.language import DECISION, INVERSE_TEMPERATURE, REGULARIZER, UNSEEN

RESERVED = ("t", "alive")


@dataclass(frozen=True)
class Real:
    """The values of a Gaussian variable: numbers, or vectors of one length."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        """The number of coordinates."""
        return math.prod(self.shape)


Support = range | tuple[float, ...] | Real


class Sites(Messenger):
    """Runs a function on given values of its sites and records them; unnamed sites take their first value."""

    def __init__(self, part: str, values: dict[str, Any]):
        self.part, self.values = part, values
        self.contents: dict[str, Any] = {}
        self.kinds: dict[str, str] = {}
        self.supports: dict[str, Support] = {}
        self.temperatures: dict[str, Any] = {}
        self.regularizers: dict[str, Regularizer] = {}
        self.unseen: dict[str, tuple[str, ...]] = {}
        self.observed: set[str] = set()
        super().__init__()

    def process_message(self, msg: Any) -> None:
        """Give a site its value and record it; no handler outside sees it."""
        if msg["type"] == "deterministic":
            msg["stop"] = True
            return
        name, fn = msg.get("name", msg["type"]), msg.get("fn")
        self._refuse(name, msg)
        if name in self.kinds:
            raise ValueError(f"{self.part} has two sites named {name!r}; give each site its own name.")
        msg["stop"] = True
        if msg["is_observed"]:
            self.kinds[name] = "optimality"
            if not msg["infer"].get("is_auxiliary"):
                self.observed.add(name)
            self.contents[name] = self._factor(name, data_log_prob(self.part, name, fn, msg["value"]))
            return
        decision = bool(msg["infer"].get(DECISION))
        self.kinds[name] = "decision" if decision else "chance"
        self.supports[name] = support_of(self.part, name, fn)
        msg["value"] = self.values.get(name, first_value(self.supports[name]))
        self.contents[name] = law_of(fn, self.supports[name])
        if decision:
            self.temperatures[name] = msg["infer"][INVERSE_TEMPERATURE]
            self.regularizers[name] = msg["infer"][REGULARIZER]
            self.unseen[name] = msg["infer"][UNSEEN]

    def _refuse(self, name: str, msg: Any) -> None:
        where = f"{self.part}: site {name!r}"
        if msg["type"] == "param":
            raise ValueError(f"{where} is a numpyro.param; pass it to the program in args instead.")
        if msg["type"] == "plate":
            raise ValueError(f"{self.part} has the plate {name!r}; write each variable of a step as a site of its own.")
        if msg["type"] != "sample":
            raise ValueError(
                f"{where} is a numpyro {msg['type']} statement; a step holds sample sites and factors only, and "
                "time is the program's own loop."
            )
        if msg.get("scale") is not None:
            raise ValueError(f"{where} is scaled; multiply the log probability that optimality is given instead.")
        if msg["kwargs"].get("sample_shape"):
            raise ValueError(
                f"{where} has sample_shape {msg['kwargs']['sample_shape']}; write each variable of a step as a site of "
                "its own, or a Gaussian vector as Normal(loc, scale).expand([n]).to_event(1)."
            )
        if msg["value"] is not None and not msg["is_observed"]:
            raise ValueError(f"{where} is given a value by a handler inside the step; use handlers.do or condition.")
        if msg["is_observed"] and msg["infer"].get(DECISION):
            raise ValueError(f"{where} is a decision with a value; state what is known of it by its prior.")

    def _factor(self, name: str, log_prob: Any) -> Array:
        if jnp.shape(log_prob) != ():
            raise ValueError(
                f"{self.part}: optimality {name!r} has shape {jnp.shape(log_prob)}; it must be one number, "
                "so index the reward by every variable it depends on, and declare a vector of data by to_event(1)."
            )
        return jnp.asarray(log_prob, dtype=float)


def check_names(part: str, sites: tuple[str, ...], state: tuple[str, ...]) -> None:
    """Raise where a site has the name of something else."""
    for name in sites:
        if name in state:
            raise ValueError(f"{part}: site {name!r} has a state variable's name; call it {name + '_next'!r}.")
        if name in RESERVED:
            raise ValueError(
                f"{part}: site {name!r} has a reserved name: t is the time index, alive the discount's site."
            )


def support_of(part: str, name: str, fn: Any) -> Support:
    """The values of a site's distribution; raises where they are no finite set of numbers and it is not Gaussian."""
    where = f"{part}: site {name!r} ({type(fn).__name__})"
    if isinstance(gaussian(fn), dist.Normal | dist.MultivariateNormal):
        if fn.batch_shape != () or len(fn.event_shape) > 1:
            raise ValueError(
                f"{where} has batch shape {fn.batch_shape}; a Gaussian site is one number or one vector: write "
                "Normal(loc, scale).to_event(1)."
            )
        return Real(fn.event_shape)
    if isinstance(fn, dist.MaskedDistribution):
        raise ValueError(f"{where} is masked; give what is impossible probability 0, or make it a site of its own.")
    if fn.batch_shape != () or fn.event_shape != ():
        raise ValueError(
            f"{where} has shape {fn.batch_shape + fn.event_shape}; a site of a step is one number: index its "
            "parameters by every variable they depend on, and use one site for each number."
        )
    if not fn.has_enumerate_support:
        raise ValueError(f"{where} has infinitely many values; sites are finite, or Normal and MultivariateNormal.")
    try:
        with jax.ensure_compile_time_eval():
            values = np.asarray(fn.enumerate_support(expand=False))
    except (NotImplementedError, TypeError, jax.errors.JAXTypeError) as error:
        raise ValueError(
            f"{where} has a support that depends on the state or on a traced array; use the largest support, "
            "and probability 0 for what is impossible."
        ) from error
    if np.issubdtype(values.dtype, np.integer) and np.all(np.diff(values) == 1):
        return range(int(values[0]), int(values[-1]) + 1)
    return tuple(values.tolist())


def gaussian(fn: Any) -> Any:
    """A distribution without the event dimensions that `to_event` declared; a normal one that was expanded, in full."""
    if isinstance(fn, dist.Independent):
        return gaussian(fn.base_dist)
    if isinstance(fn, dist.ExpandedDistribution) and isinstance(fn.base_dist, dist.Normal):
        loc, scale = (jnp.broadcast_to(x, fn.batch_shape) for x in (fn.base_dist.loc, fn.base_dist.scale))
        return dist.Normal(loc, scale)
    return fn


def law_of(fn: Any, support: Support) -> Array:
    """A distribution as one array: its probabilities, or its mean beside a factor of its covariance, (n, 1 + n)."""
    if not isinstance(support, Real):
        return probabilities(fn, support)
    base = gaussian(fn)
    mean = jnp.reshape(base.loc, -1)
    if isinstance(base, dist.MultivariateNormal):
        factor = base.scale_tril
    else:
        factor = jnp.diag(jnp.reshape(jnp.broadcast_to(base.scale, base.batch_shape), -1))
    return jnp.concatenate([mean[:, None], factor], 1).astype(float)


def probabilities(fn: Any, support: Support) -> Array:
    """The probability of each value of the support, exact at zero (NumPyro's log_prob clamps zeros)."""
    if isinstance(fn, dist.CategoricalProbs | dist.CategoricalLogits):
        return jnp.asarray(fn.probs, dtype=float)
    if isinstance(fn, dist.BernoulliProbs | dist.BernoulliLogits):
        return jnp.stack([1.0 - fn.probs, fn.probs]).astype(float)
    return jnp.exp(fn.log_prob(values_of(support))).astype(float)


def values_of(support: Support) -> Array:
    """The values of a finite support as an array."""
    assert not isinstance(support, Real)
    return jnp.arange(support.start, support.stop) if isinstance(support, range) else jnp.asarray(support)


def first_value(support: Support) -> Array:
    """One value of a support, with the dtype of all of them."""
    if isinstance(support, Real):
        return jnp.zeros(support.shape)
    return values_of(support[:1])[0]


def positions_of(support: Support, values: Array) -> Array:
    """The position of each value in the support; the support's length where the value is not in it."""
    if isinstance(support, Real):
        raise TypeError("a Gaussian variable has no positions.")
    if isinstance(support, range):
        position = values.astype(int) - support.start
        return jnp.where((position >= 0) & (position < len(support)), position, len(support))
    order = np.argsort(support)
    rank = jnp.searchsorted(values_of(support)[order], values)
    position = jnp.asarray(order)[jnp.minimum(rank, len(support) - 1)]
    return jnp.where(values_of(support)[position] == values, position, len(support))


def is_one(tau: Any) -> bool:
    """Whether an inverse temperature is the plain number 1 that `decide` has as its default."""
    return isinstance(tau, int | float) and tau == 1
