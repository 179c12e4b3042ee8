"""One run in several processes: here, with one device each, started by launch/hosts.sh with a stand-in for ssh."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from tools.commands import TESTS, here

from nasjax import commands
from nasjax.runtime import hosts

SCRIPT = Path(__file__).parents[2] / "launch" / "hosts.sh"
DATA = ("data.train_limit=32", "data.valid_limit=16", "retrain_recipe.batch_size=32")
SEARCH = ("search.population=4", "search.top_k=2", "search.mutants=2", "search.crossovers=2")
CALIBRATION = ("search.calibration_batches=1", "search.calibration_batch_size=8")
PATHS = ("space.depths=1,1", "space.operators=shuffle_k3,shuffle_k5", "supernet.epochs=2", "supernet.batch_size=8")
SPOS = ["--method=spos", "--compile_cache=off", "--trials=4"]
SPOS += [word for setting in (*DATA, *PATHS, *SEARCH, *CALIBRATION) for word in ("--set", setting)]


def run(command, folder, devices, **more):
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    xla = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "PYTHONPATH": path, "XLA_FLAGS": xla, **more}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900)


def on_two_hosts(folder, *args):
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "ssh").write_text('#!/bin/bash\nexec bash -c "${@: -1}"\n')
    (folder / "bin" / "ssh").chmod(0o755)
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    more = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "PORT": port, "PYTHON": sys.executable}
    return run([SCRIPT, "localhost localhost", *args], folder, 1, **more)


def lines(file):
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("wall_s", "cost_s")} for line in found]


def newest(folder):
    return max((folder / "supernet" / "checkpoints").iterdir())


def agree(one, two):
    """Both runs' lines and last states, rounding apart."""
    assert lines(one / "trials.jsonl") == lines(two / "trials.jsonl")
    a, b = (jax.tree.leaves(ocp.load(newest(folder))["state"]) for folder in (one, two))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_two_processes_are_one_with_two_devices(tmp_path):
    alone = run([sys.executable, "-m", "nasjax.launch", *SPOS, "--workdir=one"], tmp_path, 2)
    assert alone.returncode == 0, alone.stderr
    both = on_two_hosts(tmp_path, *SPOS, "--workdir=two")
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("Results: two/report.html") == 1  # one process speaks
    assert json.loads((tmp_path / "two" / "config.json").read_text())["strategy"] == "one supernet on 2 device(s)"
    agree(tmp_path / "one", tmp_path / "two")
    # It goes on from an earlier state, and retrains.
    shutil.rmtree(newest(tmp_path / "two"))
    for name in ("trials.jsonl", "ledger.jsonl", "best.json"):
        (tmp_path / "two" / name).unlink()
    again = on_two_hosts(tmp_path, *SPOS, "--workdir=two")
    assert again.returncode == 0 and "supernet epoch 1" not in again.stderr, again.stderr
    agree(tmp_path / "one", tmp_path / "two")
    recipe = ("--set", "retrain_recipe.epochs=1", "--set", "retrain_recipe.batch_size=8", "--compile_cache=off")
    trained = on_two_hosts(tmp_path, "--mode=retrain", "--workdir=two", *recipe)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "two" / "model" / "model.json").is_file()


@pytest.mark.slow
def test_processes_with_other_settings_are_told(tmp_path):
    python = f'#!/bin/bash\n[[ "$*" == *--process=1 ]] && set -- "$@" --seed=1\nexec {sys.executable} "$@"\n'
    (tmp_path / "python").write_text(python)
    (tmp_path / "python").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "python"))
        ended = on_two_hosts(tmp_path, *SPOS, "--workdir=two")
    assert ended.returncode == 2 and "the processes differ in settings, data or versions (process 1" in ended.stderr
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--method=darts", "--processes=2"), "no effect without --coordinator"),
        (("--method=darts", "--mode=inspect", "--coordinator=a:1"), "no effect with --mode=inspect"),
        (("--method=darts", "--coordinator=a:1"), "write --coordinator=HOST:PORT --processes=N --process=I"),
        (("--method=darts", "--coordinator=a:1", "--processes=2"), "write --coordinator=HOST:PORT"),
        (("--method=darts", "--coordinator=auto", "--processes=2", "--process=0"), "or --coordinator=auto alone"),
        (("--method=darts", "--coordinator=a:1", "--processes=2", "--process=2"), "must be from 0 to below"),
        (("--method=darts", "--coordinator=a:1", "--processes=1", "--process=0"), "JAX"),
    ],
)
def test_what_cannot_be_joined_is_one_line(given, told):
    jax.devices()  # as in a notebook that has computed something
    code, out, errors = here(*given)
    assert code == 2 and not out and told in errors and errors.count("\n") == 1


def test_a_machine_whose_name_has_no_address_is_one_line(monkeypatch):
    def unable():
        raise RuntimeError("Unable to initialize backend 'cpu': [enforce fail at gloo/transport/tcp/device.cc:99]")

    def unknown(*name):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **options: None)
    monkeypatch.setattr(jax, "process_index", unable)
    with pytest.raises(RuntimeError, match="gloo"):  # of another reason
        hosts.join("localhost:1", 2, 0)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ValueError, match=r"has no address.*/etc/hosts: 127\.0\.1\.1 "):
        hosts.join("localhost:1", 2, 0)
    jax.config.update("jax_enable_preemption_service", True)


def test_candidates_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match="random tries candidates one by one"):
        commands.search(commands.configure("random"), tmp_path / "run")


def test_a_process_alone_works_in_the_workdir_itself(tmp_path):
    hosts.agree("anything", {"a": 1})
    with hosts.own_workdir(tmp_path, {}) as own:
        assert own is tmp_path
