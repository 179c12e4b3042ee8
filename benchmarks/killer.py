"""A search under fire: at random moments a worker, a machine or the driver is killed, and at the end all must add up.

The search is `benchmarks/sleeping.py` by command: cells of a table that sleep for 1 to 3 seconds. With `--runtime=ray`
it runs on a cluster of several nodes on this machine (Ray's cluster utility), of which whole ones are killed, too, and
others started. A killed driver is started again by the same command. Three times of four the next kill waits until
something happens in the search, else it may hit one that starts. When the time is over, the driver is killed once more,
and a last command without kills ends the search.

    python benchmarks/killer.py --runtime=ray --minutes=60 --folder=FOLDER

Prints a table of what was done and found, and a JSON line; the exit code is 1 where the accounts do not add up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.spaces.tabular_cell.space import TabularCell

PLUGIN = Path(__file__).with_name("sleeping.py")
FILES = ("trials.jsonl", "metrics.jsonl", "best.json")  # that follow from the ledger
MORE = 20  # trials of the last command
START_S = 100.0  # for a node
SILENT_S = 300.0  # without an event in the ledger are too many
LAST_S = 600.0  # for the last command


def children(pid: int) -> dict[int, str]:
    """The child processes of a process, {id: command}."""
    text = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    lines = [line.split(maxsplit=1) for line in text.stdout.splitlines()]
    return {int(child): args for child, args in lines if "<defunct>" not in args}


def patient(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """Ray gives a node up that has not started within 30 s, which a machine of two busy cores needs; wait longer."""

    def found(*args: Any) -> Any:
        end = time.monotonic() + START_S
        while True:
            try:
                return get_node(*args)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)

    return found


class Machines:
    """Nodes of a Ray cluster on this machine; the first one is the head, where the driver runs and no worker."""

    def __init__(self, nodes: int, cpus: int) -> None:
        from ray._private import services
        from ray.cluster_utils import Cluster

        services.get_node = patient(services.get_node)
        self.nodes: list[Any] = []
        self.cluster = Cluster()
        self._add(0)
        self.cpus = cpus
        for _ in range(nodes):
            self.add_one()

    def _add(self, cpus: int) -> Any:
        return self.cluster.add_node(wait=False, num_cpus=cpus, include_dashboard=False, object_store_memory=2**27)

    def workers(self) -> list[int]:
        """Processes of actors."""
        every = [children(self._raylet(node)) for node in self.nodes]
        return sorted(pid for of_node in every for pid, args in of_node.items() if "ray::Actor" in args)

    def kill_one(self, choose: random.Random) -> None:
        """A node vanishes with all that runs on it."""
        node = self.nodes.pop(choose.randrange(len(self.nodes)))
        processes = list(children(self._raylet(node)))
        self.cluster.remove_node(node, allow_graceful=False)
        for pid in processes:  # which would outlive their node by a second
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def add_one(self) -> bool:
        """Another node; False where this machine is too busy to start it now."""
        try:
            self.nodes.append(self._add(self.cpus))
        except Exception as error:  # Ray has no narrower one for this
            print(f"a node did not start: {error}", file=sys.stderr, flush=True)
            return False
        return True

    @staticmethod
    def _raylet(node: Any) -> int:
        return node.all_processes["raylet"][0].process.pid


class Search:
    """The command, and how often it was started."""

    def __init__(self, folder: Path, more: list[str]) -> None:
        self.path, self.log, self.starts = folder / "run", folder / "driver.log", 0
        space = TabularCell()
        archs, rng = space.enumerate(), np.random.default_rng(0)
        np.savez(folder / "table.npz", arch=archs, fitness=rng.random(len(archs)), cost=rng.uniform(1, 3, len(archs)))
        self.args = [sys.executable, "-m", "nasjax.launch", f"--plugin={PLUGIN}", "--method=sleeping"]
        self.args += [
            "--space=tabular_cell",
            f"--table={folder / 'table.npz'}",
            "--set=cost_s=1e9",
            "--set=table.percent=false",
        ]
        self.more = more
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, trials: int, path: Path | None = None, more: list[str] | None = None) -> subprocess.Popen[bytes]:
        """The command; what ran before has ended."""
        self.starts += 1
        given = [f"--trials={trials}", f"--workdir={path or self.path}", *(self.more if more is None else more)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*self.args, *given], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self.process

    def kill(self) -> None:
        """Whatever runs of it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def events(self) -> list[dict[str, Any]]:
        """The whole lines of the ledger."""
        try:
            lines = (self.path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]


def fire(search: Search, machines: Machines | None, args: argparse.Namespace) -> tuple[Counter[str], list[str]]:
    """Kills until the time is over; how often what was killed, and what went wrong."""
    choose, done, wrong = random.Random(args.seed), Counter[str](), list[str]()
    kinds = {"worker": 6, "driver": 2, **({"machine": 2} if machines else {})}
    end, missing = time.monotonic() + 60 * args.minutes, 0
    driver = search.start(10**6)

    def there() -> None:
        """Starts a driver that ended by itself, which none should, again."""
        nonlocal driver
        if driver.poll() is not None:
            wrong.append(f"the driver ended by itself, exit code {driver.returncode}; see {search.log}")
            driver = search.start(10**6)

    def goes_on() -> bool:
        """Waits until something happens in the search; False where nothing does."""
        before, since = len(search.events()), time.monotonic()
        while len(search.events()) == before and time.monotonic() < end:
            there()
            if time.monotonic() - since > SILENT_S:
                return False
            time.sleep(1)
        return True

    while time.monotonic() < end:
        if choose.random() < 0.75 and not goes_on():
            wrong.append(f"{SILENT_S:g} s without an event in the ledger")
        time.sleep(min(choose.expovariate(1 / args.every), max(0.0, end - time.monotonic())))
        there()
        if time.monotonic() >= end:
            break
        if machines and missing:  # one that has gone comes back with the next shot
            missing -= machines.add_one()
        (kind,) = choose.choices(list(kinds), list(kinds.values()))
        if kind == "driver":
            search.kill()
            time.sleep(choose.uniform(0, 3))
            driver = search.start(10**6)
        elif kind == "machine" and machines:
            machines.kill_one(choose)
            missing += 1
        else:
            workers = machines.workers() if machines else sorted(children(driver.pid))
            if not workers:
                continue
            with suppress(ProcessLookupError):
                os.kill(choose.choice(workers), signal.SIGKILL)
        done[kind] += 1
        print(
            f"{time.strftime('%H:%M:%S')} killed: {kind}; events so far: {len(search.events())}",
            file=sys.stderr,
            flush=True,
        )
    search.kill()
    done["driver"] += 1
    if machines and missing:
        machines.add_one()
    return done, wrong


def accounts(events: list[dict[str, Any]], trials: int, workers: int) -> tuple[dict[str, int], list[str]]:
    """What a ledger comes to, and what does not add up in it.

    Args:
      events: all of it.
      trials: that were asked for.
      workers: of the run; so many tasks may be open at the end.
    """
    wrong: list[str] = []
    asked = [trial for event in events if event["event"] == "asked" for trial in event["ids"] if trial >= 0]
    rows = [row for event in events if event["event"] == "told" for row in event["rows"]]
    told = Counter(row["id"] for row in rows)
    if sorted(asked) != list(range(len(asked))):
        wrong.append("ids that were asked twice or left out")
    if twice := [trial for trial, times in told.items() if times > 1]:
        wrong.append(f"told twice: {twice}")
    if strange := set(told) - set(asked):
        wrong.append(f"told, but never asked: {sorted(strange)}")
    if len(rows) != trials:
        wrong.append(f"{len(rows)} trials, {trials} were asked for")
    if len(lacking := sorted(set(asked) - set(told))) > workers:
        wrong.append(f"missing: {lacking}")
    open_, cut = set[tuple[int, int]](), 0  # (task, attempt) that runs; that were in flight when a driver was killed
    started = set[tuple[int, int]]()
    for event in events:
        at = (event.get("task", -1), event.get("attempt", -1))
        if event["event"] == "resumed":
            cut += len(open_)
            open_.clear()
        elif event["event"] == "started":
            if at in started or len(open_) >= workers:
                wrong.append(f"started out of turn: task {at[0]}, attempt {at[1]}")
            started.add(at)
            open_.add(at)
        elif event["event"] in ("told", "died"):
            # A task whose worker died for the last time is told as lost with that attempt: one ending in two lines.
            lost = event["event"] == "told" and all(row["status"] == "lost" for row in event["rows"])
            if at not in open_ and not (lost and at in started):
                wrong.append(f"{event['event']} without a start: task {at[0]}, attempt {at[1]}")
            open_.discard(at)
    if len(open_) > workers:
        wrong.append(f"in flight at the end: {sorted(open_)}")
    kinds = Counter(event["event"] for event in events)
    statuses = Counter(row["status"] for row in rows)
    counts = {"trials": len(rows), "asked": len(asked), **{name: statuses[name] for name in ("ok", "failed", "lost")}}
    counts |= {"started": len(started), "in flight at a kill of the driver": cut, "in flight at the end": len(open_)}
    return counts | {name: kinds[name] for name in ("died", "stale", "resumed")}, wrong


def replayed(search: Search, folder: Path, trials: int) -> list[str]:
    """The files that differ when they are made again from the ledger alone."""
    again = folder / "replayed"
    shutil.rmtree(again, ignore_errors=True)
    again.mkdir()
    for name in ("ledger.jsonl", "config.json", "plugin.py"):
        shutil.copy(search.path / name, again)
    if code := search.start(trials, again, ["--runtime=inline"]).wait():
        return [f"the replay ended with exit code {code}"]
    names = (*FILES, "ledger.jsonl")
    return [f"{n} replays otherwise" for n in names if (again / n).read_bytes() != (search.path / n).read_bytes()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=("process", "ray"), default="process")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=20.0, help="mean seconds from one kill to the next")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--nodes", type=int, default=3, help="of Ray's cluster, each with half of the workers' CPUs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for all that is written")
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir(parents=True)
    machines, more = None, [f"--runtime={args.runtime}", f"--workers={args.workers}"]
    if args.runtime == "ray":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        machines = Machines(args.nodes, -(-args.workers // 2))
        more += [f"--ray_address={machines.cluster.address}", "--set=ray.num_cpus=1"]
    search = Search(folder, more)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing stays behind
    try:
        done, wrong = fire(search, machines, args)
        trials = sum(len(event["rows"]) for event in search.events() if event["event"] == "told") + MORE
        last = search.start(trials)
        try:
            if code := last.wait(LAST_S):
                wrong.append(f"the last command ended with exit code {code}; see {search.log}")
        except subprocess.TimeoutExpired:
            wrong.append(f"the last command did not end within {LAST_S:g} s")
        starts = search.starts
    finally:
        search.kill()
        if machines:
            machines.cluster.shutdown()
    counts, more_wrong = accounts(search.events(), trials, args.workers)
    wrong += more_wrong + replayed(search, folder, trials)
    found = {**{f"killed: {kind}": number for kind, number in sorted(done.items())}, "commands": starts, **counts}
    print("| what | how often |\n| --- | --- |")
    print("\n".join(f"| {name} | {number} |" for name, number in found.items()))
    print("\n".join(f"WRONG: {line}" for line in wrong) or "everything adds up; the ledger replays to the same bytes")
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    versions = {name: version(name) for name in ("jax", *(["ray"] if args.runtime == "ray" else []))}
    print(json.dumps({"benchmark": "killer", **given, "found": found, "wrong": wrong, **versions}))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
