"""Run a part of a program on given values of its sites, and record what they are: kinds, supports, probabilities."""

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
from rlinf_ppl.program.laws import SiteLaw, as_law, gaussian
from rlinf_ppl.program.supports import Real, Support, first_value

RESERVED = ("t", "alive")


class Sites(Messenger):
    """Runs a function on given values of its sites and records them; unnamed sites take their first value."""

    def __init__(self, part: str, values: dict[str, Any]):
        self.part, self.values = part, values
        self.laws: dict[str, SiteLaw] = {}
        self.factors: dict[str, Array] = {}
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
            self.factors[name] = self._factor(name, data_log_prob(self.part, name, fn, msg["value"]))
            return
        decision = bool(msg["infer"].get(DECISION))
        self.kinds[name] = "decision" if decision else "chance"
        self.supports[name] = support_of(self.part, name, fn)
        msg["value"] = self.values.get(name, first_value(self.supports[name]))
        self.laws[name] = as_law(fn, self.supports[name])
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


def is_one(tau: Any) -> bool:
    """Whether an inverse temperature is the plain number 1 that `decide` has as its default."""
    return isinstance(tau, int | float) and tau == 1
