"""Commands and flags in what is printed: every one is taken by the command line."""

import ast
import dataclasses
import html
import itertools
import json
import re

import pytest
from tools.commands import accepted, forget_own, idle, next_words
from tools.pages import ROOT
from tools.settings_known import configs, prefixes

from nasjax import commands, launch
from nasjax.commands import retraining
from nasjax.commands.configuration import record_of
from nasjax.experiments.families.settings import next_line
from nasjax.report.sections import _next
from nasjax.report.workdir import read
from nasjax.store import plugin
from nasjax.types import Metric

OTHERS = ("--xla_", "--head", "--file_format", "--name", "dotted.field")  # of XLA, Ray, TFDS, and of none

PLUGIN = """
import nasjax
nasjax.register(space=nasjax.SiteSpace("tiny", {"a": (1, 2)}), build=lambda choices, signature: None)
"""


@pytest.fixture
def taken(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    yield idle(monkeypatch)
    forget_own()


def test_flags_in_messages_are_there():
    """Every --flag in a text of the package, and every `--set name=` in one."""
    known, seen = launch.define(), set()
    for path in (ROOT / "nasjax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for flag in re.findall(r"(?<![\w-])--[a-zA-Z_]\w+", node.value):
                    assert flag[2:] in known or flag.startswith(OTHERS), f"{path.name}:{node.lineno}: {flag}"
                    seen.add(flag)
                for name in re.findall(r"--set[ =]'?([a-z_]+\.[a-z_.]+\w)", node.value):
                    assert name in OTHERS or any(known.startswith(name) for known in prefixes()), (
                        f"{path.name}: --set {name}"
                    )
    assert len(seen) > 20


def printed(config, folder):
    """Every command that is told of a workdir: after a search, after retraining, in its report."""
    yield from (next_words(next_line(config, folder, mode)) for mode in ("retrain", "report", "export"))
    result = {"test_accuracy": 0.5, "test_samples": 9, "dataset": {"name": "digits"}, "params": 1, "published": None}
    lines = retraining._told(config, folder, result, Metric("accuracy"))
    yield from (next_words(line) for line in lines if line.startswith("Next: "))
    row = {"id": 0, "arch": {}, "hash": "", "fitness": 0.5, "params": 1, "status": "ok", "cost_s": 1.0}
    (folder / "trials.jsonl").write_text(json.dumps(row) + "\n")
    run = read(folder)._replace(program="./a\\ b/nasjax")
    listed = re.findall(r"<code>(.*?)</code>", _next(run) + _next(run._replace(result=result)), re.S)
    assert len(listed) == 4 + 5  # resume, retrain, report, compare; after retraining export and predict
    yield from (next_words(html.unescape(command), run.program) for command in listed)


def test_what_is_printed_as_next_is_taken(taken, tmp_path):
    """Of every method; folders with odd names among them."""
    names = itertools.cycle(["run", "a b", "it's", "-run"])
    whole = [config for config in configs() if config.space.sites]  # a space of a table has none without it
    for config, name in zip({config.method: config for config in whole}.values(), names, strict=False):
        folder = tmp_path / config.method / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(record_of(config, {})))
        for command in printed(config, folder):
            accepted(command)


def test_what_is_printed_of_a_plugins_run_has_its_plugin(taken, tmp_path):
    """A later process, which has not run the plugin yet, takes each command."""
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "plugin.py").write_text(PLUGIN)
    digest = plugin.use(str(folder / "plugin.py"))
    config = dataclasses.replace(commands.configure("random", space="tiny"), plugin=digest)
    (folder / "config.json").write_text(json.dumps(record_of(config, {})))
    for command in list(printed(config, folder)):
        forget_own()
        accepted(command)
