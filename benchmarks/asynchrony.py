"""Aging evolution without barriers beside the same evolution in generations, on a virtual clock, many seeds at once.

Real et al. 2019, section 3, trained on hundreds of workers without waiting for the slowest. Here W workers look their
results up in NAS-Bench-201 and take the seconds that the table says (12 of 200 epochs), once as they are, once times a
random factor: machines that are shared. A worker without a barrier gets the next child when it is free; with one, when
all W have ended.

    python benchmarks/asynchrony.py --table=FILE      # about 2 minutes on 2 CPU cores
    python benchmarks/asynchrony.py --table=FILE --seeds=10 --trials=20000 --workers 1 10 100 1000 10000

Prints, per row, how long it took until the cell of the best reward had a test accuracy, how busy workers were, and the
test accuracy of the best after the last of equally many trials. benchmarks/coordinator.py says how many trials per
second the loop of a real search could hand out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators.table import load_table, table
from nasjax.searchers.aging import aging
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Evaluator, Proposal, PyTree, Searcher


class Trace(NamedTuple):
    """After each result, or each generation: seconds, test accuracy of the best by reward, share of busy workers."""

    at: jax.Array
    result: jax.Array
    busy: jax.Array


class Best(NamedTuple):
    """The best by reward so far."""

    reward: jax.Array
    result: jax.Array


def judged(evaluator: Evaluator, spread: float, key: jax.Array, proposal: Proposal) -> tuple[Evaluation, jax.Array]:
    """Evaluations, and how long each takes: the table's seconds times exp(spread * normal), by trial."""
    evaluation, _ = evaluator.evaluate(key, proposal, None)
    draws = jax.vmap(lambda trial: jax.random.normal(jax.random.fold_in(key, trial)))(proposal.id)
    return evaluation, jnp.asarray(evaluation.cost) * jnp.exp(spread * draws)


def better(best: Best, reward: jax.Array, result: jax.Array) -> Best:
    return Best(
        *(jnp.where(reward > best.reward, new, old) for new, old in ((reward, best.reward), (result, best.result)))
    )


def free_running(
    searcher: Searcher, evaluator: Evaluator, workers: int, trials: int, spread: float, key: jax.Array
) -> Trace:
    """Each worker gets the next child when it is free."""
    key_init, key_ask, key_work = jax.random.split(key, 3)
    state, asked = searcher.ask(key_ask, searcher.init(key_init), workers)
    evaluation, seconds = judged(evaluator, spread, key_work, asked)

    def one(carry: PyTree, _: None) -> tuple[PyTree, Trace]:
        state, asked, evaluation, ends, best = carry
        worker = ends.argmin()
        at = ends[worker]
        row = jax.tree.map(lambda leaf: leaf[worker][None], (asked, evaluation))
        state = searcher.tell(state, *row)
        best = better(best, row[1].fitness[0], row[1].info["result"][0])
        state, new = searcher.ask(key_ask, state, 1)
        found, took = judged(evaluator, spread, key_work, new)
        asked, evaluation = jax.tree.map(lambda old, one: old.at[worker].set(one[0]), (asked, evaluation), (new, found))
        carry = (state, asked, evaluation, ends.at[worker].set(at + took[0]), best)
        return carry, Trace(at, best.result, jnp.float32(1))  # no worker ever waits

    start = (state, asked, evaluation, seconds, Best(jnp.float32(-1), jnp.float32(0)))
    return jax.lax.scan(one, start, None, trials)[1]


def in_generations(
    searcher: Searcher, evaluator: Evaluator, workers: int, trials: int, spread: float, key: jax.Array
) -> Trace:
    """All workers wait for the slowest."""
    key_init, key_ask, key_work = jax.random.split(key, 3)

    def one(carry: PyTree, _: None) -> tuple[PyTree, Trace]:
        state, at, best, busy = carry
        state, asked = searcher.ask(key_ask, state, workers)
        evaluation, seconds = judged(evaluator, spread, key_work, asked)
        state = searcher.tell(state, asked, evaluation)
        first = evaluation.fitness.argmax()
        best = better(best, evaluation.fitness[first], evaluation.info["result"][first])
        at, busy = at + seconds.max(), busy + seconds.sum()
        return (state, at, best, busy), Trace(at, best.result, busy / (workers * at))

    start = (searcher.init(key_init), jnp.float32(0), Best(jnp.float32(-1), jnp.float32(0)), jnp.float32(0))
    return jax.lax.scan(one, start, None, trials // workers)[1]


def until(trace: Trace, target: float) -> jax.Array:
    """Seconds until the best has a test accuracy; infinite where it never has."""
    there = trace.result >= target
    return jnp.where(there.any(), trace.at[there.argmax()], jnp.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="the .npz that nasjax.evaluators.table describes")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="*", default=[100])
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--population", type=int, default=100)
    parser.add_argument("--sample_size", type=int, default=25)
    parser.add_argument("--targets", type=float, nargs="*", default=[0.939, 0.943], help="test accuracies")
    parser.add_argument("--spreads", type=float, nargs="*", default=[0.0, 0.5], help="of the logarithm of durations")
    args = parser.parse_args()
    if uneven := [workers for workers in args.workers if args.trials % workers]:
        parser.error(f"--trials {args.trials}: write a multiple of {uneven[0]} workers")
    space = TabularCell()
    evaluator = table(space, load_table(args.table, space))
    keys = jax.random.split(jax.random.key(0), args.seeds)
    rows = []
    heads = "".join(f" seconds to {target:.1%} (median, quartiles) | reached |" for target in args.targets)
    print(f"| durations | workers | evolution |{heads} workers busy | test accuracy at the end | seconds in all |")
    print("| --- " * (6 + 2 * len(args.targets)) + "|")
    ways = (("free-running", free_running), ("in generations", in_generations))
    for spread, workers, (name, run) in itertools.product(args.spreads, args.workers, ways):
        began = time.perf_counter()
        searcher = aging(space, population=args.population, sample_size=args.sample_size, in_flight=workers)

        def search(key: jax.Array, run=run, spread=spread, workers=workers, searcher=searcher) -> list[jax.Array]:
            trace = run(searcher, evaluator, workers, args.trials, spread, key)
            seconds = jnp.stack([until(trace, target) for target in args.targets])
            return [seconds, trace.busy[-1], trace.result[-1], trace.at[-1]]

        seconds, busy, result, length = jax.device_get(jax.jit(jax.vmap(search))(keys))
        row = {"spread": spread, "workers": workers, "evolution": name, "busy": float(busy.mean())}
        row |= {"result": float(result.mean()), "result_std": float(result.std()), "seconds": float(length.mean())}
        drawn = f"the table times exp({spread:g} normal)" if spread else "the table"
        line = f"| {drawn} | {workers:,} | {name} |"
        for target, column in zip(args.targets, seconds.T, strict=True):
            low, middle, high = np.quantile(column, (0.25, 0.5, 0.75), method="nearest").tolist()
            reached = float(np.isfinite(column).mean())
            row[str(target)] = {"median": middle, "quartiles": [low, high], "reached": reached}
            line += f" {middle:,.0f} ({low:,.0f} to {high:,.0f}) | {reached:.1%} |"
        rows.append({**row, "took_s": round(time.perf_counter() - began, 1)})
        end = f"{100 * row['result']:.2f} ± {100 * row['result_std']:.2f} %"
        print(f"{line} {row['busy']:.1%} | {end} | {row['seconds']:,.0f} |", flush=True)
    settings = {key: value for key, value in vars(args).items() if key != "table"}
    print(json.dumps({"benchmark": "asynchrony", **settings, "rows": rows, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
