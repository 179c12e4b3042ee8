"""The command line in this process, which shares the tests' compiled programs, or in a process that may be killed."""

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from nasjax import catalog, commands, launch
from nasjax.commands import searching
from nasjax.commands.configuration import record_of
from nasjax.commands.trackers import _TRACKERS as TRACKERS
from nasjax.drive.recorded import Recorded
from nasjax.experiments import reinforce
from nasjax.problem.problem import Problem
from nasjax.runtime import hosts
from nasjax.store import plugin, started
from nasjax.types import Metric, Outcome

TESTS = Path(__file__).parents[1]
NEVER_WRITE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}  # a killed process would leave half an entry

TINY = [  # a search of small chains
    "--set=space.min_layers=2",
    "--set=space.max_layers=2",
    "--set=space.filter_heights=1,3",
    "--set=space.filter_widths=3",
    "--set=space.filter_counts=2,4",
    "--set=recipe.epochs=1",
    "--set=data.train_limit=128",
    "--set=data.valid_limit=64",
    "--set=width=4",
]

# Dies in the middle of the n-th write of lines: they are there, but the checkpoint that belongs to them is not.
DYING = """
import os, signal, sys
import conftest  # compiles as the tests do, so the numbers are the same to the bit
from nasjax import launch
from nasjax.store import checkpoint
append, left = checkpoint.append_lines, [int(sys.argv.pop(1))]
def dying(path, rows):
    append(path, rows)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.append_lines = dying
sys.exit(launch.main(sys.argv))
"""


def here(*args):
    """A command in this process: exit code, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = launch.main(["nasjax", "--compile_cache=off", *args])
    return code, out.getvalue(), err.getvalue()


def idle(monkeypatch):
    """The command line with nothing behind it: no run, no report, no file is read. The settings that would have run.

    A search leaves a workdir with its config.json, so that the commands after it find one.
    """
    configs = []

    def search(config, path, command, **options):
        configs.append(config)
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(record_of(config, {})))
        plugin.keep(path, config.plugin)
        return Outcome(None, Metric("accuracy"), 0, 0, 0.0, ())

    def retrain(config, path, arch=None, **options):
        configs.append(config)
        if arch is not None and not arch.endswith(".json"):
            assert commands.inspect(config, arch)["params"] > 0
        return commands.Retrained(Metric("accuracy"), 0.0, 0.0, 0, {}, {}, ())

    monkeypatch.setattr(commands, "search", search)
    monkeypatch.setattr(commands, "retrain", retrain)
    monkeypatch.setattr(
        commands, "tracker", lambda to, config, path: contextlib.nullcontext(TRACKERS[to.split(":")[0]])
    )
    monkeypatch.setattr(commands, "compare", lambda methods, problems, **options: commands.Compared({}, ()))
    monkeypatch.setattr(commands, "report", lambda workdirs, out=None: out or workdirs[0] / "report.html")
    monkeypatch.setattr(commands, "tabulate", lambda workdirs, out: [])
    monkeypatch.setattr(commands, "predict", lambda workdir, source, *, point, same_units: [])
    monkeypatch.setattr(commands, "export_points", lambda workdir, *options, **more: [])
    monkeypatch.setattr(commands, "export", lambda workdir, *options: [])
    monkeypatch.setattr(commands, "measure_latency", lambda config, out, **options: [])
    monkeypatch.setattr(commands, "time_one", lambda config, arch, **options: [])
    monkeypatch.setattr(commands, "exported", lambda files: ([], None))
    monkeypatch.setattr(hosts, "join", lambda coordinator, processes, process: process in (None, 0))
    return configs


def forget_own():
    """Takes back what plugins and programs registered."""
    for kind in ("method", "space", "task", "data"):
        for name in list(catalog._OWN[kind]):
            catalog.forget(kind, name)
    plugin._RUN.clear()


def next_words(line, program=None):
    """What a printed line tells to type after the program, None = the one that this process was started with."""
    text = line.removeprefix("Next: ")
    program = started.own() if program is None else program
    assert text.startswith(f"{program} "), line
    return shlex.split(text.removeprefix(program))


def accepted(run):
    """What the command line prints for these words, which it takes."""
    code, out, errors = here(*run)
    assert code == 0, f"{shlex.join(run)}: {errors}"
    return out


def start(*args, command=("-m", "nasjax.launch"), prefix=()):
    """A command in a process of its own."""
    folders = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*prefix, sys.executable, *command, "--compile_cache=off", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **NEVER_WRITE, "PYTHONPATH": folders},
    )


def killed(*args, write):
    """Runs a command that is killed (-9) in the middle of its `write`-th write of lines."""
    process = start(*args, command=("-c", DYING, str(write)))
    out, err = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL and not out, err


def work_of(*arguments):
    """Of a worker that compiles as the tests do, so that its numbers are the same to the bit."""
    import conftest  # noqa: F401

    return searching.work_of(*arguments)


def rows(path):
    """The trials of a workdir without what they took, which differs from run to run."""
    lines = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "cost_s"} for line in lines]


def replayed(path):
    """The state of a searcher by REINFORCE as the ledger gives it, {name: array}."""
    config = commands.config_of(path)
    tree = Recorded(jax.random.key(config.seed), reinforce.searcher(Problem(config)), path, lambda: 0.0).summary().state
    return {jax.tree_util.keystr(where): np.asarray(leaf) for where, leaf in jax.tree_util.tree_leaves_with_path(tree)}
