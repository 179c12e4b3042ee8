"""Searches and retrainings from files, killed with SIGKILL in every phase: the same end? And their memory.

    python benchmarks/loader_killed.py JPEGS              # a folder of make_jpegs.py, --count=1000; about 5 minutes
    python benchmarks/loader_killed.py JPEGS --memory     # of one retraining, on all its files

Each method runs once through (search, then retraining) and once killed in the middle of each phase and started again
by the same command. What is compared is all that a run leaves but times: metrics, trials, results, weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

STREAM = ("data.resize=16", "data.fit=crop", "data.stream=true", "data.readers=1")
RETRAIN = (
    "epochs=2",
    "batch_size=64",
    "augment.crop=resized",
    "augment.jitter=0.4,0.4,0.4,0.1",
    "augment.lighting=0.1",
)
METHODS = {
    "spos": (
        *("supernet.epochs=2", "supernet.batch_size=64", "search.population=4", "search.top_k=2", "search.mutants=2"),
        *("search.crossovers=2", "search.calibration_batches=2", "trials=8", "augment.crop=resized"),
    ),
    "darts": ("search.epochs=2", "search.batch_size=32", "augment.crop=resized"),
}
# What a phase says when it is in its middle.
PHASES = {
    "spos": {"search": (r"supernet epoch 1/", r"trial 4/8"), "retrain": (r"epoch 1/2",)},
    "darts": {"search": (r"epoch 1/2",), "retrain": (r"epoch 1/2",)},
}
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
TIMES = ("wall_s", "cost_s", "seconds", "time", "versions", "command", "jax")


def command(method: str, mode: str, folder: Path, workdir: Path) -> list[str]:
    settings = [*STREAM, *METHODS[method], *(f"retrain_recipe.{one}" for one in RETRAIN)]
    trials = [f"--{one}" for one in settings if one.startswith("trials")]
    given = [word for one in settings if not one.startswith("trials") for word in ("--set", one)]
    start = [sys.executable, "-m", "nasjax.launch", f"--workdir={workdir}", f"--mode={mode}"]
    if mode == "retrain":
        return start
    space = ["--space=tabular_cell"]
    return [*start, f"--method={method}", "--dataset=image_folder", f"--data_dir={folder}", *space, *trials, *given]


def run(words: list[str], until: str | None = None) -> bool:
    """Whether the command was killed, a moment after it said `until`; without that it must end well."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if until is not None and re.search(until, line):
            time.sleep(0.2)
            process.kill()
            process.wait()
            return True
    assert process.wait() == 0, "".join(said)
    return False


def without_times(tree: object) -> object:
    if isinstance(tree, dict):
        return {name: without_times(value) for name, value in tree.items() if name not in TIMES}
    return [without_times(value) for value in tree] if isinstance(tree, list) else tree


def left(workdir: Path) -> dict[str, str]:
    """What a run left, by file, as digests."""
    found = {}
    for path in sorted(workdir.rglob("*.json*")):
        if path.name in ("metrics.jsonl", "trials.jsonl", "best.json", "result.json"):
            rows = (
                [json.loads(line) for line in path.read_text().splitlines()]
                if path.suffix == ".jsonl"
                else [json.loads(path.read_text())]
            )
            text = json.dumps(without_times(rows), sort_keys=True)
            found[str(path.relative_to(workdir))] = hashlib.sha256(text.encode()).hexdigest()[:12]
    import nasjax

    model, digest = nasjax.load(workdir), hashlib.sha256()
    import jax
    import numpy as np

    for leaf in jax.tree.leaves(model.variables):
        digest.update(np.asarray(leaf).tobytes())
    return {**found, "weights": digest.hexdigest()[:12]}


def killed(folder: Path, methods: list[str]) -> None:
    print("| method | killed | files compared | the same |\n| --- | --- | --- | --- |")
    for method in methods:
        with tempfile.TemporaryDirectory() as place:
            whole, other = Path(place, "whole"), Path(place, "killed")
            for mode in ("search", "retrain"):
                run(command(method, mode, folder, whole))
            times = 0
            for mode, phases in PHASES[method].items():
                for until in phases:
                    times += run(command(method, mode, folder, other), until)
                run(command(method, mode, folder, other))
            expected, found = left(whole), left(other)
            same = [name for name in expected if expected[name] == found.get(name)]
            told = "all" if len(same) == len(expected) else f"not {', '.join(sorted({*expected} - {*same}))}"
            print(f"| {method} | {times} times | {len(expected)} | {told} |", flush=True)


def memory(folder: Path) -> None:
    """Resident memory of a retraining and of its reader, in MiB, at the end of each of three epochs."""
    with tempfile.TemporaryDirectory() as place:
        settings = [*STREAM, "retrain_recipe.epochs=3", *(f"retrain_recipe.{one}" for one in RETRAIN[1:])]
        words = [sys.executable, "-m", "nasjax.launch", "--method=random", "--mode=retrain", "--space=tabular_cell"]
        words += ["--dataset=image_folder", f"--data_dir={folder}", f"--workdir={place}/w", f"--arch={CELL}"]
        words += [word for one in settings for word in ("--set", one)]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        rows: list[tuple[float, float]] = []

        def watch() -> None:
            while process.poll() is None:
                rows.append((resident(process.pid), sum(map(resident, children(process.pid)))))
                time.sleep(0.5)

        threading.Thread(target=watch, daemon=True).start()
        assert process.stderr is not None
        files = sum(1 for _ in folder.glob("*/*/*.jpg"))
        print(f"{files:,} files\n\n| until the end of | largest so far | its reader |\n| --- | --- | --- |")
        for line in process.stderr:
            if (epoch := re.match(r"epoch (\d)/3", line)) or "Error" in line or "error" in line:
                what = f"epoch {epoch[1]}" if epoch else line.strip()
                print(f"| {what} | {max(a for a, _ in rows):,.0f} | {max(b for _, b in rows):,.0f} |", flush=True)


def resident(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+)", text)
    return int(found[1]) / 1024 if found else 0.0


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    if given.memory:
        memory(given.folder)
    else:
        killed(given.folder, given.methods)
