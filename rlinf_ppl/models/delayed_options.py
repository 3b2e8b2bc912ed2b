"""Two players with options, each of whom learns the other's one step late (Sakulwongtana, section 4.2).

    s_1 ~ p0,   (z_i_0, z_opp_0) ~ p(z_i, z_opp),   then in each step, ' being the step before,

    b_i   ~ p(b | s, z_i', z_opp')          z_i   ~ p(z | s, z_opp')  where b_i = 1,   else z_i = z_i'
    a_i   ~ p(a | s, z_opp', z_i)
    b_opp ~ p(b | s, z_opp', z_i, a_i)      z_opp ~ p(z | s, z_i, a_i)  where b_opp = 1, else z_opp = z_opp'
    a_opp ~ p(a | s, z_i, a_i, z_opp)       factor exp(beta r(s, a_i, a_opp)),   s_next ~ P(. | s, a_i, a_opp)

The opponent's last option z_opp' is the message that the agent acts on; the opponent is the agent's model of one, who
sees the agent's choices of the same step and shares its reward. Values are in nats. From the last choice to the first,
q = p exp(W - log Z) and, with gamma E U as the discounted message of the next state,

    W(s, z_i, a_i, z_opp, a_opp) = beta r + gamma E U(s_next, z_i, z_opp)          rho(a_opp | s, z_i, a_i, z_opp)
    W(s, z_i, a_i, z_opp)        = log sum_{a_opp} p exp W                         q(z_opp | s, z_i, a_i)   (4.16)
    W(s, z_i, a_i)               = log sum_{z_opp} p exp W
    W(s, z_opp', z_i, a_i)       = log sum_{b_opp} p exp(b_opp W(s, z_i, a_i) + (1 - b_opp) W(s, z_i, a_i, z_opp'))
    W(s, z_opp', z_i)            = log sum_{a_i} p exp W                           pi(a_i | s, z_opp', z_i)
    W(s, z_opp')                 = log sum_{z_i} p exp W                           q(z_i | s, z_opp')
    U(s, z_i', z_opp')           = log sum_{b_i} p exp(b_i W(s, z_opp') + (1 - b_i) W(s, z_opp', z_i'))

Half of the printed formulas condition the opponent's master policy on b_i (4.11, 4.12, 4.15, C.8, C.19); what the
thesis solves is the model above, where b_opp does what its name says. Nor does (4.14) mean that the masters' priors
are uniform: that is the default. The conditioning sets are not written down in this file: the elimination finds them.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Categorical

from rlinf_ppl.models import arguments, options
from rlinf_ppl.models.dynamics import first_state, next_state, varying_each, varying_task
from rlinf_ppl.models.options import Priors, choose_option
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import StochasticGame, checks
from rlinf_ppl.types import ArrayLike

Players = tuple[Priors, Priors]

AGENT_RANKS, OPPONENT_RANKS = (4, 3, 4), (5, 4, 5)


def initial(game: StochasticGame, players: Players, initial_options: Array, beta: Array) -> dict[str, Any]:
    """The first state, and the pair of options that was in use before it."""
    pair = numpyro.sample("pair", Categorical(probs=jnp.ravel(initial_options)))
    z_i, z_opp = jnp.divmod(pair, initial_options.shape[-1])
    return first_state(game) | {"z_i_prev": z_i, "z_opp_prev": z_opp}


def step(
    game: StochasticGame,
    players: Players,
    initial_options: Array,
    beta: Array,
    s: Any,
    z_i_prev: Any,
    z_opp_prev: Any,
) -> dict[str, Any]:
    """One step of the model."""
    agent, opponent = players
    b_i = decide("b_i", Categorical(probs=agent.termination[s, z_i_prev, z_opp_prev]))
    z_i = choose_option("z_i", b_i, agent.option[s, z_opp_prev], z_i_prev)
    a_i = decide("a_i", Categorical(probs=agent.action[s, z_opp_prev, z_i]))
    b_opp = decide("b_opp", Categorical(probs=opponent.termination[s, z_opp_prev, z_i, a_i]))
    z_opp = choose_option("z_opp", b_opp, opponent.option[s, z_i, a_i], z_opp_prev)
    a_opp = decide("a_opp", Categorical(probs=opponent.action[s, z_i, a_i, z_opp]))
    optimality(beta * game.reward[s, a_i, a_opp])
    return {"s": next_state(game, s, a_i, a_opp), "z_i_prev": z_i, "z_opp_prev": z_opp}


def delayed_options(
    game: StochasticGame,
    horizon: int | None,
    num_options: int,
    beta: ArrayLike = 1.0,
    action_prior: ArrayLike | None = None,
    option_prior: ArrayLike | None = None,
    termination_prior: ArrayLike | None = None,
    opponent_action_prior: ArrayLike | None = None,
    opponent_option_prior: ArrayLike | None = None,
    opponent_termination_prior: ArrayLike | None = None,
    initial_options: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    num_opponent_options: int | None = None,
) -> ControlProgram:
    """Two players with options and one reward, who communicate by their options, one step late.

    A prior has the axes that its policy has in `program.scopes`: the state, then options before the step, then what
    was chosen earlier in it; a master policy's has none for what it replaces. Each may have a leading time axis, and
    zeros; by default each is uniform.

    Args:
        game: the game, S states, A actions of the agent and B of the opponent; its reward may have a leading time axis
            of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        num_options: M, the agent's options, at least 1.
        beta: inverse temperature of both players, in 1 / units of reward.
        action_prior: p(a_i | s, z_opp_prev, z_i), shape (S, N, M, A).
        option_prior: p(z_i | s, z_opp_prev) of the agent's master policy, shape (S, N, M).
        termination_prior: p(b_i | s, z_i_prev, z_opp_prev), shape (S, M, N, 2), the last axis (keep, terminate).
        opponent_action_prior: p(a_opp | s, z_i, a_i, z_opp), shape (S, M, A, N, B).
        opponent_option_prior: p(z_opp | s, z_i, a_i) of the opponent's master policy, shape (S, M, A, N).
        opponent_termination_prior: p(b_opp | s, z_opp_prev, z_i, a_i), shape (S, N, M, A, 2).
        initial_options: joint distribution of both players' options before the first step, shape (M, N).
        discount: gamma in [0, 1].
        num_opponent_options: N, the opponent's options; None: as many as the agent's.

    Returns:
        The program, with state `s`, `z_i_prev`, `z_opp_prev` and decisions `b_i`, `z_i`, `a_i`, `b_opp`, `z_opp`,
        `a_opp`; values, ELBO and log evidence in nats.

    Raises:
        TypeError: on something else than a StochasticGame, or numbers of options that are no whole numbers.
        ValueError: on shapes that do not fit, rows that are no distributions, a beta that is not finite; and where one
            of several options of a player is absorbing, its prior never terminating it: see `soft_options`.
    """
    arguments.check_game(game, horizon)
    m = options.count("num_options", num_options)
    n = m if num_opponent_options is None else options.count("num_opponent_options", num_opponent_options)
    agent = agent_priors(game, horizon, (m, n), termination_prior, option_prior, action_prior)
    opponent = opponent_priors(
        game, horizon, (m, n), opponent_termination_prior, opponent_option_prior, opponent_action_prior
    )
    players = varying_each(agent, AGENT_RANKS), varying_each(opponent, OPPONENT_RANKS)
    first, tau = first_options(initial_options, (m, n)), arguments.finite_number("beta", beta)
    args = varying_task(game), players, first, tau
    sizes = {"z_i_prev": m, "z_opp_prev": n}
    return ControlProgram(initial, step, horizon, discount, args=args, sizes=sizes)


def agent_priors(
    game: StochasticGame,
    horizon: int | None,
    sizes: tuple[int, int],
    termination: ArrayLike | None,
    option: ArrayLike | None,
    action: ArrayLike | None,
) -> Priors:
    """The agent's priors, checked."""
    states, actions, (m, n) = game.num_states, game.num_actions, sizes
    own, message = "option", "opponent's last option"
    by_options, shape = ("state", own, message), (states, m, n, 2)
    return Priors(
        options.termination_prior("termination_prior", termination, horizon, by_options, shape, 1),
        arguments.action_prior("option_prior", option, horizon, ("state", message), (states, n, m)),
        arguments.action_prior("action_prior", action, horizon, ("state", message, own), (states, n, m, actions)),
    )


def opponent_priors(
    game: StochasticGame,
    horizon: int | None,
    sizes: tuple[int, int],
    termination: ArrayLike | None,
    option: ArrayLike | None,
    action: ArrayLike | None,
) -> Priors:
    """The opponent's priors, checked."""
    states, actions, (m, n) = game.num_states, game.num_actions, sizes
    seen, shape = ("state", "agent's option", "agent's action"), (states, m, actions, n)
    kept = ("state", "last option", "agent's option", "agent's action"), (states, n, m, actions, 2)
    all_actions = (*shape, game.num_opponent_actions)
    return Priors(
        options.termination_prior("opponent_termination_prior", termination, horizon, *kept, 1),
        arguments.action_prior("opponent_option_prior", option, horizon, seen, shape),
        arguments.action_prior("opponent_action_prior", action, horizon, (*seen, "option"), all_actions),
    )


def first_options(joint: ArrayLike | None, shape: tuple[int, int]) -> Float[Array, "M N"]:
    """The joint distribution of the options before the first step, checked; uniform where None."""
    if joint is None:
        return jnp.full(shape, 1.0 / (shape[0] * shape[1]))
    array = checks.as_reals("initial_options", joint)
    checks.check_shape("initial_options", array.shape, [shape], "the pair of options", shape)
    return checks.as_distributions("initial_options", jnp.ravel(array), ()).reshape(shape)
