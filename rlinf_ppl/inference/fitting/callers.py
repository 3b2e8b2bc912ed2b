"""Who calls a loss: the program whose model and guide NumPyro's SVI was given."""

from typing import Any

from rlinf_ppl.program import ControlProgram


def program_of(model: Any, guide: Any) -> ControlProgram:
    """The program whose model and guide these are.

    Raises:
        TypeError: they are not `prog.model` and `prog.guide` of one program.
    """
    program, other = owner(model, "model"), owner(guide, "guide")
    if isinstance(program, ControlProgram) and program is other:
        return program
    raise TypeError(
        "this loss reads the program off its model and guide: give numpyro.infer.SVI exactly prog.model and prog.guide "
        f"of one ControlProgram, without handlers around them; got {describe(model)} and {describe(guide)}."
    )


def owner(given: Any, name: str) -> Any:
    """Whose method of that name this is; None where it is none."""
    return given.__self__ if getattr(getattr(given, "__func__", None), "__name__", None) == name else None


def describe(given: Any) -> str:
    """What was given, in a few words."""
    return getattr(given, "__qualname__", None) or type(given).__name__
