"""Searchers: which architecture to try next, without gradients through it."""

from nasjax.searchers.additive import best_path
from nasjax.searchers.distributed import distributed_reinforce
from nasjax.searchers.nsga2 import front, nsga2
from nasjax.searchers.policy import Policy, depth_schedule
from nasjax.searchers.random import random_search
from nasjax.searchers.reinforce import cube, inverse_square_perplexity, metrics, reinforce
from nasjax.searchers.topk import top, topk_evolution

__all__ = [
    "Policy",
    "best_path",
    "cube",
    "depth_schedule",
    "distributed_reinforce",
    "front",
    "inverse_square_perplexity",
    "metrics",
    "nsga2",
    "random_search",
    "reinforce",
    "top",
    "topk_evolution",
]
