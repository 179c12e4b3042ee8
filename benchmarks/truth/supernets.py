"""How well supernets rank NAS-Bench-201's cells, whose true results are known, on CIFAR-10 images in miniature.

    python benchmarks/truth/supernets.py --data_dir=FOLDER --table=nas_bench_201.npz      # some 8 minutes a supernet

Per method and seed: a supernet of reduced size (C = 8, N = 1, 16x16 images), trained on 10,000 images; its scores of
300 random cells beside their test accuracy after 200 epochs in the benchmark; and what its search finds in 300 more,
beside the mean of the random cells and the best of them by score. All are searched by the evolution of SPOS, FairNAS
too, so that only scores differ. Bars are an untrained supernet judged in the same way, parameters alone, and the number
of convolutions, which is BN-NAS's indicator before any training. The standard error of Kendall's tau between unrelated
rankings of 300 is 0.04, of Spearman's rho 0.06; supernets of several seeds say how far trainings differ.

SPOS smooths its labels by 0.1 as in its release, FairNAS does not. `spos, rate 0.025` is trained as the benchmark's
authors train weight-sharing methods: cosine from 0.025 to 0.001, norm of the gradient clipped at 5, decay 5e-4, no
smoothing. BN-NAS trains all batch norms of a frozen network, for all epochs.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from miniature import agreement, arguments, bars, folder, settings, sizes

from nasjax import commands
from nasjax.evaluators.table import load_table
from nasjax.experiments.families.supernets import parts
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Proposal

GENTLE = (
    "learning_rate=0.025",
    "final_rate=0.001",
    "schedule=cosine",
    "clip=5",
    "weight_decay=5e-4",
    "label_smoothing=0",
)
METHODS: dict[str, tuple[str, float, list[str]]] = {  # name -> method, share of the epochs, changes
    "spos": ("spos", 1, []),
    # five gradients are added up in a step
    "fairnas": ("fairnas", 1 / 5, ["supernet.descent.learning_rate=0.02"]),
    "bn_nas": ("bn_nas", 1, ["supernet.early_bird=none"]),
    "spos, rate 0.025": ("spos", 1, [f"supernet.descent.{change}" for change in GENTLE]),
}


def configuration(name: str, args: argparse.Namespace, seed: int) -> Any:
    """A supernet in miniature, whose first generation of the search is `args.cells` random cells."""
    method, share, changes = METHODS[name]
    return override(
        commands.configure(method, "demo", "cifar10", "tabular_cell"),
        *sizes(args, seed, train=args.images, valid=2000),
        f"supernet.epochs={max(1, round(share * args.epochs))}",
        "supernet.descent.learning_rate=0.1",
        *changes,
        "search.searcher=topk",
        f"search.population={args.cells}",
        f"search.mutants={args.cells // 2}",
        f"search.crossovers={args.cells // 2}",
        f"trials={2 * args.cells}",
    )


def searched(name: str, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What a method's scores say of random cells, and what it finds."""
    path = folder(args, name, seed)
    commands.search(configuration(name, args, seed), path)
    rows = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    random, truths = rows[: args.cells], [row["result"] for row in rows[: args.cells]]
    best = max(rows, key=lambda row: row["fitness"])
    return {
        **agreement([row["fitness"] for row in random], truths),
        "bars": bars(np.array([TabularCell().decode(row["arch"]) for row in random]), np.array(truths)),
        "found": best["result"],
        "rank": best["result_rank"],
        "best by score of the random": max(random, key=lambda row: row["fitness"])["result"],
        "mean of the random": float(np.mean(truths)),
    }


def untrained(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """A supernet's scores before its training."""
    config = configuration("spos", args, seed)
    built = parts(Problem(config))
    key = jax.random.fold_in(jax.random.key(seed), 7)
    batches = built.batches
    state = built.stages.learner(0, {}).init(key, batches.batch(key, batches.shuffle(key, 0), 0))
    archs = jax.vmap(config.space.sample)(jax.random.split(key, args.cells))
    proposal = Proposal(jnp.arange(args.cells), archs, jnp.full(args.cells, -1))
    scores = np.asarray(built.evaluator(state).evaluate(key, proposal, None)[0].fitness)
    return agreement(scores, load_table(args.table, config.space).result[np.asarray(config.space.index(archs))])


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """Means over seeds, with standard deviations."""

    def told(key: str, unit: float = 1, digits: int = 3) -> str:
        values = [unit * row[key] for row in rows]
        spread = f" +- {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{digits}f}{spread}"

    each = ", ".join(f"{row['spearman']:.2f}" for row in rows)
    cells = [name, told("tau"), told("spearman"), each]
    if "found" in rows[0]:
        cells += [told("found", 100, 2), ", ".join(f"{row['rank']:,}" for row in rows)]
        cells += [told("best by score of the random", 100, 2), told("mean of the random", 100, 2)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = arguments(__doc__, "runs/truth-supernets", seeds=3)
    parser.add_argument("--methods", nargs="*", default=["spos", "fairnas", "bn_nas"], choices=METHODS)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=120, help="FairNAS, with five passes a step, has a fifth")
    args = parser.parse_args()
    found: dict[str, list[Any]] = {"untrained": [untrained(args, seed) for seed in range(args.seeds)]}
    print(json.dumps({"untrained": found["untrained"]}), flush=True)
    for method in args.methods:
        found[method] = []
        for seed in range(args.seeds):
            found[method].append(searched(method, args, seed))
            print(json.dumps({"method": method, "seed": seed, **found[method][-1]}), flush=True)
    print(
        "\n| scores | tau | Spearman | of each seed | found, true | ranks | best of the random by score | their mean |"
    )
    print("|" + " --- |" * 8)
    first = next(rows for name, rows in found.items() if name != "untrained")
    for bar in ("parameters", "convolutions"):
        print(line(bar, [row["bars"][bar] for row in first]))
    for name, rows in found.items():
        print(line(name, rows))
    print(json.dumps({"benchmark": "truth/supernets", **settings(args), "results": found, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
