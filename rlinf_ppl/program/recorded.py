"""What a step says of itself by `numpyro.deterministic`: prediction errors, values, anything that it computes."""

from typing import Any

import jax
from numpyro.ops.provenance import track_deps_jaxpr
from numpyro.primitives import Messenger

from rlinf_ppl.program.changes import as_step
from rlinf_ppl.program.control_program import ControlProgram
from rlinf_ppl.program.data import checked_laws
from rlinf_ppl.program.lookup import inputs_of
from rlinf_ppl.program.sites import Sites
from rlinf_ppl.program.supports import first_value


class Recorder(Messenger):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        super().__init__()

    def process_message(self, msg: Any) -> None:
        """Keep it."""
        if msg["type"] == "deterministic":
            self.values[msg["name"]] = msg["args"][0] if msg.get("value") is None else msg["value"]


def recorded(program: ControlProgram, at: dict[str, Any]) -> dict[str, Any]:
    """What a step says at the values of its variables, those of `at`, by the name it is given."""
    structure = program.structure
    state = {name: at[name] for name, _ in structure.state}
    step, found = as_step(program.step, len(program.args)), Recorder()
    with checked_laws(), Sites("step", at), found:
        step(program.args, program.changes, **{name: at[name] for name in structure.times()}, **state)
    return found.values


def recorded_parents(program: ControlProgram) -> dict[str, frozenset[str]]:
    """The variables that each thing depends on that a step says, by its name."""
    structure = program.structure
    supports = structure.times() | structure.supports()
    names = tuple(supports)
    first = tuple(first_value(support) for support in supports.values())
    closed, shapes = jax.make_jaxpr(
        lambda values: recorded(program, dict(zip(names, values, strict=True))), return_shape=True
    )(first)
    origin = [frozenset({name}) for name, _ in inputs_of(closed.jaxpr, supports)]
    provenance = iter(track_deps_jaxpr(closed.jaxpr, origin))
    return {
        name: frozenset[str]().union(*(next(provenance) for _ in jax.tree.leaves(shape)))
        for name, shape in sorted(shapes.items())
    }
