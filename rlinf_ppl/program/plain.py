"""Traced arithmetic evaluated so that its derivatives are those of what it computes.

A derivative that a user writes (`jax.custom_jvp`, `jax.custom_vjp`) or stops (`stop_gradient`) need not be that of the
value. Coefficients of a polynomial are derivatives, so where the polynomial's variables go in, such a rule is replaced
by the arithmetic under it. Where they do not, it stays: what an ELBO's gradient with respect to known numbers goes
through is the user's to say. A solved linear system differentiates its right-hand side by the same solver, so that
stays as well, and with it the derivative in the matrix.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
from jax.extend.core import Literal

from rlinf_ppl.program.degree_loops import find_fixed_point, row_of
from rlinf_ppl.program.degree_rules import RULES
from rlinf_ppl.program.degrees import Analysis, Entries, entries_of
from rlinf_ppl.program.jaxprs import INNER, open_jaxpr, scan_ends

OWN_RULES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "stop_gradient")


def evaluate(jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any], given: Sequence[Entries]) -> list[Any]:
    """The outputs of an open jaxpr, by plain arithmetic.

    Args:
        jaxpr: the arithmetic.
        constants: what it closes over.
        inputs: the numbers that it takes.
        given: of each of them whether it is known, or which of its entries are variables.

    Returns:
        The numbers that it gives.
    """
    if not has_own_rules(jaxpr):
        return list(jax.core.eval_jaxpr(jaxpr, constants, *inputs))
    numbers = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *inputs), strict=True))
    degrees = dict(zip(jaxpr.invars, given, strict=True))
    analysis = Analysis(RULES)
    for equation in jaxpr.eqns:
        ins = [entries_of(variable, degrees) for variable in equation.invars]
        values = [variable.val if isinstance(variable, Literal) else numbers[variable] for variable in equation.invars]
        degrees |= zip(equation.outvars, analysis.equation(equation, ins), strict=True)
        touched = own_rules_of(equation) and not all(entries.known for entries in ins)
        replace = PLAIN.get(equation.primitive.name) if touched else None
        outs = evaluate_one(jaxpr, equation, values) if replace is None else replace(equation, values, ins)
        numbers |= zip(equation.outvars, outs, strict=True)
    return [variable.val if isinstance(variable, Literal) else numbers[variable] for variable in jaxpr.outvars]


@lru_cache(maxsize=4096)
def has_own_rules(jaxpr: Any) -> bool:
    """Whether derivative rules other than the primitives' stand anywhere in a jaxpr."""
    return any(own_rules_of(equation) for equation in jaxpr.eqns)


def own_rules_of(equation: Any) -> bool:
    """Whether derivative rules other than the primitives' stand in an equation, or in what it calls."""
    if equation.primitive.name in OWN_RULES:
        return True
    called = [each for value in equation.params.values() for each in (value if isinstance(value, tuple) else (value,))]
    return any(has_own_rules(open_jaxpr(each)) for each in called if hasattr(open_jaxpr(each), "eqns"))


def evaluate_one(jaxpr: Any, equation: Any, values: list[Any]) -> list[Any]:
    """The outputs of one equation as JAX evaluates it."""
    variables = {v: x for v, x in zip(equation.invars, values, strict=True) if not isinstance(v, Literal)}
    one = jaxpr.replace(
        constvars=[], invars=list(variables), outvars=list(equation.outvars), eqns=[equation], effects=equation.effects
    )
    return list(jax.core.eval_jaxpr(one, (), *variables.values()))


def call(jaxpr: Any, values: Sequence[Any], ins: Sequence[Entries]) -> list[Any]:
    """The outputs of an inner jaxpr."""
    return evaluate(open_jaxpr(jaxpr), getattr(jaxpr, "consts", ()), values, ins)


def call_inner(equation: Any, values: list[Any], ins: list[Entries]) -> list[Any]:
    """A function of its own, with or without a derivative rule."""
    return call(equation.params[INNER[equation.primitive.name]], values, ins)


def stop_gradient(equation: Any, values: list[Any], ins: list[Entries]) -> list[Any]:
    """A number is what it is, derivative and all."""
    return values


def branch(equation: Any, values: list[Any], ins: list[Entries]) -> list[Any]:
    """One of several functions."""
    choices = [lambda *xs, each=each: call(each, xs, ins[1:]) for each in equation.params["branches"]]
    return list(jax.lax.switch(values[0], choices, *values[1:]))


def scan(equation: Any, values: list[Any], ins: list[Entries]) -> list[Any]:
    """A loop over rows."""
    params = equation.params
    n, k = scan_ends(equation)
    rows = [row_of(entries) for entries in ins[k:]]
    body = params["jaxpr"]
    carried, _ = find_fixed_point(lambda carry: Analysis(RULES).within(None, body, [*ins[:n], *carry, *rows]), ins[n:k])

    def once(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        outs = call(body, [*values[:n], *carry, *xs], [*ins[:n], *carried, *rows])
        return outs[: k - n], outs[k - n :]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    last, made = jax.lax.scan(once, values[n:k], values[k:], **options)
    return [*last, *made]


def loop(equation: Any, values: list[Any], ins: list[Entries]) -> list[Any]:
    """A loop while a predicate holds."""
    params = equation.params
    a, b = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    test, body = params["cond_jaxpr"], params["body_jaxpr"]
    carried, _ = find_fixed_point(lambda carry: Analysis(RULES).within(None, body, [*ins[a:b], *carry]), ins[b:])
    again = lambda carry: call(test, [*values[:a], *carry], [*ins[:a], *carried])[0]  # noqa: E731
    once = lambda carry: call(body, [*values[a:b], *carry], [*ins[a:b], *carried])  # noqa: E731
    return list(jax.lax.while_loop(again, once, values[b:]))


PLAIN = {
    **dict.fromkeys(INNER, call_inner),
    "stop_gradient": stop_gradient,
    "cond": branch,
    "scan": scan,
    "while": loop,
}
