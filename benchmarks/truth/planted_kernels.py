"""How well supernets rank paths where kernel sizes decide by construction: the label is the distance of two marks.

    python benchmarks/truth/planted_kernels.py      # estimated: 25 minutes of one core; goes on where it stopped
    python benchmarks/truth/planted_kernels.py --paths=4 --operators mbconv_k3_e3 mbconv_k7_e3 --images=64 \\
        --alone_epochs=1 --steps=10 --seeds=1      # a try; its table says nothing

An image is a row of pixels, noise but for two bright ones. A path of L inverted residual layers of stride 1 behind a
3x3 stem relates pixels up to 2 + sum(k - 1) apart, its reach; pooling and the classifier behind it only add up. The
distances are 1 less than every reach (what only the outermost weights see is learned by chance), one that every path
exceeds, so that each has a start, and one that none has. A path whose reach holds n of K distances can at best be right
on (n + 1) / K of the images. The marks stay so far from both ends that only a path that knows every distance anyway
sees an end beside a mark. Widths (expansion 3 or 6) are there to mislead: parameters alone tell little of the reach.
The space is `choice_chain` by settings of its own, since the strides of its small presets would hide the kernels. One
row of pixels, because a training has to take seconds, and along it a kernel reaches as far as in a square.

The gate comes first: random paths are trained alone with every seed, and the spread of their accuracies must be at
least five times a path's between seeds (standard deviations). Then the scores of every supernet beside these
accuracies: Kendall's tau, its standard error from drawing the paths again, Spearman's rho, and the accuracy of the best
path by score. FairNAS makes a pass for every operator in an update, so it is compared at equal updates and at equal
passes; BigNAS makes four, and is compared at equal passes with both lengths of SPOS. Bars are the sum of kernel sizes,
parameters, and supernets as they start. Supernets are scored on other images than paths trained alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import kendalltau, spearmanr

from nasjax import commands
from nasjax.evaluators.path_training import trained_alone
from nasjax.experiments.families.supernets import OneShot, parts, sampler_of
from nasjax.learners.one_shot import one_shot
from nasjax.problem.data import load_test
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.spaces.choice_chain.space import MOBILE, ChoiceChain
from nasjax.store import checkpoint
from nasjax.train.augment import Augment
from nasjax.train.fit import resident
from nasjax.train.recipe import Recipe
from nasjax.types import Proposal

METHODS = ("spos", "fairnas", "bn_nas", "bignas")
VALID, TEST = 1000, 2000  # images that supernets are scored on, and paths trained alone
PLAIN = Augment(crop="none", flip=False)


# -- the problem -----------------------------------------------------------------------------------------------------


def distances(layers: int) -> np.ndarray:
    """Of the two marks, one per class: 1 less than every reach, one that all exceed, and one that none has."""
    return np.arange(2 * layers - 1, 2 + 6 * layers + 2, 2)


def planted(count: int, layers: int, noise: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images u8[count, 1, W, 1] and their classes."""
    rng = np.random.default_rng(seed)
    apart, margin = distances(layers), 6 * layers  # the largest reach of a path that does not know every distance
    width = 2 * margin + int(apart[-1]) + 8
    y = rng.integers(len(apart), size=count)
    x = rng.integers(0, noise + 1, (count, 1, width, 1))
    left = rng.integers(margin, width - margin - apart[y])
    x[np.arange(count), 0, left] = x[np.arange(count), 0, left + apart[y]] = 200
    return x.astype(np.uint8), y


def kernels(space: ChoiceChain, archs: np.ndarray) -> np.ndarray:
    """The sum of a path's kernel sizes, [P]."""
    return np.array([int(name[len("mbconv_k")]) for name in space.operators])[archs].sum(1)


def ideal(space: ChoiceChain, archs: np.ndarray) -> np.ndarray:
    """The largest accuracy [P] that the reach of a path allows."""
    apart, reach = distances(space.layers), 2 + kernels(space, archs) - space.layers
    return np.minimum(1, ((apart <= reach[:, None]).sum(1) + 1) / len(apart))


# -- what is compared ------------------------------------------------------------------------------------------------


def supernets(args: argparse.Namespace) -> list[tuple[str, str, str, int]]:
    """What a row is called, its method, what it trains, and its updates."""
    steps, m = args.steps, len(args.operators)
    tenth, share = max(1, round(steps / 10)), max(1, round(steps / m))
    quarter = max(1, round(steps / 4))
    rows = [
        (f"SPOS, {steps} updates", "spos", "all", steps),
        (f"FairNAS, {steps} updates (equal updates)", "fairnas", "all", steps),
        (f"FairNAS, {share} updates (equal passes)", "fairnas", "all", share),
        (f"SPOS, {steps * m} updates (passes of {steps} of FairNAS)", "spos", "all", steps * m),
        *(
            (f"BN-NAS, {name} batch norms, {updates} updates", "bn_nas", trainable, updates)
            for name, trainable in (("all", "all_bn"), ("last", "last_bn"))
            for updates in (steps, tenth)
        ),
        (f"BN-NAS's indicator, all weights trained, {steps} updates", "bn_nas", "all", steps),
        (f"BigNAS, {quarter} updates (passes of {steps} of SPOS)", "bignas", "all", quarter),
        (f"BigNAS, {quarter * m} updates (passes of {steps * m} of SPOS)", "bignas", "all", quarter * m),
    ]
    return [row for row in rows if row[1] in args.methods]


def built(args: argparse.Namespace, method: str, trainable: str = "all") -> OneShot:
    """The parts of a supernet."""
    file = args.workdir / f"planted-{args.layers}-{args.noise}-{args.images}.npz"
    if not file.exists():
        x, y = planted(args.images + VALID, args.layers, args.noise, 0)
        x_test, y_test = planted(TEST, args.layers, args.noise, 1)
        np.savez(file, x=x, y=y, x_test=x_test, y_test=y_test)
    rate = args.rate / {"fairnas": len(args.operators), "bignas": 4}.get(method, 1)  # so many gradients are added up
    config = override(
        commands.configure(method, "demo", str(file.absolute())),
        f"data.valid_size={VALID}",
        "augment.crop=none",
        "space.family=mobile",
        f"space.operators={','.join(args.operators)}",
        f"space.stem={args.channels}",
        "space.stem_stride=1",
        "space.first=0",
        f"space.channels={args.channels}",
        f"space.depths={args.layers}",
        "space.strides=1",
        "space.choose_identity=false",
        "space.tail=32",
        f"supernet.batch_size={args.batch}",
        f"supernet.trainable={trainable}",
        "supernet.descent.label_smoothing=0",
        *([] if method == "bn_nas" else [f"supernet.descent.learning_rate={rate}"]),  # BN-NAS keeps its release's 0.25
        "search.searcher=topk",  # so that a score is one number
        "search.objectives=macs,params",
    )
    return parts(Problem(config))


def scored(experiment: OneShot, archs: np.ndarray, updates: int, seed: int) -> list[float]:
    """The scores [P] of a supernet after so many updates; 0 = as it starts."""
    key_init, key_data, key_step = jax.random.split(jax.random.key(seed), 3)
    settings, batches = experiment.config.supernet, experiment.batches
    learner = one_shot(
        experiment.supernet,
        sampler_of(experiment.config, experiment.shared),
        epochs=1,  # the rate's schedule ends with the last update, be it that of a whole pass through the data or not
        epoch_steps=max(1, updates),
        descent=settings.descent,
        trainable=settings.trainable,
        distill=settings.distill,
        regularised="first" if settings.regularise == "largest" else "all",
        affine=settings.affine,
    )
    order = batches.shuffle(key_data, 0)
    state = learner.init(key_init, batches.batch(key_data, order, 0))
    for t in range(updates):
        if t % batches.epoch_steps == 0:
            order = batches.shuffle(key_data, t // batches.epoch_steps)
        state, _ = learner.step(jax.random.fold_in(key_step, t), state, batches.batch(key_data, order, t))
    state, _ = learner.epoch(key_step, state, ())
    proposal = Proposal(jnp.arange(len(archs)), jnp.asarray(archs), jnp.full(len(archs), -1))
    return np.asarray(experiment.evaluator(state).evaluate(key_step, proposal, None)[0].fitness, float).tolist()


def alone(experiment: OneShot, args: argparse.Namespace, archs: np.ndarray) -> Callable[[int, int], float]:
    """(path's number, seed) -> its accuracy after a training of its own."""
    test = load_test(experiment.config.data)
    data = resident(experiment.problem.data)._replace(valid_x=jnp.asarray(test.x), valid_y=jnp.asarray(test.y))
    recipe = Recipe(
        epochs=args.alone_epochs,
        batch_size=args.batch,
        learning_rate=args.rate,
        nesterov=False,
        schedule="cosine",
        rate_per_step=True,
        augment=PLAIN,
    )
    evaluator = trained_alone(experiment.shared.network(), data, experiment.problem.task, recipe=recipe)

    def accuracy(n: int, seed: int) -> float:
        one = Proposal(jnp.array([n]), jnp.asarray(archs[n : n + 1]), jnp.array([-1]))
        return float(evaluator.evaluate(jax.random.key(seed), one, None)[0].fitness[0])

    return accuracy


# -- the figures -----------------------------------------------------------------------------------------------------


def gate(accuracies: np.ndarray) -> tuple[float, float]:
    """Standard deviations of f[seeds, P]: of the paths' means, and of a path's seeds."""
    seeds = accuracies.var(0, ddof=1).mean() ** 0.5 if len(accuracies) > 1 else float("nan")
    return float(accuracies.mean(0).std(ddof=1)), float(seeds)


def agreement(scores: np.ndarray, truths: np.ndarray) -> dict[str, Any]:
    """Of scores f[seeds, P] with accuracies f[P]: means over seeds, and tau's standard error from resampled paths."""

    def tau(index: np.ndarray) -> float:
        return float(np.mean([kendalltau(line[index], truths[index]).statistic for line in scores]))

    rng, count = np.random.default_rng(0), len(truths)
    drawn = [tau(rng.integers(count, size=count)) for _ in range(200)]
    return {
        "tau": tau(np.arange(count)),
        "error": float(np.nanstd(drawn, ddof=1)),
        "by seed": [float(kendalltau(line, truths).statistic) for line in scores],
        "spearman": float(np.mean([spearmanr(line, truths).statistic for line in scores])),
        "found": float(np.mean([truths[line == line.max()].mean() for line in scores])),
    }


def remembered(file: Path, name: str, compute: Callable[[], Any]) -> Any:
    """The value of `name` in a file of lines, or else that of `compute`, which is then written there."""
    lines = checkpoint.read_lines(file)
    for line in lines:
        if line["name"] == name:
            return line["value"]
    value = compute()
    checkpoint.truncate_lines(file, len(lines))  # a torn last line goes
    checkpoint.append_lines(file, [{"name": name, "value": value}])
    print(f"{name}: {value if isinstance(value, float) else 'done'}", flush=True)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/truth-planted-kernels"))
    parser.add_argument("--paths", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2, help="of paths alone and of supernets")
    parser.add_argument("--operators", nargs="*", default=list(MOBILE), choices=MOBILE)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--channels", type=int, default=6)
    parser.add_argument("--noise", type=int, default=20, help="largest value of a pixel that is no mark (200)")
    parser.add_argument("--images", type=int, default=3200, help="to train on")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.2, help="FairNAS, which adds up gradients, has its share of it")
    parser.add_argument("--alone_epochs", type=int, default=6, help="of a path alone")
    parser.add_argument("--steps", type=int, default=1000, help="of a supernet")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS, help="whose rows are made")
    parser.add_argument("--gate", action="store_true", help="stop after the gate")
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(args.workdir / "xla"))

    experiment = built(args, "fairnas")
    archs = np.random.default_rng(0).permutation(experiment.config.space.enumerate())[: args.paths]
    settings = {key: value for key, value in vars(args).items() if key not in ("workdir", "gate")}
    trained = {key: value for key, value in settings.items() if key not in ("seeds", "paths", "steps", "methods")}
    file = args.workdir / f"{hashlib.sha256(json.dumps(trained).encode()).hexdigest()[:8]}.jsonl"

    accuracy, rows = alone(experiment, args, archs), []
    for seed in range(args.seeds):
        rows.append(
            [remembered(file, f"alone {n}, seed {seed}", partial(accuracy, n, seed)) for n in range(len(archs))]
        )
    accuracies = np.array(rows)
    truths, (spread, seeds) = accuracies.mean(0), gate(accuracies)
    print(
        f"\n{len(archs)} paths alone: {truths.min():.1%} to {truths.max():.1%}, mean {truths.mean():.1%}; standard "
        f"deviation of the paths {spread:.2%}, of a path's seeds {seeds:.2%}; the gate (five times) is "
        f"{'passed' if spread >= 5 * seeds else 'not passed'}: {spread / seeds:.1f} times",
        flush=True,
    )
    if not args.gate:
        found = compared(args, experiment, archs, accuracies, file)
        facts = {"spread": spread, "seeds_spread": seeds, "truths": truths.tolist(), "results": found}
        print(json.dumps({"benchmark": "truth/planted_kernels", **settings, **facts, "jax": jax.__version__}))


def compared(
    args: argparse.Namespace, experiment: OneShot, archs: np.ndarray, accuracies: np.ndarray, file: Path
) -> dict[str, Any]:
    """Every row of the table, which is printed."""
    space, truths = experiment.config.space, accuracies.mean(0)
    bars = {
        "sum of kernel sizes": kernels(space, archs),
        "parameters": np.array([experiment.shared.counts(arch)[0] for arch in archs]),
        "what the reach allows": ideal(space, archs),
    }
    found = {name: agreement(bar[None], truths) for name, bar in bars.items()}
    if args.seeds > 1:
        found["alone, one seed by the others"] = agreement(accuracies[:1], accuracies[1:].mean(0))
    for name, method, trainable, updates in [("untrained", "spos", "all", 0), *supernets(args)]:
        supernet, scores = built(args, method, trainable), []
        for seed in range(args.seeds):
            told = f"{name}, {len(archs)} paths, seed {seed}"
            scores.append(remembered(file, told, partial(scored, supernet, archs, updates, seed)))
        found[name] = agreement(np.array(scores), truths)
    print("\n| scores | tau | of each seed | Spearman | best by score, alone |\n| --- | --- | --- | --- | --- |")
    for name, row in found.items():
        each = ", ".join(f"{tau:.2f}" for tau in row["by seed"]) if len(row["by seed"]) > 1 else ""
        tau = f"{row['tau']:.2f} +- {row['error']:.2f}"
        print(f"| {name} | {tau} | {each} | {row['spearman']:.2f} | {row['found']:.1%} |")
    return found


if __name__ == "__main__":
    main()
