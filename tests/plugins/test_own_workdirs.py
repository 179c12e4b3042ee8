"""A workdir and the plugin that made it: which may resume it, what hangs, what is killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tools.commands import rows
from tools.plugin_files import BLOCKS, TINY, clean, command, written  # noqa: F401 - clean is a fixture

import nasjax
from nasjax import commands, flagged, launch


@pytest.mark.slow
def test_a_notebook_registers_without_a_file(tmp_path):
    exec(BLOCKS["mlp"], {"__name__": "cell"})
    exec(BLOCKS["mlp"], {"__name__": "cell"})  # the cell run again
    records = []
    config = flagged.applied(_given([*TINY, "--trials=2"]), commands.configure("random", space="mlp"))
    outcome = nasjax.search(config, tmp_path / "run", progress=False, on_record=records.append)
    assert outcome.trials == len(rows(tmp_path / "run"))
    assert [row for row in records if "fitness" in row] and not (tmp_path / "run" / "plugin.py").exists()


MLP = """
import flax.linen as nn
import numpy as np
import nasjax

class Mlp(nn.Module):
    width: int
    outputs: int
    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(nn.RELU(nn.Dense(self.width)(x.reshape(x.shape[0], -1))))

nasjax.register(space=nasjax.SiteSpace("own", CHOICES), build=BUILD)
"""


def registered(choices, build="lambda c, s: Mlp(*c.values(), s.outputs)", act="relu"):
    """What a cell of a notebook registers."""
    exec(MLP.replace("CHOICES", choices).replace("BUILD", build).replace("RELU", act), {"__name__": "cell"})


@pytest.mark.slow
def test_a_workdir_belongs_to_the_space_and_the_networks_that_made_it(tmp_path):
    """Choices in another order, another network of the same choices, and rows that would be others are refused."""
    run, choices = tmp_path / "run", "{'width': (1, 2, 4, 64)}"

    def search(trials, **changes):
        config = flagged.applied(_given([*TINY, f"--trials={trials}"]), commands.configure("random", space="own"))
        return nasjax.search(dataclasses.replace(config, **changes), run, progress=False).trials

    registered(choices)
    assert search(1) == 1
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["space"]["sites"]["width"]["choices"] == [1, 2, 4, 64] and config["networks"]
    registered("{'width': np.array([1, 2, 4, 64])}")  # the same
    assert search(1) == 1
    registered("{'width': (64, 4, 2, 1)}")
    with pytest.raises(ValueError, match=r"space\.sites\.width\.choices: \[1, 2, 4, 64\] -> \[64, 4, 2, 1\]"):
        search(2)
    with pytest.raises(ValueError, match="is another one now"):
        commands.config_of(run)
    for other in ({"build": "lambda c, s: Mlp(2 * c['width'], s.outputs)"}, {"act": "tanh"}):
        registered(choices, **other)
        with pytest.raises(ValueError, match="what the networks of --space=own compute changed since"):
            search(2)
    older = {**config, "config": {**config["config"], "space": {"name": "own"}}, "networks": None}
    (run / "config.json").write_text(json.dumps(older))  # as versions before wrote it
    registered("{'width': (64, 4, 2, 1)}")
    with pytest.raises(ValueError, match=r"belongs to another space: arch of trial 0 was .*, and would now be"):
        search(2)
    (run / "config.json").write_text(json.dumps(older))
    registered(choices)
    assert search(1) == 1 and commands.config_of(run).trials == 1


@pytest.mark.slow
def test_numbers_of_numpy_are_choices(tmp_path):
    registered("{'width': np.arange(4, 17, 4)}")
    config = flagged.applied(_given([*TINY, "--trials=2"]), commands.configure("random", space="own"))
    assert nasjax.search(config, tmp_path / "run", progress=False).trials == 2
    assert {row["arch"]["choices"]["width"] for row in rows(tmp_path / "run")} <= {4, 8, 12, 16}
    kinds = {"a": (np.float32(0.5), np.int8(3)), "b": [np.bool_(True), None], "c": ((np.int64(3), (5,)), np.arange(2))}
    space = nasjax.SiteSpace("s", kinds)
    assert [site.choices for site in space.sites] == [(0.5, 3), (True, None), ((3, (5,)), (0, 1))]
    assert {type(choice) for site in space.sites for choice in site.choices} == {float, int, bool, type(None), tuple}
    tree = json.loads(json.dumps(space.encode(np.array([1, 0, 0]))))
    assert space.decode(tree).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ((jax.nn.relu, jax.nn.gelu), "is no choice that files can hold; write a number, a text"),
        ((np.nan, 1.0), "nan .* is no choice"),
        ((1 + 2j,), "is no choice"),
        ((b"a", b"b"), "is no choice"),
        (({"a": 1},), "is no choice"),
        ("relu", "needs a list of choices in their order"),
        ({1, 2}, "needs a list of choices in their order"),
        (16, "needs a list of choices in their order"),
        ((1, np.int64(1)), "needs distinct choices"),
        ((), "needs distinct choices"),
    ],
)
def test_choices_that_no_file_can_hold_are_refused(choices, expected):
    with pytest.raises(ValueError, match=f"site 'a'.*{expected}"):
        nasjax.SiteSpace("s", {"a": choices})


def test_settings_that_no_file_can_hold_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        steps: object = np.int64(3)

    with pytest.raises(ValueError, match="steps must be a plain value, which config"):
        nasjax.register(searcher="s", make=lambda space, steps: None, settings=Settings())


HANGING = """
def building(choices, signature):
    import time
    if choices["width"] == 4:
        time.sleep(300)
    if choices["width"] == 8:
        raise KeyError("x")
    return Mlp(choices["width"], signature.outputs)
"""


@pytest.mark.slow
def test_candidates_that_hang_or_raise_while_they_are_built(tmp_path, capsys):
    """Both are failed trials with their JSON form and hash; the one that hangs costs its time."""
    mine = tmp_path / "mine.py"
    text = MLP.replace("CHOICES", "{'width': (2, 4, 8)}").replace("BUILD", "building").replace("RELU", "relu")
    mine.write_text(text.replace("nasjax.register", HANGING + "\nnasjax.register"))
    args = [f"--plugin={mine}", "--method=topk", "--space=own", "--trials=5", *TINY]
    assert command(*args, f"--workdir={tmp_path}/run", "--workers=1", "--trial_timeout=12") == 0
    found = {row["arch"]["choices"]["width"]: row for row in rows(tmp_path / "run")}
    assert {width: row["status"] for width, row in found.items()} == {2: "ok", 4: "timeout", 8: "failed"}
    assert all(len(row["hash"]) == 16 for row in found.values()) and "KeyError: 'x'" in found[8]["error"]
    lines = (tmp_path / "run" / "trials.jsonl").read_text().splitlines()
    assert {row["id"]: row["cost_s"] for row in map(json.loads, lines)}[found[4]["id"]] == 12.0
    assert "Ended at 3 of 5 trials: all 3 architectures of --space=own were tried." in capsys.readouterr().out
    began = time.monotonic()
    assert command(*args, f"--workdir={tmp_path}/wall", "--set=wall_s=3") in (0, 1)
    assert time.monotonic() - began < 60


def _given(args):
    values = launch.define()
    values(["nasjax", *args])
    return values


@pytest.mark.slow
def test_a_killed_run_with_a_plugin_goes_on(tmp_path):
    """kill -9 after the first round; the same command ends with the trials of an uninterrupted run."""
    mine = written(tmp_path, "wide")
    args = [f"--plugin={mine}", "--method=random", "--space=wide", "--trials=12", *TINY]

    def start(path):
        line = [sys.executable, "-m", "nasjax.launch", f"--compile_cache={tmp_path}/xla", f"--workdir={path}", *args]
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)

    killed = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "trials.jsonl").is_file():
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    for name in ("killed", "whole"):
        process = start(tmp_path / name)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole") and len(rows(tmp_path / "whole")) == 12
