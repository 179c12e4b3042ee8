"""Searches and retrainings of the ImageNet presets on a folder of JPEG files, tiny: whole, and killed in every phase.

    python benchmarks/make_jpegs.py JPEGS --cifar10=FOLDER --nuclei=FOLDER
    python benchmarks/large_sets.py JPEGS                    # spos bn_nas darts msr_darts, about 25 minutes of one core
    python benchmarks/large_sets.py JPEGS --methods darts
    python benchmarks/large_sets.py JPEGS --memory --train=16000     # one retraining on all files: its memory

The presets are the published ones for large images (`--preset=paper`, 128x128): random resized crops, mirrored, jitter
or lighting, middles of the files for validation and test. Channels, layers, epochs and batches are far smaller, and
training takes `--train` of the files; all files of test/ are tested, and a tenth of them predicted. Then the same
commands in another workdir, killed by SIGKILL in the middle of each phase and given again: all that a run leaves but
times is compared, the weights bit by bit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from loader_killed import children, left, resident

SIDE, TRAIN, VALID = 128, 384, 96
FILES = (f"data.resize={SIDE}", "data.stream=true", "data.readers=1")
SUPERNET = (
    *("supernet.epochs=2", "supernet.batch_size=64", "search.population=6", "search.top_k=2", "search.mutants=3"),
    *("search.crossovers=3", "search.calibration_batches=1", "search.calibration_batch_size=64", "trials=12"),
)
CELLS = ("search.channels=4", "search.epochs=2", "search.batch_size=32", "search.accumulate=2")
EVALUATED = (  # without the auxiliary head, whose maps would be 7x7 of 224 pixels
    *("form.channels=8", "form.layers=5", "form.auxiliary=false", "retrain_recipe.auxiliary_weight=0"),
)
SETTINGS = {
    "spos": (
        *SUPERNET,
        "supernet.descent.learning_rate=0.05",
        "space.stem=8",
        "space.channels=16,32,48,64",
        "space.depths=1,1,2,1",
        "space.tail=64",
    ),
    "bn_nas": (
        *SUPERNET,
        "supernet.early_bird=none",
        *("space.stem=8", "space.first=8", "space.channels=16,24,32", "space.depths=2,2,1", "space.strides=2,2,2"),
        *("space.removed=1", "space.tail=64"),
    ),
    "darts": (*CELLS, *EVALUATED, "search.layers=3"),
    "msr_darts": (*CELLS, *EVALUATED, "search.layers=3", "train_part=1.0"),
}
RETRAIN = ("epochs=2", "batch_size=64", "learning_rate=0.05", "warmup_epochs=0", "accumulate=2", "ema=0.9")
# What a run says in the middle of a phase.
PHASES = {
    "supernet": ("search", r"supernet epoch 1/"),
    "paths": ("search", r"trial 6/"),
    "search": ("search", r"epoch 1/2"),
    "retraining": ("retrain", r"epoch 1/2"),
}
OWN = {
    **dict.fromkeys(("spos", "bn_nas"), ("supernet", "paths", "retraining")),
    **dict.fromkeys(("darts", "msr_darts"), ("search", "retraining")),
}


class Run:
    """A command, and the memory in MiB that it and its readers have at most."""

    def __init__(self, words: list[str], until: str | None = None) -> None:
        """Runs it to its end, or kills it a moment after it says `until`."""
        self.memory, self.readers, self.said, self.killed = 0.0, 0.0, [], False
        began, self.rows = time.monotonic(), []
        process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            self.rows.append((line.strip(), self.memory, self.readers))
            if until is not None and not self.killed and re.search(until, line):
                time.sleep(0.3)
                process.kill()
                self.killed = True
        self.seconds, self.cpu = time.monotonic() - began, 0.0
        assert process.wait() == (-9 if self.killed else 0), "".join(self.said)

    def _watch(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            self.memory = max(self.memory, resident(process.pid))
            self.readers = max(self.readers, sum(map(resident, children(process.pid))))
            time.sleep(0.2)


def command(method: str, mode: str, folder: Path, workdir: Path, train: int, *more: str) -> list[str]:
    start = [sys.executable, "-m", "nasjax.launch", f"--workdir={workdir}", f"--mode={mode}"]
    if mode != "search":
        return [*start, *more]
    limits = (f"data.train_limit={train}", f"data.valid_limit={VALID}")
    settings = [*FILES, *limits, *SETTINGS[method], *(f"retrain_recipe.{one}" for one in RETRAIN)]
    trials = [f"--{one}" for one in settings if one.startswith("trials")]
    given = [word for one in settings if not one.startswith("trials") for word in ("--set", one)]
    return [
        *start,
        f"--method={method}",
        "--preset=paper",
        "--dataset=image_folder",
        f"--data_dir={folder}",
        *trials,
        *given,
    ]


def compared(folder: Path, methods: list[str], train: int) -> None:
    head = (
        "method",
        "search",
        "retraining",
        "top-1, top-5",
        "predicted",
        "MiB, and its reader",
        "killed in",
        "the same",
    )
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|", flush=True)
    for method in methods:
        with tempfile.TemporaryDirectory() as place:
            whole, other = Path(place, "whole"), Path(place, "killed")
            runs = [Run(command(method, mode, folder, whole, train)) for mode in ("search", "retrain")]
            picked = Path(place, "some")
            picked.mkdir()
            for n, file in enumerate(sorted(folder.glob("test/*/*.jpg"))[::10]):
                (picked / f"{n}.jpg").symlink_to(file)
            predicted = Run(command(method, "predict", folder, whole, train, f"--input={picked}"))
            phases = OWN[method]
            for mode in ("search", "retrain"):
                for phase in phases:
                    if PHASES[phase][0] == mode:
                        killed = Run(command(method, mode, folder, other, train), PHASES[phase][1])
                        assert killed.killed, phase
                Run(command(method, mode, folder, other, train))
            expected, found = left(whole), left(other)
            same = [name for name in expected if expected[name] == found.get(name)]
            told = f"all {len(expected)}" if len(same) == len(expected) else f"not {sorted({*expected} - {*same})}"
            result = json.loads((whole / "result.json").read_text())
            memory, reader = max(run.memory for run in runs), max(run.readers for run in runs)
            cells = (
                method,
                *(f"{run.seconds:.0f} s" for run in runs),
                f"{result['test_accuracy']:.2%}, {result['test_top5_accuracy']:.2%}",
                f"{len(list(picked.iterdir()))} files in {predicted.seconds:.0f} s",
                f"{memory:,.0f}, {reader:,.0f}",
                ", ".join(phases),
                told,
            )
            print(f"| {' | '.join(cells)} |", flush=True)


def memory(folder: Path, train: int) -> None:
    """A retraining of a path on so many files of train/, and all of val/ and test/: two epochs."""
    with tempfile.TemporaryDirectory() as place:
        words = command("spos", "search", folder, Path(place, "w"), train)
        words = [word.replace("--mode=search", "--mode=retrain") for word in words if not word.startswith("--trials")]
        words += ["--set", "retrain_recipe.refresh_epochs=0", "--set", "data.valid_limit=1000000", "--arch", PATH]
        run = Run(words)
        print("| until | largest so far, MiB | its reader |\n| --- | --- | --- |")
        for line, own, readers in run.rows:
            if epoch := re.match(r"epoch (\d)/2", line):
                print(f"| the end of epoch {epoch[1]} | {own:,.0f} | {readers:,.0f} |")
        print(
            f"| the end of the test, {run.seconds:.0f} s in all | {run.memory:,.0f} | {run.readers:,.0f} |", flush=True
        )


PATH = json.dumps({"space": "choice_chain", "path": [0, 1, 2, 3, 0]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS))
    parser.add_argument("--train", type=int, default=TRAIN)
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} core(s), {sum(1 for _ in given.folder.glob('*/*/*.jpg')):,} files\n")
    if given.memory:
        memory(given.folder, given.train)
    else:
        compared(given.folder, given.methods, given.train)
