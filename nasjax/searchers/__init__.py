"""Searchers: which architecture to try next, without gradients through it."""

from nasjax.searchers.policy import Policy, depth_schedule
from nasjax.searchers.random import random_search
from nasjax.searchers.reinforce import cube, inverse_square_perplexity, metrics, reinforce

__all__ = ["Policy", "cube", "depth_schedule", "inverse_square_perplexity", "metrics", "random_search", "reinforce"]
