"""REINFORCE beside random search on real CIFAR-10 images at equal budget, several seeds.

    python benchmarks/reinforce_vs_random.py --data_dir=FOLDER [--seeds=3] [--out=runs/reinforce_vs_random]

Reduced to this size: 16x16 area-averaged images, filters {6, 12, 24, 36}, depth 4, 2,000 training and 1,000 validation
images, 3 epochs, 60 trials a run. A killed benchmark goes on where it was.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

import nasjax
from nasjax.experiments.reinforce import ReinforceConfig

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data_dir", required=True)
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--trials", type=int, default=60)
parser.add_argument("--learning_rate", type=float, default=0.02)
parser.add_argument("--samples_per_update", type=int, default=4)
parser.add_argument("--out", type=Path, default=Path("runs/reinforce_vs_random"))


def fitness(workdir: Path) -> np.ndarray:
    rows = [json.loads(line) for line in (workdir / "trials.jsonl").read_text().splitlines()]
    return np.array([np.nan if row["fitness"] is None else row["fitness"] for row in rows])


def main() -> None:
    args = parser.parse_args()
    results: dict[str, list[np.ndarray]] = {"random": [], "reinforce": []}
    for seed in range(args.seeds):
        for method, runs in results.items():
            config = nasjax.configure(method, dataset="cifar10")
            data = dataclasses.replace(
                config.data, data_dir=args.data_dir, resize=16, train_limit=2000, valid_limit=1000
            )
            recipe = dataclasses.replace(config.recipe, epochs=3)
            changes = {"data": data, "recipe": recipe, "seed": seed, "trials": args.trials, "width": 4}
            if method == "reinforce":
                changes["search"] = ReinforceConfig(
                    learning_rate=args.learning_rate, samples_per_update=args.samples_per_update, depth_first=4
                )
            workdir = args.out / f"{method}-s{seed}"
            nasjax.search(dataclasses.replace(config, **changes), workdir)
            runs.append(fitness(workdir))
    print(f"\n{args.trials} trials a run, {args.seeds} seeds, jax {jax.__version__}, {jax.devices()[0].device_kind}")
    print("| method | best | mean of the first 20 | mean of the last 20 | mean of the best 5 |")
    print("| --- | --- | --- | --- | --- |")
    summary = {}
    for method, runs in results.items():
        figures = {
            "best": [np.nanmax(run) for run in runs],
            "first": [np.nanmean(run[:20]) for run in runs],
            "last": [np.nanmean(run[-20:]) for run in runs],
            "top5": [np.nanmean(np.sort(run[~np.isnan(run)])[-5:]) for run in runs],
        }
        summary[method] = {name: [round(float(v), 4) for v in values] for name, values in figures.items()}
        cells = [f"{np.mean(v):.2%} +- {np.std(v, ddof=1):.2%}" for v in figures.values()]
        print(f"| {method} | {' | '.join(cells)} |")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
