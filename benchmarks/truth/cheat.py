"""Planted cheats against `--mode=compare`: what a proposer gains that replays its luck or has read the truth's noise.

The problem is NAS-Bench-201's table, CIFAR-10: a reward is the validation accuracy of one of three runs of 200 epochs,
the result the test accuracy of the chosen cell. Every proposer speaks `--external`'s messages, in this process:

  random   honest: draws by the seed that the referee tells.
  replay   the cheat: of 1,000 seeds of its own it has kept the one by which `random` ends best on this table, and
           replays that search, whatever seed it is told.
  noise    the cheat: it has read the noise of the rewards, and proposes the cells whose luckiest run is the best.
  walk     honest: a mutant of the best so far, by the seed that it is told.
  repeat   the cheat: the same walk, that asks for every cell three times to draw the noise of its reward anew.

A cheat gains nothing if it does not end better than its honest version: in each of the comparisons, which are drawn
anew, the interval of the paired difference of test accuracies does not lie above 0 (Student's t over seeds; two-sided
level 1 - 0.05 / comparisons, so that all of them together err with a probability of 5 %), nor does the 95 % interval of
all comparisons together. The same comparisons with the seal off (`named`) show that the test would see a gain.

    python benchmarks/truth/cheat.py --table=FILE     # minutes on a CPU core
"""

from __future__ import annotations

import argparse
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from nasjax.evaluators.table import load_columns
from nasjax.experiments.families.candidates import TableConfig
from nasjax.referee import contest, draws, on_table, record
from nasjax.referee.contest import Entrant, Rules
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Metric

SPACE = TabularCell()
RUNS, RESULT = "hp200_cifar10valid_val_seeds", "hp200_cifar10_test"
PAIRS = (("replay", "random"), ("noise", "random"), ("repeat", "walk"))  # a cheat, and its honest version
OWN_SEEDS = 1000


def drawn(seed: int, trials: int) -> np.ndarray:
    """The architectures of an honest random search."""
    return np.random.default_rng(seed).integers(0, len(SPACE.ops), (trials, SPACE.edges))


def honest(seed: int, trials: int) -> Any:
    """Its answers by the seed that it is told."""
    return sequence(drawn(seed, trials))


def sequence(archs: np.ndarray) -> Callable[[dict[str, Any]], Any]:
    """Proposes these one after the other."""
    state = types.SimpleNamespace(done=0)

    def answer(message: dict[str, Any]) -> Any:
        if "ask" not in message:
            return None
        first, state.done = state.done, state.done + message["ask"]
        return {"archs": archs[first : state.done].tolist()}

    return answer


def walk(seed: int, times: int) -> Callable[[dict[str, Any]], Any]:
    """Asks for a mutant of the best so far, each `times` times, and believes the best that it is told of it."""
    rng = np.random.default_rng(seed)
    state = types.SimpleNamespace(best=-1.0, arch=None, now=None, left=0)

    def answer(message: dict[str, Any]) -> Any:
        for row in message.get("tell", ()):
            if (row["reward"] or 0.0) > state.best:
                state.best, state.arch = row["reward"], row["arch"]
        if "ask" not in message:
            return None
        if not state.left:
            now = rng.integers(0, len(SPACE.ops), SPACE.edges)
            if state.arch is not None and rng.random() > 0.1:
                edge, now = rng.integers(SPACE.edges), np.array(state.arch)
                now[edge] = (now[edge] + rng.integers(1, len(SPACE.ops))) % len(SPACE.ops)
            state.now, state.left = now.tolist(), times
        state.left -= 1
        return {"archs": [state.now]}

    return answer


class Told:
    """A proposer that is made by the seed which it is told, as a `Line`."""

    def __init__(self, make: Callable[[int], Callable[[dict[str, Any]], Any]]) -> None:
        self._make = make

    def __call__(self, message: dict[str, Any]) -> Any:
        if "start" in message:
            self._answer = self._make(message["start"]["seed"])
        return self._answer(message)

    def close(self) -> None:
        """Nothing to end."""


def entrants(runs: np.ndarray, result: np.ndarray, trials: int) -> tuple[list[Entrant], float]:
    """Who takes part, and the test accuracy of the seed that `replay` has kept over the mean of all, in percent."""
    archs = SPACE.enumerate()
    weights = np.array([len(SPACE.ops) ** e for e in reversed(range(SPACE.edges))])
    rows = np.stack([drawn(seed, trials) @ weights for seed in range(OWN_SEEDS)])
    best = rows[np.arange(OWN_SEEDS), runs[rows, 0].argmax(1)]
    lucky = int(result[best].argmax())
    luck = np.nanmax(runs, 1).argsort()[::-1][:trials]  # some cells have two runs
    makes = {
        "random": lambda seed: honest(seed, trials),
        "replay": lambda seed: sequence(drawn(lucky, trials)),
        "noise": lambda seed: sequence(archs[luck]),
        "walk": lambda seed: walk(seed, 1),
        "repeat": lambda seed: walk(seed, 3),
    }
    width = {"random": trials, "replay": trials, "noise": trials}
    found = [Entrant(name, None, width.get(name, 1), lambda make=make: Told(make)) for name, make in makes.items()]
    return found, float(result[best].max() - result[best].mean())


def compared(path: str, who: list[Entrant], rules: Rules) -> tuple[dict[str, np.ndarray], str]:
    """The test accuracies of one comparison in percent, by proposer f64[S], and its digest."""
    settings = TableConfig(path=path, fitness=RUNS, result=RESULT, cost="hp200_train_time_cifar10valid")
    field = on_table.field("cifar10", Metric("accuracy"), SPACE, settings, tuple(who), rules, facts={})
    told, _ = contest.contest([field], rules)
    return {name: 100 * final for name, final in told["problems"]["cifar10"]["finals"].items()}, record.digest(told)


def gains(finals: list[dict[str, np.ndarray]], cheat: str, base: str) -> dict[str, Any]:
    """How a cheat ends beside its honest version, over all comparisons."""
    apart = np.stack([found[cheat] - found[base] for found in finals])
    count, seeds = apart.shape
    far = stats.t.ppf(1 - 0.025 / count, seeds - 1) * apart.std(1, ddof=1) / seeds**0.5
    whole = stats.t.ppf(0.975, apart.size - 1) * apart.std(ddof=1) / apart.size**0.5
    return {
        "gains_nothing": int((apart.mean(1) - far <= 0).sum()),
        "better": int((apart.mean(1) > 0).sum()),
        "mean": apart.mean(),
        "interval": (apart.mean() - whole, apart.mean() + whole),
        "largest": (apart.mean(1)).max(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="NAS-Bench-201's .npz")
    parser.add_argument("--comparisons", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=50, help="of a comparison")
    parser.add_argument("--trials", type=int, default=50, help="of a search")
    parser.add_argument("--first", type=int, default=2026, help="the first comparison's number; others follow from it")
    args = parser.parse_args()
    columns = load_columns(args.table, SPACE)
    who, luck = entrants(columns[RUNS], columns[RESULT], args.trials)
    print(f"{args.comparisons} comparisons of {args.seeds} seeds and {args.trials} trials.")
    print(
        f"A random search that chooses the best of {OWN_SEEDS} seeds by its test accuracy: +{luck:.2f} over the mean.\n"
    )
    print("| seal | cheat | honest | gains nothing in | better in | mean gain (95 %) | largest mean of a comparison |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for named, takes_part in ((False, PAIRS), (True, PAIRS[:2])):
        names = {name for pair in takes_part for name in pair} | {"random"}
        finals = []
        for n in range(args.comparisons):
            rules = Rules(draws.drawn(args.first, "comparison", n), args.seeds, float(args.trials), "trials", named)
            found, digest = compared(args.table, [one for one in who if one.name in names], rules)
            finals.append(found)
            if n == 0 and not named:
                assert compared(args.table, who, rules)[1] == digest  # the same number, the same comparison
        for cheat, base in takes_part:
            row = gains(finals, cheat, base)
            low, high = row["interval"]
            print(
                f"| {'off' if named else 'on'} | {cheat} | {base} | {row['gains_nothing']} of {args.comparisons} | "
                f"{row['better']} | {row['mean']:+.3f} ({low:+.3f} to {high:+.3f}) | {row['largest']:+.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
