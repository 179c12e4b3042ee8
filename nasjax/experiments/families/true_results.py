"""True results beside what a search goes by, where a table holds them: `--truth=FILE` with NAS-Bench-201's cells."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.drive.rows import scalar_fitness
from nasjax.evaluators.table import load_table
from nasjax.store import checkpoint

Describe = Callable[[np.ndarray], dict[str, Any]]


def with_truth(config: Any, describe: Describe) -> Describe:
    """`describe`, with "result" (that of the table, a fraction) and "result_rank" (1 = the best of all).

    Raises ValueError where the table cannot be read, or is of another space.
    """
    if not config.truth:
        return describe
    results, ranks = _table(config.truth, config.space)

    def told(arch: np.ndarray) -> dict[str, Any]:
        row = int(config.space.index(arch))
        known = np.isfinite(results[row])
        return {**describe(arch), "result": float(results[row]) if known else None, "result_rank": int(ranks[row])}

    return told


def lines(config: Any, path: Path) -> list[str]:
    """What the finished search in `path` comes to in truth."""
    if not config.truth:
        return []
    from scipy.stats import kendalltau, spearmanr

    results, _ = _table(config.truth, config.space)
    rows = [row for row in checkpoint.read_lines(path / "trials.jsonl") if row["fitness"] is not None and row["result"]]
    if not rows:
        return []
    best, known = max(rows, key=scalar_fitness), np.isfinite(results)
    told = (
        f"Truth: the best has {best['result']:.2%}, rank {best['result_rank']:,} of {int(known.sum()):,} "
        f"(mean of all {results[known].mean():.2%}, highest {results[known].max():.2%})."
    )
    scores, truths = [scalar_fitness(row) for row in rows], [row["result"] for row in rows]
    if len(set(scores)) < 2 or len(set(truths)) < 2:
        return [told]
    order = (
        f"Fitness and truth of {len(rows)} trials: Kendall's tau {kendalltau(scores, truths).statistic:.3f}, "
        f"Spearman {spearmanr(scores, truths).statistic:.3f}"
    )
    params = [row["params"] for row in rows]
    if all(params) and len(set(params)) > 1:
        order += f"; parameters alone: Spearman {spearmanr(params, truths).statistic:.3f}"
    return [told, order + "."]


@functools.lru_cache(maxsize=4)
def _table(path: str, space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Results f32[R], and their ranks from 1; what is not known comes last."""
    results = load_table(path, space).result
    order = np.argsort(-np.nan_to_num(results, nan=-np.inf), kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return results, ranks
