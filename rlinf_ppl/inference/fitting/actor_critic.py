"""Soft actor-critic for any step program: a policy and action values as networks, learned from replayed steps.

Between a decision d_i of a step and the next one, d_j of this step or the first of the next step, lie some factors r
and some chance sites. With z_i what the policy of d_i depends on and tau_i its inverse temperature,

    Q_i(z_i, d_i) = E [ r + V_j(z_j) ],     the V of the next step's first decision weighted by the discount,
    V_j(z)        = E_{q_j} [ Q_j(z, d) - (1 / tau_j) log(q_j / p_j) ],
    q_j           maximises  tau_j V_j(z),   so a decision with a negative inverse temperature minimises.

The prior stands inside V, as everywhere here; Haarnoja et al. (2018, Soft actor-critic) have a uniform one and drop it.
Each step of the fit moves some walkers under the present policy into the replay, fits Q to the right-hand side by
least squares over a batch from it, with V by a slowly following copy of Q, and moves the policy up V. A finite decision
is summed over exactly; one of real numbers is reparameterised, and moves along the critic's slope.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.arguments import check_count
from rlinf_ppl.inference.fitting.judging import Judge
from rlinf_ppl.inference.fitting.losses import ProgramELBO
from rlinf_ppl.inference.fitting.networks import PolicyFunction, check_networks
from rlinf_ppl.inference.fitting.walking import Walkers, fresh, paying, trajectory_elbo, walked
from rlinf_ppl.inference.particles.genealogy import taken
from rlinf_ppl.inference.particles.simulator import Simulator, Values, simulator_of
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.conditionals import Tilted
from rlinf_ppl.program.evaluation import check_joint, nats_per_unit, temperature_of
from rlinf_ppl.program.networks import Network, network, network_inputs, networks_of
from rlinf_ppl.program.supports import is_finite

FOLLOWING = 0.02
DEFAULT_OPTIMIZER = optax.adam(1e-3)
SUMMARY_TRAJECTORIES = 1000
VERDICT_WINDOW = 1000
VERDICT_EVERY = 500

Guide = dict[str, Tilted]
Critics = dict[str, Network]


class Carried(NamedTuple):
    """What the critic needs from one step of a fit to the next.

    Attributes:
        critics: for each decision its action values, in units of `scale`.
        slow: the copy that targets are made with.
        inner: the optimiser's.
        scale: the size of a return, in units of optimality.
        walkers: who walk on.
        replay: the steps that are kept: time, state variables, sites and next state, (capacity, ...) each.
        oldest: where in it the next ones go.
    """

    critics: Critics
    slow: Critics
    inner: Any
    scale: Array
    walkers: Walkers
    replay: Values
    oldest: Array


class ActorCritic(ProgramELBO):
    """The policy from learned action values of replayed steps: for long or endless tasks that no table holds.

    Its losses are the critic's own view of the ELBO: what it promises the best policy. The verdict holds it against
    what trajectories of the policy earn, and against what it was: the larger difference, relative to how far the action
    values of replayed steps are apart. A critic that has never met what is better does not know of it, so a converged
    fit may be a local optimum.

    Args:
        num_walkers: how many steps of the program are taken for each step of the fit.
        batch_size: how many kept steps the critic and the policy learn from at a time.
        capacity: how many steps are kept.
        critic_optimizer: an optax optimiser; None: Adam with a rate of 1e-3.
    """

    tolerance = 0.05
    window = VERDICT_WINDOW

    def __init__(
        self,
        num_walkers: int = 32,
        batch_size: int = 256,
        capacity: int = 20_000,
        critic_optimizer: optax.GradientTransformation | None = None,
    ):
        super().__init__(check_count("num_walkers", num_walkers))
        self.batch_size = check_count("batch_size", batch_size)
        self.rounds = -(-check_count("capacity", capacity) // self.num_particles)
        self.critic_optimizer = DEFAULT_OPTIMIZER if critic_optimizer is None else critic_optimizer

    def check(self, program: ControlProgram) -> None:
        """Raise where decisions pay something else than their KL, do not see each other, or have no finite scale."""
        check_joint(program)
        blind = [name for name, _ in (*program.structure.together, *program.structure.hidden)]
        if blind:
            raise ValueError(
                f"{blind} do not see all that their action values depend on, and none of their own are theirs; "
                "svi.fit(program, key) works with tables, and svi.ParticleELBO(n) with any step."
            )
        if nats_per_unit(program) is not None:
            raise ValueError(
                "ActorCritic counts everything in units of optimality, and data beside an inverse temperature are in "
                "nats: give loss=svi.ParticleELBO(n), or multiply the reward instead."
            )
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(program)):
            return
        for site in program.structure.step.decisions:
            tau = temperature_of(program.parts["step"], site)
            if not bool(jnp.all(jnp.isfinite(tau) & (tau != 0))):
                raise ValueError(f"the inverse temperature of {site.name!r} is 0 or not finite; its scale is lost.")

    def read(self, program: ControlProgram) -> Simulator:
        """The program as its walkers see it, in units of optimality."""
        return simulator_of(program)

    def start(self, target: Simulator, key: Array) -> Guide:
        """Networks of the default size."""
        return networks_of(target.structure, key)

    def check_guide(self, target: Simulator, guide: Any) -> Guide:
        """Networks for each decision."""
        names = {name for name, _ in target.structure.scopes}
        if not isinstance(guide, dict) or set(guide) != names or not all(map(is_network, guide.values())):
            raise TypeError(f"ActorCritic fits networks for {sorted(names)}: give guide=svi.networks(prog, key).")
        check_networks(target.structure, guide)
        return guide

    def prepare(self, target: Simulator, guide: Guide, key: Array) -> Carried:
        """Action values of 0, and a replay full of steps under the first guide."""
        start_key, fill_key, critic_key = jax.random.split(key, 3)
        walkers = fresh(target, start_key, self.num_particles)
        walk = lambda walkers, key: walked(target, guide, walkers, key)  # noqa: E731
        walkers, steps = lax.scan(walk, walkers, jax.random.split(fill_key, self.rounds))
        replay = jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), steps)
        paid = jax.vmap(lambda at: paying(target, guide, at))(replay)
        length = target.structure.horizon or 1.0 / (1.0 - target.discount)
        scale = jnp.maximum(length * jnp.mean(jnp.abs(paid)), 1e-6)
        keys = jax.random.split(critic_key, len(guide))
        critics = {name: critic(target, name, guide[name], each) for name, each in zip(guide, keys, strict=True)}
        inner = self.critic_optimizer.init(critics)
        return Carried(critics, critics, inner, scale, walkers, replay, jnp.zeros((), int))

    def descent(self, target: Simulator, guide: Guide, carried: Carried, key: Array) -> tuple[Array, Guide, Carried]:
        """Walk, fit the critic, and say where the policy is to go."""
        walk_key, batch_key, noise_key, start_key = jax.random.split(key, 4)
        walkers, met = walked(target, guide, carried.walkers, walk_key)
        kept = self.num_particles * self.rounds
        places = (carried.oldest + jnp.arange(self.num_particles)) % kept
        replay = jax.tree.map(lambda x, new: x.at[places].set(new), carried.replay, met)
        chosen = jax.random.randint(batch_key, (self.batch_size,), 0, kept)
        batch, keys = taken(replay, chosen), jax.random.split(noise_key, self.batch_size)

        def judge(guide: Guide, critics: Critics) -> Judge:
            return Judge(target, guide, critics, carried.scale)

        aims = jax.vmap(judge(guide, carried.slow).targets)(batch, keys)

        def errors(critics: Critics) -> Array:
            found = jax.vmap(judge(guide, critics).action_values)(batch)
            return sum((jnp.mean(((found[d] - aims[d]) / carried.scale) ** 2) for d in guide), jnp.zeros(()))

        change, inner = self.critic_optimizer.update(jax.grad(errors)(carried.critics), carried.inner, carried.critics)
        critics = optax.apply_updates(carried.critics, change)
        slow = jax.tree.map(lambda old, new: old + FOLLOWING * (new - old), carried.slow, critics)
        direction = jax.grad(lambda guide: -jnp.mean(jax.vmap(judge(guide, critics).gain)(batch, keys)))(guide)

        start_key, ahead_key = jax.random.split(start_key)
        start, ahead_keys = (
            fresh(target, start_key, self.num_particles),
            jax.random.split(ahead_key, self.num_particles),
        )
        value = jnp.mean(jax.vmap(judge(guide, critics).ahead)(start.state, start.time, ahead_keys))
        oldest = (carried.oldest + self.num_particles) % kept
        return -value, direction, Carried(critics, slow, inner, carried.scale, walkers, replay, oldest)

    def residual(
        self, target: Simulator, guide: Guide, recent: Array | None, steps: Array, carried: Any = None
    ) -> Float[Array, ""]:
        """How far what the critic promises is from what is earned, or from what it was, by the spread of its values."""
        assert recent is not None
        before, now = jnp.mean(jnp.reshape(recent, (2, -1)), 1)

        def verdict() -> Array:
            key = jax.random.fold_in(jax.random.key(0), steps)
            earned = trajectory_elbo(target, guide, key, SUMMARY_TRAJECTORIES)
            judge = Judge(target, guide, carried.critics, carried.scale)
            values = jax.vmap(judge.action_values)(carried.replay)
            spread = jnp.max(jnp.stack([jnp.std(each) for each in values.values()]))
            off = jnp.maximum(jnp.abs(before - now), jnp.abs(now + earned)) / spread
            return jnp.where(jnp.isnan(off), jnp.inf, off)

        due = (steps % VERDICT_EVERY == 0) & jnp.isfinite(before)
        return lax.cond(due, verdict, lambda: jnp.asarray(jnp.inf))

    @compiled
    def summary(self, target: Simulator, guide: Guide, key: Array) -> tuple[dict[str, Any], Array]:
        """The policy, and its ELBO from trajectories."""
        policy = {name: PolicyFunction(target, name, learned) for name, learned in guide.items()}
        return policy, trajectory_elbo(target, guide, key, SUMMARY_TRAJECTORIES)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self.num_particles, self.batch_size, self.rounds))

    def __repr__(self) -> str:
        return f"ActorCritic({self.num_particles}, {self.batch_size}, {self.num_particles * self.rounds})"


def is_network(learned: Any) -> bool:
    """Whether a decision's guide is a network."""
    return isinstance(learned, Tilted) and isinstance(learned.parameters, Network)


def critic(simulator: Simulator, name: str, learned: Tilted, key: Array) -> Network:
    """Action values of a decision, 0 everywhere, by a network as wide and deep as the decision's own."""
    assert isinstance(learned.parameters, Network)
    own, real = learned.parameters, not is_finite(learned.support)
    scope = dict(simulator.structure.scopes)[name]
    inputs = network_inputs(simulator.structure, (*scope, name) if real else scope, dict(own.inputs.features))
    counts = own.rest.width_size, own.rest.depth
    return network(key, inputs, 1 if real else len(learned.support), counts, own.rest.activation)
