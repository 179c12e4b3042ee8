"""Searches by gradients over NAS-Bench-201's cells, whose true results are known, on CIFAR-10 images in miniature.

    python benchmarks/truth/gradients.py --data_dir=FOLDER --table=nas_bench_201.npz      # some 15 minutes a search

Per method and seed: what the cell of every epoch is truly worth, its skip connections and the dominant eigenvalue of
the validation loss's Hessian in the architecture (Zela et al. 2020; `--no_eigenvalue` leaves it out), and what their
rule would have taken; and how `--cells` random cells are ordered by the sum of log softmax(alpha) over their edges, and
by their validation accuracy in the search network with the weights that it has, beside their parameters alone (tau and
Spearman; their standard errors between unrelated rankings of 300 are 0.04 and 0.06). Second order is the paper's finite
difference; "exact" takes the mixed product itself. `--epochs` are those of DrNAS's two stages together. GDAS and DrNAS
have no eigenvalue: they draw their mixing weights.
"""

from __future__ import annotations

import argparse
import functools
import json
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from miniature import agreement, arguments, bars, folder, settings, sizes

from nasjax import catalog, commands
from nasjax.evaluators.table import load_table
from nasjax.experiments.families import gradients_run
from nasjax.learners.stopping import Stopping, stopped
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Watch

METHODS = {
    "darts, first order": ("darts", ["search.order=first"]),
    "darts, second order": ("darts", ["search.order=second"]),
    "darts, exact": ("darts", ["search.order=exact"]),
    "pc_darts": ("pc_darts", []),
    "gdas": ("gdas", []),
    "drnas": ("drnas", []),
}
CURVED = ("darts", "pc_darts")  # whose eigenvalue can be measured


def configuration(name: str, args: argparse.Namespace, seed: int) -> Any:
    """A search in miniature; half of the images are for the architecture."""
    method, changes = METHODS[name]
    epochs = args.epochs // 2 if method == "drnas" else args.epochs  # of each stage
    frozen = {"pc_darts": [round(0.3 * epochs)], "drnas": [round(0.2 * epochs)]}.get(method, [])
    return override(
        commands.configure(method, "demo", "cifar10", "tabular_cell"),
        *sizes(args, seed, train=args.images // 2, valid=args.images // 2),
        f"search.epochs={epochs}",
        "search.batch_size=64",
        *([f"search.stopping.measure={str(not args.no_eigenvalue).lower()}"] if method in CURVED else []),
        *changes,
        *(f"search.frozen_epochs={count}" for count in frozen),
    )


def searched(name: str, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """A search, epoch by epoch, and what its weights and its network say of random cells."""
    path, config = folder(args, name, seed), configuration(name, args, seed)
    commands.search(config, path)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (row,) = (json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines())
    space, kind = TabularCell(), METHODS[name][0]
    archs = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(seed), args.cells)))
    truths = load_table(args.table, space).result[np.asarray(space.index(jnp.asarray(archs)))]
    weights = np.maximum(lines[-1]["weights"]["cell"], 1e-6)  # a dropped operation has 0
    scores = np.log(weights)[np.arange(space.edges), archs].sum(1)
    parts = catalog.method(kind).parts(Problem(config))
    trees = [space.encode(arch) for arch in archs]
    accuracies = gradients_run.accuracies(
        parts, gradients_run.learned(parts, path, Watch()), trees, most=64 * args.batches
    )
    measured = range(len(lines) + 1) if kind in CURVED and not args.no_eigenvalue else ()
    rule = [stopped(Stopping("eigenvalue"), lines[:n]) for n in measured]
    taken = next((epoch for epoch in rule if epoch is not None), None)
    return {
        "found": row["result"],
        "rank": row["result_rank"],
        "cell": space.format(space.decode(row["arch"])),
        "weights": agreement(scores, truths),
        "accuracy": agreement([np.nan if value is None else value for value in accuracies], truths),
        "bars": bars(archs, truths),
        "taken by the eigenvalue's rule": None if taken is None else [taken + 1, lines[taken]["true_result"]],
        "epochs": [
            {key: line.get(key) for key in ("true_result", "skips", "eigenvalue", "valid_accuracy")} for line in lines
        ],
    }


TAKEN = operator.itemgetter("taken by the eigenvalue's rule")


def of(rows: list[dict[str, Any]], *path: str) -> str:
    """Means of an agreement over seeds."""
    found = [functools.reduce(operator.getitem, path, row) for row in rows]
    return ", ".join(f"{np.mean([order[key] for order in found]):.3f}" for key in ("tau", "spearman"))


def main() -> None:
    parser = arguments(__doc__, "runs/truth-gradients", seeds=1)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--no_eigenvalue", action="store_true", help="do not measure it after every epoch")
    parser.add_argument("--batches", type=int, default=16, help="of 64 validation images, for the cells' accuracies")
    args = parser.parse_args()
    found: dict[str, list[Any]] = {}
    for name in args.methods:
        for seed in range(args.seeds):
            found.setdefault(name, []).append(searched(name, args, seed))
            print(json.dumps({"method": name, "seed": seed, **found[name][-1]}), flush=True)
    print("\n| method | epoch | skips of 6 edges | true accuracy of its cell | dominant eigenvalue | of the network |")
    print("|" + " --- |" * 6)
    for name, rows in found.items():
        for epoch in sorted({1, *range(10, args.epochs, 10), len(rows[0]["epochs"])}):
            now = rows[0]["epochs"][epoch - 1]
            curved = "" if now["eigenvalue"] is None else f"{now['eigenvalue']:.3f}"
            told = f"{now['skips']} | {now['true_result']:.2%} | {curved} | {now['valid_accuracy']:.1%}"
            print(f"| {name} | {epoch} | {told} |")
    print("\n| method | found | ranks | by weights: tau, Spearman | by accuracy | by parameters | rule: epoch, truth |")
    print("|" + " --- |" * 7)
    for name, rows in found.items():
        ranks = ", ".join(f"{row['rank']:,}" for row in rows)
        orders = [of(rows, *path) for path in (("weights",), ("accuracy",), ("bars", "parameters"))]
        rules = ["never" if taken is None else f"{taken[0]}, {taken[1]:.2%}" for taken in map(TAKEN, rows)]
        mean = np.mean([row["found"] for row in rows])
        print(f"| {name} | {mean:.2%} | {ranks} | {' | '.join(orders)} | {'; '.join(rules)} |")
    print(json.dumps({"benchmark": "truth/gradients", **settings(args), "results": found, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
