"""Two who share a reward and see different things, each by a policy on what it sees now.

    a_t ~ p(a | o_t),     b_t ~ p(b | p_t),     factor exp(beta r(s_t, a_t, b_t)),
    s_{t+1} ~ P(. | s_t, a_t, b_t),  and what follows from it:  o_{t+1}, p_{t+1} and the public y_{t+1}

The evidence lower bound over policies pi(a | o, y) and rho(b | p, y), in nats, is

    E sum_t gamma^t [ beta r - log(pi / p) - log(rho / p) ]

Neither policy has a closed form while the other is open, and there are local optima: signals that both keep to. With
several messages somebody who saw all that is public tells both what to make of it, m_t ~ p(m), before they act:

    q(m_t | m_{t-1}, a_{t-1}, b_{t-1}, y_t),     pi(a | o, y, m),     rho(b | p, y, m),     and  - log(q / p)

So the message is what is remembered in public. One that is forgotten is drawn in vain: the bound is linear in the
policies under each message, and no mixture beats the best of them. Private memory is a part of the game's state; plans
on all that was ever public are those of the game's `coordinator`. (Sakulwongtana's thesis, chapter 5, where a prior of
the message that depends on the state would let it tell what nobody saw.)
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import check_task, finite_number, whole_number
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import PartiallyObservedGame, checks
from rlinf_ppl.types import ArrayLike

LAST = ("last_m", "last_a", "last_b")


def first_state(game: PartiallyObservedGame, *_: Any) -> dict[str, Any]:
    """The first state, and what each of both and both of them see of it."""
    s = numpyro.sample("s", Categorical(probs=game.initial))
    return {
        "s": s,
        "o": numpyro.sample("o", Categorical(probs=game.initial_observation[s])),
        "p": numpyro.sample("p", Categorical(probs=game.initial_opponent_observation[s])),
        "y": numpyro.sample("y", Categorical(probs=game.initial_public_observation[s])),
    }


def first_state_with_message(game: PartiallyObservedGame, *_: Any) -> dict[str, Any]:
    """The same, after no message and no action, for which the first ones stand."""
    return first_state(game) | dict.fromkeys(LAST, 0)


def step(
    game: PartiallyObservedGame, prior: Array, opponent_prior: Array, beta: Array, s: Any, o: Any, p: Any, y: Any
) -> dict[str, Any]:
    """One step in which nobody sees what the other sees and does."""
    a = decide("a", Categorical(probs=prior[o]), unseen=("s", "p"))
    b = decide("b", Categorical(probs=opponent_prior[p]), unseen=("s", "o", "a"))
    return paid_and_seen(game, beta, s, a, b)


def step_with_message(
    game: PartiallyObservedGame,
    prior: Array,
    opponent_prior: Array,
    beta: Array,
    message_prior: Array,
    s: Any,
    o: Any,
    p: Any,
    y: Any,
    last_m: Any,
    last_a: Any,
    last_b: Any,
) -> dict[str, Any]:
    """The same after a message, all that both remember of what was public."""
    m = decide("m", Categorical(probs=message_prior), unseen=("s", "o", "p"))
    a = decide("a", Categorical(probs=prior[o]), unseen=("s", "p", *LAST))
    b = decide("b", Categorical(probs=opponent_prior[p]), unseen=("s", "o", "a", *LAST))
    return paid_and_seen(game, beta, s, a, b) | {"last_m": m, "last_a": a, "last_b": b}


def paid_and_seen(game: PartiallyObservedGame, beta: Array, s: Any, a: Any, b: Any) -> dict[str, Any]:
    """What two actions pay, lead to, and let both see."""
    optimality(beta * game.expected_reward[s, a, b])
    s_next = numpyro.sample("s_next", Categorical(probs=game.transition[s, a, b]))
    return {
        "s": s_next,
        "o": numpyro.sample("o_next", Categorical(probs=game.observation[s_next, a])),
        "p": numpyro.sample("p_next", Categorical(probs=game.opponent_observation[s_next, b])),
        "y": numpyro.sample("y_next", Categorical(probs=game.public_observation[s_next, a, b])),
    }


def decentralized(
    game: PartiallyObservedGame,
    horizon: int | None,
    beta: ArrayLike = 1.0,
    prior: ArrayLike | None = None,
    opponent_prior: ArrayLike | None = None,
    num_messages: int = 1,
    message_prior: ArrayLike | None = None,
) -> ControlProgram:
    """Two who share a reward and see different things; the discount is the game's.

    Args:
        game: the game, with A actions and O private observations of the agent, B and P of the opponent.
        horizon: number of steps T; None: without end, which needs a discount below 1.
        beta: inverse temperature, in 1 / units of reward.
        prior: p(a), shape (A,), or p(a | o), shape (O, A); default uniform. Zeros forbid an action.
        opponent_prior: p(b), shape (B,), or p(b | p), shape (P, B); default uniform.
        num_messages: how many messages M there are, the size of the public memory; 1: nothing is remembered.
        message_prior: p(m), shape (M,); default uniform.

    Returns:
        The program, with state `s`, observations `o` of the agent, `p` of the opponent and `y` of both as state
        variables, and decisions `a` and `b`; with several messages also a decision `m`, and the last message and
        actions as `last_m`, `last_a` and `last_b`. Values are in nats. `exact.elbo` is exact for any policies, and
        `svi.fit` climbs it. From several starts (`num_restarts`) and by a rising inverse temperature (`schedule`) it
        finds signals; messages, which tell nothing yet where it is low, are found at once. `exact.solve` has no answer
        where what is hidden matters.

    Raises:
        TypeError: on something else than a PartiallyObservedGame, or a number of messages that is no whole number.
        ValueError: on shapes that do not fit, prior rows that are no distributions, a beta that is not finite, fewer
            messages than 1.
    """
    check_task("game", game, PartiallyObservedGame)
    own = private_prior("prior", prior, (game.num_observations, game.num_actions))
    others = private_prior(
        "opponent_prior", opponent_prior, (game.num_opponent_observations, game.num_opponent_actions)
    )
    messages = whole_number("num_messages", num_messages, "give at least 1, which is none to choose from")
    args = game.anonymous(), own, others, finite_number("beta", beta)
    spoken = private_prior("message_prior", message_prior, (1, messages))[0]
    if messages == 1:
        return ControlProgram(first_state, step, horizon, game.discount, args=args)
    # Last messages and actions start as numbers, so their ranges are told.
    sizes = dict(zip(LAST, (messages, game.num_actions, game.num_opponent_actions), strict=True))
    return ControlProgram(
        first_state_with_message, step_with_message, horizon, game.discount, args=(*args, spoken), sizes=sizes
    )


def private_prior(name: str, prior: ArrayLike | None, shape: tuple[int, int]) -> Float[Array, "O A"]:
    """A prior p(action | observation): the same under all observations where it has one axis; uniform where None."""
    if prior is None:
        return jnp.full(shape, 1.0 / shape[1])
    array = checks.as_reals(name, prior)
    checks.check_shape(name, array.shape, [shape[1:], shape], "the policy on private observations", shape)
    rows = checks.as_distributions(name, array, ("observation",) if array.ndim == 2 else ())
    return jnp.broadcast_to(rows.reshape(-1, shape[1]), shape)
