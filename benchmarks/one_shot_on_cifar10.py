"""SPOS, FairNAS and BN-NAS on real CIFAR-10 images in one small space: cost of each phase, quality of each ranking.

    python benchmarks/one_shot_on_cifar10.py --data_dir=FOLDER      # the original python format; about 20 minutes

All supernets have the same space, images, batch and number of steps, unless early stop ends one. Then the same random
paths are trained alone, from scratch, and Kendall's tau says how well each supernet's scores rank them; the standard
error of tau between unrelated rankings of n paths is about sqrt(2 (2 n + 5) / (9 n (n - 1))), 0.14 for 24. Each
method's best path is retrained with one recipe and tested once.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import checkpoint, commands, one_shot_search
from nasjax.data.dataset import load
from nasjax.evaluators.path_training import trained_alone
from nasjax.evaluators.supernet import score_sum
from nasjax.experiments import method
from nasjax.experiments.settings import override
from nasjax.learners.one_shot import kendall_tau
from nasjax.nets.choice_supernet import choice_supernet
from nasjax.train.fit import resident
from nasjax.types import Proposal

METHODS = ("spos", "fairnas", "bn_nas")


def configuration(name: str, args: argparse.Namespace):
    descent = "supernet.descent."
    return override(
        commands.configure(name, "demo", "cifar10"),
        f"data.data_dir={args.data_dir}",
        f"data.resize={args.size}",
        f"data.train_limit={args.images}",
        "data.valid_size=10000",
        "data.valid_limit=2000",
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
        descent + f"rate={args.rate / 6 if name == 'fairnas' else args.rate}",
        descent + "label_smoothing=0",
        f"retrain_recipe.epochs={args.alone_epochs}",
        "retrain_recipe.learning_rate=0.05",
        f"seed={args.seed}",
    )


def alone(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, float]:
    """Random paths i32[P, S], their accuracies when trained alone, and seconds a path."""
    config, file = configuration("spos", args), args.workdir / "alone.jsonl"
    experiment = method("spos").make(config)
    keys = jax.random.split(jax.random.key(1000 + args.seed), args.paths)
    archs = np.asarray(jax.vmap(config.space.sample)(keys))
    network = choice_supernet(experiment.plan, affine=True)
    evaluator = trained_alone(network, resident(load(config.data)), recipe=config.retrain_recipe)
    rows = checkpoint.read_lines(file)
    for n in range(len(rows), args.paths):
        one = Proposal(jnp.array([n]), jnp.asarray(archs[n : n + 1]), jnp.array([-1]))
        evaluation, _ = evaluator.evaluate(jax.random.key(args.seed), one, None)
        row = {"path": archs[n].tolist(), "accuracy": float(evaluation.fitness[0]), "s": float(evaluation.cost[0])}
        checkpoint.append_lines(file, [row])
        rows.append(row)
        print(f"alone {n + 1}/{args.paths}: {row['accuracy']:.2%} in {row['s']:.0f} s", flush=True)
    return archs, np.array([row["accuracy"] for row in rows]), float(np.median([row["s"] for row in rows]))


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
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(args.workdir / "xla"))
    found = {}
    for name in METHODS:
        config, path = configuration(name, args), args.workdir / name
        summary = commands.search(config, path)
        result = commands.retrain(config, path)
        epochs = checkpoint.read_lines(path / "supernet" / "metrics.jsonl")
        experiment = method(name).make(config)
        found[name] = {
            "epochs": len(epochs),
            "supernet_s": epochs[-1]["wall_s"],
            "search_s": summary.wall_s,
            "trials": summary.trials,
            "retrain_s": result["seconds"],
            "test_accuracy": result["test_accuracy"],
            "params": result["params"],
            "macs": result["macs"],
            "steps": len(epochs) * experiment.batches.epoch_steps,
        }
    archs, accuracy, seconds = alone(args)
    proposal = Proposal(jnp.arange(len(archs)), jnp.asarray(archs), jnp.full(len(archs), -1))
    for name in METHODS:
        config, path = configuration(name, args), args.workdir / name
        experiment = method(name).make(config)
        state = one_shot_search.supernet(experiment, path)
        scores = np.asarray(experiment.evaluator(state).evaluate(jax.random.key(0), proposal, None)[0].fitness)
        found[name]["tau"] = kendall_tau(scores if scores.ndim == 1 else scores[:, 0], accuracy)
        if config.supernet.affine:
            found[name]["tau_indicator"] = kendall_tau(
                score_sum(config.space, state.scores)(jnp.asarray(archs)), accuracy
            )
    macs = [experiment.plan.count(arch)[1] for arch in archs]
    n = len(archs)
    print(
        f"{n} paths alone: {accuracy.min():.2%} to {accuracy.max():.2%}, mean {accuracy.mean():.2%}, "
        f"{seconds:.1f} s each"
    )
    print(f"tau of multiply-adds alone {kendall_tau(np.array(macs), accuracy):.2f}; ", end="")
    print(f"of unrelated rankings 0 +- {math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))):.2f}")
    print(
        "| method | supernet epochs (steps) | supernet, s | search, s (paths) | retrain, s | tau "
        "| test accuracy | params |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, row in found.items():
        print(
            f"| {name} | {row['epochs']} ({row['steps']}) | {row['supernet_s']:.0f} | {row['search_s']:.1f} "
            f"({row['trials']}) | {row['retrain_s']:.0f} | {row['tau']:.2f} | {row['test_accuracy']:.2%} "
            f"| {row['params']:,} |"
        )
    settings = {k: v for k, v in vars(args).items() if k not in ("data_dir", "workdir")}
    alone_facts = {"accuracy": accuracy.tolist(), "seconds": seconds}
    print(json.dumps({"benchmark": "one_shot_on_cifar10", **settings, "found": found, "alone": alone_facts}))


if __name__ == "__main__":
    main()
