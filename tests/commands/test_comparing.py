"""`--mode=compare` and `nasjax.compare`: by command over a table, and with candidates that are trained."""

import json
import re
import sys

import numpy as np
import pytest
from tools.commands import forget_own, here

import nasjax
from nasjax.commands import comparing

TABLE = ["--set=space.edges=2", "--set=space.ops=a,b,c", "--set=table.result=test_fraction"]
TABLE += ["--set=table.percent=false", "--mode=compare", "--space=tabular_cell", "--seeds=0..2"]
PLUGIN = """
import nasjax
from nasjax.searchers.random import random_search
nasjax.register(searcher="mine", make=lambda space: random_search(space))
"""
FIRST = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "start" in message:
        sites = message["start"]["sites"]
    if "ask" in message:
        print(json.dumps({"archs": [[0] * len(sites)] * message["ask"]}), flush=True)
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A file of nine architectures, in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    archs = np.indices((3, 3)).reshape(2, -1).T
    value = archs.sum(1) / 10 + 0.4
    np.savez(
        "t.npz", arch=archs, fitness=value, cost=np.ones(9), test_fraction=value - 0.05, percents=archs[:, 0] + 48.0
    )
    return "--table=t.npz"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--trials=3"], "--mode=compare needs --methods=a,b"),
        (["--methods=random"], "give one of them"),
        (["--methods=random", "--trials=3", "--seconds=2"], "give one of them"),
        (
            ["--methods=random", "--trials=3", "--seeds=4..9"],
            "the referee draws the seeds; say how many, --seeds=0..49",
        ),
        (["--methods=random", "--trials=3", "--seeds=0..0"], "a comparison needs several seeds"),
        (["--methods=random", "--trials=0"], "a budget must be above 0"),
        (["--methods=random", "--trials=3", "--workers=2"], "--workers has no effect with --mode=compare"),
        (["--methods=randmo", "--trials=3"], "did you mean random?"),
        (["--methods=darts", "--trials=3"], "darts does not try candidates one by one"),
        (["--methods=bo,bo", "--trials=3"], "write LABEL=bo"),
        (["--methods=bo", "--trials=3", "--set=search.beta=1"], "--set LABEL:search.beta=1"),
        (["--methods=bo", "--trials=3", "--set=bo:recipe.epochs=1"], "only search.* and width are a searcher's own"),
        (["--methods=bo", "--trials=3", "--set=ob:search.beta=1"], "ob does not take part; choose from random, bo"),
        (["--methods=random", "--trials=3", "--problem=space=x"], "each with its own name"),
        (["--methods=random", "--trials=3", "--external=a", "--external=b"], "several programs need names"),
        (["--methods=random", "--trials=3", "--external=random: a"], "has the name of a method that takes part"),
        (["--methods=random", "--trials=3", "--set=table.result=other"], "no column 'other'"),
        (["--methods=random", "--trials=3", "--set=seed=5"], "the referee draws all seeds"),
        (["--methods=random", "--trials=3", "--problem=a: target=70"], "accuracy is a fraction; write target=0.7"),
        (["--methods=random", "--trials=3", "--set=table.fitness=percents"], "an accuracy is 5000%"),
        (
            ["--methods=asha", "--trials=3", "--set=table.fidelities=1:fitness:cost,9:test_fraction:cost"],
            "pay for its last one: --set table.fitness=test_fraction --set table.cost=cost",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(flags, said, table):
    code, out, err = here(*TABLE[:-1], *(["--seeds=0..2"] if "--seeds" not in " ".join(flags) else []), table, *flags)
    assert code == 2 and said in err and len(err.splitlines()) == 1 and not out, err


def test_what_is_for_a_comparison_is_refused_elsewhere(table):
    code, _, err = here("--method=random", "--macs=3")
    assert code == 2 and "--macs has no effect without --mode=compare" in err
    code, _, err = here("--mode=compare", "--methods=random", "--seconds=9")
    assert code == 2 and "--seconds are a table's" in err


def test_problems_and_programs_are_read_from_words():
    assert comparing.problems_of(["a: space=x table='b c.npz'"]) == {"a": ["space=x", "table=b c.npz"]}
    assert comparing.external_of(["python my.py --x=3"]) == {"external": "python my.py --x=3"}
    assert comparing.external_of(["one: a", "two: b c"]) == {"one": "a", "two": "b c"}


@pytest.mark.slow
def test_a_command_compares_methods_plugins_and_programs_on_several_problems(table, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "first.py").write_text(FIRST)
    flags = [*TABLE, table, "--methods=mine,evolution", "--plugin=mine.py", "--trials=4", "--seed=3", "--out=found"]
    flags += ["--set=evolution:search.population=2", f"--external=first: {sys.executable} first.py"]
    flags += ["--problem=one: target=0.7", "--problem=two: table.fitness=test_fraction"]
    code, out, err = here(*flags)
    assert code == 0, err
    record = json.loads((tmp_path / "found" / "compare.json").read_text())
    assert record["sha256"] in out and "--seed=3 repeats them" in out
    assert record["sha256"] in (tmp_path / "found" / "compare.html").read_text()
    one, two = (record["comparison"]["problems"][name] for name in ("one", "two"))
    assert list(one["finals"]) == ["evolution", "first", "mine", "random"]
    assert one["finals"]["mine"] == one["finals"]["random"]  # the same searcher on the same seeds
    assert one["entrants"]["evolution"]["search"]["population"] == 2 and two["targets"].keys() != one["targets"].keys()
    code, again, _ = here(*flags)
    assert code == 0 and again == out
    forget_own()
    # A row is the search that the command makes with that seed.
    from nasjax.referee.draws import seeds

    number = seeds(3, "one", 3, "search")[1]
    own = [flag for flag in TABLE if flag.startswith(("--set", "--space"))]
    code, out, err = here(
        "--method=random", *own, table, "--trials=4", "--set=width=1", f"--seed={number}", "--workdir=w"
    )
    assert code == 0, err
    best = json.loads((tmp_path / "w" / "best.json").read_text())
    assert best["result"] == pytest.approx(one["finals"]["random"][1], abs=1e-5)


@pytest.mark.slow
def test_candidates_are_trained_to_an_equal_number_of_multiply_adds(tmp_path):
    """And a comparison that is begun again goes on from its ledgers."""
    small = "space.min_layers=1 space.max_layers=1 space.filter_heights=1 space.filter_widths=1 space.filter_counts=2,4"
    small += " recipe.epochs=1 data.train_limit=64 data.valid_limit=32 recipe.batch_size=32 strategy=exact"
    (tmp_path / "first.py").write_text(FIRST)
    first = {"external": {"first": f"{sys.executable} {tmp_path / 'first.py'}"}}
    options = first | {"seeds": 2, "macs": 4e4, "seed": 1, "settings": small.split(), "out": tmp_path}
    found = nasjax.compare(["evolution"], **options)
    (problem,) = found.record["comparison"]["problems"].values()
    assert found.page.is_file() and problem["metric"]["name"] == "accuracy"
    rows = {}
    for path in (tmp_path / "problem").iterdir():
        trials = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
        macs = [row["macs"] * 64 for row in trials]
        assert sum(macs[:-1]) < 4e4 <= sum(macs)
        rows[path.name] = (path / "ledger.jsonl").read_text()
    assert len(rows) == 6 and len(problem["architectures"]) == 2
    assert problem["chosen"]["first"] == [problem["chosen"]["first"][0]] * 2  # its one architecture, on both seeds
    for name, pairs in problem["trainings"].items():
        assert np.shape(pairs) == (2, 2) and problem["finals"][name] == pytest.approx(np.mean(pairs, 1), abs=1e-5)
    again = nasjax.compare(["evolution"], **options)
    assert again.sha256 == found.sha256
    assert rows == {path.name: (path / "ledger.jsonl").read_text() for path in (tmp_path / "problem").iterdir()}
    assert re.search(r"multiply-adds each", "\n".join(found.lines))
