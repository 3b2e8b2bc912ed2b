"""Small tasks that are ready to use: decision processes, hidden states, matrix games, games on a grid, with cards."""

from rlinf_ppl.tasks.gallery.grid_games import coordination_grid, pursuit
from rlinf_ppl.tasks.gallery.hidden_states import light_dark, maze_4x3, rock_sample, tiger
from rlinf_ppl.tasks.gallery.matrix_games import (
    climbing_game,
    coordination_game,
    friend_or_foe,
    matching_pennies,
    penalty_game,
)
from rlinf_ppl.tasks.gallery.memory_tasks import (
    CHANGED_PATEL_MAZE_MAP,
    PATEL_MAZE_MAP,
    memory_choice,
    offered_options,
    patel_maze,
    planning_task,
)
from rlinf_ppl.tasks.gallery.mountain_car import mountain_car
from rlinf_ppl.tasks.gallery.processes import (
    FOUR_ROOMS_MAP,
    SLIPPERY_MAP,
    chain,
    four_rooms,
    grid_world,
    lottery,
    point_mass,
    slippery_grid,
)
from rlinf_ppl.tasks.gallery.signalling_games import TINY_HANABI, card_game, signalling_game, two_step_game
from rlinf_ppl.tasks.gallery.swing_ups import cart_pole, double_pendulum, pendulum, quad_pendulum, regulator

__all__ = [
    "regulator",
    "quad_pendulum",
    "pendulum",
    "double_pendulum",
    "cart_pole",
    "CHANGED_PATEL_MAZE_MAP",
    "FOUR_ROOMS_MAP",
    "PATEL_MAZE_MAP",
    "SLIPPERY_MAP",
    "TINY_HANABI",
    "card_game",
    "chain",
    "climbing_game",
    "coordination_game",
    "coordination_grid",
    "four_rooms",
    "friend_or_foe",
    "grid_world",
    "light_dark",
    "lottery",
    "matching_pennies",
    "maze_4x3",
    "memory_choice",
    "mountain_car",
    "offered_options",
    "patel_maze",
    "penalty_game",
    "planning_task",
    "point_mass",
    "pursuit",
    "signalling_game",
    "slippery_grid",
    "two_step_game",
    "rock_sample",
    "slippery_grid",
    "tiger",
]
