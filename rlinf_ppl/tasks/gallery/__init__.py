"""Small tasks that are ready to use: decision processes of one agent, matrix games, and games of two on a grid."""

from rlinf_ppl.tasks.gallery.grid_games import coordination_grid, pursuit
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

__all__ = [
    "CHANGED_PATEL_MAZE_MAP",
    "FOUR_ROOMS_MAP",
    "PATEL_MAZE_MAP",
    "SLIPPERY_MAP",
    "chain",
    "climbing_game",
    "coordination_game",
    "coordination_grid",
    "four_rooms",
    "friend_or_foe",
    "grid_world",
    "lottery",
    "matching_pennies",
    "memory_choice",
    "mountain_car",
    "offered_options",
    "patel_maze",
    "penalty_game",
    "planning_task",
    "point_mass",
    "pursuit",
    "slippery_grid",
]
