"""Searchers on NAS-Bench-201's table: queries until the best cell is found, and what a search has after so many.

The reward is the validation accuracy after 200 epochs (White et al. 2021, "BANANAS", section 5.1, and "Exploring the
Loss Landscape in Neural Architecture Search", section 5). A search ends when the cell with the best reward was tried:
from then on it is the best of the search, so that its result after more trials is known. Beside it the benchmark's own
protocol (Dong & Yang 2020, section 5): the reward after 12 epochs, 12,000 s in all, the result after 200 epochs of the
trial with the best reward; the trial that would exceed the budget does not count.

    python benchmarks/truth/searchers.py --table=FILE --scores=FILE --out=a.jsonl --seeds=500
    python benchmarks/truth/searchers.py --table=FILE --scores=FILE --out=b.jsonl --only=bo --stream=1000000 --seeds=100
    python benchmarks/truth/searchers.py --report=a.jsonl,c.jsonl

FILEs: the tables of `nasjax.evaluators.table`'s benchmark layout, and the training-free scores of its rows. `--stream`
is the key that the seeds are split from: settings were chosen on those of 1,000,000, the tables are those of 0.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators.table import Table, load_table, table
from nasjax.searchers.aging import aging
from nasjax.searchers.bo import bo
from nasjax.searchers.local_search import local_search
from nasjax.searchers.random import random_search
from nasjax.searchers.reinforce import cube, reinforce
from nasjax.searchers.topk import topk_evolution
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluator, Key, Searcher

SPACE = TabularCell()
AFTER = (20, 100, 1000)  # trials
BUDGET_S = 12_000.0
CHUNK = 50  # seeds at a time, of searchers that run one after the other
PUBLISHED = {"random": "93.70 +- 0.36", "aging": "93.92 +- 0.30", "reinforce": "93.85 +- 0.37"}


class Target(NamedTuple):
    """What a search is given, and what it is judged by."""

    fitness: str
    result: str
    data: str  # whose costs and scores belong to it
    cost_scale: float = 1.0


TARGETS = {
    "cifar10": Target("hp200_cifar10valid_val", "hp200_cifar10_test", "cifar10"),
    "cifar100": Target("hp200_cifar100_val", "hp200_cifar100_test", "cifar100"),
    "imagenet16": Target("hp200_imagenet16_val", "hp200_imagenet16_test", "imagenet16"),
    "protocol": Target("hp12_cifar10valid_val", "hp200_cifar10_test", "cifar10", 12 / 200),
}


class Method(NamedTuple):
    """A searcher, and how it is run."""

    make: Callable[..., Searcher]
    width: int  # candidates at a time
    trials: int  # at most
    together: bool = True  # all seeds at once, or one after the other


METHODS = {
    "random": Method(partial(random_search, SPACE), 1, 2000),
    "aging": Method(partial(aging, SPACE, population=10, sample_size=10), 1, 2000),
    "reinforce": Method(
        partial(reinforce, SPACE, learning_rate=0.006, samples_per_update=1, reward=cube, baseline_decay=0.9), 1, 2000
    ),
    "local_search": Method(partial(local_search, SPACE, capacity=2000), 1, 2000, False),
    "topk": Method(partial(topk_evolution, SPACE, capacity=1050), 10, 1000),
    "bo": Method(partial(bo, SPACE, capacity=300), 5, 300, False),
    "bo_scores": Method(partial(bo, SPACE, capacity=300), 5, 300, False),
    "bo_scores_start": Method(partial(bo, SPACE, capacity=300), 5, 300, False),
}


def rank(values: np.ndarray) -> np.ndarray:
    """Mean ranks, as a share of all: (0, 1]."""
    _, back, count = np.unique(values, return_inverse=True, return_counts=True)
    return ((np.cumsum(count) - (count - 1) / 2) / len(values))[back].astype(np.float64)


def known(scores: str, path: str, data: str) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the training-free scores of every cell, f32[R, K] in [-1, 1], and the sum of three's log ranks, f32[R].

    As in the probe that the target of 55 queries is from: NASWOT, log synflow, regions (where the file has them),
    parameters and multiply-adds; the start by the first two and multiply-adds.
    """
    of, table = np.load(scores), np.load(path)
    names = [f"{name}_{data}" for name in ("naswot", "logsynflow", "nregions")]
    columns = [of[name] for name in names if name in of.files] + [
        table[f"{name}_{data}"] for name in ("params", "flops")
    ]
    ranks = np.stack([rank(column) for column in columns], 1)
    place = np.argsort(np.asarray(SPACE.index(jnp.asarray(table["ops"], jnp.int32))))
    start = np.log(ranks[:, [0, 1, -1]]).sum(1)
    return (2 * ranks - 1)[place].astype(np.float32), start[place].astype(np.float32)


def searcher_of(name: str, scores: str, path: str, data: str, **settings: Any) -> Searcher:
    """The searcher of a method for a data set."""
    if "scores" in name:
        values, start = known(scores, path, data)
        settings["scores"] = lambda arch: jnp.asarray(values)[SPACE.index(arch)]
        if "start" in name:
            settings["start"] = lambda arch: jnp.asarray(start)[SPACE.index(arch)]
    return METHODS[name].make(**settings)


def search(
    key: Key, searcher: Searcher, evaluator: Evaluator, best: float, width: int, trials: int, budget_cost: float
) -> dict[str, jax.Array]:
    """One search, until `best` was found, the trials or the cost are spent; keys are used as in `drive.scan`.

    Returns:
      found: i32[], the trial that was the best one, from 1; 0 = none.
      after: f32[3], results of the best so far after AFTER trials.
      result: f32[], at the end.
      count: i32[], trials.
    """
    key_init, key_ask, key_eval = jax.random.split(key, 3)
    begin = {
        "count": jnp.int32(0),
        "found": jnp.int32(0),
        "after": jnp.full(len(AFTER), jnp.nan),
        "result": jnp.float32(jnp.nan),
        "fitness": jnp.float32(-jnp.inf),
        "spent": jnp.float32(0),
    }

    def going(carry: Any) -> jax.Array:
        _, now, round_ = carry
        return (now["found"] == 0) & (now["count"] < trials) & (now["spent"] <= budget_cost) & (round_ < trials)

    def count(now: dict[str, jax.Array], row: Any) -> tuple[dict[str, jax.Array], jax.Array]:
        trial, fitness, result, cost = row
        spent = now["spent"] + jnp.where(trial >= 0, cost, 0.0)
        valid = (trial >= 0) & (spent <= budget_cost)
        better = valid & (fitness > now["fitness"])
        now = {
            "count": now["count"] + valid,
            "result": jnp.where(better, result, now["result"]),
            "fitness": jnp.where(better, fitness, now["fitness"]),
            "spent": spent,
            "found": jnp.where(better & (fitness >= best), now["count"] + 1, now["found"]),
            "after": now["after"],
        }
        now["after"] = jnp.where(valid & (now["count"] == jnp.array(AFTER)), now["result"], now["after"])
        return now, valid

    def round_(carry: Any) -> Any:
        state, now, number = carry
        state, proposal = searcher.ask(key_ask, state, width)
        evaluation, _ = evaluator.evaluate(key_eval, proposal, None)
        rows = (proposal.id, evaluation.fitness, evaluation.info["result"], evaluation.cost)
        now, valid = jax.lax.scan(count, now, rows)
        state = searcher.tell(state, proposal._replace(id=jnp.where(valid, proposal.id, -1)), evaluation)
        return state, now, number + 1

    _, now, _ = jax.lax.while_loop(going, round_, (searcher.init(key_init), begin, jnp.int32(0)))
    now["after"] = jnp.where(jnp.isnan(now["after"]), now["result"], now["after"])  # those of the best, or of the last
    return {name: now[name] for name in ("found", "after", "result", "count")}


def measure(name: str, target: str, args: argparse.Namespace) -> dict[str, Any]:
    """All seeds of a method on a target."""
    of, method = TARGETS[target], METHODS[name]
    cost = "hp200_train_time_" + ("cifar10valid" if of.data == "cifar10" else of.data)
    truth: Table = load_table(
        args.table, SPACE, fitness=of.fitness, result=of.result, cost=cost, cost_scale=of.cost_scale
    )
    limited = target == "protocol"
    best = np.inf if limited else float(np.nanmax(truth.fitness))
    assert limited or (truth.fitness == np.float32(best)).sum() == 1
    searcher = searcher_of(name, args.scores, args.table, of.data, **json.loads(args.settings))

    def run(key: Key) -> dict[str, jax.Array]:
        limit = BUDGET_S if limited else np.inf
        return search(key, searcher, table(SPACE, truth), best, method.width, method.trials, limit)

    keys = jax.random.split(jax.random.key(args.stream), args.seeds)
    chunk = args.seeds if method.together else min(CHUNK, args.seeds)
    several = jax.vmap(run) if method.together else lambda keys: jax.lax.map(run, keys)
    begun = time.perf_counter()
    compiled = jax.jit(several).lower(keys[:chunk]).compile()
    built, parts = time.perf_counter(), []
    for at in range(0, args.seeds, chunk):
        parts.append(jax.device_get(compiled(keys[at : at + chunk])))
    values = {field: np.concatenate([part[field] for part in parts]) for field in parts[0]}
    return {
        "method": name,
        "target": target,
        "settings": args.settings,
        "stream": args.stream,
        "compile_s": round(built - begun, 1),
        "run_s": round(time.perf_counter() - built, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "trials": method.trials,
        **{field: value.tolist() for field, value in values.items()},
    }


def line(row: dict[str, Any]) -> str:
    """A row of a table."""
    result = 100 * np.array(row["result"], np.float64)
    seconds = f"{row['compile_s']:.0f} + {row['run_s']:.0f}"
    if row["target"] == "protocol":
        published = PUBLISHED.get(row["method"], "")
        trials = f"{np.mean(row['count']):.1f}"
        return f"| {row['method']} | {result.mean():.2f} +- {result.std():.2f} | {published} | {trials} | {seconds} |"
    found = np.array(row["found"])
    found = np.where(found > 0, found, np.iinfo(np.int32).max)
    quantiles = [np.quantile(found, q, method="higher") for q in (0.5, 0.95)]
    shown = [f"{q:.0f}" if q <= row["trials"] else f"> {row['trials']:,}" for q in quantiles]
    shares = [f"{100 * (found <= n).mean():.1f}" for n in (150, 1000)]
    after = 100 * np.array(row["after"], np.float64)
    results = [f"{m:.2f} +- {s:.2f}" for m, s in zip(after.mean(0), after.std(0), strict=True)]
    return f"| {row['method']} | " + " | ".join([*shown, *shares, *results, seconds, str(row["peak_mb"])]) + " |"


def report(rows: list[dict[str, Any]]) -> None:
    """A table per target."""
    for target in TARGETS:
        those = [row for row in rows if row["target"] == target]
        if not those:
            continue
        print(f"\n{target}, {len(those[0]['result'])} seeds\n")
        heads = ["median", "95 %", "within 150, %", "within 1,000, %", *(f"test after {n:,}" for n in AFTER)]
        heads += ["compile + run, s", "peak, MB"]
        if target == "protocol":
            heads = ["test accuracy, %", "published", "trials", "compile + run, s"]
        print("| searcher | " + " | ".join(heads) + " |\n| --- |" + " --- |" * len(heads))
        for row in sorted(those, key=lambda row: list(METHODS).index(row["method"])):
            print(line(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", help="the .npz of all architectures")
    parser.add_argument("--scores", help="the .npz of their training-free scores")
    parser.add_argument("--out", help="a line of JSON for every method and target is added to it")
    parser.add_argument("--only", default=",".join(METHODS), help="methods")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--stream", type=int, default=0)
    parser.add_argument("--settings", default="{}", help="of the searchers, as JSON")
    parser.add_argument("--report", help="files of --out, to be shown as tables")
    args = parser.parse_args()
    if args.seeds > CHUNK and args.seeds % CHUNK:
        parser.error(f"--seeds must be at most {CHUNK} or a multiple of it")
    if args.report:
        report([json.loads(text) for path in args.report.split(",") for text in Path(path).read_text().splitlines()])
        return
    for target in args.targets.split(","):
        for name in args.only.split(","):
            row = measure(name, target, args)
            print(target, line(row), flush=True)
            with open(args.out, "a") as stream:
                stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
