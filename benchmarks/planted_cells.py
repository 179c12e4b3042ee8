"""The controller of recurrent cells on a planted problem: how near does it come to a hidden cell?

    python benchmarks/planted_cells.py [--seeds=16] [--samples=15000] [--last=1000] [--base=8]

A cell that differs from the hidden one in d of its S decisions has the perplexity 80 (1 + 4 d / S), and the reward is
80 / perplexity^2 as on the Penn Treebank. Every seed has a hidden cell of its own; all seeds of a setting are one
vmapped program through `nasjax.drive.scan`. "paper" is the paper's controller: learning rate 5e-4, one sample a
gradient, ten gradients a step. The other settings say what a smaller budget needs.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.drive.scan import scan
from nasjax.searchers import inverse_square_perplexity, random_search, reinforce
from nasjax.spaces.cell_tree.space import CellTree
from nasjax.types import Evaluation, Evaluator

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seeds", type=int, default=16)
parser.add_argument("--samples", type=int, default=15_000)
parser.add_argument("--last", type=int, default=1_000, help="samples at the end whose mean is reported")
parser.add_argument("--base", type=int, default=8)
parser.add_argument("--only", default="", help="settings to run, separated by commas; all if empty")

WIDTH = 10


def settings(space):
    """name -> searcher; the controllers differ from the paper's in what their names say."""
    ptb = {"reward": inverse_square_perplexity(), "samples_per_update": 1, "accumulate": WIDTH, "learning_rate": 5e-4}
    ptb |= {"capacity": 64}
    return {
        "random": lambda: random_search(space),
        "paper": lambda: reinforce(space, **ptb),
        "rate 5e-3": lambda: reinforce(space, **ptb | {"learning_rate": 5e-3}),
        "rate 2e-2": lambda: reinforce(space, **ptb | {"learning_rate": 2e-2}),
        "batches of 10": lambda: reinforce(space, **ptb | {"samples_per_update": WIDTH, "accumulate": 1}),
        "batches of 10, rate 5e-3": lambda: reinforce(
            space, **ptb | {"samples_per_update": WIDTH, "accumulate": 1, "learning_rate": 5e-3}
        ),
        "independent, rate 5e-3": lambda: reinforce(
            space,
            **ptb | {"policy": "independent", "samples_per_update": WIDTH, "accumulate": 1, "learning_rate": 5e-3},
        ),
        "independent, rate 5e-2": lambda: reinforce(
            space,
            **ptb | {"policy": "independent", "samples_per_update": WIDTH, "accumulate": 1, "learning_rate": 5e-2},
        ),
    }


def planted(hidden):
    """The evaluator whose best cell is `hidden`: fitness = -perplexity."""

    def evaluate(key, proposal, inherited):
        share = (proposal.arch != hidden[None]).mean(1)
        fitness = -80.0 * (1 + 4 * share)
        nothing = jnp.zeros_like(fitness)
        return Evaluation(fitness, nothing, nothing.astype(jnp.int8), {}), None

    return Evaluator(evaluate)


def perplexities(space, searcher, seeds, samples):
    """f32[seeds, samples] in the order of the trials."""

    def run(key):
        key_hidden, key_search = jax.random.split(key)
        history = scan(key_search, searcher, planted(space.sample(key_hidden)), trials=samples, width=WIDTH)
        return -history.fitness

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), seeds)))


def mean_and_error(values):
    """Over the seeds: the mean, and the standard error of it."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def main() -> None:
    args = parser.parse_args()
    space = CellTree(args.base)
    chosen = settings(space)
    if args.only:
        chosen = {name: chosen[name] for name in ["random", *args.only.split(",")]}
    print(f"{args.seeds} seeds, {args.samples} samples, base {args.base}, means of the last {args.last}; best: 80")
    print(f"{'setting':28} {'perplexity':>16} {'decisions right':>16} {'best seen':>10} {'vs random':>10} {'s':>6}")
    rows, random = {}, None
    for name, searcher in chosen.items():
        begin = time.perf_counter()
        found = perplexities(space, searcher(), args.seeds, args.samples)
        seconds = time.perf_counter() - begin
        late = found[:, -args.last :].mean(1)
        random = late if random is None else random
        mean, error = mean_and_error(late)
        right = 1 - (mean / 80 - 1) / 4
        gain, gain_error = mean_and_error(random - late)  # the seeds share their hidden cells
        sigmas = gain / gain_error if gain_error else 0.0
        best = float(found.min(1).mean())
        rows[name] = {"perplexity": mean, "error": error, "right": right, "best": best, "sigmas": sigmas, "s": seconds}
        print(f"{name:28} {mean:8.2f} +- {error:4.2f} {right:16.1%} {best:10.1f} {sigmas:8.1f} se {seconds:6.0f}")
    device = jax.devices()[0].device_kind
    print(json.dumps({"seeds": args.seeds, "samples": args.samples, "base": args.base, "device": device, "rows": rows}))


if __name__ == "__main__":
    main()
