"""The negative ELBO of a program's guide as a loss, for `svi.fit` and for NumPyro's own SVI.

    svi.fit(prog, key, 2000, loss=svi.SampledELBO(100), optimizer=optax.adam(0.1))
    numpyro.infer.SVI(prog.model, prog.guide, optax.adam(0.1), loss=svi.ExactELBO()).run(key, 2000)

Of NumPyro's own losses only `TraceGraph_ELBO` is right for discrete decisions, and it is slow and noisy. `Trace_ELBO`
and `TraceMeanField_ELBO` leave out how the parameters move a discrete draw, and `RenyiELBO` points away from the
optimum; none of them raises. They cannot be told apart from inside a guide, so `in_numpyro` checks before a fit.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float
from numpyro.infer import ELBO, SVI

from rlinf_ppl.algebra import Chain, Site
from rlinf_ppl.algebra.messages import with_array
from rlinf_ppl.inference import estimators, guides
from rlinf_ppl.inference.arguments import check_count, check_tabular
from rlinf_ppl.inference.guides import Logits
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.checks import check_ends
from rlinf_ppl.program.evaluation import common_inverse_temperature


class ProgramELBO(ELBO):
    """The ELBO of a program's guide; a subclass says how it is estimated.

    Two losses of one kind with as many particles are equal.
    """

    can_infer_discrete = True

    def estimate(self, chain: Chain, logits: Logits, key: Array) -> Float[Array, ""]:
        """The ELBO in units of optimality, its gradient in the logits unbiased."""
        raise NotImplementedError(f"{type(self).__name__} does not say how the ELBO is estimated.")

    def check(self, program: ControlProgram) -> None:
        """Raise where a program has no such estimate."""

    def loss(
        self,
        rng_key: Array,
        param_map: dict[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Float[Array, ""]:
        """The negative ELBO in nats, as NumPyro's SVI calls it.

        Args:
            rng_key: a random key.
            param_map: for each decision d the parameter `d_logits` of the guide.
            model: `prog.model`, as it is; the loss finds the program by it.
            guide: `prog.guide` of the same program.
            *args: none; a program takes no arguments.
            **kwargs: none.

        Raises:
            TypeError: model and guide are not those of one program.
            ValueError: the program is linear-Gaussian, or has no joint model.
        """
        program = program_of(model, guide)
        check_tabular(program, f"{type(self).__name__}'s parameters")
        self.check(program)
        tau = common_inverse_temperature(program)
        # Known numbers are checked where a caller's jit is tracing, too.
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(program)):
            chain = read(program)
        else:
            with jax.ensure_compile_time_eval():
                chain = read(program)
        logits = {name: param_map[f"{name}_logits"] for name in program.scopes}
        return -self.estimate(in_nats(chain, tau), logits, rng_key)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.num_particles == getattr(other, "num_particles", None)

    def __hash__(self) -> int:
        return hash((type(self), self.num_particles))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_particles})"


class ExactELBO(ProgramELBO):
    """The exact ELBO by the elimination: no sampling, value and gradient without noise."""

    def __init__(self) -> None:
        super().__init__()

    def estimate(self, chain: Chain, logits: Logits, key: Array) -> Float[Array, ""]:
        """The exact ELBO."""
        return guides.bound(chain, logits)

    def __repr__(self) -> str:
        return "ExactELBO()"


class SampledELBO(ProgramELBO):
    """The gradient over sampled states, this step's decisions summed exactly with exact action values.

    Args:
        num_particles: number of trajectories a step.
    """

    def __init__(self, num_particles: int = 100):
        super().__init__(check_count("num_particles", num_particles))

    def check(self, program: ControlProgram) -> None:
        """Raise where there is no end."""
        check_ends(program.horizon, "sampled ELBO")

    def estimate(self, chain: Chain, logits: Logits, key: Array) -> Float[Array, ""]:
        """The exact ELBO with a sampled gradient."""
        return estimators.sampled(chain, logits, key, self.num_particles)


class ScoreFunctionELBO(ProgramELBO):
    """The gradient from trajectories alone: score function, rewards to go, the other trajectories' mean as baseline.

    Five times as noisy as `SampledELBO` at the start of a fit, and as noisy at its end: for where nothing else works.

    Args:
        num_particles: number of trajectories a step; with one there is no baseline.
    """

    def __init__(self, num_particles: int = 100):
        super().__init__(check_count("num_particles", num_particles))

    def check(self, program: ControlProgram) -> None:
        """Raise where there is no end, or where decisions are real vectors: `SampledELBO` integrates these."""
        check_ends(program.horizon, "sampled ELBO")
        check_tabular(program, "score functions")

    def estimate(self, chain: Chain, logits: Logits, key: Array) -> Float[Array, ""]:
        """The mean return, with the gradient of its score function."""
        return estimators.score_function(chain, logits, key, self.num_particles)


def in_numpyro(program: ControlProgram, optim: Any, loss: ELBO | None = None) -> SVI:
    """NumPyro's SVI for a program, with a loss that has a signal for its decisions.

    Args:
        program: any program with a joint model and an end.
        optim: an optimiser of NumPyro or optax.
        loss: `ExactELBO` (the default), `SampledELBO`, `ScoreFunctionELBO`, or one of NumPyro's own.

    Raises:
        TypeError: the loss says that it cannot infer what is discrete, and a decision or chance site is.
    """
    loss = ExactELBO() if loss is None else loss
    if not program.structure.gaussian and not loss.can_infer_discrete:
        raise TypeError(
            f"{type(loss).__name__} carries no signal for the discrete decisions {sorted(program.scopes)}: its "
            "gradient leaves out how they are drawn. Use svi.ExactELBO() or svi.SampledELBO(100), or NumPyro's "
            "TraceGraph_ELBO."
        )
    return SVI(program.model, program.guide, optim, loss)


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


def in_nats(chain: Chain, tau: Array | None) -> Chain:
    """The same program in nats: optimality multiplied by the inverse temperature that all decisions share."""
    if tau is None:
        return chain

    def scaled(site: Site) -> Site:
        content = with_array(site.content, tau * site.content.array) if site.kind == "optimality" else site.content
        return dataclasses.replace(site, content=content, inverse_temperature=None)

    step = dataclasses.replace(chain.step, sites=tuple(scaled(site) for site in chain.step.sites))
    return dataclasses.replace(chain, step=step, final=tuple(scaled(site) for site in chain.final))
