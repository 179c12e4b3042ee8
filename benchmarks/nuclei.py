"""Evolution of segmentation graphs on real nuclei, beside random graphs, no inheritance, UNet and UNet++.

    python benchmarks/nuclei.py --data_dir=FOLDER                 # images/ and masks/; about two hours on two cores
    python benchmarks/nuclei.py --data_dir=FOLDER --seeds=1 --reference_channels 8

Per seed: evolution with inherited weights over a fixed number of individuals, then evolution without and random graphs
until they have trained as many multiply-adds. Each best graph, UNet and UNet++ are then trained from scratch with
one recipe and tested once. Two worker processes, so the order of results differs from run to run.
A stopped script goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax import commands
from nasjax.settings import override
from nasjax.spaces.resolution_graph.named import NAMED
from nasjax.spaces.resolution_graph.space import ResolutionGraph

ROWS = {"evolution, inheriting": ("evolution", True), "evolution": ("evolution", False), "random": ("random", False)}


def configuration(name: str, args: argparse.Namespace, seed: int, trials: int) -> Any:
    """The configuration of one search."""
    method, inherits = ROWS[name]
    config = commands.configure(method, "demo", "nuclei_folder", "resolution_graph")
    space = ResolutionGraph(
        levels=4,
        max_nodes=24,
        max_edges=60,
        channels=(8,),
        min_params=args.min_params,
        max_params=args.max_params,
        extra_nodes=2,
    )
    settings = [
        f"data.data_dir={args.data_dir}",
        f"data.resize={args.size}",
        f"data.train_limit={args.images}",
        f"recipe.epochs={args.epochs}",
        "recipe.batch_size=16",
        "last_epochs=1",
        f"width={1 if args.workers else config.width}",
        f"workers={args.workers}",
        f"inherit={str(inherits).lower()}",
        f"seed={seed}",
        f"trials={trials}",
        f"recipe.optimizer={args.optimizer}",
        f"recipe.learning_rate={args.learning_rate}",
    ]
    if method == "evolution":
        settings += ["search.population=20", "search.sample_size=5"]
    return override(dataclasses.replace(config, space=space), *settings)


def final(config: Any, args: argparse.Namespace) -> Any:
    """The same problem with the images and the recipe of the last trainings."""
    return override(
        config,
        f"data.resize={args.final_size}",
        "data.train_limit=none",
        f"retrain_recipe.epochs={args.final_epochs}",
        "retrain_recipe.batch_size=16",
        f"retrain_recipe.optimizer={args.optimizer}",
        f"retrain_recipe.learning_rate={args.learning_rate}",
        "workers=0",
    )


def searched(name: str, args: argparse.Namespace, seed: int, macs: int, path: Path) -> list[dict]:
    """The rows of a search of `args.trials` individuals, or of so many that their multiply-adds reach `macs`."""
    trials = args.trials
    while True:
        commands.search(configuration(name, args, seed, trials), path)
        rows = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
        spent = np.cumsum([row["macs"] or 0 for row in rows])
        if not macs:
            return rows
        if spent[-1] >= macs:
            return rows[: int(np.searchsorted(spent, macs)) + 1]
        trials = max(len(rows) + 1, math.ceil(len(rows) * macs / spent[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/nuclei"), help="goes on where it stopped")
    parser.add_argument("--searches", nargs="*", default=list(ROWS), choices=list(ROWS), help="the first sets the cost")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--min_params", type=int, default=20_000)
    parser.add_argument("--max_params", type=int, default=300_000)
    parser.add_argument("--optimizer", default="adam", help="of all trainings")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--final_size", type=int, default=64)
    parser.add_argument("--final_epochs", type=int, default=40, help="0 = none is trained at the end")
    parser.add_argument(
        "--reference_channels", type=int, nargs="*", default=[32], help="of UNet's and UNet++'s level 0"
    )
    parser.add_argument("--skip", nargs="*", default=[], help="of the networks that are trained at the end")
    args = parser.parse_args()
    searches: dict[str, list[dict]] = {name: [] for name in args.searches}
    finals = {
        f"{name}, {channels} channels": json.dumps({**NAMED[name], "channels": channels})
        for channels in args.reference_channels
        for name in ("UNET", "UNETPP")
    }
    for seed in range(args.seeds):
        macs = 0
        for name, found in searches.items():
            path = args.workdir / f"{name.replace(', ', '_')}-s{seed}"
            trials = searched(name, args, seed, macs, path)
            done = [trial for trial in trials if trial["status"] == "ok"]
            spent = sum(trial["macs"] or 0 for trial in trials)
            macs = macs or spent
            fitness = np.array([trial["fitness"] for trial in done])
            found.append(
                {
                    "trials": len(trials),
                    "failed": len(trials) - len(done),
                    "multiply-adds": spent,
                    "cost_s": sum(trial["cost_s"] for trial in done),
                    "best": float(fitness.max()),
                    "mean of the last 20": float(fitness[-20:].mean()),
                    "best of 20 random": float(fitness[:20].max()),
                }
            )
            print(json.dumps({"search": name, "seed": seed, **found[-1]}))
            finals[f"{name}, seed {seed}"] = json.dumps(done[int(fitness.argmax())]["arch"])
    trained = {}
    config = final(configuration("evolution", args, 0, args.trials), args) if args.final_epochs else None
    for name, arch in finals.items():
        if name in args.skip or config is None:
            continue
        path = args.workdir / f"final-{name.replace(', ', '_').replace(' ', '')}"
        result = commands.retrain(config, path, arch).result
        trained[name] = {key: result[key] for key in result if key != "arch"}
        print(json.dumps({"trained": name, **trained[name]}))
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    del settings["data_dir"], settings["workdir"]
    result = {"searches": searches, "trained": trained, "jax": jax.__version__}
    print(json.dumps({"benchmark": "nuclei", **settings, **result}))


if __name__ == "__main__":
    main()
