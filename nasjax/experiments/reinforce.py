"""A recurrent controller trained with REINFORCE over convolutional networks.

Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", arXiv:1611.01578, sections 3 and 4.1.
Command: python -m nasjax.launch --method=reinforce [--preset=paper --dataset=cifar10]
Minutes: demo about 1 on two CPU cores; the paper's 12,800 children took 800 GPUs.
Expected: the published v1 network has 4.2M parameters and 5.50 % test error on CIFAR-10; the demo shows the machine,
not learning.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from nasjax.experiments.families import candidates as base
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.families.candidates_run import experiment
from nasjax.problem.given import Given
from nasjax.problem.problem import Problem
from nasjax.searchers.independent_policy import independent_policy
from nasjax.searchers.lstm_policy import lstm_policy
from nasjax.searchers.reinforce import cube, inverse_square_perplexity, metrics, reinforce
from nasjax.searchers.replicated import replicated
from nasjax.types import Experiment, Searcher, Space, arch_size

SPACE = "conv_chain"
BITS = "bits_per_character"  # the metric of characters: the logarithm of their perplexity


@dataclass(frozen=True)
class ReinforceConfig:
    """Zoph & Le 2017, sections 3 and 4.1; the defaults are the paper's where it states a value.

    Attributes:
      policy: the controller: an LSTM, or a table of independent logits.
      learning_rate: of the controller's Adam.
      samples_per_update: architectures whose rewards make one gradient, the paper's m.
      accumulate: gradients that make one step; the paper's recurrent cells: 10 with m = 1.
      replicas: controllers with common parameters, the paper's K (100, of recurrent cells 400): each samples m
        architectures by the parameters that it fetched last and waits for no other, so gradients are late; None = one
        controller, which samples by the newest parameters.
      baseline_decay: of the moving average of rewards; ours, the paper does not state it.
      entropy_weight: of an entropy bonus.
      reward: what a fitness is worth: accuracy^3, c / perplexity^2, or the fitness; "auto": by the metric.
      depth_first: layers at first, the paper's 6; None = always the space's largest depth.
      depth_step, depth_every: layers that are added, and after how many architectures.
    """

    policy: Literal["lstm", "independent"] = "lstm"
    learning_rate: float = 6e-4
    samples_per_update: int = 8
    accumulate: int = 1
    replicas: int | None = None
    baseline_decay: float = 0.95
    entropy_weight: float = 0.0
    reward: Literal["auto", "cube", "perplexity", "fitness"] = "auto"
    depth_first: int | None = None
    depth_step: int = 2
    depth_every: int = 1600

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or min(self.samples_per_update, self.accumulate) < 1 or self.entropy_weight < 0:
            raise ValueError(
                "learning_rate must be positive, samples_per_update and accumulate at least 1, entropy_weight not "
                "negative"
            )
        if self.replicas is not None and self.replicas < 1:
            raise ValueError(f"replicas must be at least 1, or none for one controller; got {self.replicas}")


def configure(given: Given) -> CandidateConfig:
    """A preset for a space and a data set."""
    demo, paper = ReinforceConfig(learning_rate=0.01), ReinforceConfig(depth_first=6)
    config = base.preset("reinforce", given, demo=demo, paper=paper)
    if given.published and given.space == SPACE:  # section 4.1: a small grid before the last training
        config = dataclasses.replace(config, retrain=dataclasses.replace(config.retrain, grid=True))
    return config


def describe(problem: Problem) -> dict[str, Any]:
    """Size of the policy: its parameters, and the multiply-adds of emitting one architecture of the largest depth."""
    space, kind = problem.space, problem.config.search.policy
    lstm = kind == "lstm"
    _emittable(space)
    policy = lstm_policy(space) if lstm else independent_policy(space)
    params = jax.eval_shape(policy.init, jax.random.key(0))
    hidden = 35
    macs = 0
    if lstm:
        heads = [len(site.choices) for site in space.sites if site.group not in ("depth", "anchor")]
        readers = [site.layer for site in space.sites if site.group == "anchor"]  # one entry per pair of layers
        anchors = 1 + max(readers, default=-1)
        macs = (len(heads) + anchors) * 2 * 4 * hidden * 2 * hidden + hidden * sum(heads)
        macs += 2 * anchors * hidden**2 + hidden * len(readers)  # W_prev and W_curr of every layer, v of every pair
    return {
        "describes": f"controller ({kind})",
        "params": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        "macs": macs,
    }


def _plain(fitness: jax.Array) -> jax.Array:
    """The fitness; where smaller is better 1 / (1 + metric), because a failure counts as reward 0."""
    return jnp.where(fitness < 0, 1 / (1 - fitness), fitness)


def _at_least_0(fitness: jax.Array) -> jax.Array:
    """The fitness where larger is better, 0 where it is negative: an R^2 below 0 is no better than a failure."""
    return jnp.maximum(fitness, 0)


def _emittable(space: Space) -> None:
    if arch_size(space) != len(space.sites):
        raise ValueError(f"{space.name} has identifiers that a policy cannot emit; use evolution, topk or random")


def reward_of(problem: Problem) -> Callable[[jax.Array], jax.Array]:
    """The paper's reward for the metric of the problem: cubed accuracy, c / perplexity^2, else the fitness."""
    # A weighed accuracy or perplexity (`tradeoff`) is rewarded as it is alone.
    kind, metric = problem.config.search.reward, problem.metric if problem.looked_up else problem.task.metric
    if kind == "auto":
        of_text = metric.name in ("perplexity", BITS)
        kind = "cube" if metric.unit == "fraction" else "perplexity" if of_text else "fitness"
    plain = _plain if metric.sign < 0 else _at_least_0
    of_words = inverse_square_perplexity()
    perplexity = (lambda fitness: of_words(jnp.exp2(-fitness))) if metric.name == BITS else of_words
    return {"cube": cube, "perplexity": perplexity, "fitness": plain}[kind]


def searcher(problem: Problem) -> Searcher:
    """The controller that the settings of a problem describe."""
    config, search = problem.config, problem.config.search
    _emittable(config.space)
    shared = {
        "policy": search.policy,
        "learning_rate": search.learning_rate,
        "accumulate": search.accumulate,
        "baseline_decay": search.baseline_decay,
        "entropy_weight": search.entropy_weight,
        "reward": reward_of(problem),
        "depth_schedule": base.scheduled(config.space, search),
    }
    if search.replicas is None:
        return reinforce(config.space, samples_per_update=search.samples_per_update, **shared)
    return replicated(config.space, replicas=search.replicas, children=search.samples_per_update, **shared)


def make(problem: Problem) -> Experiment:
    """REINFORCE on a problem."""
    return experiment(problem, searcher(problem), metrics)
