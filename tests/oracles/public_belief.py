"""Games of two who see different things, in plain NumPy: what the public knows by a list of all hidden histories.

    x_1 = (s, o, p) ~ p_0 U_0 U'_0,    m_t ~ p(m),    a_t ~ pi(. | o, m, y),    b_t ~ rho(. | p, m, y),
    r_t ~ p(. | s, a, b),   p(O_t | r_t) = exp(beta r_t),   x_{t+1} ~ P U U',   y_{t+1} ~ Y(. | s_{t+1}, a, b)

Public are y, a, b, r and O, and m where it is said. Policies are pi[o, m, y, a] and rho[p, m, y, b].
"""

import itertools
from typing import NamedTuple

import numpy as np


class Game(NamedTuple):
    """The arrays of a game, the last axis of each distribution what is drawn."""

    initial: np.ndarray
    transition: np.ndarray
    reward: np.ndarray
    reward_values: np.ndarray
    own: np.ndarray
    others: np.ndarray
    public: np.ndarray
    own_first: np.ndarray
    others_first: np.ndarray
    public_first: np.ndarray

    def started(self, y):
        """p(s, o, p, y) of the start."""
        return np.einsum("s,so,sp->sop", self.initial * self.public_first[:, y], self.own_first, self.others_first)

    @property
    def expected(self):
        return self.reward @ self.reward_values


class Play(NamedTuple):
    """Inverse temperature, p(m), pi and rho, and what was public: y one longer than a, b and r."""

    beta: float
    message: np.ndarray
    pi: np.ndarray
    rho: np.ndarray
    a: tuple
    b: tuple
    r: tuple
    y: tuple


def step_probability(game, play, t, x, after, m):
    """p(m, a, b, r, O, x', y' | x), every factor once."""
    (s, o, p), (n, u, v) = x, after
    a, b, r, y, seen = play.a[t], play.b[t], play.r[t], play.y[t], play.y[t + 1]
    acts = play.message[m] * play.pi[o, m, y, a] * play.rho[p, m, y, b]
    pays = game.reward[s, a, b, r] * np.exp(play.beta * game.reward_values[r])
    shows = game.own[n, a, u] * game.others[n, b, v] * game.public[n, a, b, seen]
    return acts * pays * game.transition[s, a, b, n] * shows


def weight(game, play, t, x, after, m, proposal, message_proposal=None):
    """What a particle weighs that came from x to x' by a proposal; without a proposal of m, m is scored apart."""
    scored = 1 / play.message[m] if message_proposal is None else 1 / message_proposal
    return step_probability(game, play, t, x, after, m) * scored / proposal


def printed_weight(game, play, t, x, after, m, proposal, message_proposal):
    """Equation 5.19 as it is printed: p(O | r) twice, and no p(r | s, a)."""
    s, r = x[0], play.r[t]
    right = weight(game, play, t, x, after, m, proposal, message_proposal)
    return right * np.exp(play.beta * game.reward_values[r]) / game.reward[s, play.a[t], play.b[t], r]


def histories(game, play, messages=None):
    """For each time, every hidden history so far and its probability with all that was public."""
    start = game.started(play.y[0])
    found = [[(start[x], (x,)) for x in np.ndindex(start.shape) if start[x] > 0]]
    for t in range(len(play.a)):
        spoken = range(len(play.message)) if messages is None else [messages[t]]
        longer = []
        for (mass, path), m, after in itertools.product(found[-1], spoken, list(np.ndindex(start.shape))):
            more = mass * step_probability(game, play, t, path[-1], after, m)
            if more > 0:
                longer.append((more, (*path, after)))
        found.append(longer)
    return found


def public_beliefs(game, play, messages=None):
    """p(s, o, p | what was public up to t) for each time, and the probabilities of what became public in each step."""
    beliefs, totals = [], []
    for listed in histories(game, play, messages):
        joint = np.zeros(game.started(0).shape)
        for mass, path in listed:
            joint[path[-1]] += mass
        totals.append(joint.sum())
        beliefs.append(joint / totals[-1])
    return np.array(beliefs), np.array(totals[1:]) / np.array(totals[:-1])


def public_step(game, joint, pi, rho):
    """p(a, b, y', r, s', o', p') after p(s, o, p), of policies pi[o, a] and rho[p, b]."""
    return np.einsum(
        "sop,oa,pb,sabr,sabn,nau,nbv,naby->abyrnuv",
        *(joint, pi, rho, game.reward, game.transition, game.own, game.others, game.public),
        optimize=True,
    )


def weighted_policy(weights, policies):
    """What particles do on average."""
    return weights @ policies


def particle_agent(weights, values, prior, beta):
    """Of particles with action values, in units of reward: the mean of these, its soft maximum and the policy."""
    mean = weights @ values
    value = np.log(prior @ np.exp(beta * mean)) / beta
    return mean, value, prior * np.exp(beta * (mean - value))


def coordinator_value(game, horizon, y=0, discount=1.0, joint=None, reward_seen=True):
    """The most that two can win who see all that is public, by all pairs of prescriptions after each public history."""
    joint = game.started(y) / game.started(y).sum() if joint is None else joint
    own, others = (
        np.array(list(itertools.product(range(actions), repeat=seen)))
        for actions, seen in zip(game.expected.shape[1:], joint.shape[1:], strict=True)
    )
    pays = np.einsum("sop,sab->opab", joint, game.expected)
    o, p = np.arange(joint.shape[1])[:, None], np.arange(joint.shape[2])
    values = pays[o, p, own[:, None, :, None], others[None, :, None, :]].sum((2, 3))
    if horizon == 1:
        return values.max()
    follows = np.einsum(
        "sop,sabr,sabn,nau,nbv,naby->opabrynuv",
        *(joint, game.reward, game.transition, game.own, game.others, game.public),
        optimize=True,
    )
    for i, j in np.ndindex(values.shape):
        met = np.zeros(follows.shape[2:])
        for each in np.ndindex(joint.shape[1:]):
            a, b = own[i, each[0]], others[j, each[1]]
            met[a, b] += follows[*each, a, b]
        met = met if reward_seen else met.sum(2, keepdims=True)
        after = met.reshape(-1, *joint.shape)
        values[i, j] += discount * sum(
            coordinator_value(game, horizon - 1, y, discount, each, reward_seen) for each in after if each.sum() > 0
        )
    return values.max()


def planned_value(transition, reward, observation, belief, horizon, discount=1.0):
    """The best value of a POMDP, (S, A, S), (S, A) and (S, A, O), by all actions after each history."""
    values = belief @ reward
    if horizon > 1:
        for a in range(reward.shape[1]):
            joint = (belief @ transition[:, a])[:, None] * observation[:, a]
            values[a] += discount * sum(
                planned_value(transition, reward, observation, after, horizon - 1, discount)
                for after in joint.T
                if after.sum() > 0
            )
    return values.max()


def elbo(game, horizon, beta, policies, priors, discount=1.0):
    """E sum_t gamma^t [beta r - KLs] of q[t, y, m', a', b', m], pi[t, o, y, m, a] and rho[t, p, y, m, b]."""
    shape = (*priors["m"].shape, *game.expected.shape[1:])
    joint = np.zeros((*game.started(0).shape, game.public.shape[-1], *shape))
    for y in range(joint.shape[3]):
        joint[:, :, :, y, 0, 0, 0] = game.started(y)
    total = 0.0
    for t in range(horizon):
        q, pi, rho = (policies[name][t] for name in "mab")
        costs = np.einsum("sopylcd,ylcdm,ylcdm->", joint, q, np.log(q / priors["m"]))
        met = np.einsum("sopylcd,ylcdm->sopym", joint, q)
        costs += np.einsum("sopym,oyma,oyma->", met, pi, np.log(pi / priors["a"][:, None, None]))
        costs += np.einsum("sopym,pymb,pymb->", met, rho, np.log(rho / priors["b"][:, None, None]))
        acted = np.einsum("sopym,oyma,pymb->symab", met, pi, rho)
        total += discount**t * (beta * np.einsum("symab,sab->", acted, game.expected) - costs)
        joint = np.einsum(
            "symab,sabn,nau,nbv,nabw->nuvwmab",
            *(acted, game.transition, game.own, game.others, game.public),
            optimize=True,
        )
    return total


def turns(payoffs):
    """What each pair of deterministic policies wins where the second sees its card y and the first one's action.

    Args:
        payoffs: by card x, card y, action a and action b; cards are equally likely.

    Returns:
        The policies a[x], the policies b[y, a], and what they win, an axis for each.
    """
    cards, others, actions, replies = payoffs.shape
    first = np.array(list(itertools.product(range(actions), repeat=cards)))
    second = np.array(list(itertools.product(range(replies), repeat=others * actions))).reshape(-1, others, actions)
    x, y = np.ogrid[:cards, :others]
    a = np.broadcast_to(first[:, None, :, None], (len(first), len(second), cards, others))
    b = second[np.arange(len(second))[:, None, None], y, a]
    return first, second, payoffs[x, y, a, b].mean((2, 3))


def team_elbo(payoffs, beta, first, second):
    """E[beta payoff] - KL of a[x] and b[y, a] from uniform priors, and the expected payoff."""
    cards, others, actions, replies = payoffs.shape
    acts = np.einsum("xa,yab->xyab", first, second) / (cards * others)
    costs = np.log(first * actions)[:, None, :, None] + np.log(second * replies)[None]
    return (acts * (beta * payoffs - costs)).sum(), (acts * payoffs).sum()
