"""From a search to a network without nasjax by the printed lines, each run by a shell as it is printed.

In a fresh environment and a folder that is not the checkout: with the environment activated as the README does, and
without.
"""

import html
import json
import re
import shlex

import pytest
from tools.commands import TINY
from tools.environment import fresh, shell

PLUGIN = """
import flax.linen as nn
from helper import OUTPUTS  # a file beside it

import nasjax


class Mlp(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(OUTPUTS)(nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1))))


nasjax.register(space=nasjax.SiteSpace("mlp", {"width": (4, 8)}), build=lambda choices, signature: Mlp(**choices))
"""
DATA = """
import nasjax
from nasjax.data.digits import digits

nasjax.register(data="again", load=lambda data_dir: digits())
"""
SMALL = ["--trials=2", *(flag for flag in TINY if "space." not in flag and "width" not in flag)]
QUICK = ["--set=retrain_recipe.epochs=1", "--set=retrain.part=train"]


def walk(run, search, program):
    """Searches, and then does what each output says; returns the command that retrains."""
    told = run(search)
    assert "Results:" in told
    retrain = following(told, program)
    told = run(retrain + " " + " ".join(QUICK))  # less than what is printed only in its length
    (load,) = [line.removeprefix("In Python: ") for line in told.splitlines() if line.startswith("In Python: ")]
    interpreter = program.removesuffix(" -m nasjax.launch") if "-m" in program else "python"
    run(f"{interpreter} -c {shlex.quote(f'import nasjax; {load}')}")
    assert f"On your files: {program} " in told and "--mode=predict" in told
    told = run(following(told, program)).splitlines()
    start = told.index("import jax.export, numpy, pathlib")
    python = "\n".join(["import sys; sys.modules['nasjax'] = None  # there is none", *told[start : start + 3]])
    assert "[[" in run(f"{interpreter} -c {shlex.quote(python)}")
    return retrain


def following(told, program):
    (line,) = [line for line in told.splitlines() if line.startswith("Next: ")]
    line = line.removeprefix("Next: ")
    assert line.startswith(f"{program} "), line
    return line


def commands(report):
    """What the report tells to run, by what it does."""
    found = re.findall(r"<li>(.*?)<pre><code>(.*?)</code>", report.read_text(), re.S)
    return {why: html.unescape(re.sub("<.*?>", "", command)) for why, command in found}


@pytest.mark.slow
def test_the_printed_lines_lead_from_a_search_to_a_network_without_nasjax(tmp_path):
    """A built-in space, by the console command in an activated environment."""
    here = tmp_path / "a project"
    here.mkdir()
    fresh(here / ".venv")

    def run(line):
        return shell(f". .venv/bin/activate\n{line}", here, tmp_path)

    walk(run, f"nasjax --method=random --trials=2 {shlex.join(TINY)}", "nasjax")
    listed = commands(here / "runs" / "random-conv_chain-digits-s0" / "report.html")
    assert "nasjax --mode=predict" in listed["apply the network to files of yours"]
    run(listed["write the network for use without nasjax"])
    run(listed["write this report again"])


@pytest.mark.slow
def test_they_do_so_with_plugins_and_an_environment_that_is_not_activated(tmp_path):
    """Two plugins, one of which imports a file beside it, with worker processes, by the interpreter's own path."""
    here = tmp_path / "a project"
    here.mkdir()
    fresh(here / ".venv")
    (here / "mine.py").write_text(PLUGIN)
    (here / "data.py").write_text(DATA)
    (here / "helper.py").write_text("OUTPUTS = 10\n")

    def run(line):
        return shell(line, here, tmp_path)

    program = ".venv/bin/python -m nasjax.launch"
    flags = (
        "--plugin=mine.py --plugin=data.py --method=random --space=mlp --dataset=again --workers=1 --workdir='a run'"
    )
    retrain = walk(run, f"{program} {flags} {shlex.join(SMALL)}", program)
    copies = "--plugin='a run/plugin.py' --plugin='a run/plugin_2.py'"
    assert copies in retrain
    run(json.loads((here / "a run" / "config.json").read_text())["command"])  # resumes it, as the report would say
    listed = commands(here / "a run" / "report.html")
    assert copies in listed["apply the network to files of yours"]
    run(listed["write the network for use without nasjax"])
    assert ".venv/bin/nasjax --plugin" in following(
        run(f".venv/bin/nasjax {flags} {shlex.join(SMALL)}"), ".venv/bin/nasjax"
    )
