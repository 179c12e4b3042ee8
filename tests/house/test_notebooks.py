"""The notebooks' own cells and the pages about notebooks, run in order at tiny settings."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from tools.programs import run, runs

import nasjax
from nasjax import commands
from nasjax.commands.trackers import kind, numbers
from nasjax.data.dataset import DataConfig
from nasjax.problem.data import load
from nasjax.settings import override

FOLDER = Path(__file__).parents[2] / "launch" / "colab"
DATA = ("data.train_limit=64", "data.valid_limit=32", "retrain_recipe.epochs=1", "retrain_recipe.batch_size=32")
SHAPE = ("space.filter_heights=3", "space.filter_widths=3", "space.filter_counts=2")  # one for all: one program
CHAIN = (*SHAPE, "space.min_layers=1", "space.max_layers=1", "recipe.epochs=1", "width=2", "search.policy=independent")
CELL = ("search.channels=4", "search.layers=3", "search.epochs=1", "search.batch_size=32", "form.channels=4")
FEW = ("space.operators=skip_connect,sep_conv_3x3", "space.none=false")
PATH = ("space.depths=1,1", "supernet.epochs=1", "supernet.batch_size=32", "trials=4", "search.population=4")
EVOLUTION = ("search.top_k=2", "search.mutants=2", "search.crossovers=2", "search.calibration_batches=1")
TINY = {
    "reinforce": (*CHAIN, "trials=2"),
    "darts": (*CELL, *FEW, "form.layers=1"),
    "one_shot": (*PATH, *EVOLUTION),
}


def cells(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(line.startswith(("%", "!")) for source in sources for line in source.splitlines())
    return sources


def test_every_notebook_is_run():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {*TINY, "compare"}


def test_every_notebook_gets_the_code_by_the_same_first_cell():
    assert len({cells(name)[0] for name in (*TINY, "compare")}) == 1


# In place of what the first cell starts: no real pip is ever run, which would change the Python of the tests.
PIP = """
import subprocess, sys
from pathlib import Path

def installed(command, check):
    assert command[:5] == [sys.executable, "-m", "pip", "install", "-q"] and check
    Path("installed.txt").write_text(command[5])
    Path(SITE, "nasjax").symlink_to(Path(command[5], "nasjax"))

subprocess.run = installed
"""


@pytest.fixture
def kernel(tmp_path):
    """kernel(folder, source, **variables): a fresh Python with the dependencies but no nasjax, and no pip but ours."""
    site = tmp_path / "site"
    site.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "nasjax" not in path.name and not path.name.startswith(("pip", "__pycache__")):
            (site / path.name).symlink_to(path)

    def started(folder, source, **variables):
        kept = {name: value for name, value in os.environ.items() if name not in ("NASJAX_SOURCE", "PYTHONPATH")}
        return subprocess.run(
            [sys.executable, "-S", "-c", f"SITE = {str(site)!r}\n{PIP}\n{source}"],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu", **variables},
            capture_output=True,
            text=True,
        )

    return started


ROOT = FOLDER.parents[1]


def test_the_first_cell_finds_the_code_from_any_folder(kernel, tmp_path):
    """Above all from the folder that holds the checkout, where its name stands for an empty package."""
    first = cells("darts")[0] + "\nimport nasjax\nprint(nasjax.__file__)"
    (tmp_path / "nowhere").mkdir()
    found = kernel(tmp_path / "nowhere", first)
    assert found.returncode and "set SOURCE above (or the variable NASJAX_SOURCE)" in found.stderr
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "nasjax").symlink_to(ROOT)
    found = kernel(tmp_path / "parent", first)
    assert found.returncode == 0 and found.stdout.endswith("nasjax/__init__.py\n"), found.stderr
    assert (tmp_path / "parent" / "installed.txt").read_text() == str(tmp_path / "parent" / "nasjax")
    assert kernel(tmp_path / "nowhere", first).returncode == 0  # it is installed now
    assert not (tmp_path / "nowhere" / "installed.txt").exists()
    (tmp_path / "site" / "nasjax").unlink()
    assert kernel(tmp_path / "nowhere", first, NASJAX_SOURCE=str(ROOT)).returncode == 0
    assert (tmp_path / "nowhere" / "installed.txt").read_text() == str(ROOT)


@pytest.mark.slow
def test_a_notebook_runs_in_a_fresh_kernel_beside_the_checkout(kernel, tmp_path):
    (tmp_path / "nasjax").symlink_to(ROOT)
    first, *rest = cells("reinforce")
    small = "\n".join(
        [
            "import nasjax",
            "from nasjax.settings import override",
            "from nasjax import commands",
            f"nasjax.configure = lambda *args: override(commands.configure(*args), *{(*DATA, *TINY['reinforce'])!r})",
        ]
    )
    shown = "\nprint(repr(model), found._repr_html_(), trained._repr_html_(), model._repr_html_())"
    shown += "\nprint(nasjax.show(workdir)._repr_html_()[:15])"
    source = "\n".join([first, small, *rest]).replace("trials=24", "trials=2") + shown
    found = kernel(tmp_path, source)
    assert found.returncode == 0, found.stderr
    assert "nasjax model for classification" in found.stdout and found.stdout.endswith("<iframe srcdoc=\n")
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()


def tiny(name):
    return lambda *args, **options: override(commands.configure(*args, **options), *DATA, *TINY[name])


@pytest.fixture
def notebook(monkeypatch, tmp_path):
    """A folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow  # the pages below do the same
@pytest.mark.parametrize("name", TINY)
def test_the_cells_run_in_order(name, notebook, monkeypatch, capsys):
    monkeypatch.setattr(nasjax, "configure", tiny(name), raising=False)
    names = {"__name__": "notebook"}
    for source in cells(name):
        exec(compile(re.sub(r"trials=\d+", "trials=2", source), name, "exec"), names)
    assert names["model"].variables and names["data"].classes == 10
    assert capsys.readouterr().out == "\n".join(names["trained"].lines) + "\n"  # what a cell prints, and no more


@pytest.mark.slow
@runs("docs/compare.md", 0)
def test_the_comparisons_cells_run_in_order_and_its_page_does(notebook, capsys):
    names = {"__name__": "notebook"}
    for source in cells("compare"):
        source = source.replace('["evolution", "bo"]', '["evolution"]').replace("trials=40", "trials=4")
        exec(compile(source, "compare", "exec"), names)
    found = names["found"]
    assert (
        found._repr_html_().startswith("<pre>problem: 20 seeds, 4 trials each") and found.sha256 in found._repr_html_()
    )
    assert nasjax.show("compared")._repr_html_().startswith("<iframe srcdoc=")
    ops = np.indices((3, 3)).reshape(2, -1).T
    said = {"metric": "accuracy", "unit": "fraction"}  # as in a table of one's own runs
    np.savez("mine.npz", ops=ops, op_names=["a", "b", "c"], accuracy=ops.sum(1) / 10, cost=np.ones(9), **said)
    names = run("docs/compare.md", [0], None, {'["bo", "evolution"]': '["evolution"]', "seeds=10": "seeds=2"})
    assert names["rows"].keys() == {"random", "evolution"} and names["found"].sha256 in capsys.readouterr().out


@pytest.mark.slow
@runs("docs/notebook.md", 0, 1, 2, 3)
@runs("README.md", 0)
@runs("docs/recording.md", 0, 1, 2)
def test_the_pages_run_in_order(notebook, monkeypatch):
    """A run as the page shows it; the README's lines find it finished; every recorder is told all of its numbers."""
    digits = load(DataConfig())
    names = {"images": digits.valid.x[:20], "labels": digits.valid.y[:20]}
    monkeypatch.setattr(nasjax, "configure", tiny("reinforce"), raising=False)
    run("docs/notebook.md", [0, 1], names, {"trials=24": "trials=2"})
    path, outcome = names["workdir"], names["found"]
    assert (outcome.trials, outcome.failed) == (2, 0)
    run("docs/notebook.md", [3], names)
    assert len(names["names"]) == 20 and set(names["names"]) <= set(map(str, range(10)))
    again = {"images": names["images"]}
    run("README.md", [0], again, {"trials=24": "trials=2", "runs/mine": str(path)})
    assert again["found"].best == outcome.best and again["trained"].test == names["trained"].test
    np.testing.assert_array_equal(again["logits"], names["logits"])
    monkeypatch.setattr(nasjax, "configure", commands.configure, raising=False)
    run("docs/notebook.md", [2], names)
    assert len(load(names["config"].data).train.y) < 20

    rows = [json.loads(x) for f in ("trials", "metrics") for x in (path / f"{f}.jsonl").read_text().splitlines()]
    monkeypatch.setattr(nasjax, "search", lambda *_, on_record: list(map(on_record, rows)), raising=False)
    recorders = {name: MagicMock() for name in ("tensorboardX", "wandb")}
    for name, module in recorders.items():
        monkeypatch.setitem(sys.modules, name, module)
    told = []
    names = {"nasjax": nasjax, "config": again["config"], "workdir": path, "record": told.append}
    run("docs/recording.md", [1], names)
    assert told == rows
    run("docs/recording.md", [0, 2], names)
    assert {kind(row) for row in rows} == {"trial", "round"}
    assert all({"trial/fitness", "trial/id"} <= set(numbers(row)) for row in rows if "fitness" in row)
    logged = recorders["wandb"].init.return_value.log.call_args_list
    assert [call.args[0] for call in logged] == [numbers(row) for row in rows]
    writer = recorders["tensorboardX"].SummaryWriter.return_value.add_scalar
    scalars = [(*pair, row["id" if "id" in row else "trials"]) for row in rows for pair in numbers(row).items()]
    assert [call.args for call in writer.call_args_list] == scalars
