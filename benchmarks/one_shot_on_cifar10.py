"""SPOS, FairNAS and BN-NAS on real CIFAR-10 images in one small space: cost of each phase, quality of each ranking.

    python benchmarks/one_shot_on_cifar10.py --data_dir=FOLDER           # the original python format; about 35 minutes
    python benchmarks/one_shot_on_cifar10.py --data_dir=FOLDER --seed=1  # same paths alone; about 12 minutes more

All supernets have the same space, images, batch and number of steps, unless early stop ends one; BN-NAS has a second
one with a tenth of the epochs, rounded, and no early stop. Seconds of a supernet are its epochs times the median of all
but the first; in brackets what passed, with compiling where the workdir's cache had no such program yet.

The same random paths are trained alone, from scratch, with two seeds, and Kendall's tau says how well each supernet's
scores rank the mean of both accuracies. Those come from 8,000 validation images, the supernets' from 2,000 others.
Tau between the two seeds is what a whole training of every path is worth as a ranking. The standard error of tau
between unrelated rankings of n paths is about sqrt(2 (2 n + 5) / (9 n (n - 1))), 0.14 for 24.

Each method's best path is retrained with one recipe and tested once, and so are three paths drawn at random.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import commands
from nasjax.evaluators.path_training import trained_alone
from nasjax.evaluators.supernet import score_sum
from nasjax.experiments.families import supernets_run as one_shot_search
from nasjax.experiments.families.supernets import parts
from nasjax.learners.one_shot import kendall_tau
from nasjax.nets.choice_chain.supernet import choice_supernet
from nasjax.problem.data import load
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.store import checkpoint
from nasjax.tasks.classification import TASK
from nasjax.train.fit import resident
from nasjax.types import Proposal, Watch

ROWS = {"spos": "SPOS", "fairnas": "FairNAS", "bn_nas": "BN-NAS", "bn_nas_tenth": "BN-NAS, a tenth of the steps"}
VALID = 2000  # of 10,000 validation images: those the supernets see; paths trained alone are judged on the others
DRAWN = 3


def configuration(name: str, args: argparse.Namespace) -> Any:
    descent = "supernet.descent."
    config = override(
        commands.configure(name.removesuffix("_tenth"), "demo", "cifar10"),
        f"data.data_dir={args.data_dir}",
        f"data.resize={args.size}",
        f"data.train_limit={args.images}",
        "data.valid_size=10000",
        f"data.valid_limit={VALID}",
        "space.family=mobile",
        "space.operators=mbconv_k3_e3,mbconv_k3_e6,mbconv_k5_e3,mbconv_k5_e6,mbconv_k7_e3,mbconv_k7_e6",
        "space.stem=8",
        "space.first=8",
        "space.channels=8,16,24",
        "space.depths=1,2,2",
        "space.strides=1,2,2",
        "space.tail=96",
        f"supernet.epochs={args.epochs}",
        "supernet.batch_size=64",
        descent + f"learning_rate={args.rate / 6 if name == 'fairnas' else args.rate}",
        descent + "label_smoothing=0",
        f"retrain_recipe.epochs={args.alone_epochs}",
        "retrain_recipe.learning_rate=0.05",
        f"seed={args.seed}",
    )
    if name.endswith("_tenth"):
        config = override(config, f"supernet.epochs={max(1, round(args.epochs / 10))}", "supernet.early_bird=none")
    return config


def folder(name: str, args: argparse.Namespace) -> Path:
    return args.workdir / (f"{name}-s{args.seed}" if args.seed else name)


def measured(name: str, args: argparse.Namespace, archs: np.ndarray, step_s: float) -> dict[str, Any]:
    """The three phases of a method, and its scores f[P] of `archs`.

    Args:
      step_s: seconds of a step, for a supernet of one epoch, which cannot tell them from those of compiling.
    """
    config, path = configuration(name, args), folder(name, args)
    summary, result = commands.search(config, path), commands.retrain(config, path).result
    walls = [row["wall_s"] for row in checkpoint.read_lines(path / "supernet" / "metrics.jsonl")]
    experiment = parts(Problem(config))
    steps = experiment.batches.epoch_steps
    if len(walls) > 1:
        step_s = float(np.median(np.diff(walls))) / steps
    state = one_shot_search.supernet(experiment, path, Watch())
    proposal = Proposal(jnp.arange(len(archs)), jnp.asarray(archs), jnp.full(len(archs), -1))
    scores = np.asarray(experiment.evaluator(state).evaluate(jax.random.key(0), proposal, None)[0].fitness)
    found = {
        "epochs": len(walls),
        "steps": len(walls) * steps,
        "step_s": step_s,
        "supernet_s": len(walls) * steps * step_s,
        "passed_s": walls[-1],
        "search_s": summary.wall_s,
        "trials": summary.trials,
        **{name: result[name] for name in ("seconds", "test_accuracy", "params", "macs")},
        "scores": (scores if scores.ndim == 1 else scores[:, 0]).tolist(),
    }
    if config.supernet.affine and config.search.score == "accuracy":
        found["indicator"] = np.asarray(score_sum(config.space, state.scores)(jnp.asarray(archs))).tolist()
    return found


def alone(args: argparse.Namespace, archs: np.ndarray) -> tuple[np.ndarray, float]:
    """Accuracies f[2, P] of paths trained alone with two seeds, whatever --seed is, and the median seconds of one."""
    config = configuration("spos", args)
    data = resident(load(dataclasses.replace(config.data, valid_limit=None)))
    data = data._replace(valid_x=data.valid_x[VALID:], valid_y=data.valid_y[VALID:])
    network = choice_supernet(ChoicePlan(config.space, (args.size, args.size, 3), 10))
    evaluator = trained_alone(network, data, TASK, recipe=config.retrain_recipe)
    digest = hashlib.sha256(repr((config.space, config.data, config.retrain_recipe)).encode()).hexdigest()[:8]
    found = []
    for seed in range(2):
        file = args.workdir / f"alone-{digest}-{seed}.jsonl"
        rows = checkpoint.read_lines(file)[: len(archs)]
        for n in range(len(rows), len(archs)):
            one = Proposal(jnp.array([n]), jnp.asarray(archs[n : n + 1]), jnp.array([-1]))
            evaluation, _ = evaluator.evaluate(jax.random.key(seed), one, None)
            row = {"path": archs[n].tolist(), "accuracy": float(evaluation.fitness[0]), "s": float(evaluation.cost[0])}
            checkpoint.append_lines(file, [row])
            rows.append(row)
            print(f"alone, seed {seed}, {n + 1}/{len(archs)}: {row['accuracy']:.2%} in {row['s']:.0f} s", flush=True)
        found.append(rows)
    accuracy = np.array([[row["accuracy"] for row in rows] for rows in found])
    return accuracy, float(np.median([row["s"] for rows in found for row in rows]))


def drawn(args: argparse.Namespace, archs: np.ndarray) -> list[dict[str, Any]]:
    """What retraining a few of the random paths gives, other ones with every seed."""
    config = configuration("spos", args)
    results = []
    for n in (np.arange(DRAWN) + DRAWN * args.seed) % len(archs):
        arch = json.dumps(config.space.encode(archs[n]))
        results.append(commands.retrain(config, folder(f"drawn{n}", args), arch).result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument(
        "--workdir", type=Path, default=Path("runs/one_shot_on_cifar10"), help="goes on where it stopped"
    )
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12, help="of a supernet")
    parser.add_argument(
        "--rate", type=float, default=0.1, help="of a supernet; FairNAS, which adds 6 gradients, a sixth"
    )
    parser.add_argument("--alone_epochs", type=int, default=8, help="of a path alone and of the final training")
    parser.add_argument("--paths", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="of supernets, searches and final trainings")
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(args.workdir / "xla"))
    space = configuration("spos", args).space
    archs = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(1000), args.paths)))
    found: dict[str, dict[str, Any]] = {}
    for name in ROWS:
        found[name] = measured(name, args, archs, found.get("bn_nas", {}).get("step_s", math.nan))
    chance = drawn(args, archs)
    seeds, seconds = alone(args, archs)
    report(args, found, chance, archs, seeds, seconds)


def report(
    args: argparse.Namespace,
    found: dict[str, dict[str, Any]],
    chance: list[dict[str, Any]],
    archs: np.ndarray,
    seeds: np.ndarray,
    seconds: float,
) -> None:
    """Prints it all."""
    n, accuracy = len(archs), seeds.mean(0)
    plan = ChoicePlan(configuration("spos", args).space, (args.size, args.size, 3), 10)
    macs = np.array([plan.count(arch)[1] for arch in archs])
    shared = np.corrcoef(seeds)[0, 1]  # part of one seed's variance that the other repeats
    # A perfect ranking correlates with the mean of two like this; tau of normal variables is 2 / pi * arcsine of it.
    ceiling = 2 / np.pi * np.arcsin(np.sqrt(2 * shared / (1 + shared))) if shared > 0 else np.nan
    print(
        f"\n{n} paths alone, two seeds: means of {accuracy.min():.2%} to {accuracy.max():.2%}, all "
        f"{accuracy.mean():.2%}, {seconds:.1f} s a training.\n"
        f"Tau between the seeds {kendall_tau(*seeds):.2f} (a perfect ranking would have about {ceiling:.2f} with their "
        f"mean, were all normal); of unrelated rankings 0 +- {math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))):.2f}.\n"
        f"Tau with their mean: multiply-adds {kendall_tau(macs, accuracy):.2f}, BN score of FairNAS's supernet "
        f"{kendall_tau(np.array(found['fairnas']['indicator']), accuracy):.2f}.\n"
    )
    print("| method | supernet steps | / SPOS's | supernet, s | / SPOS's | search, s (paths) | retrain, s ", end="")
    print("| tau | test accuracy | parameters |\n|" + " --- |" * 10)
    spos = found["spos"]
    for name, row in found.items():
        row["tau"] = kendall_tau(np.array(row["scores"]), accuracy)
        print(
            f"| {ROWS[name]} | {row['steps']} | {row['steps'] / spos['steps']:.3f} "
            f"| {row['supernet_s']:.0f} ({row['passed_s']:.0f}) | {row['supernet_s'] / spos['supernet_s']:.3f} "
            f"| {row['search_s']:.1f} ({row['trials']}) | {row['seconds']:.0f} | {row['tau']:.2f} "
            f"| {row['test_accuracy']:.2%} | {row['params']:,} |"
        )
    tests, sizes = (np.array([result[of] for result in chance]) for of in ("test_accuracy", "params"))
    print(
        f"| drawn at random ({len(chance)}) | - | - | - | - | - | {np.mean([r['seconds'] for r in chance]):.0f} | - "
        f"| {tests.mean():.2%} ({tests.min():.2%} to {tests.max():.2%}) | {sizes.min():,} to {sizes.max():,} |\n"
    )
    settings = {k: v for k, v in vars(args).items() if k not in ("data_dir", "workdir")}
    facts = {"alone": {"accuracy": seeds.tolist(), "seconds": seconds}, "drawn": tests.tolist()}
    print(json.dumps({"benchmark": "one_shot_on_cifar10", **settings, "found": found, **facts}))


if __name__ == "__main__":
    main()
