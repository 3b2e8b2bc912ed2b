"""Programs whose behaviour is inferred, and panels of it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
from numpyro.distributions import Categorical
from oracles import recursions

from rlinf_ppl import ControlProgram, decide, models
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP

S, A, T, N = 3, 2, 6, 8
RNG = np.random.default_rng(3)
P, R, MU = RNG.dirichlet(np.ones(S), (S, A)), RNG.normal(size=(S, A)), RNG.dirichlet(np.ones(S))
TASK = MDP(P, R, MU)
COLUMNS = {"state": "s", "decision": "a", "id": "who", "time": "when"}


def program(parameters):
    """Rewards of known shape and unknown size, and one unknown bonus."""
    bonus = jnp.zeros((S, A)).at[0, 1].set(parameters["bonus"])
    return models.single_agent(MDP(P, R + bonus, MU), T, beta=parameters["beta"])


TRUE = {"beta": 1.5, "bonus": 0.4}


def rewards_of(bonus):
    """(S, A)."""
    reward = R.copy()
    reward[0, 1] += bonus
    return reward


def policy_of(beta, bonus):
    """By the recursion in NumPy: (T, S, A)."""
    return recursions.soft_optimal(P, rewards_of(bonus), np.full((S, A), 1 / A), beta, horizon=T)[2]


def rows():
    """Rows of sequences of several lengths, not in order, with ids that are words."""
    made = program(TRUE)
    drawn = exact.sample(made, jax.random.key(1), exact.solve(made).policy, N)
    found = [
        {"who": f"bus {i}", "when": t, "s": int(drawn["s"][i, t]), "a": int(drawn["a"][i, t])}
        for i in range(N)
        for t in range(T - i % 3)
    ]
    return pd.DataFrame(found).sample(frac=1.0, random_state=0)


def learner(p):
    """Learns what two arms pay, by a delta rule."""

    def step(rate, beta, value):
        choice = decide("choice", Categorical(logits=beta * value))
        pay = numpyro.sample("pay", Categorical(probs=jnp.ones(2) / 2))
        numpyro.deterministic("prediction_error", pay - value[choice])
        return {"value": value + rate * (pay - value) * (jnp.arange(2) == choice)}

    return ControlProgram(lambda rate, beta: {"value": jnp.zeros(2)}, step, 40, args=(p["rate"], p["beta"]))
