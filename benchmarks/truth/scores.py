"""Training-free scores of NAS-Bench-201's cells beside their true results and beside published scores of the cells.

    python benchmarks/truth/scores.py --data_dir=FOLDER --table=nas_bench_201.npz --rows=FILE.jsonl
        [--published=nas_bench_201_zero_cost.npz] [--groups naswot synflow]

The first cells of the table (its order is random) at the benchmark's size (C = 16, N = 5, 32x32 CIFAR-10 images), one
batch, untrained. What is computed is kept in FILE.jsonl, a line per cell and group, and the same command goes on from
there. Spearman's rho with the test accuracy after 200 epochs; a score of -inf counts as the worst. Seconds per cell are
the median, with nothing left to compile. The group `kaiming` is synflow of weights drawn as in the published scores'
code (normal, variance 2 / fan-out), where the others have our networks' own initial values.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from nasjax.data.dataset import DataConfig
from nasjax.evaluators.scores.named import untrained_scores
from nasjax.evaluators.scores.ranks import rank_sum
from nasjax.evaluators.table import load_table
from nasjax.nets.tabular_cell.network import tabular_cell
from nasjax.problem.data import load
from nasjax.spaces.tabular_cell.plan import TabularForm, TabularPlan
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.tasks.classification import TASK

_GROUPS = {  # scores that share their passes
    "naswot": ("naswot",),
    "synflow": ("synflow", "logsynflow"),
    "kaiming": ("synflow", "logsynflow"),
    "gradient": ("grad_norm", "snip"),
    "jacob_cov": ("jacob_cov",),
    "zico": ("zico",),
}
_SUMS = (
    *(("naswot", "params"), ("naswot", "logsynflow"), ("naswot", "logsynflow", "params")),
    *(("naswot", "synflow", "jacob_cov"), ("naswot", "logsynflow", "zico")),
)
_AT_A_TIME = 50  # cells between two lines that say how far it is


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--table", required=True, help="the .npz that nasjax.evaluators.table describes")
    parser.add_argument("--rows", required=True, type=Path, help="what was computed so far")
    parser.add_argument("--published", help="an .npz with naswot_cifar10, ..., in the table's order")
    parser.add_argument("--groups", nargs="*", default=list(_GROUPS), choices=list(_GROUPS))
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=5)
    args = parser.parse_args()
    space, data = TabularCell(), load(DataConfig("cifar10", args.data_dir))
    chosen = np.sort(np.random.default_rng(0).choice(len(data.train.x), args.images, replace=False))
    x = TASK.inputs(jnp.asarray(data.train.x[chosen]), jnp.asarray(data.mean), jnp.asarray(data.std))
    y = jnp.asarray(data.train.y[chosen])
    plan = TabularPlan(space, TabularForm(args.channels, args.blocks), x.shape[1:], 10)
    with np.load(args.table) as table:
        names = [str(name) for name in table["op_names"]]
        archs = np.array([space.ops.index(name) for name in names], np.int32)[table["ops"][: args.cells]]
    for group in args.groups:
        compute(group, archs, plan, x, y, args.rows)
    truths = load_table(args.table, space).result[np.asarray(space.index(jnp.asarray(archs)))]
    result = compared(args.rows, archs, plan, truths, args.published)
    settings = {name: getattr(args, name) for name in ("groups", "cells", "images", "channels", "blocks")}
    print(json.dumps({"benchmark": "truth/scores", **settings, "results": result, "jax": jax.__version__}))


def compute(group: str, archs: np.ndarray, plan: TabularPlan, x: jax.Array, y: jax.Array, file: Path) -> None:
    """Adds the lines of a group that the file does not have."""
    have = {row["cell"] for row in read(file) if row["group"] == group}
    seconds = []
    for n in [n for n in range(len(archs)) if n not in have]:
        network = tabular_cell(plan, archs[n])
        key = jax.random.fold_in(jax.random.key(0), n)
        variables = network.init(key, None, x)
        if group == "kaiming":
            variables = {**variables, "params": kaiming(np.random.default_rng(n), variables["params"])}
        began = time.monotonic()
        found = untrained_scores(_GROUPS[group], network, variables, None, x, y)
        seconds.append(time.monotonic() - began)
        found = {name: value if np.isfinite(value) else None for name, value in found.items()}
        with file.open("a") as stream:
            stream.write(json.dumps({"group": group, "cell": n, "seconds": seconds[-1], "scores": found}) + "\n")
        if len(seconds) % _AT_A_TIME == 0:
            print(f"# {group}: {n + 1} of {len(archs)}, {np.median(seconds[-_AT_A_TIME:]):.3f} s each", flush=True)


def kaiming(rng: np.random.Generator, params: Any) -> Any:
    """Weights that are normal with the variance 2 / fan-out; scales, shifts and biases stay."""

    def drawn(leaf: jax.Array) -> Any:
        fan_out = np.prod(leaf.shape[:-2]) * leaf.shape[-1]
        return leaf if leaf.ndim < 2 else rng.normal(0, np.sqrt(2 / fan_out), leaf.shape).astype(np.float32)

    return jax.tree.map(drawn, params)


def compared(file: Path, archs: np.ndarray, plan: TabularPlan, truths: np.ndarray, published: str | None) -> Any:
    """The table: every score with the truth and with the published scores, and the null."""
    rows = read(file)
    columns: dict[str, np.ndarray] = {}
    took: dict[str, float] = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group and row["cell"] < len(archs)]
        took[group] = float(np.median([row["seconds"] for row in own]))
        for name in _GROUPS[group]:
            column = np.full(len(archs), np.nan)
            for row in own:
                value = row["scores"][name]
                column[row["cell"]] = -np.inf if value is None else value
            columns[f"{name}, kaiming" if group == "kaiming" else name] = column
    params, macs = plan.count(archs)
    columns |= {"params": params.astype(float), "macs": macs.astype(float)}
    for several in _SUMS:
        if set(several) <= set(columns):
            known = np.all([~np.isnan(columns[name]) for name in several], axis=0)
            column = np.full(len(archs), np.nan)
            column[known] = rank_sum([columns[name][known] for name in several])
            columns["rank sum of " + " + ".join(several)] = column
    theirs = dict(np.load(published)) if published else {}
    found = {}
    for name, column in columns.items():
        known = ~np.isnan(column)
        # A test on many cells that cannot tell images apart at all is easy, so those with a finite score alone, too.
        finite = np.isfinite(column)
        found[name] = {
            "cells": int(known.sum()),
            "without a score": int((known & ~finite).sum()),
            "spearman": rho(column[known], truths[known]),
            "spearman, finite": rho(column[finite], truths[finite]),
            "params there, spearman": rho(columns["params"][known], truths[known]),
        }
        if (stored := theirs.get(f"{name.split(',')[0]}_cifar10")) is not None:
            stored = stored[: len(archs)]
            both = finite & np.isfinite(stored)
            found[name] |= {
                "published with the truth": rho(stored[known], truths[known]),
                "ours with published": rho(column[known], stored[known]),
                "ours with published, finite": rho(column[both], stored[both]),
            }
    return {"scores": found, "median s": took}


def rho(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; -inf is the least."""
    return float(spearmanr(*(np.where(np.isneginf(side), -np.finfo(float).max, side) for side in (a, b))).statistic)


def read(file: Path) -> list[dict[str, Any]]:
    """Its lines."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
