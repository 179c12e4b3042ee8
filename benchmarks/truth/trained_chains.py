"""REINFORCE over 512 chains that were really trained, twice: searched by one training's results, judged by the other's.

    python benchmarks/truth/trained_chains.py --data_dir=FOLDER [--table=runs/trained_chains.npz]      # about an hour

The chains have three layers of 12 filters, heights and widths of 1 or 5, and any skips: 4^3 * 2^3. Each is trained on
2,000 CIFAR-10 images of 16x16, with two seeds, into the table; a stopped script goes on where it was. The gate comes
first: the two trainings must agree (Kendall's tau of at least 0.5), else nothing can be learned from one of them, and
longer trainings are needed (`--epochs`, a new table) or the mean of several for one (`--repeats`, the same table goes
on). Then the controller of Zoph & Le 2017 and random search see the first training's accuracies; what they propose is
judged by the second's. Reported is the mean over the last samples, in points.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import kendalltau

from nasjax import catalog, commands
from nasjax.drive.scan import scan
from nasjax.problem.problem import Problem
from nasjax.searchers import random_search, reinforce
from nasjax.settings import override
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.types import Evaluation, Evaluator, Key, Proposal, Searcher

SPACE = ConvChain(3, 3, (1, 5), (1, 5), (12,))
CHOICES = [len(site.choices) for site in SPACE.sites]
AT_A_TIME = 16  # chains between two saves


def archs() -> np.ndarray:
    """All chains, i32[512, S], in the order of `row`."""
    return np.array(list(itertools.product(*(range(n) for n in CHOICES))), np.int32)


def row(arch: jax.Array) -> jax.Array:
    """The number of a chain in `archs`."""
    weights = np.cumprod([1, *CHOICES[:0:-1]])[::-1]
    return arch @ np.array(weights, np.int32)


def trained(args: argparse.Namespace) -> np.ndarray:
    """Validation accuracies f32[512, 2]; NaN = a training failed. Each is the mean of every other seed's."""
    chains, file = archs(), Path(args.table)
    found, done = np.full((len(chains), 0), np.nan, np.float32), np.zeros((len(chains), 0), bool)
    training = json.dumps({"images": args.images, "epochs": args.epochs})
    if file.exists():
        with np.load(file) as saved:
            known = str(saved["training"]) if "training" in saved else "not known how long"
            if known != training:
                raise SystemExit(f"{file} holds other trainings ({known}): give another --table")
            found, done = (np.array(saved[name]) for name in ("fitness", "done"))
    more = max(0, 2 * args.repeats - found.shape[1])
    found = np.pad(found, ((0, 0), (0, more)), constant_values=np.nan)
    done = np.pad(done, ((0, 0), (0, more)))
    config = override(
        dataclasses.replace(commands.configure("random", "demo", "cifar10", "conv_chain"), space=SPACE),
        f"data.data_dir={args.data_dir}",
        "data.resize=16",
        f"data.train_limit={args.images}",
        "data.valid_limit=2000",
        f"recipe.epochs={args.epochs}",
    )
    make = catalog.method("random").make(Problem(config)).evaluator
    evaluator = make() if not done.all() else None
    for seed in range(2 * args.repeats):
        for first in range(0, len(chains), AT_A_TIME):
            part = slice(first, first + AT_A_TIME)
            if done[part, seed].all():
                continue
            ids = jnp.arange(len(chains), dtype=jnp.int32)[part]
            proposal = Proposal(ids, jnp.asarray(chains[part]), jnp.full(len(ids), -1))
            assert evaluator is not None
            evaluation, _ = evaluator.evaluate(jax.random.key(seed), proposal, None)
            found[part, seed], done[part, seed] = evaluation.fitness, True
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, arch=chains, fitness=found, done=done, training=training)
            print(f"seed {seed}: {first + len(ids)} of {len(chains)} trained", flush=True)
    return found[:, : 2 * args.repeats].reshape(len(chains), args.repeats, 2).mean(1)


def looked_up(table: np.ndarray) -> Evaluator:
    """The first training's results as fitness, the second's as `judged`."""
    values = jnp.asarray(table)

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, None]:
        found = values[jax.vmap(row)(proposal.arch)]
        nothing = jnp.zeros(len(found))
        return Evaluation(found[:, 0], nothing, nothing.astype(jnp.int8), {"judged": found[:, 1]}), None

    return Evaluator(evaluate)


def replayed(table: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    """Both searches with many seeds: name -> mean and standard error of the last samples, in percent."""
    settings: dict[str, Searcher] = {"random": random_search(SPACE)}
    for rate in args.rates:
        settings[f"controller, rate {rate:g}"] = reinforce(SPACE, samples_per_update=8, learning_rate=rate)
    rows = {}
    for name, searcher in settings.items():

        def run(key: Key, searcher: Searcher = searcher) -> jax.Array:
            return scan(key, searcher, looked_up(table), trials=args.samples, width=8).info["judged"]

        judged = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), args.seeds)), float)
        last = 100 * np.nanmean(judged[:, -args.last :], 1)  # what failed has no figure
        rows[name] = [float(last.mean()), float(last.std(ddof=1) / np.sqrt(args.seeds))]
        print(f"{name:24} {rows[name][0]:.2f} +- {rows[name][1]:.2f} %", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--table", default="runs/trained_chains.npz")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1, help="trainings of which the mean counts as one")
    parser.add_argument("--samples", type=int, default=400, help="of a search")
    parser.add_argument("--last", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--rates", type=float, nargs="*", default=[6e-4, 2e-2], help="of the controller")
    args = parser.parse_args()
    table = trained(args)
    known = np.isfinite(table).all(1)
    tau = float(kendalltau(table[known, 0], table[known, 1]).statistic)
    mean, best = 100 * np.nanmean(table[:, 1]), 100 * np.nanmax(table[:, 1])
    print(f"two trainings agree with tau {tau:.3f} ({known.sum()} chains); mean {mean:.2f} %, best {best:.2f} %")
    if tau < 0.5:
        print("the gate is not passed: train longer (--epochs, with another --table) before a search is judged")
    rows = replayed(np.where(known[:, None], table, np.nan).astype(np.float32), args)
    facts = {"tau": tau, "mean": float(mean), "best": float(best), "results": rows, "jax": jax.__version__}
    settings = {key: value for key, value in vars(args).items() if key not in ("data_dir", "table")}
    print(json.dumps({"benchmark": "truth/trained_chains", **settings, **facts}))


if __name__ == "__main__":
    main()
