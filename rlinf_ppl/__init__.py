"""Control is inference in a program of one time step.

Write one step as a NumPyro program: its decisions are sample sites with a prior, its rewards are factors, its dynamics
are plain `numpyro.sample`. The graph, the unrolled model, the guide, the closed-form policies and the variational fit
all follow from that one text.

    def step(transition, reward, s):
        a = decide("a", Categorical(probs=jnp.full(4, 1 / 4)))
        optimality(reward[s, a])
        return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a]))}

`tasks` holds what is to be controlled, `models` writes tasks as step programs, `inference` turns any program into a
posterior, `report` shows it.
"""

from rlinf_ppl.program import ControlProgram, decide, optimality, over_time, parameter, truncated

__version__ = "0.1.0"
__all__ = ["ControlProgram", "decide", "optimality", "over_time", "parameter", "truncated"]
