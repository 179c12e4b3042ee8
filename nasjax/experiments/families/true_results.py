"""True results beside what a search goes by, where a table holds them: `--truth=FILE` with NAS-Bench-201's cells."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.drive.rows import rank, scalar_fitness
from nasjax.evaluators.table import Table, check_accuracies, load_table
from nasjax.learners.one_shot import kendall_tau
from nasjax.problem.problem import Problem
from nasjax.store import checkpoint

Describe = Callable[[np.ndarray], dict[str, Any]]


def with_truth(config: Any, describe: Describe) -> Describe:
    """`describe`, with "result" (that of the table, a fraction) and "result_rank" (1 = the best of all).

    Raises ValueError where the table cannot be read, or is of another space.
    """
    if not config.truth:
        return describe
    results, ranks = _table(config.truth, config.space, config.truth_percent)

    def told(arch: np.ndarray) -> dict[str, Any]:
        row = int(config.space.index(arch))
        known = np.isfinite(results[row])
        return {**describe(arch), "result": float(results[row]) if known else None, "result_rank": int(ranks[row])}

    return told


def order_by_weights(config: Any, weights: np.ndarray) -> dict[str, float | None]:
    """How the sum of the logarithms of a cell's operation weights, f[E, O], orders all cells of the table by truth."""
    results, _ = _table(config.truth, config.space, config.truth_percent)
    archs, edges = config.space.enumerate(), np.arange(config.space.edges)
    scores = np.log(np.maximum(np.asarray(weights, np.float64), 1e-300))[edges, archs].sum(1)
    return {f"true_{name}": value for name, value in _agreement(scores, results).items()}


def lines(problem: Problem, path: Path) -> list[str]:
    """What the finished search in `path` comes to in truth, in words; truth.json has it in numbers, too."""
    facts = _facts(problem, path) if problem.config.truth else None
    if facts is None:
        return []
    largest, random = facts["largest"], facts["random"]
    told = [
        f"Truth: the best has {facts['result']:.2%}, rank {facts['rank']:,} of {facts['cells']:,} (mean of all "
        f"{facts['mean']:.2%}, highest {facts['highest']:.2%}).",
        f"Beside it: the cell with the most parameters has {largest['result']:.2%}, rank {largest['rank']:,}; of "
        f"{random['cells']:,} cells drawn at random the best by the table's short training {random['result']:.2%} on "
        "average.",
        f"{facts['ordered']}: {_order(facts['scores'])}; parameters alone: {_order(facts['params'])}.",
    ]
    with checkpoint.writing(path):
        checkpoint.write_json(path / "truth.json", {**facts, "lines": told})
    return told


def _facts(problem: Problem, path: Path) -> dict[str, Any] | None:
    config = problem.config
    results, ranks = _table(config.truth, config.space, config.truth_percent)
    rows = [row for row in checkpoint.read_lines(path / "trials.jsonl") if row["fitness"] is not None]
    # by architecture: a search may have begun without the table
    places = [int(config.space.index(config.space.decode(row["arch"]))) for row in rows]
    known, fitness = np.isfinite(results), [scalar_fitness(row) for row in rows]
    there = [i for i, place in enumerate(places) if known[place]]
    if not there:
        return None
    best = places[max(there, key=lambda i: rank(rows[i]))]
    assert problem.builder.tabled is not None
    sizes = problem.builder.tabled(config.space, problem.form)
    largest = int(np.argmax(np.where(known, sizes, -1)))
    epochs = checkpoint.read_lines(path / "metrics.jsonl") if len(rows) == 1 else []
    if epochs and "weights" in epochs[-1]:  # of a search by gradients, which has one trial
        draws, ordered = 100, "Sum of the logarithms of a cell's operation weights, and its truth, over all cells"
        order = {**order_by_weights(config, epochs[-1]["weights"]["cell"]), **epochs[-1]}
        scores = {name: order[f"true_{name}"] for name in ("tau", "spearman")}
        params = _agreement(sizes, results)
    else:
        draws, ordered = len(rows), f"Fitness and truth of all {len(there)} trials"
        if (shortest := min(row.get("fidelity", 0) for row in rows)) > 0:  # trainings of one length can be compared
            draws = sum(row["fidelity"] == shortest for row in rows)
            there = [i for i in there if rows[i]["fidelity"] == shortest]
            ordered = f"Fitness after {shortest} epochs and truth of {len(there)} trials"
        truths = results[[places[i] for i in there]]
        scores = _agreement([fitness[i] for i in there], truths)
        params = _agreement([rows[i]["params"] for i in there], truths)
    return {
        "result": float(results[best]),
        "rank": int(ranks[best]),
        "cells": int(known.sum()),
        "mean": float(results[known].mean()),
        "highest": float(results[known].max()),
        "largest": {"result": float(results[largest]), "rank": int(ranks[largest])},
        "random": {
            "cells": draws,
            "result": _best_of(draws, _loaded(config.truth, config.space, config.truth_percent).fitness, results),
        },
        "ordered": ordered,
        "scores": scores,
        "params": params,
    }


def _order(found: dict[str, float | None]) -> str:
    if found["tau"] is None:
        return "undefined: one of the two is constant"
    return f"Kendall's tau {found['tau']:.3f}, Spearman {found['spearman']:.3f}"


def _agreement(scores: Any, truths: Any) -> dict[str, float | None]:
    """Kendall's tau and Spearman's rho; None where one of the two is constant."""
    from scipy.stats import spearmanr

    scores, truths = np.asarray(scores, np.float64), np.asarray(truths, np.float64)
    known = np.isfinite(scores) & np.isfinite(truths)
    if len(set(scores[known])) < 2 or len(set(truths[known])) < 2:
        return {"tau": None, "spearman": None}
    scores, truths = scores[known], truths[known]
    return {"tau": kendall_tau(scores, truths), "spearman": float(spearmanr(scores, truths).statistic)}


def _best_of(draws: int, fitness: np.ndarray, results: np.ndarray) -> float:
    """Expected result of the fittest of so many cells drawn at random, with replacement."""
    known = np.isfinite(fitness) & np.isfinite(results)
    by_fitness = results[known][np.argsort(-fitness[known], kind="stable")]
    below = np.arange(len(by_fitness), -1, -1) / len(by_fitness)  # share of the cells that come later
    return float(by_fitness @ (below[:-1] ** draws - below[1:] ** draws))


@functools.lru_cache(maxsize=4)
def _table(path: str, space: Any, percent: bool | None) -> tuple[np.ndarray, np.ndarray]:
    """Results f32[R], and their ranks from 1; what is not known comes last."""
    results = _loaded(path, space, percent).result
    order = np.argsort(-np.nan_to_num(results, nan=-np.inf), kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return results, ranks


def _loaded(path: str, space: Any, percent: bool | None) -> Table:
    rows = load_table(path, space, percent=percent, setting="truth_percent")
    check_accuracies(rows, path, "truth_percent")
    return rows
