"""The tables that the statements of a `.pomdp` file fill, as small as they can be.

Rows are dense or listed by how many entries they have. Statements of R are rules with wildcards, carried out in order
on the table that is returned, the smallest that holds them: r(s, a), r(s, a, s') or r(s, a, s', o).
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import numpy as np

from rlinf_ppl.tasks.pomdp_rows import Entries, Rows, Statement, fill, joined, singles

DENSE_ENTRIES: Final = 2**24
"""The most entries of a table that is returned densely."""


def tabulate(
    statements: Sequence[Statement],
    sizes: tuple[int, ...],
    start: np.ndarray,
    fail: Callable[[int, str], NoReturn],
    last_line: int,
) -> dict[str, Any]:
    """The tables that statements fill.

    Args:
        statements: All statements of a file, in order.
        sizes: The numbers of actions, states and observations.
        start: Distribution of the first state, shape (S,), for `reset`.
        fail: Called with a line and what is wrong with it.
        last_line: The line for what is missing.

    Returns:
        `transition`, or `successors` and `probabilities` where a dense table had more than `DENSE_ENTRIES`; `reward`
        and `observation`.
    """
    actions, states, observations = sizes
    kinds = {kind: [statement for statement in statements if statement.kind == kind] for kind in "TOR"}
    moves = fill("T", kinds["T"], (actions, states, states), start, fail, last_line)
    shows = fill("O", kinds["O"], (actions, states, observations), start, fail, last_line)
    observation = _dense(shows, (actions, states, observations)).swapaxes(0, 1)
    rules = _rules(kinds["R"], (actions, states, states, observations))
    extents = tuple(size if (rules.where[:, i] >= 0).any() else 1 for i, size in ((2, states), (3, observations)))
    following = states if extents[1] > 1 else extents[0]
    if actions * states * max(states, following * extents[1]) <= DENSE_ENTRIES:
        transition = _dense(moves, (actions, states, states)).swapaxes(0, 1)
        reward = _smallest(_carry_out(rules, (actions, states, *extents), None), states)
        return {"transition": transition, "reward": reward, "observation": observation}
    successors, probabilities = _listed(moves, actions, states)
    lists = successors if extents[0] > 1 else successors[..., :1]
    reward = _smallest(_carry_out(rules, (*lists.shape, extents[1]), lists), successors.shape[-1])
    tables = {"successors": successors, "probabilities": probabilities, "observation": observation}
    tables = {name: table.swapaxes(0, 1) for name, table in tables.items() if name != "observation"}
    return tables | {"reward": reward, "observation": observation}


def _dense(rows: Rows, sizes: tuple[int, int, int]) -> np.ndarray:
    """Rows as a table (A, S, columns)."""
    table = np.zeros((sizes[0] * sizes[1], sizes[2]))
    table[rows.row, rows.column] = rows.numbers
    return table.reshape(sizes)


def _listed(rows: Rows, actions: int, states: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as successors and their probabilities, (A, S, K); shorter lists end in their first successor, at 0."""
    counts = np.bincount(rows.row, minlength=actions * states)
    begins = np.cumsum(counts) - counts
    rank = np.arange(len(rows.row)) - begins[rows.row]
    successors = np.repeat(rows.column[begins][:, None], counts.max(), 1)
    probabilities = np.zeros(successors.shape)
    successors[rows.row, rank], probabilities[rows.row, rank] = rows.column, rows.numbers
    shape = (actions, states, counts.max())
    return successors.reshape(shape), probabilities.reshape(shape)


def _rules(statements: Sequence[Statement], sizes: tuple[int, int, int, int]) -> Entries:
    """The rules of R: rows and matrices entry by entry, but for those that say one number of all."""
    timed = enumerate(statements)
    parts = [singles((pair for pair in timed if isinstance(pair[1].numbers, float)), 4)]
    for time, statement in enumerate(statements):
        numbers, address = statement.numbers, statement.address
        if not isinstance(numbers, np.ndarray):
            continue
        if (numbers == numbers[0]).all():
            places, numbers = np.full((1, 4 - len(address)), -1), numbers[:1]
        else:
            places = np.stack(np.unravel_index(np.arange(len(numbers)), sizes[len(address) :]), 1)
        first = np.repeat(np.array([address]), len(numbers), 0)
        parts.append(Entries(np.append(first, places, 1), numbers, numbers, np.full(len(numbers), time)))
    rules = joined(parts, 4)
    order = np.argsort(rules.times, kind="stable")
    return Entries(*(column[order] for column in rules))


def _carry_out(rules: Entries, shape: tuple[int, ...], successors: np.ndarray | None) -> np.ndarray:
    """Rewards (A, S, S or K or 1, O or 1) of rules in order, where many of one pattern are carried out at once."""
    table = np.zeros(shape)
    wild = rules.where < 0
    changes = np.flatnonzero((wild[1:] != wild[:-1]).any(1)) + 1
    for begin, end in zip([0, *changes], [*changes, len(wild)], strict=True):
        if begin == end:
            continue
        where, numbers, pattern = rules.where[begin:end], rules.numbers[begin:end], wild[begin]
        if successors is not None and not pattern[2]:
            _carry_out_listed(table, where, numbers, successors)
        elif pattern.all():
            table[...] = numbers[-1]
        else:
            view = table.transpose([*np.flatnonzero(~pattern), *np.flatnonzero(pattern)])
            view[tuple(where[:, ~pattern].T)] = numbers.reshape(-1, *[1] * int(pattern.sum()))
    return table


def _carry_out_listed(table: np.ndarray, where: np.ndarray, numbers: np.ndarray, successors: np.ndarray) -> None:
    """Carry out rules of one pattern that name the next state, on a table over listed successors."""
    action, state, following, seen = where.T
    if (action[0] >= 0) and (state[0] >= 0):
        rule, k = np.nonzero(successors[action, state] == following[:, None])
        places = (action[rule], state[rule], k)
        if seen[0] >= 0:
            table[(*places, seen[rule])] = numbers[rule]
        else:
            table[places] = numbers[rule][:, None]
        return
    for a, s, n, o, number in zip(action, state, following, seen, numbers, strict=True):
        here = tuple(slice(None) if i < 0 else i for i in (a, s))
        view = table[here] if o < 0 else table[here][..., o]
        view[successors[here] == n] = number


def _smallest(table: np.ndarray, following: int) -> np.ndarray:
    """Rewards (A, S, N, O) as the smallest of (S, A), (S, A, N), (S, A, N, O) that holds them."""
    reward = table.swapaxes(0, 1)
    if (reward != reward[..., :1]).any():
        return np.broadcast_to(reward, (*reward.shape[:2], following, reward.shape[3]))
    reward = reward[..., 0]
    return reward if (reward != reward[..., :1]).any() else reward[..., 0]
