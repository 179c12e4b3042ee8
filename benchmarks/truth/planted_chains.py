"""Does the controller learn? A hidden network of conv_chain as the optimum, and two controls that find less.

    python benchmarks/truth/planted_chains.py [--seeds=20] [--samples=12800]      # some 15 minutes on one core

The fitness of a chain is half the share of its tokens (heights, widths, numbers of filters) that equal those of a
hidden chain, and half the share of its skip decisions that do, over the layers it has, plus noise of deviation 0.05.
The reward is its cube; rate (6e-4), batches of 8 and the schedule of depths are the paper's (Zoph & Le 2017, sections 3
and 4.1). Every seed has a hidden chain of its own; all seeds of a setting are one program.

`permuted`: the rewards of a batch are shuffled, so that an eighth of them stays with its child; `rolled`: each goes to
the next child, so that none does. `no attention`: no gradient reaches the weights that choose skips. Reported are the
means of the last samples, both halves apart. The hidden chain's skips are drawn at random, so that a controller can
only learn each of them by heart; with `--skips=all` every one is there, which a few weights of the attention can say.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.drive.scan import scan
from nasjax.searchers import random_search, reinforce
from nasjax.searchers.lstm_policy import lstm_policy
from nasjax.searchers.policy import depth_schedule
from nasjax.spaces.conv_chain.space import ConvChain, variant
from nasjax.types import Evaluation, Evaluator, Key, Proposal, Searcher

BATCH = 8
NOISE = 0.05


def matches(space: ConvChain, hidden: jax.Array, archs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Shares f32[N] of tokens and of skip decisions that equal the hidden chain's."""
    groups = np.array([site.group for site in space.sites])
    active = jax.vmap(space.active)(archs)
    equal = (archs == hidden[None]) & active
    shares = []
    for kind in (groups == "anchor", (groups != "anchor") & (groups != "depth")):
        shares.append((equal & kind).sum(1) / jnp.maximum((active & kind).sum(1), 1))
    return shares[1], shares[0]


def planted(space: ConvChain, hidden: jax.Array, moved: str) -> Evaluator:
    """The evaluator whose optimum is `hidden`; the rewards of a batch stay, or are "permuted" or "rolled"."""

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, None]:
        key = jax.random.fold_in(key, proposal.id[0])
        tokens, anchors = matches(space, hidden, proposal.arch)
        fitness = (tokens + anchors) / 2 + NOISE * jax.random.normal(key, tokens.shape)
        if moved:
            shuffled = jax.random.permutation(jax.random.fold_in(key, 1), fitness)
            fitness = shuffled if moved == "permuted" else jnp.roll(fitness, 1)
        nothing = jnp.zeros_like(fitness)
        info = {"tokens": tokens, "anchors": anchors}
        return Evaluation(fitness, nothing, nothing.astype(jnp.int8), info), None

    return Evaluator(evaluate)


def settings(space: ConvChain, args: argparse.Namespace) -> dict[str, tuple[Searcher, str]]:
    """name -> the searcher, and how rewards are moved."""
    depths = depth_schedule(first=6, step=2, every=max(1, args.samples // 8), maximum=20)
    policy = lstm_policy(space)

    def blind(params: Any, arch: jax.Array) -> Any:
        return policy.log_prob(params | {"attention": jax.lax.stop_gradient(params["attention"])}, arch)

    common: dict[str, Any] = {"samples_per_update": BATCH, "depth_schedule": depths, "learning_rate": args.rate}
    return {
        "controller": (reinforce(space, policy=policy, **common), ""),
        "permuted": (reinforce(space, policy=policy, **common), "permuted"),
        "rolled": (reinforce(space, policy=policy, **common), "rolled"),
        "no attention": (reinforce(space, policy=policy._replace(log_prob=blind), **common), ""),
        "random": (random_search(space, depth_schedule=depths), ""),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samples", type=int, default=12_800)
    parser.add_argument("--last", type=int, default=640, help="samples at the end whose means are reported")
    parser.add_argument("--rate", type=float, default=6e-4, help="of the controller; the paper's")
    parser.add_argument("--skips", choices=["random", "all"], default="random", help="of the hidden chain")
    parser.add_argument("--only", nargs="*", default=[], help="settings to run; all if none")
    args = parser.parse_args()
    space = variant("v1")
    is_skip = np.array([site.group == "anchor" for site in space.sites])
    rows: dict[str, Any] = {}
    print(f"{args.seeds} seeds, {args.samples} samples, rate {args.rate}; means of the last {args.last}")
    print(f"{'setting':14} {'tokens':>16} {'skips':>16} {'reward':>16}      s")
    for name, (searcher, moved) in settings(space, args).items():
        if args.only and name not in args.only:
            continue
        began = time.perf_counter()

        def run(key: Key, searcher: Searcher = searcher, moved: str = moved) -> Any:
            key_hidden, key_search = jax.random.split(key)
            hidden = space.sample(key_hidden, space.max_layers)
            if args.skips == "all":
                hidden = jnp.where(is_skip, 1, hidden)
            history = scan(key_search, searcher, planted(space, hidden, moved), trials=args.samples, width=BATCH)
            return history.info["tokens"], history.info["anchors"]

        found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), args.seeds))
        tokens, anchors = (np.asarray(values, float)[:, -args.last :] for values in found)
        values = {"tokens": tokens, "skips": anchors, "reward": ((tokens + anchors) / 2) ** 3}
        means = {what: value.mean(1) for what, value in values.items()}
        errors = {what: mean.std(ddof=1) / np.sqrt(args.seeds) for what, mean in means.items()}
        seconds = time.perf_counter() - began
        rows[name] = {what: [float(means[what].mean()), float(errors[what])] for what in means} | {"s": seconds}
        told = "  ".join(f"{means[what].mean():.4f} +- {errors[what]:.4f}" for what in means)
        print(f"{name:14} {told} {seconds:6.0f}", flush=True)
    print(json.dumps({"benchmark": "truth/planted_chains", **vars(args), "results": rows, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
