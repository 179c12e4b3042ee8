"""An elastic supernet on CIFAR-10 in miniature: does it rank, and is its front worth its cost?

    python benchmarks/truth/elastic.py --data_dir=FOLDER      # goes on where it stopped
    python benchmarks/truth/elastic.py --data_dir=FOLDER --seeds=3 --images=16000 --epochs=6 --paths=20 \\
        --alone_epochs=4 --methods "spos entangled"           # a front beside five networks, half an hour of a core

A chain of inverted residuals over 16x16 images, kernels 3 and 5, expansions 1, 3, 6, layers that may be skipped; stem
and tail are small, so that the paths' multiply-adds differ a lot. Part of the training images is for validation. The
methods: bignas (sandwich, distillation, one set of arrays), "spos entangled" (one random path a step of the same set of
arrays, labels only), spos and fairnas (each operator with its own arrays).

Ranking: random paths by their accuracy with the supernet's weights, beside their accuracy on the test part after a
training alone from scratch, which the supernet has never seen; Kendall's tau of multiply-adds and of parameters beside
it, and with two seeds that of one training with the other. All methods have the same number of passes: one of BigNAS's
epochs is four of SPOS's.

Front: what NSGA-II finds in the supernet, with inherited weights, on the test part. Beside it five networks of the same
space trained alone, uniform in multiply-adds from the smallest to the largest, each for equally many epochs, with as
many multiply-adds in all as the supernet's training and its search. Hypervolume: the area under the best accuracy that
at most so many multiply-adds give, over multiply-adds from 0 to the largest network's, as a share of the rectangle from
chance (0.1) to an accuracy of 1. The front has as many points as the search found, so the five of its networks that are
best by validation within the five budgets are given, too. The random paths of the ranking have a row with their share
of the cost; `--five=0` leaves the five networks out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from planted_kernels import agreement, remembered

from nasjax import commands
from nasjax.evaluators.path_training import trained_alone
from nasjax.experiments.families.supernets import OneShot, parts
from nasjax.experiments.families.supernets_run import supernet
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.store import checkpoint
from nasjax.train.fit import resident
from nasjax.train.recipe import Recipe
from nasjax.types import Proposal, Watch

PASSES = {"bignas": 4, "spos": 1, "spos entangled": 1, "fairnas": 6}  # of a step
BUDGETS, CHANCE, VALID = 5, 0.1, 2000


def configuration(method: str, args: argparse.Namespace, seed: int) -> Any:
    """A supernet of `args.epochs` times four passes through the images, and a search by NSGA-II in it."""
    passes = PASSES[method]
    return override(
        commands.configure(method.split()[0], "demo", "cifar10"),
        f"data.data_dir={args.data_dir}",
        f"data.resize={args.size}",
        f"data.train_limit={args.images}",
        "data.valid_size=10000",
        f"data.valid_limit={VALID}",
        "space.family=mobile",
        "space.operators=mbconv_k3_e1,mbconv_k3_e3,mbconv_k3_e6,mbconv_k5_e1,mbconv_k5_e3,mbconv_k5_e6",
        "space.stem=16",
        "space.first=16",
        "space.stem_stride=1",
        f"space.channels={args.channels}",
        f"space.depths={args.depths}",
        f"space.strides={args.strides}",
        "space.tail=128",
        f"space.choose_identity={str(method != 'fairnas').lower()}",  # which strict fairness cannot have
        f"supernet.epochs={max(1, round(args.epochs * PASSES['bignas'] / passes))}",
        f"supernet.batch_size={args.batch}",
        f"supernet.descent.learning_rate={args.rate / passes}",
        "supernet.descent.schedule=cosine",
        "supernet.descent.label_smoothing=0",
        "supernet.affine=true",
        f"supernet.entangled={str(method in ('bignas', 'spos entangled')).lower()}",
        "search.searcher=nsga2",
        "search.objectives=macs",
        f"trials={args.trials}",
        f"seed={seed}",
    )


def recipe(config: Any, args: argparse.Namespace, epochs: int) -> Recipe:
    """Of a path that is trained alone."""
    return Recipe(
        epochs=epochs,
        batch_size=args.batch,
        learning_rate=args.alone_rate,
        nesterov=False,
        weight_decay=4e-5,
        decay_on="kernels",
        schedule="cosine",
        rate_per_step=True,
        augment=config.augment,
    )


def alone(experiment: OneShot, args: argparse.Namespace, epochs: int) -> Any:
    """(arch, seed) -> test accuracy of a path after a training of its own."""
    test = experiment.problem.test()
    data = resident(experiment.problem.data)._replace(valid_x=jnp.asarray(test.x), valid_y=jnp.asarray(test.y))
    own = recipe(experiment.config, args, epochs)
    evaluator = trained_alone(experiment.shared.network(), data, experiment.problem.task, recipe=own)

    def accuracy(arch: np.ndarray, seed: int) -> float:
        one = Proposal(jnp.array([0]), jnp.asarray(arch)[None], jnp.array([-1]))
        return float(evaluator.evaluate(jax.random.key(seed), one, None)[0].fitness[0])

    return accuracy


def hypervolume(macs: np.ndarray, accuracies: np.ndarray, most: float) -> float:
    """The area under the best accuracy within a budget, see above."""
    area, best, at = 0.0, CHANCE, 0.0
    for cost, accuracy in sorted(zip(macs.tolist(), accuracies.tolist(), strict=True)):
        area += (cost - at) * (best - CHANCE)
        at, best = cost, max(best, accuracy)
    return (area + (most - at) * (best - CHANCE)) / (most * (1 - CHANCE))


def cost_of_supernet(experiment: OneShot, trials: int) -> float:
    """Multiply-adds of its training (three times a forward pass) and of its search, which are counted, not measured."""
    space, settings, search = experiment.config.space, experiment.config.supernet, experiment.config.search
    count = jax.jit(experiment.shared.counter("macs"))
    some = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 1000))
    mean = float(np.mean(np.asarray(count(some), float)))
    step = mean
    if settings.sampler == "sandwich":
        step = float(np.asarray(count(jnp.asarray(experiment.shared.ends)), float).sum()) + settings.random_paths * mean
    elif settings.sampler == "strict":
        step = PASSES["fairnas"] * mean
    trained = 3 * step * settings.batch_size * experiment.batches.epoch_steps * settings.epochs
    images = search.calibration_batches * search.calibration_batch_size + VALID
    return trained + trials * mean * images


def five(experiment: OneShot) -> np.ndarray:
    """Paths i32[5, S], uniform in multiply-adds from the smallest to the largest."""
    space, shared = experiment.config.space, experiment.shared
    some = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(99), 5000)))
    costs = np.asarray(shared.counter("macs")(jnp.asarray(some)), float)
    largest, smallest = shared.ends
    low, high = (shared.counts(arch)[1] for arch in (smallest, largest))
    inner = [some[np.abs(costs - target).argmin()] for target in np.linspace(low, high, BUDGETS)[1:-1]]
    return np.stack([smallest, *inner, largest]).astype(np.int32)


def ranked(args: argparse.Namespace, method: str, experiment: OneShot, path: Path, archs: np.ndarray) -> list[float]:
    """Validation accuracies [P] of paths with the weights of a trained supernet."""
    state = supernet(experiment, path, Watch())
    proposal = Proposal(jnp.arange(len(archs)), jnp.asarray(archs), jnp.full(len(archs), -1))
    fitness = np.asarray(experiment.evaluator(state).evaluate(jax.random.key(0), proposal, None)[0].fitness, float)
    return fitness[:, 0].tolist()


def front(args: argparse.Namespace, experiment: OneShot, path: Path, budgets: np.ndarray) -> dict[str, Any]:
    """The front on the test part, whole and the best of it within each budget."""
    found = [point.result for point in commands.export_points(path, progress=False)]
    macs = np.array([point["macs"] for point in found], float)
    test, valid = (np.array([point[f"{part}_accuracy"] for point in found]) for part in ("test", "valid"))
    chosen = [int(np.where(macs <= budget, valid, -1).argmax()) for budget in budgets]
    return {"macs": macs.tolist(), "test": test.tolist(), "valid": valid.tolist(), "chosen": chosen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="of CIFAR-10")
    parser.add_argument("--workdir", type=Path, default=Path("runs/truth-elastic"))
    parser.add_argument("--methods", nargs="*", default=["bignas"], choices=list(PASSES), help="fairnas: no front")
    parser.add_argument("--seeds", type=int, default=1, help="of supernets, searches and the five networks")
    parser.add_argument("--alone_seeds", type=int, default=1, help="of paths trained alone")
    parser.add_argument("--paths", type=int, default=12, help="trained alone for the ranking")
    parser.add_argument("--alone_epochs", type=int, default=8, help="of each")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--channels", default="16,32,48")
    parser.add_argument("--strides", default="2,2,1")
    parser.add_argument("--depths", default="2,2,2", help="layers of the three stages")
    parser.add_argument("--epochs", type=int, default=15, help="of BigNAS's supernet, four passes a step")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--rate", type=float, default=0.2, help="of a supernet; of the P passes of a step each adds its share"
    )
    parser.add_argument("--alone_rate", type=float, default=0.1, help="of a path that is trained alone")
    parser.add_argument("--trials", type=int, default=120, help="of the search")
    parser.add_argument("--five", type=int, default=1, help="whether five networks are trained alone, 0 or 1")
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(args.workdir / "xla"))
    settings = {key: value for key, value in vars(args).items() if key not in ("data_dir", "workdir")}
    kept = {key: settings[key] for key in ("images", "size", "depths", "channels", "batch", "alone_rate")}
    file = args.workdir / f"{'-'.join(map(str, kept.values()))}.jsonl"

    plain = parts(Problem(configuration("bignas", args, 0)))
    space = dataclasses.replace(plain.config.space, choose_identity=False)  # which strict fairness cannot have
    archs = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(1000), args.paths)))
    accuracy = alone(plain, args, args.alone_epochs)
    truths = np.array([
        [
            remembered(file, f"alone {a.tolist()}, {args.alone_epochs} epochs, seed {seed}", partial(accuracy, a, seed))
            for a in archs
        ]
        for seed in range(args.alone_seeds)
    ])  # fmt: skip
    truth = truths.mean(0)
    sizes = np.array([plain.shared.counts(arch) for arch in archs], float)
    found: dict[str, Any] = {
        "multiply-adds": agreement(sizes[None, :, 1], truth),
        "parameters": agreement(sizes[None, :, 0], truth),
    }
    if args.alone_seeds > 1:
        found["alone, one seed by the others"] = agreement(truths[:1], truths[1:].mean(0))
    print(f"\n{len(archs)} paths alone: {truth.min():.1%} to {truth.max():.1%}, {args.alone_epochs} epochs", flush=True)

    five_archs, volumes = five(plain), []
    one_epoch = 3 * args.images * sizes[:, 1].sum()
    budgets = np.array([plain.shared.counts(arch)[1] for arch in five_archs], float)
    for method in args.methods:
        scores = []
        for seed in range(args.seeds):
            config = configuration(method, args, seed)
            run = f"{method}-{file.stem}-{args.rate}-{args.epochs}-{args.trials}-s{seed}"
            path = args.workdir / run.replace(" ", "-")
            commands.search(config, path, progress=False)
            experiment = parts(Problem(config))
            scores.append(ranked(args, method, experiment, path, archs))
            if method == "fairnas":
                continue
            cost = cost_of_supernet(experiment, args.trials)
            epochs = max(1, round(cost / (3 * budgets.sum() * args.images)))
            row = front(args, experiment, path, budgets) | {"method": method, "seed": seed, "epochs": epochs}
            row["share of the paths"] = args.alone_epochs * one_epoch / cost
            print(json.dumps({"scores": scores[-1], **row}), flush=True)
            own = alone(plain, args, epochs)
            row["alone"] = [
                remembered(file, f"alone {a.tolist()}, {epochs} epochs, seed {seed}", partial(own, a, seed))
                for a in five_archs[: BUDGETS if args.five else 0]
            ]
            walls = checkpoint.read_lines(path / "supernet" / "metrics.jsonl")[-1]["wall_s"]
            volumes.append(row | {"supernet_s": walls, "cost": cost})
        found[method] = agreement(np.array(scores), truth)
    told(found, volumes, budgets, sizes[:, 1], truth)
    facts = {"truths": truths.tolist(), "budgets": budgets.tolist(), "results": found, "fronts": volumes}
    print(json.dumps({"benchmark": "truth/elastic", **settings, **facts, "jax": jax.__version__}))


def told(
    found: dict[str, Any], volumes: list[dict[str, Any]], budgets: np.ndarray, macs_alone: np.ndarray, truth: np.ndarray
) -> None:
    """The tables."""
    print("\n| scores | tau | of each seed | Spearman | best by score, alone |\n| --- | --- | --- | --- | --- |")
    for name, row in found.items():
        each = ", ".join(f"{tau:.2f}" for tau in row["by seed"])
        print(
            f"| {name} | {row['tau']:.2f} +- {row['error']:.2f} | {each} | {row['spearman']:.2f} | {row['found']:.1%} |"
        )
    print("\n| front | seed | hypervolume | accuracies at the five budgets |\n| --- | --- | --- | --- |")
    most = float(budgets[-1])
    for row in volumes:
        macs, test = np.array(row["macs"]), np.array(row["test"])
        own, chosen = np.array(row["alone"]), row["chosen"]
        share = f"{row['share of the paths']:.0%} of the cost"
        lines: list[tuple[str, Any, Any, Any]] = [
            (f"{row['method']}, {len(macs)} networks", macs, test, test[chosen]),
            (f"{row['method']}, five of them", macs[chosen], test[chosen], test[chosen]),
            (f"{len(truth)} random paths alone, {share}", macs_alone, truth, []),
        ]
        if len(own):
            lines.append((f"five alone, {row['epochs']} epochs", budgets, own, own))
        for name, costs, accuracies, shown in lines:
            at = ", ".join(f"{value:.1%}" for value in shown)
            print(f"| {name} | {row['seed']} | {hypervolume(costs, accuracies, most):.3f} | {at} |")
    print("\nBudgets, multiply-adds: " + ", ".join(f"{budget:,.0f}" for budget in budgets))


if __name__ == "__main__":
    main()
