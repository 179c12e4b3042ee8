"""The controller's distributed scheme on a virtual clock, beside the same workers with barriers and random search.

Zoph & Le 2017, section 3.2: S parameter-server shards, K controller replicas, m children each, an update after g
gradients. Children are cells of NAS-Bench-201: their reward is the validation accuracy after 12 epochs, cubed for the
controller, and they take the seconds of those epochs. Per setting three searches with K * m workers and equally many
children: without barriers (`distributed_reinforce`), in rounds (`reinforce` with batches of K * m, all wait for the
slowest child), and random search, whose workers never wait.

    python benchmarks/distributed_reinforce.py --table=FILE [--figure=FILE.svg] [--workdir=FOLDER]
    python -m nasjax.launch --mode=report --workdir=FOLDER/20-100-8-1     # what workers did, and both figures

FILE is the .npz that nasjax.evaluators.table describes. Throughput and utilisation are over the whole search, its end
included, where workers have nothing left to do.
"""

from __future__ import annotations

import argparse
import heapq
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from nasjax.drive.scan import scan
from nasjax.evaluators.table import load_table, table
from nasjax.report import charts, simulation
from nasjax.searchers.distributed import Run, distributed_reinforce
from nasjax.searchers.random import random_search
from nasjax.searchers.reinforce import reinforce
from nasjax.spaces.tabular_cell.space import TabularCell

SETTINGS = ("1,1,8,1", "20,10,8,1", "20,100,8,1", "20,400,1,10")
WAYS = ("asynchronous", "rounds", "random")
WINDOW = 800  # children, one after the other, whose mean accuracy is a point of the figure


class Search(NamedTuple):
    """What the table and the figure need of one search of T children."""

    accuracy: np.ndarray  # f32[T], validation
    result: np.ndarray  # f32[T], test
    ended: np.ndarray  # f64[T], virtual seconds
    trained: float  # seconds of all children together
    length: float  # of the search, virtual seconds
    updates: int
    staleness: np.ndarray  # i32[G * S], by gradient and shard; [0] where there is none
    mixed: float  # share of gradients whose replica had fetched shards of different versions
    run: Run | None = None  # of an asynchronous search: its children and gradients, one by one


def free_workers(seconds: np.ndarray, workers: int) -> np.ndarray:
    """When each child ends, if a worker takes the next one as soon as it is free."""
    free, ended = [0.0] * workers, np.zeros(len(seconds))
    for n, took in enumerate(seconds):
        ended[n] = free[0] + float(took)
        heapq.heapreplace(free, ended[n])
    return ended


def in_rounds(seconds: np.ndarray, workers: int) -> np.ndarray:
    """When each child ends, if workers wait for the slowest of the round."""
    rounds = seconds.astype(np.float64).reshape(-1, workers)
    begun = np.cumsum([0.0, *rounds.max(1)[:-1]])
    return (begun[:, None] + rounds).reshape(-1)


def asynchronous(simulate, key, trials: int) -> Search:
    run = simulate(key, trials)
    found, gradients = run.children, run.gradients
    mixed = (gradients.fetched != gradients.fetched[:, :1]).any(1).mean()
    ended, updates = found.start + found.seconds, int(run.updates.max())
    late = gradients.staleness.reshape(-1)
    trained, result = float(found.seconds.sum()), found.info["result"]
    return Search(found.fitness, result, ended, trained, run.seconds, updates, late, float(mixed), run)


def at_once(history, ended: np.ndarray, updates: int) -> Search:
    """A search by `scan`, whose trials end when `ended` says."""
    cost, none = np.asarray(history.cost, np.float64), np.zeros(1, np.int32)
    return Search(
        history.fitness, history.info["result"], ended, float(cost.sum()), float(ended.max()), updates, none, 0.0
    )


def searches(space, evaluator, settings, args) -> dict[tuple[str, str], list[Search]]:
    """(setting, way) -> a search per seed; prints how long each took."""
    found: dict[tuple[str, str], list[Search]] = {}
    keys = [jax.random.key(args.seed + n) for n in range(args.seeds)]

    def timed(name: str, way: str, search) -> None:
        begun = time.perf_counter()
        found[name, way] = [search(key) for key in keys]
        print(f"# {name}, {way}: {time.perf_counter() - begun:.0f} s, {args.seeds} seed(s)", flush=True)

    drawn = jax.jit(lambda key: scan(key, random_search(space), evaluator, trials=args.trials, width=args.trials))
    at_random = {id(key): jax.device_get(drawn(key)._replace(state=None)) for key in keys}
    for name, (shards, replicas, children, accumulate) in settings.items():
        workers = replicas * children
        simulate = distributed_reinforce(
            space,
            evaluator,
            replicas=replicas,
            children=children,
            shards=shards,
            accumulate=accumulate,
            delay=args.delay,
            learning_rate=args.learning_rate,
        )
        timed(name, "asynchronous", lambda key, simulate=simulate: asynchronous(simulate, key, args.trials))
        searcher = reinforce(
            space, samples_per_update=workers, learning_rate=args.learning_rate, capacity=max(1024, workers)
        )

        @jax.jit
        def rounds(key, searcher=searcher, workers=workers):
            return scan(key, searcher, evaluator, trials=args.trials, width=workers)._replace(state=None)

        def waiting(key, rounds=rounds, workers=workers) -> Search:
            history = jax.device_get(rounds(key))
            return at_once(history, in_rounds(history.cost, workers), args.trials // workers)

        def random(key, workers=workers) -> Search:
            history = at_random[id(key)]
            return at_once(history, free_workers(history.cost, workers), 0)

        timed(name, "rounds", waiting)
        timed(name, "random", random)
    return found


def spread(values, digits: int) -> str:
    """Mean over seeds, and its standard deviation where there are several."""
    values = np.asarray(values, np.float64)
    return f"{values.mean():,.{digits}f}" + (f" ± {values.std(ddof=1):,.{digits}f}" if len(values) > 1 else "")


def until(run: Search, target: float) -> float:
    """Virtual hours until the best by validation has that test accuracy; infinite where it never has."""
    order = np.argsort(run.ended, kind="stable")
    accuracy, best, result = run.accuracy[order], -np.inf, -np.inf
    for n in np.flatnonzero(accuracy >= np.fmax.accumulate(accuracy)):  # where the best rises
        if accuracy[n] > best:
            best, result = accuracy[n], run.result[order[n]]
        if result >= target:
            return float(run.ended[order[n]]) / 3600
    return float("inf")


def row(name: str, way: str, workers: int, runs: list[Search], last: int, target: float) -> dict:
    best = [run.result[np.nanargmax(run.accuracy)] for run in runs]
    late = [run.accuracy[-last:].mean(dtype=np.float64) for run in runs]
    return {
        "setting": name,
        "search": way,
        "workers": workers,
        "per_hour": [len(run.accuracy) / run.length * 3600 for run in runs],
        "utilisation": [run.trained / (workers * run.length) for run in runs],
        "updates": runs[0].updates,
        "staleness": [float(run.staleness.mean()) for run in runs],
        "most": max(int(run.staleness.max()) for run in runs),
        "mixed": [run.mixed for run in runs],
        "last_accuracy": [float(value) for value in late],
        "best_result": [float(value) for value in best],
        "hours": float(np.median([until(run, target) for run in runs])),
    }


def line(found: dict) -> str:
    learnt = found["search"] != "random"
    own = found["search"] == "asynchronous"
    cells = [found["setting"], found["search"], f"{found['workers']:,}", spread(found["per_hour"], 0)]
    cells += [f"{100 * np.mean(found['utilisation']):.1f} %", f"{found['updates']:,}" if learnt else "–"]
    cells += [f"{np.mean(found['staleness']):.1f}, {found['most']}" if learnt else "–"]
    cells += [f"{100 * np.mean(found['mixed']):.0f} %" if own else "–"]
    cells += [spread(100 * np.array(found[name]), 2) for name in ("last_accuracy", "best_result")]
    cells += [f"{found['hours']:.2f}"]
    return f"| {' | '.join(cells)} |"


def drawn(found: dict[tuple[str, str], list[Search]], name: str, workers: int) -> dict:
    """What the figure and the report draw of a setting's first seed: `nasjax.report.simulation`."""
    rows = []
    for way in WAYS:
        run = found[name, way][0]
        # In the order in which they were sampled: in that of their ends the small and quick ones come first.
        ended, accuracy = (x[: len(x) // WINDOW * WINDOW].reshape(-1, WINDOW) for x in (run.ended, run.accuracy))
        points = zip(ended.max(1), accuracy.mean(1, dtype=np.float64), strict=True)
        rows += [{"x": float(x) / 3600, "y": 100 * float(y), "line": way} for x, y in points]
    late = found[name, "asynchronous"][0].staleness
    step = -(-(int(late.max()) + 1) // 40)  # bins of equally many whole numbers, at most 40 of them
    heights, edges = np.histogram(late, bins=np.arange(-0.5, late.max() + step + 0.5, step))
    bins = zip(edges[:-1], edges[1:], 100 * heights / len(late), strict=True)
    counts = [{"x": float(x), "x2": float(x2), "y": float(y)} for x, x2, y in bins]
    title = f"S, K, m, g = {name}: {workers:,} workers"
    return {"title": title, "window": WINDOW, "ways": list(WAYS), "children": rows, "staleness": counts}


def figure(drawings: list[dict]) -> str:
    """Two charts per setting: accuracy of children against time, and how late gradients were."""
    panels = []
    for found in drawings:
        curve = {"layer": [simulation.children(found)], "width": 420, "height": 190}
        beside = {"layer": [simulation.staleness(found)], "width": 300, "height": 190}
        panels.append({"title": {"text": found["title"], "anchor": "start"}, "hconcat": [curve, beside]})
    return charts.svg({"vconcat": panels, "spacing": 30, "padding": 12})


def write_workdir(folder: Path, space: TabularCell, found: Search, drawing: dict, numbers: tuple[int, ...]) -> None:
    """The asynchronous search of the first seed as a workdir for --mode=report; its seconds are virtual."""
    _, replicas, per_replica, _ = numbers
    kids, sent, events, rows = found.run.children, found.run.gradients, [], []
    replica = np.empty(len(kids.fitness), int)
    for first, own in zip(sent.first, sent.replica, strict=True):
        replica[first : first + per_replica] = own
    order = np.argsort(found.ended, kind="stable")
    for n in order.tolist():
        fitness = float(kids.fitness[n])
        row = {"id": n, "parent": -1, "arch": space.encode(kids.arch[n]), "hash": space.identity(kids.arch[n])}
        row |= {"fitness": fitness if np.isfinite(fitness) else None, "cost_s": float(kids.seconds[n])}
        row |= {"status": "ok" if np.isfinite(fitness) else "failed", "error": None, "result": float(found.result[n])}
        rows.append(row)
        started, ended = float(kids.start[n]), float(found.ended[n])
        who = {"task": n, "attempt": 1, "worker": int(replica[n]) * per_replica + n % per_replica}
        events.append((ended, 0, {"event": "told", **who, "rows": [{"id": n, "fitness": row["fitness"]}]}))
        events += [(started, 1, {"event": "asked", "task": n, "ids": [n]}), (started, 2, {"event": "started", **who})]
    events.sort(key=lambda event: event[:2])
    folder.mkdir(parents=True, exist_ok=True)
    config = {"method": "reinforce", "strategy": "simulated", "dataset": {"name": "a table, on a virtual clock"}}
    config |= {
        "metric": {"name": "accuracy", "unit": "fraction", "sign": 1},
        "device": f"{replicas * per_replica} virtual",
    }
    config |= {"config": {"space": {"name": space.name}, "trials": len(rows)}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "simulation.json").write_text(json.dumps(drawing))
    (folder / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "ledger.jsonl").write_text("".join(json.dumps({**event, "at": at}) + "\n" for at, _, event in events))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="the .npz that nasjax.evaluators.table describes")
    parser.add_argument("--settings", nargs="*", default=SETTINGS, help="S,K,m,g each")
    parser.add_argument("--trials", type=int, default=12_800, help="children of a search, a multiple of every K * m")
    parser.add_argument("--last", type=int, default=800, help="children at the end whose mean accuracy is reported")
    parser.add_argument("--learning_rate", type=float, default=6e-4, help="of Adam; 6e-4 is the paper's")
    parser.add_argument("--delay", type=float, default=0.1, help="mean seconds of a message to a shard")
    parser.add_argument("--target", type=float, default=0.943, help="a test accuracy whose time is reported")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--figure", help="an SVG file to write")
    parser.add_argument("--workdir", help="a folder for a workdir per setting, S-K-m-g, which --mode=report draws")
    args = parser.parse_args()
    settings = {name.replace(",", ", "): tuple(map(int, name.split(","))) for name in args.settings}
    for name, numbers in settings.items():
        if len(numbers) != 4 or args.trials % (numbers[1] * numbers[2]):
            parser.error(f"--settings {name}: write S,K,m,g such that K * m divides the {args.trials} trials")
    space = TabularCell()
    found = searches(space, table(space, load_table(args.table, space)), settings, args)
    heads = ["S, K, m, g", "search", "workers", "children per virtual hour", "workers busy", "updates"]
    heads += ["staleness: mean, most", "mixed fetches", f"accuracy of the last {args.last} children, %"]
    heads += ["test accuracy of the best, %", f"virtual hours until it is {args.target:.1%} (median)"]
    print(f"\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    workers = {name: replicas * children for name, (_, replicas, children, _) in settings.items()}
    rows = [row(name, way, workers[name], runs, args.last, args.target) for (name, way), runs in found.items()]
    print("\n".join(map(line, rows)), flush=True)
    drawings = {name: drawn(found, name, workers[name]) for name in settings}
    if args.figure:
        Path(args.figure).write_text(figure(list(drawings.values())), encoding="utf-8")
    for name in settings if args.workdir else ():
        folder = Path(args.workdir) / name.replace(", ", "-")
        write_workdir(folder, space, found[name, "asynchronous"][0], drawings[name], settings[name])
    shown = {key: value for key, value in vars(args).items() if key not in ("table", "figure", "workdir")}
    print("\n" + json.dumps({"benchmark": "distributed_reinforce", **shown, "rows": rows, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
