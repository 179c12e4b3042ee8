"""A supernet of CIFAR-10 goes on on MNIST: what `--init_from` saves.

    python benchmarks/init_from.py --data_dir=CIFAR --mnist=FOLDER     # the original files of both; six minutes a seed

The supernet of `spos` over a small space is trained on CIFAR-10 at 16x16. Then on MNIST as colour images of the same
size: from scratch for all epochs, from scratch for a tenth of the steps, and for a tenth of the steps from the first
one's weights (its head begun anew). A figure is the mean validation accuracy of the same random paths with inherited
weights, re-calibrated, and their deviation; seeds differ in everything random.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from nasjax import commands
from nasjax.drive.rows import scalar_fitness
from nasjax.settings import override
from nasjax.store import checkpoint

SPACE = (
    "space.family=mobile",
    "space.operators=mbconv_k3_e3,mbconv_k5_e3,mbconv_k3_e6,mbconv_k5_e6",
    "space.stem=8",
    "space.first=8",
    "space.channels=8,16,24",
    "space.depths=1,2,2",
    "space.strides=1,2,2",
    "space.tail=96",
)


def images(folder: Path, part: str) -> np.ndarray:
    """MNIST's images u8[N, 28, 28]."""
    data = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28)


def labels(folder: Path, part: str) -> np.ndarray:
    """Its digits, i[N]."""
    data = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(data, np.uint8, offset=8).astype(int)


def colour(x: np.ndarray) -> np.ndarray:
    """Grey images u8[N, 28, 28] as u8[N, 32, 32, 3], which data.resize=16 halves."""
    return np.repeat(np.pad(x, ((0, 0), (2, 2), (2, 2)))[..., None], 3, -1)


def accuracies(config: Any, path: Path) -> tuple[list[float], float]:
    """The accuracies of the paths of the first generation, and the supernet's seconds."""
    commands.search(config, path)
    rows = checkpoint.read_lines(path / "trials.jsonl")
    seconds = checkpoint.read_lines(path / "supernet" / "metrics.jsonl")[-1]["wall_s"]
    return [scalar_fitness(row) for row in rows], seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True, help="of CIFAR-10")
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/init_from"))
    parser.add_argument("--images", type=int, default=5000, help="of either training part")
    parser.add_argument("--epochs", type=int, default=20, help="a tenth of it is the short training")
    parser.add_argument("--paths", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    mnist = args.workdir / "mnist.npz"
    train = slice(0, args.images + 2000)
    np.savez(
        mnist,
        x=colour(images(args.mnist, "train")[train]),
        y=labels(args.mnist, "train")[train],
        x_test=colour(images(args.mnist, "t10k")),
        y_test=labels(args.mnist, "t10k"),
    )
    found: dict[str, list[float]] = {}
    for seed in range(args.seeds):

        def configuration(dataset: str, epochs: int, more: str = "", seed: int = seed) -> Any:
            folder = [f"data.data_dir={args.data_dir}"] if dataset == "cifar10" else []
            return override(
                commands.configure("spos", "demo", dataset),
                *folder,
                *SPACE,
                "data.resize=16",
                f"data.train_limit={args.images}",
                "data.valid_size=2000",
                f"supernet.epochs={epochs}",
                "supernet.batch_size=64",
                "supernet.descent.learning_rate=0.1",
                "supernet.descent.label_smoothing=0",
                f"search.population={args.paths}",
                f"search.mutants={args.paths // 2}",
                f"search.crossovers={args.paths // 2}",
                f"trials={args.paths}",
                f"seed={seed}",
                *([f"init_from={more}"] if more else []),
            )

        short, source = max(1, args.epochs // 10), args.workdir / f"cifar10-s{seed}"
        runs = {
            "CIFAR-10, from scratch": (configuration("cifar10", args.epochs), source),
            "MNIST, from scratch": (configuration(str(mnist), args.epochs), args.workdir / f"whole-s{seed}"),
            "MNIST, from scratch, a tenth": (configuration(str(mnist), short), args.workdir / f"tenth-s{seed}"),
            "MNIST, from CIFAR-10's, a tenth": (
                configuration(str(mnist), short, str(source)),
                args.workdir / f"begun-s{seed}",
            ),
        }
        for name, (config, path) in runs.items():
            values, seconds = accuracies(config, path)
            found.setdefault(name, []).append(float(np.mean(values)))
            print(f"seed {seed}: {name}: {np.mean(values):.2%} +- {np.std(values):.2%}, {seconds:.0f} s", flush=True)
    print("| supernet | mean accuracy of the paths, by seed |\n| --- | --- |")
    for name, values in found.items():
        print(f"| {name} | {', '.join(f'{value:.1%}' for value in values)} |")
    print(json.dumps({"benchmark": "init_from", **{k: str(v) for k, v in vars(args).items()}, "found": found}))


if __name__ == "__main__":
    main()
