"""Random candidates without those that score worst untrained (NASWOT, `evaluators.zero_cost`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.drive.streams import streams
from nasjax.evaluators.children import network_of
from nasjax.evaluators.zero_cost import naswot
from nasjax.problem.problem import Problem
from nasjax.store import checkpoint
from nasjax.train.compiling import jit
from nasjax.types import Proposal, Watch

NAME = "prefilter.jsonl"
IMAGES = 128  # of NASWOT's paper
_BAND = 25  # candidates of like size that are compared with each other: scores grow with a network's ReLUs


def best_random(problem: Problem, part: float, number: int, path: Path, watch: Watch) -> np.ndarray:
    """Random architectures of a space, less the worst by their NASWOT scores.

    So many are drawn that `number` stay. They are compared with those of like parameters only, in bands of 25 or
    more. One that cannot be built or scored goes first. What was drawn, and what stayed, is kept in
    `path`/prefilter.jsonl and read from there when a search resumes.

    Args:
      problem: of a `CandidateConfig`; its space, data, recipe and seed count.
      part: of all that are drawn, in (0, 1).
      number: how many to return.
      path: the workdir.
      watch: told how many stay.

    Returns:
      i32[number, A].

    Raises:
      ValueError: no network has a score, as those without ReLUs.
    """
    file = path / NAME
    if not file.exists():
        archs, params, scores = _scored(problem, math.ceil(number / (1 - part)))
        gone = set(dropped(params, scores, len(archs) - number))
        columns = enumerate(zip(archs.tolist(), params, scores, strict=True))
        lines = [{"genes": a, "params": p, "score": s, "kept": n not in gone} for n, (a, p, s) in columns]
        with checkpoint.writing(path):
            checkpoint.replace_lines(file, lines)
        some = f"; they are {n} different ones" if (n := len(np.unique(archs, axis=0))) < len(archs) else ""
        watch.say(f"NASWOT: {number} of {len(archs)} random candidates stay ({file}){some}")
    rows = checkpoint.read_lines(file)
    return np.array([row["genes"] for row in rows if row["kept"]], np.int32)


def require_images(problem: Problem) -> None:
    """Raises ValueError where nothing is trained, or networks do not read images."""
    if problem.looked_up or problem.task.contiguous:
        raise ValueError(
            f"search.prefilter scores networks on images; --space={problem.space.name} has none: leave it 0"
        )


def dropped(params: Sequence[int | None], scores: Sequence[float | None], number: int) -> list[int]:
    """Which `number` candidates are the worst among those of their size; those without a score (None) come first."""
    place = {n: -1.0 for n, score in enumerate(scores) if score is None}
    known = [
        (size or 0, n, score) for n, (size, score) in enumerate(zip(params, scores, strict=True)) if score is not None
    ]
    by_size = sorted(known)
    bands = max(1, len(by_size) // _BAND)
    for band in (by_size[i * len(by_size) // bands : (i + 1) * len(by_size) // bands] for i in range(bands)):
        ranked = sorted(band, key=lambda one: (one[2], one[1]))
        place |= {n: rank / len(ranked) for rank, (_, n, _) in enumerate(ranked)}
    return sorted(sorted(place, key=lambda n: (place[n], n))[:number])


def _scored(problem: Problem, number: int) -> tuple[np.ndarray, list[int | None], list[float | None]]:
    """Random architectures, their parameters and scores; None where there are none."""
    config, data = problem.config, problem.data
    key, key_draw = jax.random.split(streams(config.seed).prefilter)
    archs = jit(jax.vmap(problem.space.sample))(jax.random.split(key_draw, number))

    def params(arch: np.ndarray) -> int | None:
        try:
            return problem.build(arch).params
        except ValueError:
            return None

    images = problem.task.inputs(np.asarray(data.train.x[:IMAGES]), data.mean, data.std)
    evaluator = naswot(lambda arch: (network_of(problem.build(arch), config.recipe), None), images)
    ids = jnp.arange(number)
    evaluation, _ = evaluator.evaluate(key, Proposal(ids, archs, jnp.full_like(ids, -1)), None)
    scores = [float(score) if np.isfinite(score) else None for score in np.asarray(evaluation.fitness)]
    if all(score is None for score in scores):
        raise ValueError(
            f"search.prefilter can score none of {number} random networks of --space={problem.space.name} "
            f"({evaluation.info['error'][0]}); leave it 0"
        )
    return np.asarray(archs), [params(arch) for arch in np.asarray(archs)], scores
