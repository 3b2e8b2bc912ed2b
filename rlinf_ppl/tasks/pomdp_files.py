"""Cassandra's `.pomdp` files, read: a preamble, and statements that fill tables, of which the last one counts.

The format is that of pomdp-solve (A. Cassandra, "Input POMDP file format" of 1999 and the grammar of its parser):

| line | what follows the colon |
| --- | --- |
| `discount:` | a number from 0 to 1 |
| `values:` | `reward`, or `cost`, which is a negative reward |
| `states:`, `actions:`, `observations:` | how many, or a name for each |
| `start:` | S probabilities, `uniform`, or one state; uniform where the line is missing |
| `start include:`, `start exclude:` | states: uniform over them, or over all others |
| `T: a : s : s'` | a probability; without `s'` a row, without `: s : s'` a matrix |
| `O: a : s' : o` | a probability; without `o` a row, without `: s' : o` a matrix |
| `R: a : s : s' : o` | a number; without `o` a row (O,), without `: s' : o` a matrix (S, O) |

Rows and matrices may be `uniform`; a matrix of T may be the `identity`; rows and matrices of T may be `reset`, which is
the start. Positions count from 0 and may be used beside names, `*` stands for every position, `#` opens a comment,
white space says nothing. What is never said is 0, and what is said twice is as it is said last.

The first five lines come before all others, in any order; `start` before the statements. A name begins with a letter,
goes on with letters, digits, `-` and `_`, and is no word of the format. All else raises, with the number of the line.
"""

import math
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from rlinf_ppl.tasks import pomdp_rows, pomdp_tables
from rlinf_ppl.tasks.pomdp_rows import Statement
from rlinf_ppl.tasks.pomdp_tokens import (
    NAME,
    PREAMBLE,
    RESERVED,
    STATEMENTS,
    Chunk,
    Fail,
    either,
    read_number,
    read_numbers,
    split,
)

_AXES = {"T": "ass", "O": "aso", "R": "asso"}
_KINDS = {"a": ("action", "actions"), "s": ("state", "states"), "o": ("observation", "observations")}
_FORMS = {"T": (1, 2, 3), "O": (1, 2, 3), "R": (2, 3, 4)}
_WORDS = {("T", 1): ("uniform", "identity", "reset"), ("T", 2): ("uniform", "reset")}
_WORDS |= {("O", 1): ("uniform",), ("O", 2): ("uniform",)}


class Lists(NamedTuple):
    """The states, actions or observations: how many, the position of each way to name one, and the names."""

    size: int
    positions: dict[str, int]
    names: tuple[str, ...] | None


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a file as the arguments of `POMDP`, or of `POMDP.sparse` where they have `successors`.

    Args:
        path: The file.

    Returns:
        The arguments by name, NumPy arrays in double precision.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It does not hold to the format, or describes no POMDP; the message has the line.
    """
    text = Path(path).read_text(encoding="utf-8-sig", errors="replace")

    def fail(line: int, message: str) -> NoReturn:
        raise ValueError(f"{path}, line {line}: {message}")

    last_line = max(text.rstrip().count("\n") + 1, 1)
    chunks = split(text, fail)
    first, head = _split_head(chunks, last_line, fail)
    lists = {axis: _read_list(head[word], fail) for axis, (_, word) in _KINDS.items()}
    discount, sign = _read_discount(head["discount"], fail), _read_sign(head["values"], fail)
    start = _read_start(head["start"], lists["s"], fail) if "start" in head else _uniform(lists["s"].size)
    statements = [_read_statement(chunk, lists, fail) for chunk in chunks[first:]]
    sizes = tuple(lists[axis].size for axis in "aso")
    fields = pomdp_tables.tabulate(statements, sizes, start, fail, last_line)
    names = {f"{kind}_names": lists[axis].names for axis, (kind, _) in _KINDS.items()}
    reward = sign * fields.pop("reward") + 0.0  # a cost of 0 is a reward of 0, not of -0
    _check_range(reward, statements, fail)
    return fields | names | {"reward": reward, "initial": start, "discount": discount}


def _check_range(reward: np.ndarray, statements: list[Statement], fail: Fail) -> None:
    """Raise where a reward is more than JAX's numbers hold."""
    most = jnp.finfo(jax.dtypes.canonicalize_dtype(float))
    if np.abs(reward).max(initial=0.0) > float(most.max):
        numbers = [(said, np.abs(said.numbers).max()) for said in statements if said.kind == "R"]
        line, found = next((said.line, size) for said, size in numbers if size > float(most.max))
        fail(line, f"found a reward of size {found:g}: {most.dtype} is expected to hold it; turn JAX's x64 on.")


def _split_head(chunks: list[Chunk], last_line: int, fail: Fail) -> tuple[int, dict[str, Chunk]]:
    """Where the statements begin, and the lines above by their words: each once, and none left out."""
    first = next((i for i, chunk in enumerate(chunks) if chunk.tokens[0] in STATEMENTS), len(chunks))
    head: dict[str, Chunk] = {}
    for chunk in chunks[:first]:
        if chunk.tokens[0] in head:
            fail(chunk.lines[0], f"found {chunk.tokens[0]!r} a second time: it is expected once.")
        head[chunk.tokens[0]] = chunk
    for chunk in chunks[first:]:
        if chunk.tokens[0] not in STATEMENTS:
            fail(chunk.lines[0], f"found {chunk.tokens[0]!r} after the first of T, O and R: it is expected before.")
    for word in PREAMBLE:
        if word not in head:
            line = chunks[first].lines[0] if first < len(chunks) else last_line
            fail(line, f"found no '{word}:' above: it is expected before start, T, O and R.")
    return first, head


def _uniform(count: int) -> np.ndarray:
    return np.full(count, 1 / count)


def _read_list(chunk: Chunk, fail: Fail) -> Lists:
    """The states, actions or observations: a number, or names."""
    word, body = chunk.tokens[0], chunk.tokens[2:]
    if len(body) == 1 and body[0].isdecimal() and body[0].isascii():
        if not 0 < int(body[0]) < 10**6 + 1:
            fail(chunk.lines[2], f"found {body[0]} {word}: from 1 to 1,000,000 are expected.")
        return Lists(int(body[0]), {"*": -1} | _counted(int(body[0])), None)
    if not body:
        fail(chunk.lines[-1], f"found no {word}: their number, or a name for each, is expected.")
    positions = {"*": -1}
    for token, line in zip(body, chunk.lines[2:], strict=True):
        if not NAME.fullmatch(token) or token in RESERVED:
            fail(
                line,
                f"found {token!r} among the {word}: one number is expected, or names, which begin with a letter, go "
                "on with letters, digits, '-' and '_', and are no words of the format.",
            )
        if token in positions:
            fail(line, f"found {token!r} twice among the {word}: different names are expected.")
        positions[token] = len(positions) - 1
    return Lists(len(body), positions | _counted(len(body)), tuple(body))


def _counted(count: int) -> dict[str, int]:
    return {str(i): i for i in range(count)}


def _read_discount(chunk: Chunk, fail: Fail) -> float:
    numbers, _ = read_numbers(chunk, 2, 1, "discount:", fail)
    if not 0 <= numbers[0] <= 1:
        fail(chunk.lines[2], f"found the discount {chunk.tokens[2]}: a number from 0 to 1 is expected.")
    return float(numbers[0])


def _read_sign(chunk: Chunk, fail: Fail) -> int:
    """1 of rewards and -1 of costs."""
    if chunk.tokens[2:] not in (["reward"], ["cost"]):
        found = " ".join(chunk.tokens[2:]) or "nothing"
        fail(chunk.lines[-1], f"found {found!r} after 'values:': 'reward' or 'cost' is expected.")
    return 1 if chunk.tokens[2] == "reward" else -1


def _read_start(chunk: Chunk, states: Lists, fail: Fail) -> np.ndarray:
    """The distribution of the first state."""
    begin = chunk.tokens.index(":") + 1
    body, count = chunk.tokens[begin:], states.size
    if begin == 3 or (len(body) == 1 and _is_state(body[0], count)):
        named = [_position(token, "s", states, chunk.lines[begin + i], fail) for i, token in enumerate(body)]
        if not named or -1 in named:
            fail(chunk.lines[-1], f"found {' '.join(body) or 'nothing'!r} after 'start': states are expected.")
        chosen = np.isin(np.arange(count), named)
        chosen = ~chosen if chunk.tokens[1] == "exclude" else chosen
        if not chosen.any():
            fail(chunk.lines[-1], "found all states after 'start exclude:': at least one is expected to be left.")
        return chosen / chosen.sum()
    if body == ["uniform"]:
        return _uniform(count)
    if body and NAME.fullmatch(body[0]):
        fail(
            chunk.lines[begin],
            f"found {' '.join(body)!r} after 'start:': {count} numbers, 'uniform' or one state are expected; several "
            "states go after 'start include:'.",
        )
    numbers, digits = read_numbers(chunk, begin, count, "start:", fail, probabilities=True)
    total = numbers.sum()
    if abs(total - 1) > pomdp_rows.tolerance(digits[numbers > 0].sum(), (numbers > 0).sum()):
        fail(chunk.lines[-1], f"found a start that sums to {total:.8g}: a sum of 1 is expected.")
    return numbers / pomdp_rows.divisor(total)


def _is_state(token: str, count: int) -> bool:
    """Whether what stands alone after `start:` is a state, and no list of one probability."""
    return bool(NAME.fullmatch(token) and token not in RESERVED) or (token.isdecimal() and (count > 1 or token == "0"))


def _read_statement(chunk: Chunk, lists: dict[str, Lists], fail: Fail) -> Statement:
    """A statement of T, O or R: where it applies, and its numbers."""
    tokens, lines = chunk
    kind = tokens[0]
    end = 3
    while end < len(tokens) and tokens[end] == ":":
        end += 2
    where = tokens[2:end:2]
    if len(where) not in _FORMS[kind] or end > len(tokens):
        wanted = either([str(form) for form in _FORMS[kind]])
        fail(lines[min(end, len(lines)) - 1], f"found {' '.join(tokens[:end])!r}: {wanted} places are expected.")
    axes = _AXES[kind]
    address = tuple([lists[axis].positions.get(token, -2) for axis, token in zip(axes, where, strict=False)])
    if -2 in address:
        address = tuple(
            _position(token, axes[i], lists[axes[i]], lines[2 + 2 * i], fail) for i, token in enumerate(where)
        )
    if len(where) == len(axes) and len(tokens) == end + 1:
        number = read_number(tokens[end])
        if number and (kind == "R" or 0 <= number[0] <= 1):
            return Statement(kind, address, *number, lines[0])
    words = _WORDS.get((kind, len(where)), ())
    if len(tokens) == end + 1 and tokens[end] in words:
        return Statement(kind, address, tokens[end], None, lines[0])
    length = math.prod([lists[axis].size for axis in axes[len(where) :]])
    label = " ".join(tokens[:end])
    numbers, digits = read_numbers(chunk, end, length, label, fail, probabilities=kind != "R", words=words)
    return Statement(kind, address, numbers, digits, lines[0])


def _position(token: str, axis: str, known: Lists, line: int, fail: Fail) -> int:
    """The position that a token names, -1 for a wildcard, of tokens such as `01` as well."""
    position = int(token) if token.isdecimal() and token.isascii() else known.positions.get(token)
    singular, plural = _KINDS[axis]
    if position is None:
        some = f"one of {', '.join(known.names[:8])}{' ...' * (known.size > 8)}, " if known.names else ""
        fail(line, f"found {token!r}, which is no {singular}: {some}a position or '*' is expected.")
    if position >= known.size:
        fail(line, f"found {singular} {token}, but there are {known.size} {plural}: they count from 0.")
    return position
