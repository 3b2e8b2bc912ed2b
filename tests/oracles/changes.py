"""Two decisions one after the other, everything over time, at inverse temperatures of any sign: by plain recursion."""

import numpy as np


def soft(q, prior, tau):
    """The certainty equivalent over the last axis, and the policy."""
    possible = np.where(prior > 0, q, np.nan)
    if tau == 0:
        return (prior * q).sum(-1), prior
    if np.isinf(tau):
        best = np.nanmax(possible, -1) if tau > 0 else np.nanmin(possible, -1)
        policy = prior * (q == best[..., None])
        return best, policy / policy.sum(-1, keepdims=True)
    peak = np.nanmax(tau * possible, -1, keepdims=True)
    weights = prior * np.exp(np.where(prior > 0, tau * q - peak, -np.inf))
    total = weights.sum(-1, keepdims=True)
    return ((peak + np.log(total)) / tau)[..., 0], weights / total


def solve(first, transition, reward, prior, other_prior, taus, last):
    """The value of the start, and the policies over time.

    Args:
        first: (S,).
        transition: (S, A, B, S).
        reward: (T, S, A, B).
        prior: (T, S, A), of the first decision.
        other_prior: (T, S, A, B), of the second, which sees it.
        taus: (T, 2).
        last: (S,), paid at the end.
    """
    value, policies = last, []
    for t in reversed(range(len(reward))):
        q = reward[t] + transition @ value
        reply, other = soft(q, other_prior[t], taus[t, 1])
        value, own = soft(reply, prior[t], taus[t, 0])
        policies.append((own, other))
    own, other = zip(*reversed(policies), strict=True)
    return first @ value, np.stack(own), np.stack(other)
