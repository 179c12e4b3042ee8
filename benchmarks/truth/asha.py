"""ASHA beside random search with whole trainings, over chains that are really trained: time to the same accuracy.

    python benchmarks/truth/asha.py --data_dir=FOLDER [--out=runs/asha]      # about 25 minutes on one core

Chains of two or three convolutions of 6, 12 or 24 filters learn 2,000 CIFAR-10 images of 16x16 for 27 epochs. Random
search trains 10 of them; ASHA (rungs of 1, 3, 9 and 27 epochs, eta 3) has as many seconds of training and compiling as
random search took with the same seed. Only results of whole trainings count, for both. Cost is told in seconds of
candidates, and in multiply-adds trained, which no other program on the machine can change. A stopped script goes on
where it was. `benchmarks/results/asha.md` has the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import spearmanr

import nasjax
from nasjax.settings import override
from nasjax.spaces.conv_chain.space import ConvChain

SPACE = ConvChain(2, 3, (1, 3, 5), (1, 3, 5), (6, 12, 24))
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the budget


def searched(args: argparse.Namespace, method: str, seed: int, *more: str) -> list[dict[str, Any]]:
    """The rows of a search, in the order in which its trials ended."""
    workdir = args.out / f"{method}-s{seed}"
    config = override(
        dataclasses.replace(nasjax.configure(method.partition("-")[0], dataset="cifar10"), space=SPACE, seed=seed),
        f"data.data_dir={args.data_dir}",
        "data.resize=16",
        f"data.train_limit={args.images}",
        "data.valid_limit=2000",
        f"recipe.epochs={args.epochs}",
        "strategy=exact",
        "width=1",
        *more,
    )
    nasjax.search(config, workdir)
    return [json.loads(line) for line in (workdir / "trials.jsonl").read_text().splitlines()]


def track(rows: list[dict[str, Any]], args: argparse.Namespace) -> np.ndarray:
    """f64[T, 3]: seconds and multiply-adds trained so far, and the best of the whole trainings so far (NaN = none)."""
    before = {row["id"]: row.get("fidelity", 0) for row in rows}
    seconds = np.cumsum([row["cost_s"] for row in rows])
    added = [row.get("fidelity", args.epochs) - before.get(row["parent"], 0) for row in rows]
    work = np.cumsum([3.0 * args.images * row["macs"] * n for row, n in zip(rows, added, strict=True)])
    whole = [row["fitness"] if row.get("fidelity", args.epochs) == args.epochs else None for row in rows]
    best = np.fmax.accumulate([np.nan if fitness is None else fitness for fitness in whole])
    return np.stack([seconds, work, best], 1)


def at(found: np.ndarray, column: int, cost: float) -> float:
    """The best once so much was spent; 0 where no training was complete."""
    reached = found[found[:, column] <= cost * (1 + 1e-9), 2]
    return float(np.nan_to_num(reached[-1])) if len(reached) else 0.0


def reaches(found: np.ndarray, column: int, accuracy: float) -> float:
    """The cost at which the best is at least as good; infinity where it never is."""
    there = np.flatnonzero(found[:, 2] >= accuracy)
    return float(found[there[0], column]) if len(there) else np.inf


def agreement(runs: list[list[dict[str, Any]]], args: argparse.Namespace) -> dict[int, float]:
    """Spearman of the accuracy after so many epochs with that of the whole training, over all of random's chains."""
    curves = [(row["valid_curve"], row["fitness"]) for rows in runs for row in rows if row["fitness"] is not None]
    final = [fitness for _, fitness in curves]
    rungs = [n for n in (1, 3, 9) if n < args.epochs]
    return {n: float(spearmanr([max(c[max(0, n - 5) : n]) for c, _ in curves], final).statistic) for n in rungs}


def band(values: list[float], text: str = "{:.2%}") -> str:
    """Mean, and the lowest and highest of the seeds."""
    return f"{text.format(np.mean(values))} ({text.format(min(values))} to {text.format(max(values))})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/asha"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--eta", type=int, default=3)
    parser.add_argument("--sampler", default="random")
    args = parser.parse_args()
    searches: dict[str, list[list[dict[str, Any]]]] = {"random": [], "asha": []}
    for seed in range(args.seeds):
        rows = searched(args, "random", seed, f"trials={args.trials}")
        searches["random"].append(rows)
        cost = sum(row["cost_s"] for row in rows)
        of = [f"search.eta={args.eta}", f"search.sampler={args.sampler}", "trials=none", f"cost_s={cost!r}"]
        name = "asha" if args.sampler == "random" else f"asha-{args.sampler}"
        searches["asha"].append(searched(args, name, seed, *of))
    tracks = {name: [track(rows, args) for rows in runs] for name, runs in searches.items()}
    print(f"\njax {jax.__version__}, {jax.devices()[0].device_kind}; best of whole trainings, mean (lowest to highest)")
    for column, what in ((0, "seconds"), (1, "multiply-adds")):
        ends = [found[-1, column] for found in tracks["random"]]
        print(f"\n| method | {' | '.join(f'{share:.0%} of the {what}' for share in SHARES)} |")
        print(f"| --- |{' --- |' * len(SHARES)}")
        for name, runs in tracks.items():
            cells = [
                band([at(found, column, share * end) for found, end in zip(runs, ends, strict=True)])
                for share in SHARES
            ]
            print(f"| {name} | {' | '.join(cells)} |")
        targets = [found[-1, 2] for found in tracks["random"]]
        for name, runs in tracks.items():
            shares = [reaches(found, column, goal) / end for found, goal, end in zip(runs, targets, ends, strict=True)]
            print(
                f"{name} reaches what random has in the end after {', '.join(f'{s:.0%}' for s in shares)} of its {what}"
            )
        print(f"budgets: {', '.join(f'{end:.3g}' for end in ends)} {what}")
    for name, searched_rows in searches.items():
        for seed, rows in enumerate(searched_rows):
            rungs = sorted({row.get("fidelity", args.epochs) for row in rows})
            counts = [sum(row.get("fidelity", args.epochs) == rung for row in rows) for rung in rungs]
            told = ", ".join(f"{n} of {rung} epochs" for n, rung in zip(counts, rungs, strict=True))
            print(f"{name}, seed {seed}: {told}; {sum(row['status'] != 'ok' for row in rows)} failed")
    print("Spearman with the whole training, by epochs:", agreement(searches["random"], args))


if __name__ == "__main__":
    main()
