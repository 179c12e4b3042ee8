"""Random candidates without those that score worst untrained, by NASWOT or other training-free scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from nasjax.drive.streams import streams
from nasjax.evaluators.scores.ranks import rank_sum
from nasjax.experiments.families.scored import scorer
from nasjax.problem.problem import Problem
from nasjax.store import checkpoint
from nasjax.train.compiling import jit
from nasjax.types import Space, Watch, one_line

NAME = "prefilter.jsonl"
DEFAULT = "naswot"  # what goes by no other scores
_BAND = 25  # candidates of like size that are compared with each other: scores grow with a network's ReLUs


def best_random(problem: Problem, space: Space, part: float, number: int, path: Path, watch: Watch) -> np.ndarray:
    """Random architectures of a space, less the worst by `candidate_scores` (none: NASWOT; several: sum of ranks).

    So many are drawn that `number` stay. They are compared with those of like parameters only, in bands of 25 or
    more. One that cannot be built or scored goes first. What was drawn, and what stayed, is kept in
    `path`/prefilter.jsonl and read from there when a search resumes.

    Args:
      problem: of a `CandidateConfig`; its data, recipe, scores and seed count.
      space: of the problem, or what of it keeps to limits.
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
        archs, params, scores = _scored(problem, space, math.ceil(number / (1 - part)))
        gone = set(dropped(params, scores, len(archs) - number))
        columns = enumerate(zip(archs.tolist(), params, scores, strict=True))
        lines = [{"genes": a, "params": p, "score": s, "kept": n not in gone} for n, (a, p, s) in columns]
        with checkpoint.writing(path):
            checkpoint.replace_lines(file, lines)
        some = f"; they are {n} different ones" if (n := len(np.unique(archs, axis=0))) < len(archs) else ""
        by = " and ".join(problem.config.candidate_scores or (DEFAULT,))
        watch.say(f"{by}: {number} of {len(archs)} random candidates stay ({file}){some}")
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


def _scored(problem: Problem, space: Space, number: int) -> tuple[np.ndarray, list[int | None], list[float | None]]:
    """Random architectures, their parameters and scores (of several the sum of ranks); None where there are none."""
    config = problem.config
    names = config.candidate_scores or (DEFAULT,)
    key_draw = jax.random.split(streams(config.seed).prefilter)[1]
    archs = np.asarray(jit(jax.vmap(space.sample))(jax.random.split(key_draw, number)))
    params: list[int | None] = [None] * number
    score, rows, error = scorer(problem, names), np.full((number, len(names)), np.nan), ""
    for n, arch in enumerate(archs):
        try:
            built = problem.build(arch)
            params[n] = built.params
            rows[n] = [*score(built, problem.space.identity(arch)).values()]
        except Exception as reason:  # a candidate that fails is a result
            error = error or one_line(reason)
    known = np.isfinite(rows).all(1)
    if not known.any():
        raise ValueError(
            f"search.prefilter can score none of {number} random networks of --space={problem.space.name} "
            f"({error or 'no score is finite'}); leave it 0"
        )
    values = np.full(number, np.nan)
    values[known] = rows[known, 0] if len(names) == 1 else rank_sum(rows[known].T)
    return archs, params, [float(value) if finite else None for value, finite in zip(values, known, strict=True)]
