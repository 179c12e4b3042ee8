"""The notebooks' own cells, run in order at tiny settings."""

import json
import re
import sys
import types
from pathlib import Path

import pytest

import nasjax
from nasjax import commands
from nasjax.settings import override

FOLDER = Path(__file__).parents[1] / "launch" / "colab"
DATA = ("data.train_limit=64", "data.valid_limit=32", "retrain_recipe.epochs=1", "retrain_recipe.batch_size=32")
CHAIN = ("space.min_layers=1", "space.max_layers=1", "space.filter_counts=2", "recipe.epochs=1", "width=2")
CELL = ("search.channels=4", "search.layers=3", "search.epochs=1", "search.batch_size=32", "eval.channels=4")
PATH = ("supernet.epochs=1", "supernet.batch_size=32", "trials=4", "search.population=4", "search.top_k=2")
EVOLUTION = ("search.mutants=2", "search.crossovers=2", "search.calibration_batches=1")
TINY = {
    "reinforce": (*CHAIN, "trials=2"),
    "darts": (*CELL, "eval.layers=3"),
    "one_shot": (*PATH, *EVOLUTION),
}


MARKS = dict.fromkeys(("darts", "one_shot"), pytest.mark.slow)  # they compile a search network, a supernet


def cells(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["\n".join(line for line in source.splitlines() if not line.startswith("%")) for source in sources]


def test_every_notebook_is_run():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(TINY)


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in TINY])
def test_the_cells_run_in_order(name, tmp_path, monkeypatch, capsys):
    def tiny(*args, **options):
        return override(commands.configure(*args, **options), *DATA, *TINY[name])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nasjax, "configure", tiny, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(HTML=str))
    names = {"__name__": "notebook"}
    for source in cells(name):
        exec(compile(re.sub(r"trials=\d+", "trials=2", source), name, "exec"), names)
    assert names["model"].variables and names["data"].classes == 10
    assert capsys.readouterr().out == "\n".join(names["trained"].lines) + "\n"  # what a cell prints, and no more
