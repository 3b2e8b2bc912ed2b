"""A system about a trajectory, to first order, and its reward to second order: what local methods plan with.

With dx = x - states_t, du = u - actions_t and z = [dx, du],

    x_{t+1} ~ N(reached_t + A_t dx + B_t du, W_t),      reward  z' M_t z + z' v_t + s_t,      at the end  dx' M dx + ...

It is made by `Dynamics.expand`, or of sampled trajectories by `expansions_of_samples`.
"""

from typing import final

import equinox as eqx
from jaxtyping import Array, Float


@final
class Expansion(eqx.Module):
    """A system about a trajectory: data only.

    Attributes:
        states: The trajectory.
        actions: What is done there, within its limits.
        A: Derivative of the next state in the state.
        B: Derivative of the next state in the action.
        reached: Mean of the next state from the trajectory's state and action; the trajectory's own next state where
            that is of the system without noise.
        noise: Covariance of the next state.
        matrix: Of the second order of the reward, in units of reward.
        vector: Of the first order.
        scalar: On the trajectory.
        final_matrix: The same of the last state.
        final_vector: The same of the last state.
        final_scalar: The same of the last state.
        initial_mean: Mean of the first state.
        initial_cov: Covariance of the first state.
    """

    states: Float[Array, "T_plus_1 n"]
    actions: Float[Array, "T m"]
    A: Float[Array, "T n n"]
    B: Float[Array, "T n m"]
    reached: Float[Array, "T n"]
    noise: Float[Array, "n n"] | Float[Array, "T n n"]
    matrix: Float[Array, "T k k"]
    vector: Float[Array, "T k"]
    scalar: Float[Array, " T"]
    final_matrix: Float[Array, "n n"]
    final_vector: Float[Array, " n"]
    final_scalar: Float[Array, ""]
    initial_mean: Float[Array, " n"]
    initial_cov: Float[Array, "n n"]
