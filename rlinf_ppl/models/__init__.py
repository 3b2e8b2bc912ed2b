"""The classic models, one file a graphical model: a task in, a step program out."""

from rlinf_ppl.models.balancing_q import balancing_q, balancing_q_opponent_leads
from rlinf_ppl.models.belief import belief
from rlinf_ppl.models.conventions import leave_prior_out, put_prior_in
from rlinf_ppl.models.decentralized import decentralized
from rlinf_ppl.models.delayed_options import delayed_options
from rlinf_ppl.models.delta_rule import delta_rule
from rlinf_ppl.models.engine_replacement import UPKEEP, engine_replacement
from rlinf_ppl.models.episode import episode
from rlinf_ppl.models.finite_memory import finite_memory
from rlinf_ppl.models.gaussian_guide import GaussianGuide
from rlinf_ppl.models.gumbel import gumbel_choice, gumbel_trajectory
from rlinf_ppl.models.hidden_linear_gaussian import hidden_linear_gaussian
from rlinf_ppl.models.hidden_mountain_hike import hidden_mountain_hike
from rlinf_ppl.models.level_k import level_k
from rlinf_ppl.models.linear_gaussian import linear_gaussian
from rlinf_ppl.models.mountain_hike import mountain_hike
from rlinf_ppl.models.noisy_agent import noisy_agent
from rlinf_ppl.models.noisy_values import NoisyValues, noisy_values
from rlinf_ppl.models.nonlinear_gaussian import nonlinear_gaussian
from rlinf_ppl.models.particle_belief import HiddenProcess, particle_belief
from rlinf_ppl.models.pr2 import pr2
from rlinf_ppl.models.public_belief import public_belief
from rlinf_ppl.models.quantal_response import quantal_response
from rlinf_ppl.models.regularized import regularized, smooth_bellman, smooth_bellman_without_prior
from rlinf_ppl.models.resource_allocation import (
    resource_allocation,
    resource_allocation_free,
    resource_allocation_once,
    resource_allocation_once_free,
)
from rlinf_ppl.models.rommeo import rommeo
from rlinf_ppl.models.single_agent import single_agent
from rlinf_ppl.models.soft_options import soft_options
from rlinf_ppl.models.two_step import two_step
from rlinf_ppl.models.unknown_world import unknown_world

__all__ = [
    "UPKEEP",
    "balancing_q",
    "balancing_q_opponent_leads",
    "belief",
    "decentralized",
    "delayed_options",
    "delta_rule",
    "engine_replacement",
    "episode",
    "finite_memory",
    "GaussianGuide",
    "gumbel_choice",
    "gumbel_trajectory",
    "hidden_linear_gaussian",
    "hidden_mountain_hike",
    "HiddenProcess",
    "NoisyValues",
    "particle_belief",
    "leave_prior_out",
    "level_k",
    "linear_gaussian",
    "mountain_hike",
    "noisy_agent",
    "noisy_values",
    "nonlinear_gaussian",
    "put_prior_in",
    "pr2",
    "public_belief",
    "quantal_response",
    "regularized",
    "resource_allocation",
    "resource_allocation_free",
    "resource_allocation_once",
    "resource_allocation_once_free",
    "rommeo",
    "single_agent",
    "smooth_bellman",
    "smooth_bellman_without_prior",
    "soft_options",
    "two_step",
    "unknown_world",
]
