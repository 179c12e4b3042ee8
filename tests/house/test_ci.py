"""The script that every change must pass, with stand-ins for what it calls; its agreement with README and workflow."""

import os
import re
import subprocess
import tomllib

import pytest
from tools.pages import BLOCKS, ROOT

# Stands for Python: its version is right, an environment is a folder of copies, pytest does as $PYTEST and $SLOW say.
STAND_IN = """#!/bin/bash
case "$*" in
  -c*) exit 0;;
  "-m venv "*) mkdir -p "$3/bin"; for name in python ruff mypy; do cp "$0" "$3/bin/$name"; done;;
  *"pytest"*"-m slow"*) eval "$SLOW";;
  *pytest*) eval "$PYTEST";;
esac
"""
FINE = "echo '12 passed, 3 skipped in 2.00s'"
NOTHING = {"no line": "exit 0", "all skipped": "echo '3 skipped in 1s'", "none": "echo '0 passed'", "exit 5": "exit 5"}
NOTHING |= {"one failed": "echo '1 failed, 9 passed in 1s'; exit 1", "died": f"{FINE}; kill -9 $$"}


def run(folder, ordinary, slow):
    python = folder / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    env = {**os.environ, "PYTHON": str(python), "PYTEST": ordinary, "SLOW": slow, "TMPDIR": str(folder)}
    return subprocess.run([ROOT / ".ci" / "run"], env=env, capture_output=True, text=True, timeout=60)


def test_both_selections_pass(tmp_path):
    result = run(tmp_path, FINE, FINE)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("12 passed") == 2


@pytest.mark.parametrize("what", NOTHING.values(), ids=NOTHING)
def test_a_selection_without_a_test_that_passed_fails(what, tmp_path):
    assert run(tmp_path, what, FINE).returncode != 0
    result = run(tmp_path, FINE, what)
    assert result.returncode != 0 and result.stdout.count("12 passed") == 1 + ("kill" in what)


def test_script_workflow_and_readme_say_the_same():
    script = (ROOT / ".ci" / "run").read_text()
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    readme = (ROOT / "README.md").read_text()
    (shown,) = [b.text for b in BLOCKS if b.page == "README.md" and "-m pytest" in b.text]
    assert "pip install -e '.[dev]'" in shown and "install --quiet -e '.[dev]'" in script
    assert shown.endswith(".venv/bin/python -m pytest") and re.search(r"^checked$", script, re.M)
    assert "`.venv/bin/python -m pytest -m slow`" in readme and re.search(r"^checked -m slow$", script, re.M)
    assert re.search(r"^ +- run: \.ci/run$", workflow, re.M)
    versions = re.findall(r'"(3\.\d+)"', workflow)
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert versions[0] == oldest and "3.13" in versions
    assert f"Python {oldest} or later" in readme and str(tuple(map(int, oldest.split(".")))) in script
