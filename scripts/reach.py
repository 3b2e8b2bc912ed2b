"""How much of the package one call reaches: the definitions that run, by file, and the lines of each subpackage.

    python scripts/reach.py

The call is that of the README's reader: a program of two decisions is made, and `smc.run` runs it once.
"""

import io
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro.distributions import Bernoulli, Normal

import rlinf_ppl
from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import smc

PACKAGE = Path(rlinf_ppl.__file__).parent


def reached(call: Callable[[], Any]) -> dict[str, set[str]]:
    """For each file of the package the names of the functions that a call runs."""
    found = defaultdict(set)

    def note(frame: Any, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE) and not frame.f_code.co_name.startswith("<"):
            found[str(path.relative_to(PACKAGE))].add(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return dict(found)


def run() -> None:
    """The call."""

    def step(x: Any) -> dict[str, Any]:
        go = decide("go", Bernoulli(0.5))
        push = decide("push", Normal(0.0, 1.0))
        optimality(-((x + go * push - 1.0) ** 2))
        return {"x": numpyro.sample("moved", Normal(x + go * push, 0.1))}

    program = ControlProgram(lambda: {"x": jnp.zeros(())}, step, 3)
    smc.run(program, jax.random.key(0), 100)


def lines(path: Path) -> Counter[str]:
    """Lines of code, of docstrings and of comments of a file."""
    kinds: dict[int, str] = {}
    tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline))
    fresh = True
    for token in tokens:
        if token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.ENCODING):
            fresh = fresh or token.type == tokenize.NEWLINE
            continue
        kind = "comment" if token.type == tokenize.COMMENT else "code"
        if token.type == tokenize.STRING and fresh:
            kind = "docstring"
        for number in range(token.start[0], token.end[0] + 1):
            kinds[number] = kind if kinds.get(number, "comment") == "comment" else kinds[number]
        fresh = fresh and token.type == tokenize.COMMENT
    return Counter(kinds.values())


def main() -> None:
    """Print both."""
    found = reached(run)
    print(f"smc.run reaches {sum(map(len, found.values()))} definitions in {len(found)} files")
    for path in sorted(found):
        print(f"  {len(found[path]):4d}  {path}")
    packages: dict[str, Counter[str]] = defaultdict(Counter)
    for path in PACKAGE.rglob("*.py"):
        packages[path.relative_to(PACKAGE).parts[0]] += lines(path)
    kinds = ("code", "docstring", "comment")
    print(f"{'lines':>14}" + "".join(f"{kind:>11}" for kind in kinds))
    for name, counts in [*sorted(packages.items()), ("all", sum(packages.values(), Counter()))]:
        print(f"{name:>14}" + "".join(f"{counts[kind]:11d}" for kind in kinds))


if __name__ == "__main__":
    main()
