"""The DARTS family as a user meets it: search, inspect, retrain, export, and mistakes."""

import json

import numpy as np
import pytest
from tools.commands import here
from tools.toy_search_network import toy_conv_network, toy_layout, toy_network

import nasjax
from nasjax import commands, launch
from nasjax.experiments import msr_darts
from nasjax.problem.builders import darts_cell
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.spaces.darts_cell.plan import SearchPlan
from nasjax.spaces.darts_cell.robust import ROBUST
from nasjax.spaces.darts_cell.space import CELLS, EDGES

TINY = [
    "--set=search.channels=2",
    "--set=search.epochs=1",
    "--set=search.batch_size=16",
    "--set=data.train_limit=32",
    "--set=data.valid_limit=32",
    "--set=form.channels=4",
    "--set=form.layers=1",
    "--set=retrain_recipe.epochs=1",
    "--set=retrain_recipe.batch_size=32",
]


@pytest.fixture(scope="module", params=["toy", pytest.param("real", marks=pytest.mark.slow)])
def searched(request, tmp_path_factory):
    """A finished search of how many operators; a toy in place of the search network compiles in a tenth of the time.

    The real network has a separable convolution, of two stages, and a dilated one, of one.
    """
    toy = request.param == "toy"
    two = [] if toy else ["--set=space.operators=sep_conv_3x3,dil_conv_5x5", "--set=space.none=false"]
    path = tmp_path_factory.mktemp("cells") / "run"
    with pytest.MonkeyPatch.context() as patch:
        if toy:
            patch.setattr(darts_cell, "darts_search", lambda *, classes, **form: toy_conv_network(classes=classes))
            patch.setattr(msr_darts, "search_layout", lambda plan: toy_layout())
        code, out, err = here("--method=msr_darts", f"--workdir={path}", *TINY, *two)
        assert code == 0, err
        yield path, out, 4 if toy else 2


def test_a_search_derives_a_cell(searched):
    path, out, operators = searched
    best = json.loads((path / "best.json").read_text())
    assert best["arch"]["space"] == "darts_cell" and len(best["arch"]["normal"]) == len(best["arch"]["reduce"]) == 8
    assert "--mode=retrain" in out
    (row,) = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert np.shape(row["weights"]["normal"]) == (14, operators) and row["arch"]["normal"] == best["arch"]["normal"]
    ranks = np.array([row["weights"][cell] for cell in CELLS])  # of kernels of at most 4 C channels, C = 2
    assert np.isfinite(row["train_loss"]) and (ranks >= 1).all() and (ranks <= 8).all()
    assert "<svg" in (path / "report.html").read_text()


# What follows does not depend on which network was searched.
of_a_toy = pytest.mark.parametrize("searched", ["toy"], indirect=True)


@of_a_toy
def test_a_finished_search_says_so_again(searched):
    path, out, _ = searched
    code, again, err = here("--method=msr_darts", f"--workdir={path}", *TINY)
    assert (code, again) == (0, out), err


@of_a_toy
@pytest.mark.slow
def test_retrain_load_and_export(searched):
    path, *_ = searched
    code, out, err = here("--mode=retrain", "--method=msr_darts", f"--workdir={path}")
    assert code == 0, err
    assert "MSR-DARTS" in out and "not comparable" in out
    result, model = json.loads((path / "result.json").read_text()), nasjax.load(path)
    assert result["params"] == json.loads((path / "best.json").read_text())["params"]
    assert model.apply(model.variables, np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)
    code, out, err = here("--mode=export", "--method=msr_darts", f"--workdir={path}")
    assert code == 0 and (path / "export" / "weights.npz").is_file(), err


SUBSETS = {
    "S1": ["--set=space.robust=S1"],
    "S2": ["--set=space.robust=S2"],
    "S3": ["--set=space.robust=S3"],
    "S4": ["--set=space.robust=S4"],
    "own": ["--set=space.operators=skip_connect,sep_conv_3x3,dil_conv_5x5", "--set=space.none=false"],
}
COUNTS = {"S1": 2, "S2": 2, "S3": 3, "S4": 2, "own": 3}


@pytest.mark.parametrize(
    ("method", "subset"),
    [
        *((method, "own") for method in ("darts", "pc_darts", "p_darts", "gdas", "drnas")),
        *(pytest.param("darts", subset, marks=pytest.mark.slow) for subset in ("S1", "S2", "S4")),
        *(pytest.param("pc_darts", subset, marks=pytest.mark.slow) for subset in ("S1", "S3")),
        pytest.param("p_darts", "S3", marks=pytest.mark.slow),
    ],
)
def test_a_subset_of_operators_reaches_the_search_network_and_the_cell(tmp_path, monkeypatch, method, subset):
    seen, count = [], COUNTS[subset]
    allowed = ROBUST.get(subset) or dict.fromkeys(CELLS, [("skip_connect", "sep_conv_3x3", "dil_conv_5x5")] * 14)

    def toy(*, classes, operators, **form):
        seen.append(operators)
        return toy_network(classes=classes, operators=len(operators["normal"][0]), edges=method == "pc_darts")

    monkeypatch.setattr(darts_cell, "darts_search", toy)
    more = ["--set=search.operators=3,2,2", "--set=search.frozen_epochs=0"] if method == "p_darts" else []
    if method == "drnas":
        more = ["--set=search.frozen_epochs=0", "--set=search.partial=2,1", "--set=search.operators=3,2"]
        more += ["--set=search.layers=3"]
    if method == "pc_darts":
        more = ["--set=search.frozen_epochs=0", "--set=search.partial=2"]
    code, _, err = here(
        f"--method={method}", f"--workdir={tmp_path / 'run'}", *TINY, *SUBSETS[subset], *more, "--verbose"
    )
    assert code == 0, err
    assert {cell: [tuple(names) for names in seen[0][cell]] for cell in CELLS} == {c: list(allowed[c]) for c in CELLS}
    best = json.loads((tmp_path / "run/best.json").read_text())["arch"]
    for cell in CELLS:
        for i, (operator, source) in enumerate(best[cell]):
            assert operator != "none" and operator in allowed[cell][EDGES.index((source, 2 + i // 2))]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert np.shape(lines[0]["weights"]["normal"]) == (14, count)
    for line in lines:  # of every epoch, in the field's own notation
        assert "Genotype(normal=" + str([tuple(pair) for pair in line["arch"]["normal"]]) in err


@pytest.mark.parametrize(
    ("changes", "operators"),
    [
        (SUBSETS["own"], ("sep_conv_3x3", "dil_conv_5x5")),  # those that have weights: stable ranks are of kernels
        ([], ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")),
    ],
)
def test_a_subset_of_operators_reaches_the_network_of_msr_darts(monkeypatch, changes, operators):
    class Built(Exception):
        pass

    def seen(**form):
        raise Built({tuple(names) for edges in form["operators"].values() for names in edges})

    monkeypatch.setattr(darts_cell, "darts_search", seen)
    config = override(commands.configure("msr_darts"), *(change.removeprefix("--set=") for change in changes))
    with pytest.raises(Built) as found:
        msr_darts.make(Problem(config)).facts()
    assert found.value.args[0] == {operators}  # on every edge of both cells


def inspected(capsys, *args):
    assert launch.main(["launch", "--mode=inspect", "--preset=paper", "--compile_cache=off", *args]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("args", "params"),
    [
        (["--method=darts", "--arch=DARTS_V2"], 3_349_342),
        (["--method=darts", "--arch=DARTS_V2", "--set=form.layers=8"], 1_154_926),
        (["--method=darts", "--arch=DARTS_V2", "--dataset=imagenet"], 4_718_752),
        (["--method=pc_darts", "--arch=PC_DARTS_cifar"], 3_634_678),
        (["--method=p_darts", "--arch=PDARTS", "--dataset=imagenet"], 4_944_352),
        (["--method=msr_darts", "--arch=MSRDARTS"], 1_628_830),
        (["--method=darts"], 1_930_618),
        (["--method=pc_darts"], 299_578),
        (["--method=p_darts"], 1_275_834),
        (["--method=msr_darts"], 1_889_658),
        # 8 cells less the four operators of 5x5 windows and dilations, poolings and none have no weights
        (["--method=darts", "--set=space.robust=S2"], SearchPlan(operators=("skip_connect", "sep_conv_3x3")).params),
        (["--method=darts", "--set=space.robust=S3"], SearchPlan(operators=("skip_connect", "sep_conv_3x3")).params),
    ],
)
def test_inspect_gives_published_counts(capsys, args, params):
    assert inspected(capsys, *args)["params"] == params


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--method=darts", "--trials=5"], "--trials has no effect"),
        (["--method=darts", "--set=space.robust=S5"], "choose from , S1, S2, S3, S4"),
        (["--method=darts", "--set=space.robust=S2", "--set=space.none=false"], "leave out space.operators and none"),
        (["--method=msr_darts", "--set=space.robust=S2"], "search by darts"),
        (["--method=p_darts", "--set=space.robust=S2"], "operators must fall from the space's 2"),
        (["--method=random", "--space=darts_cell", "--set=space.robust=S1"], "darts or pc_darts"),
        (["--method=darts", "--set=search.order=third"], "first"),
        (["--method=darts", "--space=conv_chain"], "darts_cell"),
        (["--method=darts", "--set=search.channels=3"], "even"),
        (["--method=darts", "--dataset=imagenet"], "--mode=inspect"),
        (["--method=darts", "--set=search.batch_size=9999"], "batch_size"),
        (["--method=p_darts", "--set=search.depths=3,4"], "stage"),
        (["--method=msr_darts", "--set=search.layers=2"], "layers must be at least 3"),
        (["--method=p_darts", "--set=search.depths=3,3,2"], "depths must be at least 3"),
        (["--method=darts", "--preset=paper", "--dataset=digits"], "--set form.auxiliary=false"),
        (["--method=msr_darts", "--set=search.score.compat=true"], "compat"),
        (["--method=darts", "--mode=inspect", "--arch=DARTS_V9"], "DARTS_V2"),
        (["--method=dart"], "darts"),
    ],
)
def test_mistakes_are_one_clear_line(capsys, tmp_path, args, word):
    assert launch.main(["launch", f"--workdir={tmp_path / 'run'}", "--compile_cache=off", *args]) == 2
    out, err = capsys.readouterr()
    assert word in err and len(err.strip().splitlines()) == 1 and not out
