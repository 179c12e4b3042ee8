"""Searches over NAS-Bench-201's cells whose children are trained in earnest, but small and short; the truth is known.

    python benchmarks/truth/trained_cells.py --data_dir=FOLDER --table=nas_bench_201.npz      # some 40 minutes

Per method and seed: how the validation accuracies of its children order them (tau and Spearman with the test accuracy
after 200 epochs in the benchmark), and what the child with the best of them is worth in truth, beside the truth of the
child with the most parameters, the mean of all children, and that of their last quarter. Random search's children are
the yardstick: their agreement says how much a short training tells. Of them the find at the cost of a supernet is
told, the best of as many as pass as many images forward and backward (a training pass counts three) as
`supernets.py` does with its defaults, search included; mean and deviation over drawings. Parameters alone are the bar.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
from miniature import agreement, arguments, folder, settings, sizes

from nasjax import commands
from nasjax.settings import override

# Images through a path of `supernets.py`: its training, and the calibration and validation of 600 cells.
SUPERNET = 3 * 120 * 10_000 + 600 * (512 + 2000)
METHODS: dict[str, list[str]] = {
    "random": [],
    "reinforce": ["search.samples_per_update=4"],
    "topk": ["search.population=20", "search.top_k=10", "search.mutants=10", "search.crossovers=10"],
    "evolution": ["search.population=20", "search.sample_size=5"],
}


def searched(method: str, args: Any, seed: int) -> dict[str, Any]:
    """One search, and how its children rank."""
    path = folder(args, method, seed)
    config = override(
        commands.configure(method, "demo", "cifar10", "tabular_cell"),
        *sizes(args, seed, train=args.images, valid=args.valid_images),
        f"recipe.epochs={args.epochs}",
        f"last_epochs={args.epochs}",
        f"trials={args.trials}",
        *METHODS[method],
    )
    commands.search(config, path)
    rows = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["status"] == "ok"]
    truths = [row["result"] for row in rows]
    best = max(rows, key=lambda row: row["fitness"])
    number = min(len(rows), max(1, SUPERNET // (args.epochs * (3 * args.images + args.valid_images))))
    draws = np.random.default_rng(0).permuted(np.tile(np.arange(len(rows)), (2000, 1)), axis=1)[:, :number]
    fittest = draws[np.arange(len(draws)), np.array([row["fitness"] for row in rows])[draws].argmax(1)]
    alike = np.array(truths)[fittest]
    return {
        **agreement([row["fitness"] for row in rows], truths),
        "params": agreement([row["params"] for row in rows], truths),
        "found": best["result"],
        "rank": best["result_rank"],
        "at a supernet's cost": [number, float(alike.mean()), float(alike.std())],
        "largest": max(rows, key=lambda row: row["params"])["result"],
        "mean": float(np.mean(truths)),
        "late": float(np.mean(truths[-len(truths) // 4 :])),
    }


def main() -> None:
    parser = arguments(__doc__, "runs/truth-trained-cells", seeds=1, images=10_000)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--valid_images", type=int, default=2000)
    args = parser.parse_args()
    found: dict[str, list[Any]] = {}
    for method in args.methods:
        for seed in range(args.seeds):
            found.setdefault(method, []).append(searched(method, args, seed))
            print(json.dumps({"method": method, "seed": seed, **found[method][-1]}), flush=True)
    print("\n| method | tau | Spearman | (parameters) | found | ranks | at a supernet's cost | largest | mean | end |")
    print("|" + " --- |" * 10)
    for method, rows in found.items():
        numbers = ("tau", "spearman", "found", "largest", "mean", "late")
        mean = {key: np.mean([row[key] for row in rows]) for key in numbers}
        bar, ranks = np.mean([row["params"]["spearman"] for row in rows]), ", ".join(f"{row['rank']:,}" for row in rows)
        told = f"{mean['tau']:.2f} | {mean['spearman']:.2f} | {bar:.2f} | {mean['found']:.2%} | {ranks}"
        number, alike, spread = rows[0]["at a supernet's cost"]
        told += f" | {alike:.2%} +- {spread:.2%} ({number} cells)" if method == "random" else " | "
        print(f"| {method} | {told} | {mean['largest']:.2%} | {mean['mean']:.2%} | {mean['late']:.2%} |")
    print(json.dumps({"benchmark": "truth/trained_cells", **settings(args), "results": found, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
