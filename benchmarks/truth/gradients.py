"""DARTS and PC-DARTS over NAS-Bench-201's cells, whose true results are known, on CIFAR-10 images in miniature.

    python benchmarks/truth/gradients.py --data_dir=FOLDER --table=nas_bench_201.npz

Per method and seed: what the cell of every epoch is truly worth, its skip connections and, with `--eigenvalue`, the
dominant eigenvalue of the validation loss's Hessian in the architecture (Zela et al. 2020); and how the sum of log
softmax(alpha) over a cell's edges orders `--cells` random cells, beside their parameters alone (tau and Spearman; their
standard errors between unrelated rankings of 300 are 0.04 and 0.06). The published rows of this benchmark for DARTS on
CIFAR-10 are 54.30 % (first and second order: the cell of six skip connections; Dong & Yang 2020, Table 5).
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from miniature import agreement, arguments, settings, sizes

from nasjax import commands
from nasjax.evaluators.table import load_table
from nasjax.settings import override
from nasjax.spaces.tabular_cell import TabularCell
from nasjax.spaces.tabular_plan import TabularForm, TabularPlan

METHODS = {
    "darts, first order": ("darts", ["search.order=first"]),
    "darts, second order": ("darts", ["search.order=second"]),
    "pc_darts": ("pc_darts", []),
}


def configuration(name: str, args: argparse.Namespace, seed: int) -> Any:
    """A search in miniature; half of the images are for the architecture."""
    method, changes = METHODS[name]
    frozen = [f"search.frozen_epochs={round(0.3 * args.epochs)}"] if method == "pc_darts" else []
    return override(
        commands.configure(method, "demo", "cifar10", "tabular_cell"),
        *sizes(args, seed, train=args.images // 2, valid=args.images // 2),
        f"search.epochs={args.epochs}",
        "search.batch_size=64",
        f"search.stopping.measure={str(args.eigenvalue).lower()}",
        *changes,
        *frozen,
    )


def searched(name: str, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """A search, epoch by epoch, and what its weights of operations say of random cells."""
    path = args.workdir / f"{name.replace(', ', '_').replace(' ', '_')}-s{seed}"
    commands.search(configuration(name, args, seed), path)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (row,) = (json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines())
    space = TabularCell()
    archs = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(seed), args.cells)))
    truths = load_table(args.table, space).result[np.asarray(space.index(jnp.asarray(archs)))]
    scores = np.log(np.array(lines[-1]["weights"]["cell"]))[np.arange(space.edges), archs].sum(1)
    params, _ = TabularPlan(space, TabularForm(), (32, 32, 3), 10).count(archs)
    return {
        "found": row["result"],
        "rank": row["result_rank"],
        "cell": space.format(space.decode(row["arch"])),
        **agreement(scores, truths),
        "params_spearman": agreement(params, truths)["spearman"],
        "epochs": [
            {key: line.get(key) for key in ("true_result", "skips", "eigenvalue", "valid_accuracy")} for line in lines
        ],
    }


def main() -> None:
    parser = arguments(__doc__, "runs/truth-gradients", seeds=1)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--eigenvalue", action="store_true", help="measure it after every epoch")
    args = parser.parse_args()
    found: dict[str, list[Any]] = {}
    for name in args.methods:
        for seed in range(args.seeds):
            found.setdefault(name, []).append(searched(name, args, seed))
            print(json.dumps({"method": name, "seed": seed, **found[name][-1]}), flush=True)
    print(f"{'':20} found   rank    tau    Spearman  (parameters alone)")
    for name, rows in found.items():
        mean = {key: np.mean([row[key] for row in rows]) for key in ("found", "tau", "spearman", "params_spearman")}
        ranks = ",".join(str(row["rank"]) for row in rows)
        print(
            f"{name:20} {mean['found']:.2%}  {ranks:6}  {mean['tau']:.3f}  {mean['spearman']:.3f}     "
            f"({mean['params_spearman']:.3f})"
        )
    print(json.dumps({"benchmark": "truth/gradients", **settings(args), "results": found, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
