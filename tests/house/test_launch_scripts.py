"""The scripts of launch/: what they run is what the command line takes, their reduced and distributed forms included.

A stand-in for `python` writes down what it was given; then the real command line reads that, with nothing behind it.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from tools.commands import accepted, idle

from nasjax import catalog

FOLDER = Path(__file__).parents[2] / "launch"
CELLS = ("darts", "drnas", "gdas", "pc_darts", "p_darts", "msr_darts")
ONE_SHOT = ("spos", "fairnas", "bn_nas", "bignas")
CASES = [
    *(("darts_cifar10", (method, "DATA", "RUN")) for method in CELLS),
    *(("darts_imagenet", (method, "DATA", "RUN", "PDARTS")) for method in CELLS),
    *(("one_shot_cifar10", (method, "DATA", "RUN")) for method in ONE_SHOT),
    *(("one_shot_imagenet", (method, "DATA", "RUN")) for method in ONE_SHOT),
    *((name, ("DATA", "RUN")) for name in ("reinforce_cifar10", "reinforce_rnn_ptb", "evolution_nuclei")),
]
SHARED = ("--method=darts", "--set", "search.order=first", "--workdir=a b")
STAND_INS = {
    "python": "exec 9>> {record}; flock 9; printf '%s\\0' \"$@\" >&9; printf '\\n\\0' >&9",
    "ssh": 'exec bash -c "${{@: -1}}"',
    "scontrol": "printf 'one\\n'; sleep 0.2; printf 'two\\n'",  # slow: a reader that closes the pipe early breaks it
    "srun": 'shift; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
}


def commands_of(script, *args, folder, **variables):
    """What a script runs by `python`, with some variables of the environment: a list of words each."""
    record, stand_ins = folder / "record", folder / "bin"
    stand_ins.mkdir(exist_ok=True)
    record.write_text("")
    for name, text in STAND_INS.items():
        (stand_ins / name).write_text(f"#!/bin/bash\n{text.format(record=shlex.quote(str(record)))}\n")
        (stand_ins / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{stand_ins}{os.pathsep}{os.environ['PATH']}", "PYTHON": str(stand_ins / "python")}
    env |= {"SLURM_JOB_NODELIST": "one,two", "SLURM_NNODES": "2", **variables}
    subprocess.run([FOLDER / f"{script}.sh", *args], cwd=folder, env=env, check=True, capture_output=True, timeout=60)
    runs = [text.split("\0")[:-1] for text in record.read_text().split("\n\0")[:-1]]
    assert runs and all(run[:2] == ["-m", "nasjax.launch"] for run in runs)
    return [run[2:] for run in runs]


@pytest.fixture
def taken(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return idle(monkeypatch)


def written(script, begin, method):
    """The flags on the line of a script's head that begins so; what only one method has comes last, "and of METHOD"."""
    for line in (FOLDER / f"{script}.sh").read_text().splitlines():
        if line.startswith(f"# {begin}:"):
            common, _, more = line.partition(", and of ")
            shown = line if more.startswith(f"{method} ") else common
            return [word for flag in re.findall(r"--set [\w.]+=[^\s,]+|--\w+=[^\s,]+", shown) for word in flag.split()]
    return []


@pytest.mark.parametrize(("script", "args"), CASES, ids=lambda value: value if isinstance(value, str) else value[0])
def test_what_a_script_runs_is_accepted(script, args, taken, tmp_path):
    reduced, many = (written(script, begin, args[0]) for begin in ("Reduce", "Many machines"))
    assert reduced
    for more in ([], reduced, many) if many else ([], reduced):
        for run in commands_of(script, *args, *more, folder=tmp_path):
            accepted(run)
    assert {config.preset for config in taken} == {"article" if script == "evolution_nuclei" else "paper"}
    assert all(config.method == args[0] for config in taken) or args[0] == "DATA"


def test_every_script_is_run_here_and_every_method_has_one(taken, tmp_path):
    assert {path.stem for path in FOLDER.glob("*.sh")} == {script for script, _ in CASES} | {"hosts", "slurm"}
    for script, args in CASES:
        if args[0] == "DATA":
            for run in commands_of(script, *args, folder=tmp_path):
                accepted(run)
    named = {args[0] for _, args in CASES} | {config.method for config in taken}
    alone = {"random", "topk", "bo", "local_search", "asha"}  # of which no paper has a run of its own
    assert named - {"DATA"} == set(catalog.METHODS) - alone


@pytest.mark.parametrize(("script", "args"), [("hosts", ("one two",)), ("slurm", ())])
def test_every_host_gets_the_command_and_its_number(script, args, taken, tmp_path):
    runs = commands_of(script, *args, *SHARED, folder=tmp_path)
    for run in runs:
        assert run[: len(SHARED)] == list(SHARED) and run[-3:-1] == ["--coordinator=one:8476", "--processes=2"]
        accepted(run)
    assert sorted(run[-1] for run in runs) == ["--process=0", "--process=1"]
    assert taken[0] == taken[1] and taken[0].search.order == "first"


def test_hosts_end_with_the_first_that_fails(tmp_path):
    slow = tmp_path / "python"
    slow.write_text('#!/bin/bash\ncase "$*" in *--process=1) exit 3;; *) exec sleep 60;; esac\n')
    slow.chmod(0o755)
    (tmp_path / "ssh").write_text('#!/bin/bash\nexec bash -c "${@: -1}"\n')
    (tmp_path / "ssh").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHON": str(slow)}
    assert subprocess.run([FOLDER / "hosts.sh", "one two", "--method=darts"], env=env, timeout=30).returncode == 3


def test_the_clusters_own_command_is_accepted(taken):
    """That in the head of ray_cluster.yaml."""
    (command,) = re.findall(r"python -m nasjax\.launch (.*)", (FOLDER / "ray_cluster.yaml").read_text())
    accepted([word.replace("/shared/runs", "runs") for word in shlex.split(command)])
