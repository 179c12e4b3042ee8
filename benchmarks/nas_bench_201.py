"""Random search, aging evolution and REINFORCE on NAS-Bench-201's 15,625 trained cells, many seeds as one program.

Dong & Yang 2020, "NAS-Bench-201", section 5 and table 5 (500 runs): CIFAR-10 test accuracy 93.70 +- 0.36 for random
search, 93.92 +- 0.30 for aging evolution (REA), 93.85 +- 0.37 for REINFORCE, whose policy is a table of independent
logits. Their protocol: the reward is the
validation accuracy after 12 epochs, a trial costs the time of those epochs, 12,000 s in all, and the result is the
test accuracy after 200 epochs of the cell with the best reward. As in their random search, the trial that would exceed
the budget does not count (in their REINFORCE its reward still could be the best, though nothing is learnt from it).

    python benchmarks/nas_bench_201.py --table=FILE                # both tables, about 12 minutes on 2 CPU cores
    python benchmarks/nas_bench_201.py --table=FILE --only=aging   # random search, and the rows with this in their name
    python benchmarks/nas_bench_201.py --table=FILE --tune         # the grid that FAST was chosen from, on other seeds

FILE is the .npz of the layout that `nasjax.evaluators.table` describes.
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

from nasjax.drive.scan import incumbent, scan
from nasjax.evaluators.table import load_table, table
from nasjax.searchers.aging import aging
from nasjax.searchers.random import random_search
from nasjax.searchers.reinforce import cube, reinforce
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluator, Searcher

BUDGET_S = 12_000.0
LONGEST = 160  # trials; no search may get that far within the budget (checked)
TUNING_SEED = 1_000_000  # other keys than the reported ones, whose seed is 0


def accuracy(fitness: jax.Array) -> jax.Array:
    return fitness


REWARDS = {"accuracy": accuracy, "cube": cube}


class Setting(NamedTuple):
    """One REINFORCE; the defaults are those of Zoph & Le 2017 and of ours where the paper is silent."""

    policy: str = "lstm"
    learning_rate: float = 6e-4
    samples_per_update: int = 8
    reward: str = "cube"
    baseline_decay: float = 0.95

    def searcher(self, space: TabularCell, learning_rate: float | jax.Array | None = None) -> Searcher:
        return reinforce(
            space,
            policy=self.policy,
            learning_rate=self.learning_rate if learning_rate is None else learning_rate,
            samples_per_update=self.samples_per_update,
            reward=REWARDS[self.reward],
            baseline_decay=self.baseline_decay,
        )

    def label(self) -> str:
        kind = "LSTM" if self.policy == "lstm" else "independent logits"
        more = f"m {self.samples_per_update}, {self.reward}, baseline decay {self.baseline_decay}"
        return f"REINFORCE, {kind}, learning rate {self.learning_rate:g}, {more}"


# The benchmark's own REINFORCE: one sample per update, baseline momentum 0.9, Adam, logits near zero. (It updates the
# baseline before using it, which scales every advantage by 0.9, and its reward is in percent: Adam undoes both.)
OWN = Setting("independent", 0.001, 1, "accuracy", 0.9)
PAPER = Setting()
HOT = PAPER._replace(learning_rate=0.03)  # one change; the best rate of `--tune` for m = 8
FAST = PAPER._replace(learning_rate=0.006, samples_per_update=1, baseline_decay=0.9)  # the best LSTM of `--tune`


AGING = ((10, 3), (10, 10))  # population and sample: the usual setting on this table, and one that selects harder


def seeds_of(seed: int, count: int) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def within_budget(searcher: Searcher, evaluator: Evaluator, width: int, key: jax.Array) -> dict[str, jax.Array]:
    """One search by the benchmark's protocol."""
    history = scan(key, searcher, evaluator, trials=LONGEST, width=width, budget_cost=BUDGET_S)
    best = incumbent(history)[-1]
    return {
        "result": history.info["result"][best],
        "reward": history.fitness[best],
        "trials": history.valid.sum(),
        "cut": history.valid[-1],
    }


def learning_curve(searcher: Searcher, evaluator: Evaluator, width: int, key: jax.Array, trials: int):
    """Rewards of all samples of one search of `trials` trials, its cost not limited, and its result at the end."""
    history = scan(key, searcher, evaluator, trials=trials, width=width)
    return {"reward": history.fitness, "result": history.info["result"][incumbent(history)[-1]], "arch": history.arch}


def timed(function, *args):
    """The function's values as numpy, seconds to compile, seconds to run."""
    begun = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    built = time.perf_counter()
    values = jax.device_get(jax.block_until_ready(compiled(*args)))
    return values, built - begun, time.perf_counter() - built


def searches(space: TabularCell, only: str = "") -> list[tuple[str, Searcher, int]]:
    """Name, searcher and width; random search is always the first."""
    own = [OWN._replace(learning_rate=rate) for rate in (0.001, 0.01, 0.05)]
    settings = [*own, PAPER, HOT, FAST]
    rows = [(f"aging evolution, P {p}, S {s}", aging(space, population=p, sample_size=s), 1) for p, s in AGING]
    stays = aging(space, population=10, sample_size=3, ages=False)
    rows.append(("evolution without aging, P 10, S 3", stays, 1))
    rows += [(s.label(), s.searcher(space), s.samples_per_update) for s in settings]
    return [("random search", random_search(space), 1), *(row for row in rows if only in row[0])]


def report_budget(space: TabularCell, evaluator: Evaluator, seeds: int, only: str) -> list[dict]:
    print(f"\nBudget 12,000 s, {seeds} seeds, each row one vmapped program:\n")
    print("| search | test accuracy, % (+- std) | over random (+- s.e.) | best reward, % | trials | compile + run, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("| published: random search (500 runs) | 93.70 +- 0.36 | | | | |")
    print("| published: aging evolution (500 runs) | 93.92 +- 0.30 | | | | |")
    print("| published: REINFORCE, independent logits (500 runs) | 93.85 +- 0.37 | | | | |")
    rows, base = [], None
    for name, searcher, width in searches(space, only):

        def run(key, searcher=searcher, width=width):
            return within_budget(searcher, evaluator, width, key)

        out, compile_s, run_s = timed(jax.vmap(run), seeds_of(0, seeds))
        assert not out["cut"].any(), f"{name}: {LONGEST} trials do not spend the budget"
        result = 100 * out["result"].astype(np.float64)
        base = result if base is None else base
        error = np.hypot(result.std(), base.std()) / seeds**0.5
        row = {
            "search": name,
            "mean": result.mean(),
            "std": result.std(),
            "over_random": result.mean() - base.mean(),
            "standard_error": error,
            "best_reward": 100 * out["reward"].astype(np.float64).mean(),
            "trials": out["trials"].mean(),
            "compile_s": compile_s,
            "run_s": run_s,
        }
        rows.append(row)
        over = "" if base is result else f"{row['over_random']:+.2f} +- {error:.2f}"
        print(
            f"| {name} | {row['mean']:.2f} +- {row['std']:.2f} | {over} | {row['best_reward']:.2f} | "
            f"{row['trials']:.1f} | {compile_s:.0f} + {run_s:.0f} |",
            flush=True,
        )
    return rows


def report_curves(space: TabularCell, evaluator: Evaluator, seeds: int, trials: int, only: str) -> list[dict]:
    windows = [(a, a + 100) for a in (0, 100, 400, 900, 1400, 1900) if a + 100 <= trials]
    print(f"\nMean reward (12-epoch validation accuracy, %) of the samples over {trials} trials, {seeds} seeds:\n")
    heads = [f"{a + 1}-{b}" for a, b in windows] + ["distinct in the last 100", "test accuracy, % (+- std)"]
    print("| search | " + " | ".join(heads) + " |\n| --- |" + " --- |" * len(heads))
    rows = []
    for name, searcher, width in searches(space, only):

        def run(key, searcher=searcher, width=width):
            return learning_curve(searcher, evaluator, width, key, trials)

        out, *_ = timed(jax.vmap(run), seeds_of(0, seeds))
        means = [100 * float(out["reward"][:, a:b].mean(dtype=np.float64)) for a, b in windows]
        distinct = np.mean([len(np.unique(arch[-100:], axis=0)) for arch in out["arch"]])
        result = 100 * out["result"].astype(np.float64)
        rows.append({"search": name, "windows": windows, "reward": means, "distinct": distinct, "mean": result.mean()})
        rows[-1]["std"] = result.std()
        cells = [f"{mean:.2f}" for mean in means] + [f"{distinct:.0f}", f"{result.mean():.2f} +- {result.std():.2f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return rows


def tune(space: TabularCell, evaluator: Evaluator, seeds: int) -> list[dict]:
    """Settings ranked by the mean best reward: what a search can see; the test accuracy is only shown."""
    grid = [(OWN, (0.02, 0.05, 0.1, 0.2))]
    for m, decay in itertools.product((1, 2, 4, 8), (0.9, 0.95)):
        grid.append((PAPER._replace(samples_per_update=m, baseline_decay=decay), (0.003, 0.006, 0.01, 0.02, 0.03)))
    rows = []
    print(f"\nBudget 12,000 s, {seeds} tuning seeds:\n")
    print("| setting | best reward, % (+- s.e.) | test accuracy, % (+- std) | trials |")
    print("| --- | --- | --- | --- |")
    for setting, rates in grid:

        def run(rate, key, setting=setting):  # the learning rate may be traced, so all rates are one program
            searcher = setting.searcher(space, rate)
            return within_budget(searcher, evaluator, setting.samples_per_update, key)

        every = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
        out, *_ = timed(every, jnp.array(rates), seeds_of(TUNING_SEED, seeds))
        for n, rate in enumerate(rates):
            best, result = (100 * out[name][n].astype(np.float64) for name in ("reward", "result"))
            rows.append({"search": setting._replace(learning_rate=rate).label(), "best_reward": best.mean()})
            rows[-1] |= {"mean": result.mean(), "std": result.std(), "trials": out["trials"][n].mean()}
            print(
                f"| {rows[-1]['search']} | {best.mean():.3f} +- {best.std() / seeds**0.5:.3f} | "
                f"{result.mean():.3f} +- {result.std():.3f} | {rows[-1]['trials']:.1f} |",
                flush=True,
            )
    for kind in ("independent", "LSTM"):
        best_row = max((row for row in rows if kind in row["search"]), key=lambda row: row["best_reward"])
        print(f"\nbest: {best_row['search']}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="the .npz of all architectures")
    parser.add_argument("--seeds", type=int, default=500, help="of the protocol with the budget")
    parser.add_argument("--curve_seeds", type=int, default=200, help="of the learning curves")
    parser.add_argument("--trials", type=int, default=2000, help="of the learning curves")
    parser.add_argument("--only", default="", help="rows with this in their name, beside random search")
    parser.add_argument("--tune", action="store_true", help="run the grid of settings instead")
    parser.add_argument("--tune_seeds", type=int, default=100)
    args = parser.parse_args()
    space = TabularCell()
    evaluator = table(space, load_table(args.table, space))
    versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    if args.tune:
        out = {"tune": tune(space, evaluator, args.tune_seeds)}
    else:
        budget = report_budget(space, evaluator, args.seeds, args.only)
        out = {"budget": budget, "curves": report_curves(space, evaluator, args.curve_seeds, args.trials, args.only)}
    print("\n" + json.dumps({**versions, **vars(args), **out}, default=float))


if __name__ == "__main__":
    main()
