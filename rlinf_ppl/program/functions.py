"""Functions of a user's variables by their names, and what they return."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array
from numpyro.distributions import (
    Delta,
    Distribution,
    ImproperUniform,
    MixtureGeneral,
    MixtureSameFamily,
    TransformedDistribution,
)
from numpyro.primitives import Messenger

from rlinf_ppl.program.checks import check_numbers
from rlinf_ppl.program.families import base_of, is_discrete, unmasked
from rlinf_ppl.program.laws import GaussianLaw, SampledLaw, SiteLaw, as_law, probabilities
from rlinf_ppl.program.supports import Support, first_value, is_finite

Values = dict[str, Any]


class Called(eqx.Module):
    """A function of variables by their names, and of t where it takes it.

    Attributes:
        what: the argument that it was given as, for errors.
        function: the function.
        names: what it takes.
    """

    what: str = eqx.field(static=True)
    function: Callable[..., Any]
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, at: Values, t: Array) -> Any:
        """Its value."""
        with Refusing(self.what):
            return self.function(**{name: t if name == "t" else at[name] for name in self.names})


class Refusing(Messenger):
    """Refuses statements of NumPyro's in a function that is to return a distribution or a number."""

    def __init__(self, what: str):
        self.what = what
        super().__init__()

    def process_message(self, msg: Any) -> None:
        """Raise on any."""
        if msg["type"] not in ("plate", "control_flow", "deterministic"):
            raise ValueError(
                f"{self.what} has a numpyro.{msg['type']} statement, {msg.get('name')!r}; it returns a distribution, "
                "and what is learned are the arrays of its module."
            )


def law_over(what: str, found: Any, law: SiteLaw, support: Support, weighed: bool = True) -> SiteLaw:
    """The law of a distribution that a function returned for a site, to be drawn from the noise that the site has.

    Args:
        what: what the function is, for errors.
        found: the distribution.
        law: the site's own.
        support: of the site.
        weighed: whether draws are weighed by the ratio of both densities, which must exist then.

    Raises:
        TypeError: it is none.
        ValueError: it has other values than the site, whose own law and support these are.
    """
    if not isinstance(found, Distribution):
        raise TypeError(f"{what} returned {type(found).__name__}; it must return a NumPyro distribution.")
    if isinstance(base_of(found), ImproperUniform):
        raise ValueError(
            f"{what} returned an ImproperUniform, which cannot be drawn from; it must return a law that can."
        )
    found = unmasked(found)
    shape, like = found.shape(), first_value(support).shape
    if is_finite(support):
        wanted = f"a distribution over the site's {len(support)} values"
        fits = shape == () and is_discrete(base_of(found))
        fits = fits and probabilities(found, support).shape == (len(support),)
    elif isinstance(law, GaussianLaw):
        fits, wanted = shape == like and isinstance(as_law(found), GaussianLaw), f"a Gaussian of shape {like}"
    else:
        kind = "counts" if is_discrete(base_of(law.distribution)) else "real numbers"
        wanted = f"a distribution of shape {like} over {kind}, as the site's own is"
        fits = shape == like and is_comparable(base_of(found), base_of(law.distribution), weighed)
    if not fits:
        raise ValueError(f"{what} returned a {type(found).__name__} of shape {shape}; it must return {wanted}.")
    return SampledLaw(found) if isinstance(law, SampledLaw) else as_law(found, support)


def is_comparable(found: Distribution, own: Distribution, weighed: bool) -> bool:
    """Whether a law of a site can stand in for its own: counts for counts, and single points only to be played."""
    if isinstance(found, Delta) or isinstance(own, Delta):
        return isinstance(found, Delta) and (isinstance(own, Delta) or not weighed)
    return kinds_of(found) == kinds_of(own)


def kinds_of(law: Distribution) -> set[str]:
    """Whether the values of a law, or of those that it is put together from, are points, counts or real numbers."""
    law = base_of(law)
    if isinstance(law, TransformedDistribution):
        return kinds_of(law.base_dist)
    if isinstance(law, MixtureSameFamily):
        return kinds_of(law.component_distribution)
    if isinstance(law, MixtureGeneral):
        return set().union(*map(kinds_of, law.component_distributions))
    return {"points"} if isinstance(law, Delta) else {"counts"} if is_discrete(law) else {"real numbers"}


def one_number(what: str, found: Any) -> Array:
    """What a function of one state returned, which must be one number.

    Raises:
        TypeError, ValueError: it is not.
    """
    array = check_numbers(f"what {what} returns", found, "one number")
    if array.ndim:
        raise ValueError(f"{what} returned an array of shape {array.shape} for one state; it must return one number.")
    return array


def taken(what: str, function: Callable[..., Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Which variables a function takes, by its parameters' names; raises where it takes others."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return (*names, "t")
    wanted = tuple(p.name for p in parameters if p.name in (*names, "t") or p.default is p.empty)
    unknown = [name for name in wanted if name not in (*names, "t")]
    if unknown:
        raise ValueError(f"{what} takes {unknown}; it may take {[*names, 't']}.")
    return wanted
