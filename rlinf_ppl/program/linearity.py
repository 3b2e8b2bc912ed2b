"""Which steps are linear-Gaussian, by the degrees of their arithmetic, and what the authors of others are told.

mean of a site, next value    degree at most 1 in the real variables
covariance of a site          degree 0
factor                        degree at most 2
inverse temperature           degree 0
"""

from functools import lru_cache
from typing import Any

from rlinf_ppl.algebra import TIME
from rlinf_ppl.program.degree_rules import RULES
from rlinf_ppl.program.degrees import HIGHEST, NO_POLYNOMIAL, Analysis, Entries, spread
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.lookup import inputs_of
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import is_finite

ANYWAY = "Or run smc.run, or svi.fit with guide=svi.networks(program, key): they take the step as it is."
ROOT = "Write x @ x for norm(x)**2 or abs(x)**2, without the root"
BEND = "Leave the bound out where it does not bind, or let it depend on t and on args alone"
CHOICE = "A choice (where, cond, while) may depend on t and on args, not on a real variable"
CURVE = "Replace it by its tangent (a factor by its parabola) about a point of yours"
STAIRS = "What rounds, or counts by, a real variable is a staircase of it; leave it real"
PLACE = "An index may depend on t and on args, not on a real variable"
MATRIX = "The matrix of a system may depend on t and on args, not on a real variable"
HINTS = {
    **dict.fromkeys("abs sqrt rsqrt cbrt".split(), ROOT),
    **dict.fromkeys("max min clamp reduce_max reduce_min cummax cummin sort top_k".split(), BEND),
    **dict.fromkeys("eq ne lt le gt ge lt_to le_to eq_to select_n cond while is_finite and or not".split(), CHOICE),
    **dict.fromkeys("sin cos tan tanh sinh cosh exp exp2 expm1 log log1p logistic erf erfc atan2".split(), CURVE),
    **dict.fromkeys("floor ceil round sign rem argmax argmin convert_element_type reduce_precision".split(), STAIRS),
    **dict.fromkeys("gather dynamic_slice dynamic_update_slice scatter scatter-add scatter-mul".split(), PLACE),
    **dict.fromkeys(
        ("pow", "integer_pow"), "A power is a polynomial where its exponent is a number 0, 1, 2 in the text"
    ),
    **dict.fromkeys("custom_linear_solve triangular_solve lu cholesky eigh qr svd".split(), MATRIX),
    "div": "Multiply by the reciprocal of something known; a real variable divides nothing",
    "reduce_prod": "Write a product of two entries as x[0] * x[1]",
}
HINT = "Write it with +, -, *, @ and divisions by what is known"


def check_linear(structure: Structure) -> None:
    """Raise where a program of real variables is not linear-Gaussian.

    Raises:
        ValueError: a mean or a next value is not linear, a factor not quadratic, or a covariance not
            known.
    """
    wrong = faults_of(structure)
    if wrong:
        raise ValueError("\n".join((*wrong, ANYWAY)))


def degrees_given(form: Form) -> list[Entries]:
    """Degree 1 for the real variables among a form's inputs, 0 for its other inputs and the arrays after them."""
    variables: Any = form.arithmetic.jaxpr.invars
    supports = dict(form.inputs)
    real = {variable for name, variable in inputs_of(form.arithmetic.jaxpr, supports) if not is_finite(supports[name])}
    return [spread(int(variable in real), variable.aval.shape) for variable in variables]


@lru_cache(maxsize=256)
def faults_of(structure: Structure) -> tuple[str, ...]:
    """What is wrong with a program, site by site, and what to write instead."""
    faults = []
    for part in ("initial", "step", "final"):
        form = getattr(structure, part)
        if form is None:
            continue
        analysis = Analysis(RULES)
        degrees = analysis.of(form.arithmetic.jaxpr, degrees_given(form))
        for name, parents, claim, degree, highest in claims(form, degrees):
            if degree > highest:
                names = " and ".join(parent for parent in parents if parent != TIME)
                why = reason(degree, analysis.causes) if highest else "."
                faults.append(f"{part}: {name!r} is not linear-Gaussian: {claim.format(parents=names)}{why}")
    return tuple(faults)


def claims(form: Form, degrees: list[Entries]) -> list[tuple[str, tuple[str, ...], str, int, int]]:
    """Of each output: its name and parents, what is said where it has another degree, its degree, and the highest."""
    made: list[tuple[str, tuple[str, ...], str, int, int]] = []
    laws, factors, _, following = form.arithmetic.places
    for site in form.sites:
        if site.is_factor:
            highest = degrees[factors[site.name]].top
            made.append((site.name, site.parents, "it is not quadratic in {parents}", highest, 2))
            continue
        mean, factor = degrees[laws[site.name].mean].top, degrees[laws[site.name].factor].top
        made.append((site.name, site.parents, "its mean is not linear in {parents}", mean, 1))
        made.append((site.name, site.parents, "its covariance depends on {parents}", factor, 0))
    for name, _, parents, _ in form.following:
        made.append((name, parents, "the next value is not linear in {parents}", degrees[following[name]].top, 1))
    return made


def reason(degree: int, causes: list[str]) -> str:
    """Why something has a degree that is too high, and what to write instead."""
    if degree < NO_POLYNOMIAL:
        return f": it has degree {degree}{' or more' if degree == HIGHEST else ''}. {CURVE}."
    cause = causes[degree - NO_POLYNOMIAL]
    return f": it takes {cause} of them, which is no polynomial. {HINTS.get(cause.split()[0], HINT)}."
