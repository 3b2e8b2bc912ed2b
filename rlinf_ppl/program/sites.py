"""Run a part of a program on given values of its sites, and record what they are: kinds, supports, probabilities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array
from numpyro.primitives import Messenger

from rlinf_ppl.algebra.regularizers import Regularizer
from rlinf_ppl.program.data import data_log_prob
from rlinf_ppl.program.families import base_of, unmasked
from rlinf_ppl.program.language import DECISION, INVERSE_TEMPERATURE, REGULARIZER, UNSEEN
from rlinf_ppl.program.laws import FiniteLaw, GaussianLaw, SampledLaw, as_law
from rlinf_ppl.program.supports import FiniteSupport, Support, first_value

RESERVED = ("t", "alive")


class Sites(Messenger):
    """Runs a function on given values of its sites and records them; unnamed sites take their first value."""

    def __init__(self, part: str, values: dict[str, Any]):
        self.part, self.values = part, values
        self.laws: dict[str, FiniteLaw | GaussianLaw | SampledLaw] = {}
        self.factors: dict[str, Array] = {}
        self.kinds: dict[str, str] = {}
        self.supports: dict[str, Support] = {}
        self.temperatures: dict[str, Any] = {}
        self.regularizers: dict[str, Regularizer] = {}
        self.unseen: dict[str, tuple[str, ...]] = {}
        super().__init__()

    def __enter__(self) -> Any:
        """Sites that stand in a function inside of the step that JAX traces apart are none of the step's."""
        self.trace = get_opaque_trace_state()
        return super().__enter__()

    def process_message(self, msg: Any) -> None:
        """Give a site its value and record it; no handler outside sees it."""
        if msg["type"] == "deterministic":
            msg["stop"] = True
            return
        name, fn = msg.get("name", msg["type"]), msg.get("fn")
        self._refuse(name, msg)
        if msg["type"] == "plate":
            return
        if name in self.kinds:
            raise ValueError(f"{self.part} has two sites named {name!r}; give each site its own name.")
        msg["stop"] = True
        if msg["is_observed"]:
            self.kinds[name] = "optimality" if msg["infer"].get("is_auxiliary") else "data"
            if self.kinds[name] == "data":
                check_shape(f"{self.part}: the data of site {name!r}", msg["value"], fn)
            log_prob = data_log_prob(self.part, name, fn, msg["value"])
            self.factors[name] = self._factor(name, jnp.sum(log_prob) if plates_of(msg) else log_prob)
            return
        decision = bool(msg["infer"].get(DECISION))
        self.kinds[name] = "decision" if decision else "chance"
        self.laws[name] = law_of(f"{self.part}: site {name!r}", fn, plates_of(msg))
        self.supports[name] = self.laws[name].support
        msg["value"] = self.values.get(name, first_value(self.supports[name]))
        if decision:
            self.temperatures[name] = msg["infer"][INVERSE_TEMPERATURE]
            self.regularizers[name] = msg["infer"][REGULARIZER]
            self.unseen[name] = msg["infer"][UNSEEN]

    def _refuse(self, name: str, msg: Any) -> None:
        where = f"{self.part}: site {name!r}"
        if get_opaque_trace_state() != self.trace:
            raise ValueError(
                f"{where} stands in a function that JAX traces apart (cond, switch, scan, while_loop, vmap, jit); a "
                "site belongs to the step itself. Draw what both branches need and choose by jnp.where, and write many "
                "alike by a numpyro.plate or .to_event(1)."
            )
        if msg["type"] == "param":
            raise ValueError(f"{where} is a numpyro.param; pass it to the program in args instead.")
        if msg["type"] == "plate":
            size, subsample_size = msg["args"]
            if subsample_size not in (None, size):
                raise ValueError(
                    f"{self.part}: the plate {name!r} draws {subsample_size} of {size}; a step holds all of a plate: "
                    "leave subsample_size out."
                )
            return
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
                "its own, or a vector by .expand([n]).to_event(1), such as Normal(loc, scale).expand([n]).to_event(1)."
            )
        if msg["value"] is not None and not msg["is_observed"]:
            raise ValueError(f"{where} is given a value by a handler inside the step; use handlers.do or condition.")
        if msg["is_observed"] and msg["infer"].get(DECISION):
            raise ValueError(f"{where} is a decision with a value; state what is known of it by its prior.")

    def _factor(self, name: str, log_prob: Any) -> Array:
        if jnp.shape(log_prob) != ():
            raise ValueError(
                f"{self.part}: optimality {name!r} has shape {jnp.shape(log_prob)}; it must be one number, "
                "so index the reward by every variable it depends on, and declare a vector of data by to_event(1) or "
                "by a numpyro.plate."
            )
        return jnp.asarray(log_prob, dtype=float)


def check_shape(where: str, value: Any, fn: Any) -> None:
    """Raise where data have another shape than a draw has, plates included.

    Raises:
        TypeError: they are complex.
        ValueError: they have another shape.
    """
    if np.iscomplexobj(value):
        raise TypeError(f"{where} are complex numbers, which no law has.")
    if not isinstance(fn, dist.Unit) and np.shape(value) != fn.shape():
        raise ValueError(
            f"{where} have shape {np.shape(value)}, and a draw of {type(fn).__name__} has {fn.shape()}; declare a "
            "vector of data by to_event(1), such as Normal(loc, scale).expand([n]).to_event(1), or by a numpyro.plate "
            "of its size, and index what depends on time by t."
        )


def check_names(part: str, sites: tuple[str, ...], state: tuple[str, ...]) -> None:
    """Raise where a site has the name of something else."""
    for name in sites:
        if name in state:
            raise ValueError(f"{part}: site {name!r} has a state variable's name; call it {name + '_next'!r}.")
        if name in RESERVED:
            raise ValueError(
                f"{part}: site {name!r} has a reserved name: t is the time index, alive the discount's site."
            )


def plates_of(msg: Any) -> int:
    """How many axes the plates around a site have."""
    return max((-frame.dim for frame in msg["cond_indep_stack"]), default=0)


def law_of(where: str, fn: Any, plates: int) -> FiniteLaw | GaussianLaw | SampledLaw:
    """The law of a latent site, one draw of which is its value.

    Raises:
        ValueError: it has a batch of draws that no plate declares.
        TypeError: nothing can be drawn from it, or its structure holds traced numbers.
    """
    fn = unmasked(fn)
    kind = type(fn).__name__
    if len(fn.batch_shape) > plates:
        raise ValueError(
            f"{where} ({kind}) has batch shape {fn.batch_shape}; a site of a step is one number, or one draw of a "
            "vector: index its parameters by every variable they depend on, and declare a vector by .to_event(1), such "
            "as Normal(loc, scale).to_event(1), or by a numpyro.plate."
        )
    fn = fn.to_event(len(fn.batch_shape))
    if isinstance(base_of(fn), dist.Unit):
        raise TypeError(f"{where} is {kind}, a factor and no variable: write optimality(log_prob, name).")
    if isinstance(fn, dist.EulerMaruyama):
        raise TypeError(f"{where} is {kind}, a path of its own; let each step of the program be one of its steps.")
    if isinstance(fn, dist.TruncatedPolyaGamma):
        raise TypeError(
            f"{where} is {kind}, whose draws have a mean that is 2.5% below that of its density in NumPyro."
        )
    law = as_law(fn, finite_support(fn))
    if isinstance(law, SampledLaw):
        check_drawn(f"{where} ({kind})", fn)
    return law


def finite_support(fn: Any) -> FiniteSupport | None:
    """The values of a distribution over finitely many numbers; None where there are none, or they are not known."""
    if not fn.has_enumerate_support or fn.shape() != ():
        return None
    try:
        with jax.ensure_compile_time_eval():
            values = np.asarray(fn.enumerate_support(expand=False))
    except (NotImplementedError, TypeError, jax.errors.JAXTypeError):
        return None
    if np.issubdtype(values.dtype, np.integer) and np.all(np.diff(values) == 1):
        return range(int(values[0]), int(values[-1]) + 1)
    return tuple(values.tolist())


def check_drawn(where: str, fn: Any) -> None:
    """Raise where nothing can be drawn from a distribution, or its structure holds traced numbers.

    Raises:
        TypeError: so it is.
    """
    if any(isinstance(each, jax.Array | np.ndarray) for each in static_of(jax.tree.structure(fn))):
        raise TypeError(
            f"{where} holds a traced number, or an array, where NumPyro needs a fixed number, such as the total count "
            "of a Multinomial: give a Python number, the largest one perhaps."
        )
    try:
        jax.eval_shape(fn.sample, jax.random.key(0))
    except NotImplementedError as error:
        raise TypeError(f"{where} cannot be drawn from; give a proper distribution.") from error


def static_of(tree: Any) -> list[Any]:
    """All that a tree's structure holds."""
    own = tree.node_data()
    held = [] if own is None else jax.tree.leaves(own[1], is_leaf=lambda each: each is None)
    return held + [each for child in tree.children() for each in static_of(child)]


def is_one(tau: Any) -> bool:
    """Whether an inverse temperature is the plain number 1 that `decide` has as its default."""
    return isinstance(tau, int | float) and tau == 1
