"""The negative ELBO of a program's guide as a loss, for `svi.fit` and for NumPyro's own SVI.

    svi.fit(prog, key, 2000, loss=svi.SampledELBO(100), optimizer=optax.adam(0.1))
    numpyro.infer.SVI(prog.model, prog.guide, optax.adam(0.1), loss=svi.ExactELBO()).run(key, 2000)

Of NumPyro's own losses only `TraceGraph_ELBO` is right for discrete decisions, and it is slow and noisy. `Trace_ELBO`
and `TraceMeanField_ELBO` leave out how the parameters move a discrete draw, and `RenyiELBO` points away from the
optimum; none of them raises. They cannot be told apart from inside a guide, so `in_numpyro` checks before a fit.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float
from numpyro.infer import ELBO, SVI

from rlinf_ppl.algebra import Chain
from rlinf_ppl.inference.arguments import check_count, check_tabular, check_tolerance
from rlinf_ppl.inference.fitting import estimators, guides, own
from rlinf_ppl.inference.fitting.callers import program_of
from rlinf_ppl.inference.fitting.guides import Logits
from rlinf_ppl.inference.particles.simulator import simulator_of
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.checks import check_ends
from rlinf_ppl.program.evaluation import common_inverse_temperature
from rlinf_ppl.program.guides import Guide

VERDICT_EVERY = 10


class ProgramELBO(ELBO, abc.ABC):
    """The ELBO of a program's guide; a subclass says what it reads of the program, and how it is estimated.

    Two losses of one kind with as many particles are equal.
    """

    can_infer_discrete = True
    # How many of the latest losses the verdict looks at, and which residual counts as convergence.
    window = 0
    tolerance = 1e-5
    # Whether it fits guides of the user's own.
    takes_own = False
    learns_arguments = False

    def check(self, program: ControlProgram) -> None:
        """Raise where a program has no such estimate."""

    @abc.abstractmethod
    def read(self, program: ControlProgram) -> Any:
        """What the estimate needs of a program, with arrays as leaves."""

    @abc.abstractmethod
    def start(self, target: Any, key: Array) -> Any:
        """The guide to start from where none is given."""

    @abc.abstractmethod
    def check_guide(self, target: Any, guide: Any) -> Any:
        """A guide that was given to start from; raises where it is none of this program for this loss."""

    def estimate(self, target: Any, guide: Any, key: Array) -> Float[Array, ""]:
        """The ELBO in units of optimality, its gradient in the guide unbiased."""
        raise NotImplementedError(f"{type(self).__name__} does not say how the ELBO is estimated.")

    def prepare(self, target: Any, guide: Any, key: Array) -> Any:
        """What the loss itself carries from step to step: nothing, where each estimate stands alone."""
        return None

    def descent(self, target: Any, guide: Any, carried: Any, key: Array) -> tuple[Array, Any, Any]:
        """A step's loss, the direction that an optimiser descends along, and what is carried on."""
        value, gradient = jax.value_and_grad(lambda guide: -self.estimate(target, guide, key))(guide)
        return value, self.ascent(target, gradient), carried

    def ascent(self, target: Any, gradient: Any) -> Any:
        """The gradient, turned round where a decision minimises."""
        raise NotImplementedError(f"{type(self).__name__} does not say which way is up.")

    @abc.abstractmethod
    def residual(
        self, target: Any, guide: Any, recent: Array | None, steps: Array, carried: Any = None
    ) -> Float[Array, ""]:
        """How far a guide is from where it would stay, infinite where there is no verdict.

        Args:
            target: what `read` made of the program.
            guide: the guide.
            recent: the latest losses, `window` of them, if any.
            steps: how many steps were made.
            carried: what the loss carries along.
        """

    @abc.abstractmethod
    def summary(self, target: Any, guide: Any, key: Array) -> tuple[dict[str, Any], Array]:
        """The policy of a guide, and its ELBO in units of optimality; compiled."""

    def in_nats(self, program: ControlProgram, guide: Any, key: Array) -> Float[Array, ""]:
        """The estimate in nats for a guide that NumPyro's SVI fits: tables of logits, or one of the user's own."""
        raise NotImplementedError(f"{type(self).__name__} is no loss for NumPyro's SVI.")

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
            param_map: for each decision d the parameter `d_logits` of the guide; those of a guide of one's own by name.
            model: `prog.model`, as it is; the loss finds the program by it.
            guide: `prog.guide` of the same program.
            *args: none; a program takes no arguments.
            **kwargs: none.

        Raises:
            TypeError: model and guide are not those of one program.
            ValueError: the program is linear-Gaussian, or has no joint model.
        """
        program = program_of(model, guide)
        self.check(program)
        if program.learned is not None:
            return -self.in_nats(program, program.learned.moved(param_map), rng_key)
        check_tabular(program, f"{type(self).__name__}'s parameters")
        return -self.in_nats(program, {name: param_map[f"{name}_logits"] for name in program.scopes}, rng_key)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.num_particles == getattr(other, "num_particles", None)

    def __hash__(self) -> int:
        return hash((type(self), self.num_particles))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_particles})"


class TableELBO(ProgramELBO):
    """The ELBO of a guide of tables, with everything about it that is exact."""

    def read(self, program: ControlProgram) -> Chain:
        """The program's tables; raises where no fit of them could end."""
        chain = read(program)
        check_tolerance(chain)
        for site in chain.step.sites:
            tau = None if site.inverse_temperature is None else site.inverse_temperature.constant
            if tau is not None and not isinstance(tau, jax.core.Tracer) and jnp.any(jnp.isinf(tau)):
                raise ValueError(
                    f"the inverse temperature of {site.name!r} is infinite, and the guide's logits would be so, too; "
                    "exact.solve takes it, or give a large finite one."
                )
        if chain.hidden:
            guides.check_one_aim(program.structure.step, chain)
        return chain

    def start(self, target: Chain, key: Array) -> Logits:
        """The logits of small random action values."""
        return guides.initial_logits(target, key)

    def check_guide(self, target: Chain, guide: Any) -> Logits:
        """Tables that were given to start from; raises where they are none of this program."""
        like = jax.eval_shape(lambda key: self.start(target, key), jax.random.key(0))
        if not isinstance(guide, dict) or set(guide) != set(like) or not all(map(eqx.is_array_like, guide.values())):
            raise TypeError(
                f"{self!r} fits tables: guide must be a dict of logits for {sorted(like)}, such as fit.guide; networks "
                "go with svi.ParticleELBO(n)."
            )
        for name, theta in guide.items():
            if jnp.shape(theta) != like[name].shape:
                raise ValueError(f"guide[{name!r}] has shape {jnp.shape(theta)}; it must be {like[name].shape}.")
        return {name: jnp.asarray(theta, like[name].dtype) for name, theta in guide.items()}

    def ascent(self, target: Chain, gradient: Logits) -> Logits:
        """Whoever minimises goes the other way, and an inverse temperature of 0 keeps the prior."""
        return guides.tempered(target, gradient, jnp.sign)

    def residual(
        self, target: Chain, guide: Logits, recent: Array | None, steps: Array, carried: Any = None
    ) -> Float[Array, ""]:
        """KL in nats of the policy from its best reply, along its own trajectories; every so many steps."""
        due = steps % VERDICT_EVERY == 0
        return lax.cond(due, lambda: guides.expected_gain(target, guide), lambda: jnp.asarray(jnp.inf))

    def summary(self, target: Chain, guide: Logits, key: Array) -> tuple[dict[str, Any], Array]:
        """The policy, and its exact ELBO."""
        return guides.summary(target, guide)

    def in_nats(self, program: ControlProgram, guide: Any, key: Array) -> Float[Array, ""]:
        """The estimate of the program whose optimality is multiplied by the common inverse temperature."""
        # Known numbers are checked where a caller's jit is tracing, too.
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(program)):
            chain = read(program)
        else:
            with jax.ensure_compile_time_eval():
                chain = read(program)
        chain = guides.in_nats(chain, common_inverse_temperature(program))
        return self.of_own(program, chain, guide) if isinstance(guide, Guide) else self.estimate(chain, guide, key)

    def of_own(self, program: ControlProgram, chain: Chain, guide: Guide) -> Float[Array, ""]:
        """The estimate for a guide of one's own."""
        raise TypeError(own.refusal(self))


class ExactELBO(TableELBO):
    """The exact ELBO by the elimination: no sampling, value and gradient without noise."""

    def __init__(self) -> None:
        super().__init__()

    def estimate(self, target: Chain, guide: Logits, key: Array) -> Float[Array, ""]:
        """The exact ELBO."""
        return guides.bound(target, guide)

    def of_own(self, program: ControlProgram, chain: Chain, guide: Guide) -> Float[Array, ""]:
        """The exact ELBO of its tables."""
        simulator = simulator_of(program)
        own.check_tables(simulator, guide)
        return own.bound(chain, simulator, guide)

    def __repr__(self) -> str:
        return "ExactELBO()"


class SampledELBO(TableELBO):
    """The gradient over sampled states, this step's decisions summed exactly with exact action values.

    Args:
        num_particles: number of trajectories a step.
    """

    def __init__(self, num_particles: int = 100):
        super().__init__(check_count("num_particles", num_particles))

    def check(self, program: ControlProgram) -> None:
        """Raise where there is no end."""
        check_ends(program.horizon, "sampled ELBO")

    def estimate(self, target: Chain, guide: Logits, key: Array) -> Float[Array, ""]:
        """The exact ELBO with a sampled gradient."""
        return estimators.sampled(target, guide, key, self.num_particles)


class ScoreFunctionELBO(TableELBO):
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

    def estimate(self, target: Chain, guide: Logits, key: Array) -> Float[Array, ""]:
        """The mean return, with the gradient of its score function."""
        return estimators.score_function(target, guide, key, self.num_particles)


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
