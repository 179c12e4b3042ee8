"""NASWOT's score of NAS-Bench-201's cells beside their true results and beside published scores of the same cells.

    python benchmarks/truth/naswot.py --data_dir=FOLDER --table=nas_bench_201.npz [--scores=nas_bench_201_zero_cost.npz]

Random cells at the benchmark's size (C = 16, N = 5, 32x32 CIFAR-10 images, one batch), untrained. Mellor et al. 2021
(arXiv:2006.04647) take 128 images. Spearman's rho with the test accuracy after 200 epochs; cells whose score is -inf
(two images with equal codes) count as the worst. Seconds per cell are the median, with nothing left to compile.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import kendalltau, spearmanr

from nasjax.data.dataset import DataConfig
from nasjax.evaluators.table import load_table
from nasjax.evaluators.zero_cost import naswot
from nasjax.nets.tabular_cell.network import tabular_cell
from nasjax.problem.data import load
from nasjax.spaces.tabular_cell.plan import TabularForm, TabularPlan
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.tasks.classification import TASK
from nasjax.types import Proposal

_AT_A_TIME = 50  # cells between two lines that say how far it is


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--table", required=True, help="the .npz that nasjax.evaluators.table describes")
    parser.add_argument("--scores", help="an .npz with naswot_cifar10 of all cells, in the table's order")
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=5)
    args = parser.parse_args()
    space, data = TabularCell(), load(DataConfig("cifar10", args.data_dir))
    chosen = np.random.default_rng(0).choice(len(data.train.x), args.images, replace=False)
    images = TASK.inputs(jnp.asarray(data.train.x[np.sort(chosen)]), jnp.asarray(data.mean), jnp.asarray(data.std))
    plan = TabularPlan(space, TabularForm(args.channels, args.blocks), images.shape[1:], 10)
    rows = np.random.default_rng(1).choice(space.size(), args.cells, replace=False)
    archs = space.enumerate()[rows]
    evaluator = naswot(lambda arch: (tabular_cell(plan, arch), None), images)
    found, seconds = [], []
    for n in range(0, args.cells, _AT_A_TIME):
        part = jnp.asarray(archs[n : n + _AT_A_TIME])
        proposal = Proposal(jnp.arange(n, n + len(part)), part, jnp.full(len(part), -1))
        evaluation, _ = evaluator.evaluate(jax.random.key(0), proposal, None)
        found.append(np.nan_to_num(np.asarray(evaluation.fitness, float), nan=-1e9))
        seconds.append(np.asarray(evaluation.cost))
        print(f"# {n + len(part)} of {args.cells} cells, {np.median(seconds[-1]):.2f} s each", flush=True)
    scores = np.concatenate(found)
    truths = load_table(args.table, space).result[np.asarray(space.index(jnp.asarray(archs)))]
    result: dict[str, Any] = {
        "spearman": float(spearmanr(scores, truths).statistic),
        "tau": float(kendalltau(scores, truths).statistic),
        "params, spearman": float(spearmanr(plan.count(archs)[0], truths).statistic),
        "median s": float(np.median(np.concatenate(seconds))),
        "without a score": int((scores == -1e9).sum()),
    }
    if args.scores:
        with np.load(args.scores) as file, np.load(args.table) as table:
            place = {tuple(ops): n for n, ops in enumerate(table["ops"].tolist())}
            theirs = np.nan_to_num(file["naswot_cifar10"][[place[tuple(arch)] for arch in archs.tolist()]], neginf=-1e9)
        result["published scores, spearman"] = float(spearmanr(theirs, truths).statistic)
        result["ours with theirs, spearman"] = float(spearmanr(scores, theirs).statistic)
    settings = {key: value for key, value in vars(args).items() if key not in ("data_dir", "table", "scores")}
    print(json.dumps({"benchmark": "truth/naswot", **settings, "results": result, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
