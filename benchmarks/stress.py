"""Random small searches on random data files, with random settings and kills: does anything break, or differ?

Every case is a command drawn from (seed, number). It runs, or is refused with exit code 2 and one line that begins with
"error:". A part of the searches runs again in another folder, killed (-9) at random moments and resumed, and must leave
the same trials, metrics and best; others go on with a report, a retraining, predictions and an export.

    python benchmarks/stress.py --minutes=60 --seed=0 --folder=FOLDER [--only=17]

Prints a line per case and a table at the end; the exit code is 1 where something was found. `--only` repeats one case.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nasjax.spaces.tabular_cell.space import TabularCell

TOOK = {
    "seconds",
    "compile_s",
    "train_s",
    "took_s",
    "wall_s",
    "time",
    "cost",
    "cost_s",
    "worker",
    "started",
    "ended",
    "attempt",
}
WRONG = ("--trials=-1", "--set=recipe.epoch=3", "--set=recipe.epochs=many", "--space=mpl", "--dataset=nowhere.npz")
WRONG += ("--seed=x", "--workers=-2", "--mode=serach", "--set=data.valid_size=0", "extra")
NEVER = ("Traceback", "this is a bug")
PLUGIN = """
import flax.linen as nn
import nasjax

class Mlp(nn.Module):
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1))))

nasjax.register(
    space=nasjax.SiteSpace("mlp", {"width": (2, 4, 8, 16), "unused": (1, 2, 3)}),
    build=lambda choices, signature: Mlp(choices["width"], signature.outputs),
)
"""


def images(draw: random.Random, rng: np.random.Generator, file: Path) -> bool:
    """Writes an .npz of images and classes; returns whether it is a right one."""
    count, size, classes = draw.randint(30, 90), draw.randint(4, 9), draw.randint(2, 4)
    shape = draw.choice([(size, size), (size, size, 1), (size, size, 3), (size, size + 2, 1)])
    y = np.arange(count) % classes
    x = rng.random((count, *shape)) / 2 + y.reshape(-1, *[1] * len(shape)) / (2 * classes)
    dtype = draw.choice(["uint8", "uint8", "float32", "float64"])
    whole = {"x": (255 * x).astype("uint8") if dtype == "uint8" else x.astype(dtype), "y": y + draw.randint(-2, 5)}
    if draw.random() < 0.4:
        whole |= {"x_test": whole["x"][::3], "y_test": whole["y"][::3]}
    if draw.random() < 0.2:
        whole["class_names"] = np.array([f"c{k}" for k in range(classes)], draw.choice(["S4", "U4"]))
    wrongs: list[Callable[[], object]] = [
        lambda: whole.update(x=whole["x"][1:]),
        lambda: whole.update(y=np.zeros(count, int)),
        lambda: whole.update(y=whole["y"].astype(float)),
        lambda: whole.update(x=np.full((count, *shape), np.nan)),
        lambda: whole.update(x=np.array([None] * count)),
        lambda: whole.update(x=whole["x"].astype(complex)),
        lambda: whole.update(x_valid=rng.random((5, size + 1, size)), y_valid=whole["y"][:5]),
        lambda: whole.pop("y"),
        lambda: whole.update(class_names=np.array(["one"])),
    ]
    right = draw.random() < 0.75
    if not right:
        draw.choice(wrongs)()
    np.savez(file, **whole)
    return right


def table(draw: random.Random, rng: np.random.Generator, file: Path) -> bool:
    """Writes a table of results of some cells; returns whether it is a right one."""
    ops = rng.integers(0, len(TabularCell().ops), (draw.randint(200, 2000), 6))
    ops = np.unique(ops, axis=0)
    fitness = rng.random(len(ops))
    if draw.random() < 0.3:
        fitness[:: draw.randint(2, 9)] = np.nan
    whole = {"arch": ops, "fitness": fitness, "cost": rng.random(len(ops))}
    right = draw.random() < 0.8
    if not right:
        draw.choice(
            [lambda: whole.pop("cost"), lambda: whole.update(arch=ops + 9), lambda: whole.update(cost=-whole["cost"])]
        )()
    np.savez(file, **whole)
    return right


def case(number: int, seed: int, folder: Path) -> tuple[list[str], bool, int]:
    """The words of a search, whether it must be refused, and how many steps are compared after kills."""
    draw = random.Random(f"{seed} {number}")
    rng = np.random.default_rng([seed, number])
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(PLUGIN)
    trials = draw.randint(2, 7)
    words = [f"--seed={draw.randint(0, 9)}"]
    bad = False
    kind = draw.choice(["mlp"] * 5 + ["table"] * 3 + ["conv"] * 2)
    if kind == "table":
        bad = not table(draw, rng, folder / "table.npz")
        method, trials = draw.choice(["random", "reinforce", "evolution", "topk"]), draw.randint(5, 60)
        words += ["--space=tabular_cell", f"--table={folder}/table.npz", "--set=table.percent=false"]
        if draw.random() < 0.3:
            words.append(f"--set=cost_s={draw.choice([0.5, 2, 10])}")
    else:
        if draw.random() < 0.8:
            bad = not images(draw, rng, folder / "data.npz")
            words.append(f"--dataset={folder}/data.npz")
        else:
            words += ["--dataset=digits", "--set=data.train_limit=64", "--set=data.valid_limit=20"]
        words += [f"--set=recipe.epochs={draw.randint(1, 2)}", "--set=last_epochs=1"]
        words += [f"--set=recipe.batch_size={draw.choice([4, 7, 16])}", "--set=retrain_recipe.batch_size=4"]
        if draw.random() < 0.3:
            words.append(f"--max_params={draw.choice([50, 500, 5000])}")
        if draw.random() < 0.2:
            words.append(f"--workers={draw.randint(1, 2)}")
        if kind == "mlp":
            method = draw.choice(["random", "reinforce", "topk", "evolution"])
            words += [f"--plugin={folder}/mine.py", "--space=mlp"]
        else:
            method, trials = draw.choice(["random", "reinforce"]), 2
            words += ["--space=conv_chain", "--set=space.min_layers=1", "--set=space.max_layers=2"]
    words = [f"--method={method}", f"--trials={trials}", *words]
    if draw.random() < 0.15:
        bad = True
        words.append(draw.choice(WRONG))
    return words, bad, draw.randint(0, 3)


def run(words: list[str], kill_after: float | None = None) -> tuple[int, str, str]:
    """A command: exit code, output, errors; with `kill_after` seconds it is killed unless it has ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nasjax.launch", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=kill_after or 900)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return process.returncode, out, err


def plain(file: Path) -> object:
    """What a file of a workdir says, without what something took."""

    def bare(value: object) -> object:
        if isinstance(value, dict):
            return {name: bare(inner) for name, inner in value.items() if name not in TOOK}
        return [bare(inner) for inner in value] if isinstance(value, list) else value

    if not file.exists():
        return None
    text = file.read_text()
    lines = text.splitlines() if file.suffix == ".jsonl" else [text]
    return [bare(json.loads(line)) for line in lines]


def faults_of(code: int, out: str, err: str, may: tuple[int, ...]) -> list[str]:
    """What is wrong with how a command ended."""
    found = [f"says {word!r}" for word in NEVER if word in out + err]
    if code not in may:
        found.append(f"ends with {code}, not {may}: {(err.strip() or out.strip()).splitlines()[-1:]}")
    if code == 2 and sum(line.startswith("error:") for line in err.splitlines()) != 1:
        found.append("is refused without a line of its own")
    return found


def tried(number: int, seed: int, folder: Path, did: Counter[str]) -> list[str]:
    """Runs a case; what was found, a line each."""
    words, bad, kills = case(number, seed, folder)
    print(f"{number}: {shlex.join(words)}", flush=True)
    code, out, err = run([*words, f"--workdir={folder}/whole"])
    found = faults_of(code, out, err, (1, 2) if bad else (0, 1, 2))
    did["refused" if code == 2 else "failed" if code else "searched"] += 1
    if not bad and code == 2:
        print(f"   refused: {err.strip().splitlines()[-1]}", flush=True)
    if code == 1 and "error:" not in err:
        found.append("ends with 1 without a line of its own")
    if code:
        return found
    draw = random.Random(f"then {seed} {number}")
    if kills and not any(
        word.startswith("--workers") for word in words
    ):  # with workers the order of results may differ
        for _ in range(kills):
            did["killed"] += 1
            run([*words, f"--workdir={folder}/killed"], draw.uniform(3, 25))
        code, out, err = run([*words, f"--workdir={folder}/killed"])
        found += faults_of(code, out, err, (0,))
        for name in ("trials.jsonl", "metrics.jsonl", "best.json"):
            if plain(folder / "whole" / name) != plain(folder / "killed" / name):
                found.append(f"{name} differs after kills")
    own, tabled = f"--workdir={folder}/whole", any(word.startswith("--table") for word in words)
    plugin = [word for word in words if word.startswith("--plugin")]
    for mode in ("report", *(("retrain", "export", "predict") if not tabled and draw.random() < 0.4 else ())):
        more = {"retrain": ["--set=retrain_recipe.epochs=1"], "predict": [f"--input={folder}/x.npz"]}.get(mode, [])
        if mode == "predict":
            data = [word.split("=", 1)[1] for word in words if word.startswith("--dataset=/")]
            if not data:
                continue
            with np.load(data[0]) as arrays:
                np.savez(folder / "x.npz", x=arrays["x"][:3])
        code, out, err = run([*plugin, f"--mode={mode}", own, *more])
        did[mode] += 1
        found += [f"{mode} {fault}" for fault in faults_of(code, out, err, (0,))]
        if code:
            break
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    found: dict[int, list[str]] = {}
    did: Counter[str] = Counter()
    number = 0 if options.only is None else options.only
    while time.monotonic() < end:
        folder = options.folder / str(number)
        if faults := tried(number, options.seed, folder, did):
            found[number] = faults
            print(*(f"   FOUND: {fault}" for fault in faults), sep="\n", flush=True)
        else:
            shutil.rmtree(folder)
        number += 1
        if options.only is not None:
            break
    print(f"| what | count |\n| --- | --- |\n| cases | {sum(did[n] for n in ('searched', 'refused', 'failed'))} |")
    print(*(f"| {name} | {count} |" for name, count in did.most_common()), sep="\n")
    print(f"| with a finding | {len(found)} |")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
