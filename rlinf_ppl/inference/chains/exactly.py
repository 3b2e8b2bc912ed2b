"""How exact answers are had: of finite variables as they are computed, of vectors with an eye on their rounding."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra import Chain, Law, Rules
from rlinf_ppl.inference.chains import answers, trajectories
from rlinf_ppl.inference.chains.answers import Marginals, Posterior, most_of, unmet
from rlinf_ppl.inference.chains.careful import carefully, kept, posterior_chain, precisely
from rlinf_ppl.inference.chains.existence import check_exists
from rlinf_ppl.inference.chains.forbidden import check_possible
from rlinf_ppl.inference.chains.origins import settled
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.evaluation import posterior_temperature
from rlinf_ppl.program.linear import read_squares
from rlinf_ppl.program.reading import check_program

Answer = TypeVar("Answer")
Tree = TypeVar("Tree")
Given = Callable[[Chain], dict[str, Law]]


class Exactly(ABC):
    """A program and how its exact answers are had: what is computed is the answer, unless a kind knows better."""

    def __init__(self, program: ControlProgram):
        self.program = program

    def chain(self, impossible: bool = False) -> Chain:
        """The program as laws and factors, which may be minus infinity where that is possible."""
        return read(self.program, impossible=impossible).counting

    def answer(
        self,
        chain: Chain,
        answer: Callable[[Chain, Any, Any], Answer],
        rules: Rules | None = None,
        given: Given | None = None,
    ) -> Answer:
        """What a function makes of the program.

        Args:
            chain: the program.
            answer: (chain, laws that are given, dtype that it is for; None: that of the chain) -> a solution.
            rules: those of the walk, where it finds policies.
            given: makes the laws that are given.
        """
        return answer(chain, None if given is None else given(chain), None)

    def precisely(self, given: Any, answer: Callable[[ControlProgram], Tree]) -> Tree:
        """What a function makes of the program, in as many digits as there are."""
        return precisely(self.program, given, answer)

    def kept(self, value: Array, converged: Array, what: str) -> Array:
        """A number that is known to have converged; see `careful.kept`."""
        return value

    @abstractmethod
    def posterior_marginals(self) -> Marginals:
        """Marginals given optimality."""

    @abstractmethod
    def posterior_sample(self, key: Array, n: int) -> dict[str, Array]:
        """Trajectories given optimality."""


class OfTables(Exactly):
    """Finite variables."""

    def posterior_marginals(self) -> Marginals:
        """Marginals given optimality, by the derivative of the log evidence."""
        chain = read(self.program, impossible=True)
        found, possible = answers.posterior_marginals(chain, posterior_temperature(self.program))
        check_possible(possible)
        return found

    def posterior_sample(self, key: Array, n: int) -> dict[str, Array]:
        """Trajectories given optimality, by the messages of the backward pass."""
        chain = read(self.program, impossible=True)
        tau = answers.constant(chain, posterior_temperature(self.program))
        return trajectories.draw_posterior(chain, self.program.supports, key, tau, n)


class OfVectors(Exactly):
    """Vectors: rounding is counted, and where it spoils an answer that is made again from sums of squares."""

    def answer(
        self,
        chain: Chain,
        answer: Callable[[Chain, Any, Any], Answer],
        rules: Rules | None = None,
        given: Given | None = None,
    ) -> Answer:
        """What a function makes of the program; its values exist, or it raises where they are known not to."""

        def once(chain: Chain, dtype: Any = None) -> Any:
            laws = None if given is None else given(chain)
            return settled(chain, lambda chain, laws: answer(chain, laws, dtype), most_of(chain, dtype), laws)

        # A difference of values and costs is no sum of squares.
        reader = read_squares if given is None else lambda program: read(program).counting
        found: Any = carefully(self.program, once(chain), once, reader)
        if rules is not None:
            check_exists(chain, found, rules)
        if isinstance(found, Posterior):
            found = unmet(chain, found)
        return found

    def kept(self, value: Array, converged: Array, what: str) -> Array:
        """A number that is known to have converged, or it raises; if traced NaN."""
        return kept(value, converged, what)

    def posterior_marginals(self) -> Marginals:
        """Marginals of the program that follows its posterior."""
        return self._of_posterior(answers.marginals)

    def posterior_sample(self, key: Array, n: int) -> dict[str, Array]:
        """Trajectories of the program that follows its posterior."""
        supports = self.program.supports
        return self._of_posterior(lambda chain, laws: trajectories.draw(chain, supports, key, laws, n))

    def _of_posterior(self, answer: Callable[[Chain, dict[str, Law]], Tree]) -> Tree:
        dtype = jnp.zeros(()).dtype
        return self.precisely(None, lambda wide: answer(*posterior_chain(wide, posterior_temperature(wide), dtype)))


def exactly(program: ControlProgram) -> Exactly:
    """How a program's exact answers are had.

    Raises:
        TypeError: it is no program.
    """
    check_program(program)
    return OfVectors(program) if program.structure.gaussian else OfTables(program)
