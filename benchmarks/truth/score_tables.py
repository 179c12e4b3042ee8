"""The evolutions of SPOS, BN-NAS and FairNAS where the optimum is known: random score tables on BN-NAS's full space.

    python benchmarks/truth/score_tables.py [--seeds=50]           # a minute or two on two CPU cores

A table of scores, uniform in 0..1 for every layer and operator, takes the place of a supernet, so that a path's score
is a sum and the best path within 475M multiply-adds is found exactly (`searchers/additive.py`). Every seed has a table
of its own. The evolution has the published settings: 1,050 paths, 50 a generation, the best 10 of all as parents, 25
mutants and 25 crossovers. Random search draws as many paths within the same limit. NSGA-II (FairNAS) goes by score and
multiply-adds; a front's hypervolume is measured from score 0 and the limit, as a part of that of the exact front.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.drive.scan import scan
from nasjax.evaluators.supernet import indicator, with_costs
from nasjax.searchers.additive import best_path
from nasjax.searchers.nsga2 import nsga2
from nasjax.searchers.topk import topk_evolution
from nasjax.spaces.choice_chain.plan import ChoicePlan, counter
from nasjax.spaces.choice_chain.space import variant
from nasjax.types import Evaluator, Searcher

LIMIT = 475_000_000 - 1_727_000  # in our count, see docs/methods/bn_nas.md
STEPS = 400  # limits of multiply-adds at which the exact front is known


Judge = Callable[[jax.Array], Evaluator]  # a table of scores -> the evaluator


def histories(searcher: Searcher, judge: Judge, tables: jax.Array, trials: int, macs: Any) -> np.ndarray:
    """Score and multiply-adds f64[seeds, 2, trials] of what a searcher tries on every table; -inf where nothing."""

    def run(seed: jax.Array) -> jax.Array:
        history = scan(jax.random.key(seed), searcher, judge(tables[seed]), trials=trials, width=50)
        score = history.fitness if history.fitness.ndim == 1 else history.fitness[:, 0]
        return jnp.stack([jnp.where(history.valid, score, -jnp.inf), macs(history.arch).astype(jnp.float32)])

    return np.asarray(jax.jit(lambda: jax.lax.map(run, jnp.arange(len(tables))))(), np.float64)


def hypervolume(scores: np.ndarray, macs: np.ndarray) -> float:
    """Area between the points' front and the corner (score 0, LIMIT), in score times part of the limit."""
    order = np.lexsort((-scores, macs))
    best = np.maximum.accumulate(scores[order])
    edges = np.append(np.minimum(macs[order], LIMIT), LIMIT)
    return float((np.maximum(best, 0) * np.diff(edges)).sum() / LIMIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--trials", type=int, default=1050)
    args = parser.parse_args()
    space = variant("bn_nas")
    plan = ChoicePlan(space)
    macs, m = counter(plan, "macs"), len(space.operators)
    rng = np.random.default_rng(0)
    tables = rng.random((args.seeds, space.layers, m + 1), np.float32)
    tables[:, :, m] = 0
    tables[:, list(space.removed)] = 0
    costs = plan.table.macs[:, :, 0]

    def exact(table: np.ndarray, limit: int) -> tuple[float, int]:
        scores = table.astype(np.float64)
        scores[:, m] = -np.inf
        scores[list(space.removed)] = np.where(np.arange(m + 1) == m, 0, -np.inf)
        _, score, spent = best_path(scores, costs, limit, plan.fixed.macs)
        return score, spent

    best = np.array([exact(table, LIMIT)[0] for table in tables])
    feasible = lambda arch: macs(arch) <= LIMIT  # noqa: E731
    arrays = jnp.asarray(tables)
    scored = lambda table: indicator(space, table)  # noqa: E731
    settings: dict[str, tuple[Searcher, Judge]] = {
        "topk evolution": (topk_evolution(space, feasible=feasible, capacity=args.trials), scored),
        "random": (topk_evolution(space, mutants=0, crossovers=0, feasible=feasible, capacity=args.trials), scored),
        "NSGA-II": (
            nsga2(space, objectives=2, feasible=feasible, capacity=args.trials),
            lambda table: with_costs(scored(table), macs),
        ),
    }
    fronts = []
    for table in tables:
        cheapest = plan.smallest()[1]
        points = [exact(table, int(limit)) for limit in np.linspace(cheapest, LIMIT, STEPS)]
        fronts.append(hypervolume(*np.array(points, float).T))
    rows: dict[str, Any] = {}
    print(f"{args.seeds} tables, {args.trials} paths; the best path of all scores {best.mean():.3f}")
    print(f"{'':16} gap to the optimum   optimum found   hypervolume")
    for name, (searcher, judge) in settings.items():
        found = histories(searcher, judge, arrays, args.trials, macs)
        gap = best - found[:, 0].max(1)
        share = np.array([hypervolume(*points) for points in found]) / np.array(fronts)
        errors = [float(values.std(ddof=1) / np.sqrt(args.seeds)) for values in (gap, share)]
        hits = int((gap < 1e-4).sum())
        rows[name] = {"gap": float(gap.mean()), "hypervolume": float(share.mean()), "errors": errors, "hits": hits}
        part = f"{share.mean():.1%} +- {errors[1]:.1%}"
        print(f"{name:16} {gap.mean():.3f} +- {errors[0]:.3f}      {hits:3}             {part}")
    print(json.dumps({"benchmark": "truth/score_tables", **vars(args), "results": rows, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
