"""Training-free scores of the candidates of a search: recorded before their training, and a bar that they must pass."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.drive.pace import Pace, left_words
from nasjax.drive.streams import streams
from nasjax.evaluators.children import network_of
from nasjax.evaluators.scores.named import untrained_scores
from nasjax.evaluators.scores.ranks import ranks
from nasjax.problem.problem import Problem
from nasjax.train import activity
from nasjax.train.compiling import jit
from nasjax.types import Built

IMAGES = 128  # of NASWOT's paper
REFERENCE = 50  # random architectures that a candidate is compared with
_LIKE = 25  # of them, those that are nearest in size: scores grow with a network

Describe = Callable[[np.ndarray], dict[str, Any]]


def scored(problem: Problem, describe: Describe) -> Describe:
    """`describe` with "scores", {name: score}, and with "score_rank" where `refuse_worst` goes by it.

    An architecture has the same scores wherever it comes up: its weights are drawn by its identity and the run's seed.
    The rank is the mean over scores of the part of REFERENCE random architectures, of those like it in parameters, that
    the candidate beats. They are drawn and scored when the first candidate is described.
    """
    config = problem.config
    if not config.candidate_scores:
        return describe
    score = scorer(problem, config.candidate_scores)
    reference = functools.cache(functools.partial(_reference, problem, score))

    def told(arch: np.ndarray) -> dict[str, Any]:
        row, built = describe(arch), problem.build(arch)
        activity.doing("scores of a candidate")
        found = score(built, row["hash"])
        row = {**row, "scores": {name: value if np.isfinite(value) else None for name, value in found.items()}}
        return {**row, "score_rank": beaten(reference(), built.params, found)} if config.refuse_worst else row

    return told


def refusal(config: Any, refuse: Callable[[dict[str, Any]], str | None]) -> Callable[[dict[str, Any]], str | None]:
    """`refuse`, and what is among the worst by its scores."""

    def bar(row: dict[str, Any]) -> str | None:
        rank = row.get("score_rank")
        if rank is not None and rank < config.refuse_worst:
            return f"its scores beat {rank:.0%} of random architectures like it, refuse_worst is {config.refuse_worst}"
        return refuse(row)

    return bar if config.refuse_worst else refuse


def scorer(problem: Problem, names: Sequence[str]) -> Callable[[Built, str], dict[str, float]]:
    """(network, its identity) -> its scores by images of the training part, which may be in the order of classes.

    Raises ValueError where a score cannot be computed of the network.
    """
    config = problem.config
    key = streams(config.seed).prefilter
    loss = functools.partial(_loss, problem.task, config.recipe)  # one function, whose programs are compiled once

    def score(built: Built, identity: str) -> dict[str, float]:
        data, network = problem.data, network_of(built, config.recipe)
        some = np.argsort(np.random.Philox(0).random_raw(len(data.train.y)), kind="stable")[:IMAGES]
        x = problem.task.inputs(jnp.asarray(data.train.x[some]), data.mean, data.std)
        y = jax.tree.map(lambda leaf: jnp.asarray(leaf[some]), data.train.y)
        variables = network.init(jax.random.fold_in(key, zlib.crc32(identity.encode())), None, x)
        return untrained_scores(names, network, variables, None, x, y, loss)

    return score


def beaten(reference: tuple[np.ndarray, dict[str, np.ndarray]], params: int, found: dict[str, float]) -> float:
    """The part, 0 to 1, of the architectures of like size that a candidate beats, the mean over its scores.

    Args:
      reference: parameters f64[R], {name: scores f64[R]}, NaN without one.
      params, found: of the candidate; of equal scores it beats half.
    """
    sizes, others = reference
    like = np.argsort(np.abs(np.log(sizes) - np.log(max(params, 1))), kind="stable")[:_LIKE]
    parts = []
    for name, value in found.items():
        place = ranks(np.append(others[name][like], value))[-1] * (len(like) + 1)  # from 1, the mean of ties
        parts.append((place - 1) / len(like))
    return float(np.mean(parts))


def require(problem: Problem, some: Built) -> None:
    """Raises ValueError where the asked scores cannot be had of the space's networks; `some` is one."""
    config = problem.config
    if config.candidate_scores:
        if problem.task.contiguous:
            raise ValueError(
                f"candidate_scores are of networks of images; --space={problem.space.name} has none: leave them out"
            )
        try:
            scorer(problem, config.candidate_scores)(some, "")
        except ValueError as error:
            raise ValueError(
                f"candidate_scores={','.join(config.candidate_scores)} with --space={problem.space.name}: {error}"
            ) from error


def _reference(
    problem: Problem, score: Callable[[Built, str], dict[str, float]]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Parameters and scores of random architectures; those without a network are left out."""
    key = jax.random.fold_in(streams(problem.config.seed).prefilter, REFERENCE)
    sizes, rows = [], []
    archs = np.asarray(jit(jax.vmap(problem.space.sample))(jax.random.split(key, REFERENCE)))
    pace = Pace(REFERENCE)
    for n, arch in enumerate(archs):
        pace.reached(n)
        activity.doing("scores", f"random architecture {n + 1} of {REFERENCE}{left_words(pace.left())}")
        try:
            built = problem.build(arch)
            rows.append(score(built, problem.space.identity(arch)))
        except ValueError:
            continue
        sizes.append(max(built.params, 1))
    if not rows:
        raise ValueError(f"refuse_worst can score none of {REFERENCE} random architectures; write 0")
    return np.array(sizes, float), {
        name: np.array([row[name] for row in rows]) for name in problem.config.candidate_scores
    }


def _loss(task: Any, recipe: Any, outputs: Any, y: Any) -> jax.Array:
    return jnp.asarray(task.loss(outputs, y, recipe))
