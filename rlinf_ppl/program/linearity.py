"""Which steps are linear-Gaussian, by the degrees of their arithmetic, and what the authors of others are told.

mean of a site, next value    degree at most 1 in the real variables
covariance of a site          degree 0
factor                        degree at most 2
inverse temperature           degree 0
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from rlinf_ppl.algebra import TIME
from rlinf_ppl.program.control_program import Structure
from rlinf_ppl.program.degree_rules import RULES
from rlinf_ppl.program.degrees import HIGHEST, NO_POLYNOMIAL, Analysis, Entries, spread
from rlinf_ppl.program.sites import Real, Support
from rlinf_ppl.program.tracing import Form

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


def known_values(structure: Structure) -> dict[str, dict[str, Support]]:
    """The values of what each part of a program may depend on."""
    return {
        "initial": structure.initial.supports(),
        "step": structure.supports() | structure.times(),
        "final": dict(structure.state),
    }


def degrees_given(form: Form, supports: Mapping[str, Support]) -> list[Entries]:
    """Degree 1 for the real variables among a form's inputs, 0 for its other inputs and the arrays after them."""
    count = len(form.inputs)
    variables: Any = form.arithmetic.jaxpr.invars
    real = [isinstance(supports.get(name), Real) for name in form.inputs]
    real += [False] * (len(variables) - count)
    return [spread(int(one), variable.aval.shape) for one, variable in zip(real, variables, strict=True)]


@lru_cache(maxsize=256)
def faults_of(structure: Structure) -> tuple[str, ...]:
    """What is wrong with a program, site by site, and what to write instead."""
    faults = []
    for part, supports in known_values(structure).items():
        form = getattr(structure, part)
        if form is None:
            continue
        analysis = Analysis(RULES)
        outputs = analysis.of(form.arithmetic.jaxpr, degrees_given(form, supports))
        for name, parents, claim, degree, highest in claims(form, outputs):
            if degree > highest:
                names = " and ".join(parent for parent in parents if parent != TIME)
                why = reason(degree, analysis.causes) if highest else "."
                faults.append(f"{part}: {name!r} is not linear-Gaussian: {claim.format(parents=names)}{why}")
    return tuple(faults)


def claims(form: Form, outputs: list[Entries]) -> list[tuple[str, tuple[str, ...], str, int, int]]:
    """Of each output: its name and parents, what is said where it has another degree, its degree, and the highest."""
    made: list[tuple[str, tuple[str, ...], str, int, int]] = []
    for site, output in zip(form.sites, outputs, strict=False):
        if site.kind == "optimality":
            made.append((site.name, site.parents, "it is not quadratic in {parents}", output.top, 2))
            continue
        mean, factor = top(output.degree[:, 0]), top(output.degree[:, 1:])
        made.append((site.name, site.parents, "its mean is not linear in {parents}", mean, 1))
        made.append((site.name, site.parents, "its covariance depends on {parents}", factor, 0))
    next_values = outputs[len(outputs) - len(form.following) :]
    for following, output in zip(form.following, next_values, strict=True):
        made.append((following.name, following.parents, "the next value is not linear in {parents}", output.top, 1))
    return made


def top(degrees: np.ndarray) -> int:
    """The highest of some degrees."""
    return int(degrees.max(initial=0))


def reason(degree: int, causes: list[str]) -> str:
    """Why something has a degree that is too high, and what to write instead."""
    if degree < NO_POLYNOMIAL:
        return f": it has degree {degree}{' or more' if degree == HIGHEST else ''}. {CURVE}."
    cause = causes[degree - NO_POLYNOMIAL]
    return f": it takes {cause} of them, which is no polynomial. {HINTS.get(cause.split()[0], HINT)}."
