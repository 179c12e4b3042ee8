"""DARTS, MSR-DARTS and random cells on real CIFAR-10 images, searched and retrained at equal reduced settings.

    python benchmarks/cells_on_cifar10.py --data_dir=FOLDER          # the original python format; about 20 minutes
    python benchmarks/cells_on_cifar10.py --data_dir=FOLDER --seeds=1 --size=32 --images=10000

The miniature of the MSR-DARTS article's Table 1 (accuracy, loss, parameters). Both searches see the same 4:1 split,
network, epochs and batch; each derived cell and one drawn at random is trained from scratch with the same recipe and
tested once. At this scale it compares programs, not methods: the differences are within the spread of the seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from nasjax import commands
from nasjax.settings import override
from nasjax.spaces.darts_cell.space import DartsCell


def configuration(method: str, args: argparse.Namespace, seed: int):
    settings = [
        f"data.data_dir={args.data_dir}",
        f"data.resize={args.size}",
        f"data.train_limit={args.images * 4 // 5}",
        f"data.valid_limit={args.images // 5}",
        "data.valid_size=10000",
        f"search.channels={args.channels}",
        f"search.layers={args.layers}",
        f"search.epochs={args.epochs}",
        "search.batch_size=64",
        f"form.channels={args.channels}",
        f"form.layers={args.layers}",
        f"retrain_recipe.epochs={args.retrain_epochs}",
        "retrain_recipe.batch_size=64",
        f"seed={seed}",
    ]
    return override(commands.configure(method, "demo", "cifar10"), *settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/cells_on_cifar10"), help="goes on where it stopped")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--retrain_epochs", type=int, default=15)
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(args.workdir / "xla"))  # the seeds share their programs
    found: dict[str, list[dict]] = {"darts": [], "msr_darts": [], "random cell": []}
    for seed in range(args.seeds):
        for name, results in found.items():
            method = "darts" if name == "random cell" else name
            config = configuration(method, args, seed)
            path = args.workdir / f"{name.replace(' ', '_')}-s{seed}"
            arch, gap = None, (np.nan, np.nan)
            if name == "random cell":
                space = DartsCell()
                arch = json.dumps(space.encode(np.asarray(space.sample(jax.random.key(seed)))))
            else:
                commands.search(config, path)
                best = json.loads((path / "best.json").read_text())
                gap = best["search_accuracy"], best["fitness"]
            result = commands.retrain(config, path, arch).result
            skips = sum(operator == "skip_connect" for operator, _ in result["arch"]["normal"])
            results.append(
                {k: result[k] for k in ("test_accuracy", "train_loss", "params", "seconds")}
                | {"skips": skips, "search": gap[0], "derived": gap[1]}
            )
    print("| cell | test accuracy | training loss | parameters | skips (normal) | search / derived |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, results in found.items():
        columns = {key: np.array([r[key] for r in results]) for key in results[0]}
        accuracy, loss = columns["test_accuracy"], columns["train_loss"]
        print(
            f"| {name} | {accuracy.mean():.2%} +- {accuracy.std():.2%} | {loss.mean():.3f} +- {loss.std():.3f} "
            f"| {columns['params'].mean():,.0f} | {columns['skips'].mean():.1f} "
            f"| {columns['search'].mean():.1%} / {columns['derived'].mean():.1%} |"
        )
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    del settings["data_dir"], settings["workdir"]
    print(json.dumps({"benchmark": "cells_on_cifar10", **settings, "results": found, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
