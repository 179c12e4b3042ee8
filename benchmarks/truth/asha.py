"""ASHA beside random search with whole trainings, over chains that are really trained: time to the same accuracy.

    python benchmarks/truth/asha.py --data_dir=FOLDER [--out=runs/asha]      # about a quarter of an hour on one core

Chains of one to three convolutions of 2, 8 or 24 filters learn 2,000 CIFAR-10 images of 16x16 for 9 epochs. Random
search trains 10 of them; ASHA (rungs of 1, 3 and 9 epochs, eta 3) has as many seconds of training and compiling as
random search took with the same seed. Only results of whole trainings count, for both. Cost is told in seconds of
candidates, and in multiply-adds trained, which no other program on the machine can change. A stopped script goes on
where it was. `--space=narrow --epochs=27` are chains that differ less, of two or three convolutions of 6 to 24 filters.

Three seeds are few. So the whole trainings of random search, each with its accuracy after every epoch, are searched
again 500 times in other orders (`--replay` does only that, with the seeds that there are): a training in legs has the
bits of a training at once, so an accuracy after 3 epochs is what a rung would have seen. A new architecture costs
`overhead` epochs of the mean chain beside its training, which is what compiling is. `benchmarks/results/asha.md` has
the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

import nasjax
from nasjax.drive.scan import scan
from nasjax.searchers.asha import asha, geometric
from nasjax.settings import override
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.types import Evaluation, Evaluator, Key, Proposal, Searcher, Site, Status

SPACES = {
    "wide": ConvChain(1, 3, (1, 3, 5), (1, 3, 5), (2, 8, 24)),
    "narrow": ConvChain(2, 3, (1, 3, 5), (1, 3, 5), (6, 12, 24)),
}
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the budget
OVERHEADS = (0.0, 1.0, 3.0, 9.0)  # of a new architecture, in epochs


def searched(args: argparse.Namespace, method: str, seed: int, *more: str) -> list[dict[str, Any]]:
    """The rows of a search, in the order in which its trials ended."""
    workdir = args.out / f"{method}-s{seed}"
    config = override(
        dataclasses.replace(
            nasjax.configure(method.partition("-")[0], dataset="cifar10"), space=SPACES[args.space], seed=seed
        ),
        f"data.data_dir={args.data_dir}",
        "data.resize=16",
        f"data.train_limit={args.images}",
        "data.valid_limit=2000",
        f"recipe.epochs={args.epochs}",
        "strategy=exact",
        "width=1",
        *more,
    )
    nasjax.search(config, workdir)
    return [json.loads(line) for line in (workdir / "trials.jsonl").read_text().splitlines()]


def track(rows: list[dict[str, Any]], args: argparse.Namespace) -> np.ndarray:
    """f64[T, 3]: seconds and multiply-adds trained so far, and the best of the whole trainings so far (NaN = none)."""
    before = {row["id"]: row.get("fidelity", 0) for row in rows}
    seconds = np.cumsum([row["cost_s"] for row in rows])
    added = [row.get("fidelity", args.epochs) - before.get(row["parent"], 0) for row in rows]
    work = np.cumsum([3.0 * args.images * row["macs"] * n for row, n in zip(rows, added, strict=True)])
    whole = [row["fitness"] if row.get("fidelity", args.epochs) == args.epochs else None for row in rows]
    best = np.fmax.accumulate([np.nan if fitness is None else fitness for fitness in whole])
    return np.stack([seconds, work, best], 1)


def at(found: np.ndarray, column: int, cost: float) -> float:
    """The best once so much was spent; 0 where no training was complete."""
    reached = found[found[:, column] <= cost * (1 + 1e-9), 2]
    return float(np.nan_to_num(reached[-1])) if len(reached) else 0.0


def reaches(found: np.ndarray, column: int, accuracy: float) -> float:
    """The cost at which the best is at least as good; infinity where it never is."""
    there = np.flatnonzero(found[:, 2] >= accuracy)
    return float(found[there[0], column]) if len(there) else np.inf


def agreement(runs: list[list[dict[str, Any]]], args: argparse.Namespace) -> dict[int, float]:
    """Spearman of the accuracy after so many epochs with that of the whole training, over all of random's chains."""
    curves = [(row["valid_curve"], row["fitness"]) for rows in runs for row in rows if row["fitness"] is not None]
    final = [fitness for _, fitness in curves]
    rungs = [n for n in (1, 3, 9) if n < args.epochs]
    return {n: float(spearmanr([max(c[max(0, n - 5) : n]) for c, _ in curves], final).statistic) for n in rungs}


def pool_sampler(size: int) -> Searcher:
    """The chains of the pool in an order that the key draws; nothing after the last."""

    def ask(key: Key, state: Any, n: int) -> tuple[Any, Proposal]:
        order, asked = state
        ids = asked + jnp.arange(n, dtype=jnp.int32)
        there = ids < size
        arch = order[jnp.minimum(ids, size - 1)]
        none = jnp.full(n, -1, jnp.int32)
        return (order, asked + there.sum()), Proposal(jnp.where(there, ids, -1), arch[:, None], none)

    def init(key: Key) -> Any:
        return jax.random.permutation(key, size).astype(jnp.int32), jnp.int32(0)

    return Searcher(init, ask, lambda state, *told: state, lambda state: jnp.zeros(0, jnp.int32))


class Pool(NamedTuple):
    """A space of one decision: which chain."""

    sites: tuple[Site, ...]
    name: str = "pool"


def replayed(runs: list[list[dict[str, Any]]], args: argparse.Namespace, keys: Key) -> np.ndarray:
    """f64[2, overheads, seeds, shares]: the best whole training of random search and of ASHA at `SHARES` of the budget.

    The budget is that of `args.trials` whole trainings of a mean chain.
    """
    rows = [row for rows in runs for row in rows if row["fitness"] is not None]
    rungs, size = geometric(1, args.epochs, args.eta), len(rows)
    curve = jnp.array([row["valid_curve"] for row in rows])
    after = jnp.stack([curve[:, max(0, n - 5) : n].max(1) for n in rungs], 1)  # as `last_epochs` has it
    macs = jnp.array([row["macs"] for row in rows], jnp.float32)
    macs, before = macs / macs.mean(), jnp.array((0, *rungs[:-1]))

    def evaluator(overhead: jax.Array) -> Evaluator:
        def evaluate(key: Key, proposal: Proposal, inherited: Any) -> tuple[Evaluation, None]:
            chain, rung, added = jnp.maximum(proposal.arch[:, 0], 0), len(rungs) - 1, jnp.asarray(args.epochs)
            if proposal.fidelity is not None:
                rung = jnp.searchsorted(jnp.array(rungs), proposal.fidelity)  # type: ignore[assignment]
                added = proposal.fidelity - before[rung]
            cost = macs[chain] * added + jnp.where(proposal.parent < 0, overhead, 0.0)
            status = jnp.where(proposal.id < 0, Status.REJECTED, Status.OK).astype(jnp.int8)
            return Evaluation(after[chain, rung], cost.astype(jnp.float32), status, {}), None

        return Evaluator(evaluate)

    space = Pool((Site("chain", tuple(range(size)), "chain", -1),))
    sampler = pool_sampler(size)
    promoted = asha(sampler, space, rungs=rungs, eta=args.eta, capacity=2 * size)  # type: ignore[arg-type]

    def best(searcher: Searcher, trials: int) -> list[list[list[float]]]:
        def search(key: Key, overhead: jax.Array) -> Any:
            return scan(key, searcher, evaluator(overhead), trials=trials)

        several, found = jax.jit(jax.vmap(search, (0, None))), []
        for overhead in OVERHEADS:
            history, budget = several(keys, jnp.float32(overhead)), args.trials * (args.epochs + overhead)
            there: Any = np.asarray(history.valid)
            spent = np.cumsum(np.where(there, history.cost, 0.0), 1)
            if history.fidelity is not None:
                there = there & (np.asarray(history.fidelity) == args.epochs)
            top = np.maximum.accumulate(np.where(there, history.fitness, 0.0), 1)
            within = [[(s <= share * budget).sum() for share in SHARES] for s in spent]
            found.append([[float(t[n - 1]) if n else 0.0 for n in ns] for t, ns in zip(top, within, strict=True)])
        return found

    return np.array([best(sampler, size), best(promoted, 2 * size)])


def tell_replayed(runs: list[list[dict[str, Any]]], args: argparse.Namespace) -> None:
    """The tables of the replay."""
    whole = sum(row["fitness"] is not None for rows in runs for row in rows)
    print(f"\nreplay: {whole} whole trainings in 500 orders; best so far, mean; ASHA at least as good as random")
    print(f"| overhead, epochs | method | {' | '.join(f'{share:.0%}' for share in SHARES)} |")
    print(f"| --- | --- |{' --- |' * len(SHARES)}")
    found = replayed(runs, args, jax.random.split(jax.random.key(0), 500))
    for overhead, random, asha_ in zip(OVERHEADS, *found, strict=True):
        for name, best in (("random", random), ("asha", asha_)):
            print(f"| {overhead:g} | {name} | {' | '.join(f'{x:.2%}' for x in best.mean(0))} |")
        print(f"| {overhead:g} | orders | {' | '.join(f'{x:.0%}' for x in (asha_ >= random).mean(0))} |")


def band(values: list[float], text: str = "{:.2%}") -> str:
    """Mean, and the lowest and highest of the seeds."""
    return f"{text.format(np.mean(values))} ({text.format(min(values))} to {text.format(max(values))})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/asha"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--space", default="wide", choices=SPACES)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--eta", type=int, default=3)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--replay", action="store_true", help="only search again among the trainings that there are")
    args = parser.parse_args()
    if args.replay:
        files = sorted(args.out.glob("random-s*/trials.jsonl"))
        there = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
        print("Spearman with the whole training, by epochs:", agreement(there, args))
        tell_replayed(there, args)
        return
    searches: dict[str, list[list[dict[str, Any]]]] = {"random": [], "asha": []}
    for seed in range(args.seeds):
        rows = searched(args, "random", seed, f"trials={args.trials}")
        searches["random"].append(rows)
        cost = sum(row["cost_s"] for row in rows)
        of = [f"search.eta={args.eta}", f"search.sampler={args.sampler}", "trials=none", f"cost_s={cost!r}"]
        name = "asha" if args.sampler == "random" else f"asha-{args.sampler}"
        searches["asha"].append(searched(args, name, seed, *of))
    tracks = {name: [track(rows, args) for rows in runs] for name, runs in searches.items()}
    print(f"\njax {jax.__version__}, {jax.devices()[0].device_kind}; best of whole trainings, mean (lowest to highest)")
    for column, what in ((0, "seconds"), (1, "multiply-adds")):
        ends = [found[-1, column] for found in tracks["random"]]
        print(f"\n| method | {' | '.join(f'{share:.0%} of the {what}' for share in SHARES)} |")
        print(f"| --- |{' --- |' * len(SHARES)}")
        for name, runs in tracks.items():
            cells = [
                band([at(found, column, share * end) for found, end in zip(runs, ends, strict=True)])
                for share in SHARES
            ]
            print(f"| {name} | {' | '.join(cells)} |")
        targets = [found[-1, 2] for found in tracks["random"]]
        for name, runs in tracks.items():
            shares = [reaches(found, column, goal) / end for found, goal, end in zip(runs, targets, ends, strict=True)]
            print(
                f"{name} reaches what random has in the end after {', '.join(f'{s:.0%}' for s in shares)} of its {what}"
            )
        print(f"budgets: {', '.join(f'{end:.3g}' for end in ends)} {what}")
    for name, searched_rows in searches.items():
        for seed, rows in enumerate(searched_rows):
            rungs = sorted({row.get("fidelity", args.epochs) for row in rows})
            counts = [sum(row.get("fidelity", args.epochs) == rung for row in rows) for rung in rungs]
            told = ", ".join(f"{n} of {rung} epochs" for n, rung in zip(counts, rungs, strict=True))
            print(f"{name}, seed {seed}: {told}; {sum(row['status'] != 'ok' for row in rows)} failed")
    print("Spearman with the whole training, by epochs:", agreement(searches["random"], args))
    tell_replayed(searches["random"], args)


if __name__ == "__main__":
    main()
