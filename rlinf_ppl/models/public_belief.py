"""Two who share a reward, see different things, and act on what the public knows (Nayyar 2013; Foerster et al. 2019).

    x_t = (s_t, o_t, p_t) hidden, y_t public,    m_t ~ q(m | public belief, y_t, t),    prior p(m) that sees no state
    a_t ~ pi(a | o_t, y_t, m_t),  b_t ~ rho(b | p_t, y_t, m_t),  r_t ~ p(. | s_t, a_t, b_t),  factor exp(beta r)

The public sees a, b, r, y and m, and it knows pi and rho. What it believes of x are N particles; with any proposal
k(x') a particle's weight is multiplied by

    P(s' | s, a, b) U(o' | s', a) U'(p' | s', b) / k(x')
    p(r | s, a, b) pi(a | o, y, m) rho(b | p, y, m) Y(y' | s', a, b)

and, where the message is not scored apart, by p(m) / q(m); exp(beta r), of a reward that is seen, is the same for all
particles, and stands inside or outside. (Sakulwongtana's thesis, equations 5.19 and 5.24, has p(O | r) twice there and
leaves p(r | s, a, b) out; its policies see the state.) Here the particles move by the game's own laws, so the first
ratio is 1, and messages are decisions, whose KL from p(m) the bound has: what a particle weighs is the rest.

What a message means is learned: pi and rho are Boltzmann policies of learned values, arguments of the program that its
guide puts in. `svi.fit` with `ParticleELBO(n, num_particles=K)` learns them together with q(m | .): variational SMC,
the ELBO at K = 1. The exact public belief is that of `game.coordinator()`, whose messages are prescriptions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, Int
from numpyro.distributions import Categorical, Uniform

from rlinf_ppl.algebra import resampling
from rlinf_ppl.models.arguments import check_task, inverse_temperature, whole_number
from rlinf_ppl.models.decentralized import first_state
from rlinf_ppl.models.signals import Policies, Shares, Signals, boltzmann, message_network, varying_policies
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.program.checks import check_horizon
from rlinf_ppl.program.laws import first_beyond
from rlinf_ppl.tasks import PartiallyObservedGame, checks
from rlinf_ppl.types import ArrayLike

SPREAD = 0.1


class Joint(NamedTuple):
    """Hidden variables, of one particle or of many: the state, and what each of both sees alone."""

    s: Int[Array, "..."]
    o: Int[Array, "..."]
    p: Int[Array, "..."]


class Move(NamedTuple):
    """What is public of a step: the message, what was seen before it, both actions, the reward and what is seen next.

    Attributes:
        m, y, a, b: positions.
        paid: the reward itself, or its position among `reward_values`.
        y_next: what is seen next.
    """

    m: Any
    y: Any
    a: Any
    b: Any
    paid: Any
    y_next: Any


def public_log_prob(game: PartiallyObservedGame, policies: Policies, x: Joint, x_next: Joint, move: Move) -> Array:
    """Log p(a, b, r, y' | x, x', m, y), of one particle or many."""
    acts = policies.pi[move.m, x.o, move.y, move.a] * policies.rho[move.m, x.p, move.y, move.b]
    shows = game.public_observation[x_next.s, move.a, move.b, move.y_next]
    if game.reward_values is None:
        pays = (game.reward[x.s, move.a, move.b] == move.paid).astype(acts.dtype)
    else:
        pays = game.reward[x.s, move.a, move.b, move.paid]
    return jnp.log(acts) + jnp.log(pays) + jnp.log(shows)


def private_log_prob(game: PartiallyObservedGame, x: Joint, x_next: Joint, move: Move) -> Array:
    """Log p(x' | x, a, b), of one particle or many: what a proposal of x' divides."""
    follows = game.transition[x.s, move.a, move.b, x_next.s]
    sees = game.observation[x_next.s, move.a, x_next.o] * game.opponent_observation[x_next.s, move.b, x_next.p]
    return jnp.log(follows) + jnp.log(sees)


def drawn(u: Float[Array, " N"], probs: Float[Array, "N K"]) -> Int[Array, " N"]:
    """Positions drawn from rows of probabilities by uniform numbers in [0, 1)."""
    return first_beyond(u[:, None], probs).astype(jnp.int32)


def noise(name: str, rows: int, draws: Array) -> Any:
    """Uniform numbers (rows, N) that particles are moved by: one site, where laws of their own would be three."""
    low = jnp.zeros((rows, len(draws)))
    return numpyro.sample(name, Uniform(low, low + 1).to_event(2))


def initial(game: PartiallyObservedGame, message_prior: Array, beta: Array, policies: Policies, draws: Array) -> Any:
    """The first state, what is seen of it, and the particles that the public begins with."""
    first, u = first_state(game), noise("first_noise", 3, draws)
    s = drawn(u[0], jnp.broadcast_to(game.initial, (len(draws), len(game.initial))))
    x = Joint(s, drawn(u[1], game.initial_observation[s]), drawn(u[2], game.initial_opponent_observation[s]))
    log_w = jnp.log(game.initial_public_observation[s, first["y"]])
    return first | {"public": {"x": x, "w": resampling.normalize(log_w)[0]}}


def step(
    game: PartiallyObservedGame,
    message_prior: Array,
    beta: Array,
    policies: Policies,
    draws: Array,
    s: Any,
    o: Any,
    p: Any,
    y: Any,
    public: Any,
) -> dict[str, Any]:
    """One step of the model."""
    num_actions, num_others = policies.pi.shape[-1], policies.rho.shape[-1]
    m = decide("m", Categorical(probs=message_prior), beta, unseen=("s", "o", "p"))
    a = decide("a", Categorical(probs=jnp.full(num_actions, 1 / num_actions)), beta, unseen=("s", "p"))
    b = decide("b", Categorical(probs=jnp.full(num_others, 1 / num_others)), beta, unseen=("s", "o", "a"))
    # The world
    paid = game.reward[s, a, b]
    if game.reward_values is not None:
        paid = numpyro.sample("r", Categorical(probs=paid))
    optimality(paid if game.reward_values is None else game.reward_values[paid])
    s_next = numpyro.sample("s_next", Categorical(probs=game.transition[s, a, b]))
    o_next = numpyro.sample("o_next", Categorical(probs=game.observation[s_next, a]))
    p_next = numpyro.sample("p_next", Categorical(probs=game.opponent_observation[s_next, b]))
    y_next = numpyro.sample("y_next", Categorical(probs=game.public_observation[s_next, a, b]))
    # The public
    u = noise("noise", 4, draws)
    ancestors = resampling.children_of_any(u[0, 0], public["w"])
    x = jax.tree.map(lambda values: values[ancestors], public["x"])
    moved = drawn(u[1], game.transition[x.s, a, b])
    seen = drawn(u[2], game.observation[moved, a]), drawn(u[3], game.opponent_observation[moved, b])
    x_next = Joint(moved, *seen)
    log_w = public_log_prob(game, policies, x, x_next, Move(m, y, a, b, paid, y_next))
    weights = resampling.normalize(log_w)[0]
    return {"s": s_next, "o": o_next, "p": p_next, "y": y_next, "public": {"x": x_next, "w": weights}}


def public_belief(
    game: PartiallyObservedGame,
    horizon: int | None,
    num_messages: int = 1,
    beta: ArrayLike = 1.0,
    message_prior: ArrayLike | None = None,
    num_particles: int = 100,
    key: Array | None = None,
) -> ControlProgram:
    """Two who share a reward and act on their own observation and on a public message, at the game's discount.

    Args:
        game: the game.
        horizon: number of steps T; None: without end, at a discount below 1.
        num_messages: M, of which one is said at each time; 1: nothing is said.
        beta: inverse temperature of both and of messages, in nats per unit of reward.
        message_prior: p(m), shape (M,); default uniform.
        num_particles: N, of the public belief.
        key: a JAX random key for the values to start from, normal of standard deviation 0.1; default jax.random.key(0).

    Returns:
        The program, with states `s`, `o`, `p`, `y` and `public`, decisions `m`, `a` and `b`, and its guide, `Signals`.
        Its values and ELBO are in units of reward. Policies that differ by more than the names of messages do not
        communicate well with each other: both players have theirs from one fit.

    Raises:
        TypeError: on something else than a PartiallyObservedGame.
        ValueError: on a prior that is no distribution, or numbers below 1.
    """
    check_task("game", game, PartiallyObservedGame)
    count = whole_number("num_messages", num_messages, "something, if only one and the same, is said at each time")
    particles = whole_number("num_particles", num_particles, "a belief takes at least one particle")
    said = jnp.full(count, 1 / count) if message_prior is None else checks.as_reals("message_prior", message_prior)
    checks.check_shape("message_prior", said.shape, [(count,)], "the messages", (count,))
    tau = inverse_temperature("beta", beta)
    steps = check_horizon(horizon)
    times = () if steps is None else (steps,)
    sizes = (count, game.num_public_observations)
    own = (*times, sizes[0], game.num_observations, sizes[1], game.num_actions)
    others = (*times, sizes[0], game.num_opponent_observations, sizes[1], game.num_opponent_actions)
    keys = jax.random.split(jax.random.key(0) if key is None else key, 3)
    values = [SPREAD * jax.random.normal(each, shape) for each, shape in zip(keys[:2], (own, others), strict=True)]
    args = (
        game.anonymous(),
        checks.as_distributions("message_prior", said, ()),
        tau,
        varying_policies(*map(boltzmann, values)),
        jnp.zeros(particles),
    )
    program = ControlProgram(initial, step, horizon, game.discount, args=args)
    cells = (game.num_states, game.num_observations, game.num_opponent_observations)
    network = message_network(program, keys[2], Shares(cells))
    return program.with_guide(Signals(network, *values))
