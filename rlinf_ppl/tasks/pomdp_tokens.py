"""The words of a `.pomdp` file, and its numbers: what a line is made of, and where it stands.

White space parts words, but for `:` and `*`, which stand alone; `#` opens a comment; signs may stand apart.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, NoReturn

import numpy as np

PREAMBLE = ("discount", "values", "states", "actions", "observations")
STATEMENTS = ("T", "O", "R")
RESERVED = frozenset(
    (*PREAMBLE, *STATEMENTS, "start", "include", "exclude", "uniform", "identity", "reset", "reward", "cost")
)
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

_HEADS = frozenset((*PREAMBLE, *STATEMENTS, "start"))
_TOKEN = re.compile(r"[:*]|[+-][ \t]+[0-9.][^\s:*]*|[^\s:*]+")
_NUMBER = re.compile(r"[+-]?\s*([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"[0-9.eE+-]*")

Fail = Callable[[int, str], NoReturn]


class Chunk(NamedTuple):
    """The tokens from one head to the next, `T : a : s 0.5 0.5`, and the line of each."""

    tokens: list[str]
    lines: list[int]


def split(text: str, fail: Fail) -> list[Chunk]:
    """Split a file at the words that open a line of the preamble or a statement."""
    tokens: list[str] = []
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        found = _TOKEN.findall(line.partition("#")[0])
        tokens += found
        lines += [number] * len(found)
    heads = [i for i, token in enumerate(tokens) if token in _HEADS]
    if not tokens or not heads or heads[0]:
        fail(lines[0] if lines else 1, f"found {_shown(tokens, 0)} where {either(PREAMBLE)} is expected.")
    ends = [*heads[1:], len(tokens)]
    chunks = [Chunk(tokens[i:end], lines[i:end]) for i, end in zip(heads, ends, strict=True)]
    for words, rows in chunks:
        opening = 2 if words[0] == "start" and words[1:2] in (["include"], ["exclude"]) else 1
        if words[opening : opening + 1] != [":"]:
            shown, at = _shown(words, opening), rows[min(opening, len(rows) - 1)]
            fail(at, f"found {shown} after {' '.join(words[:opening])!r}, a word and no name: ':' is expected.")
    return chunks


def read_numbers(
    chunk: Chunk,
    begin: int,
    length: int,
    label: str,
    fail: Fail,
    probabilities: bool = False,
    words: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a chunk from a token on, and half a unit of the last digit of each."""
    tokens, lines = chunk
    body = tokens[begin:]
    plain = _plain_numbers(body) if len(body) == length else None
    if plain and (not probabilities or (plain[0].min() >= 0 and plain[0].max() <= 1)):
        return plain
    pairs = [read_number(token) for token in body]
    for i, pair in enumerate(pairs[:length]):
        if pair is None:
            others = f", or {either(words)}" if words and i == 0 else ""
            fail(lines[begin + i], f"found {body[i]!r} after {label!r}: a number is expected{others}.")
        if probabilities and not 0 <= pair[0] <= 1:
            fail(lines[begin + i], f"found {body[i]} after {label!r}: a probability is expected, from 0 to 1.")
    if len(body) != length:
        line = lines[begin + length] if len(body) > length else lines[-1]
        found = f"{body[length]!r} after {length} numbers" if len(body) > length else f"{len(body)} numbers"
        fail(line, f"found {found} of {label!r}: {length} are expected, then T, O, R or the end of the file.")
    array = np.array(pairs, dtype=float)
    return array[:, 0], array[:, 1]


def _plain_numbers(tokens: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """What `read_number` finds in many tokens, at once; None where one is no number."""
    joined = "".join(tokens)
    if not _PLAIN.fullmatch(joined):  # `float` takes words and underscores as well
        return None
    try:
        numbers = np.array(list(map(float, tokens)))
    except ValueError:
        return None
    if "e" in joined or "E" in joined:
        decimals = np.array([_decimals(token) for token in tokens])
    else:
        written = np.array(tokens)
        places = np.strings.find(written, ".")
        decimals = np.where(places < 0, 0, np.minimum(np.strings.str_len(written) - places - 1, 300))
    return (numbers, 0.5 * 10.0 ** -decimals.astype(float)) if np.isfinite(numbers).all() else None


@lru_cache(maxsize=2**16)
def read_number(token: str) -> tuple[float, float] | None:
    """A number, and half a unit of its last digit; None of what is none, or too large to be finite."""
    if not _NUMBER.fullmatch(token):
        return None
    value = float("".join(token.split()))
    return (value, 0.5 * 10.0 ** -_decimals(token)) if np.isfinite(value) else None


def _decimals(token: str) -> int:
    """How many digits follow the point once a number is written without an exponent."""
    mantissa, _, exponent = token.partition("e" if "e" in token else "E")
    decimals = len(mantissa.partition(".")[2])
    return min(max(decimals - int(exponent), -300), 300) if exponent else min(decimals, 300)


def _shown(tokens: Sequence[str], i: int) -> str:
    return repr(tokens[i]) if i < len(tokens) else "the end"


def either(words: Sequence[str]) -> str:
    """`'a', 'b' or 'c'`."""
    quoted = [repr(word) for word in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]
