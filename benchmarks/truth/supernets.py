"""How well supernets rank NAS-Bench-201's cells, whose true results are known, on CIFAR-10 images in miniature.

    python benchmarks/truth/supernets.py --data_dir=FOLDER --table=nas_bench_201.npz      # some 10 minutes a supernet

Per method and seed: a supernet of reduced size (C = 8, N = 1, 16x16 images), trained on 10,000 images; its scores of
300 random cells beside their test accuracy after 200 epochs in the benchmark; and what its search finds in 300 more,
beside the mean of the random cells and the best of them by score. An untrained supernet, judged in the same way, and
parameters alone are the bars. The standard error of Kendall's tau between unrelated rankings of 300 is 0.04, of
Spearman's rho 0.06.
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
from nasjax.experiments.families.supernets import parts
from nasjax.settings import override
from nasjax.types import Proposal

METHODS = ("spos", "fairnas", "bn_nas")


def configuration(method: str, args: argparse.Namespace, seed: int) -> Any:
    """A supernet in miniature, whose first generation of the search is `args.cells` random cells."""
    rate = args.rate / 5 if method == "fairnas" else args.rate  # five gradients are added up in a step
    return override(
        commands.configure(method, "demo", "cifar10", "tabular_cell"),
        *sizes(args, seed, train=args.images, valid=2000),
        f"supernet.epochs={max(1, round(args.epochs / 5)) if method == 'fairnas' else args.epochs}",
        f"supernet.descent.rate={rate}",
        "search.searcher=topk",
        f"search.population={args.cells}",
        f"search.mutants={args.cells // 2}",
        f"search.crossovers={args.cells // 2}",
        f"trials={2 * args.cells}",
    )


def searched(method: str, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What a method's scores say of random cells, and what it finds."""
    path = args.workdir / f"{method}-s{seed}"
    commands.search(configuration(method, args, seed), path)
    rows = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    random, truths = rows[: args.cells], [row["result"] for row in rows[: args.cells]]
    best = max(rows, key=lambda row: row["fitness"])
    return {
        **agreement([row["fitness"] for row in random], truths),
        "params": agreement([row["params"] for row in random], truths),
        "found": best["result"],
        "rank": best["result_rank"],
        "best by score of the random": max(random, key=lambda row: row["fitness"])["result"],
        "mean of the random": float(np.mean(truths)),
    }


def untrained(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """A supernet's scores before its training."""
    config = configuration("spos", args, seed)
    built = parts(config)
    key = jax.random.fold_in(jax.random.key(seed), 7)
    batches = built.batches
    state = built.stages.learner(0, {}).init(key, batches.batch(key, batches.shuffle(key, 0), 0))
    archs = jax.vmap(config.space.sample)(jax.random.split(key, args.cells))
    proposal = Proposal(jnp.arange(args.cells), archs, jnp.full(args.cells, -1))
    scores = np.asarray(built.evaluator(state).evaluate(key, proposal, None)[0].fitness)
    return agreement(scores, load_table(args.table, config.space).result[np.asarray(config.space.index(archs))])


def main() -> None:
    parser = arguments(__doc__, "runs/truth-supernets", seeds=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=40, help="FairNAS, with five passes a step, has a fifth")
    parser.add_argument("--rate", type=float, default=0.1)
    args = parser.parse_args()
    found: dict[str, list[Any]] = {"untrained": [untrained(args, seed) for seed in range(args.seeds)]}
    print(json.dumps({"untrained": found["untrained"]}), flush=True)
    for method in args.methods:
        found[method] = []
        for seed in range(args.seeds):
            found[method].append(searched(method, args, seed))
            print(json.dumps({"method": method, "seed": seed, **found[method][-1]}), flush=True)
    print(f"{'':10} tau    Spearman  found   rank")
    for method, rows in found.items():
        means = [np.mean([row[name] for row in rows]) for name in ("tau", "spearman")]
        told = f"{method:10} {means[0]:.3f}  {means[1]:.3f}"
        if method != "untrained":
            told += f"     {np.mean([row['found'] for row in rows]):.2%}  {[row['rank'] for row in rows]}"
        print(told)
    print(json.dumps({"benchmark": "truth/supernets", **settings(args), "results": found, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
