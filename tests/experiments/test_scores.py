"""Scores in a search: columns of a table for `bo`, the bar for candidates, and what is refused."""

import json
import types

import numpy as np
import pytest

from nasjax import commands
from nasjax.drive import pace
from nasjax.experiments.families import scored
from nasjax.experiments.families.score_columns import as_features, by_place, score_columns
from nasjax.problem.problem import Problem
from nasjax.settings import override

OPS = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), -1).reshape(-1, 3)
ORDER = np.random.default_rng(0).permutation(125)
NAMES = np.array(["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"])


def searched(folder, *settings, **more):
    """A problem of cells with three edges, whose table is in another order and names its operations otherwise."""
    back = [4, 3, 2, 1, 0]
    columns = {
        "fitness_fraction": ORDER / 125,
        "cost": np.ones(125),
        "size": ORDER.astype(float),
        "ops": np.array(back)[OPS[ORDER]].astype(np.int8),
        "op_names": NAMES[back],
    }
    np.savez(folder / "table.npz", **columns)
    np.savez(folder / "scores.npz", **{"flow": 10.0 ** ORDER.astype(float), "short": np.zeros(9), **more})
    given = ("space.edges=3", f"table.path={folder}/table.npz", "table.fitness=fitness_fraction", "table.cost=cost")
    given = (*given, "table.result=fitness_fraction", "trials=4", *settings)
    return override(commands.configure("bo", space="tabular_cell"), *given)


def test_columns_are_in_the_order_of_the_space(tmp_path):
    problem = Problem(searched(tmp_path))
    found = score_columns(problem, ("flow", "size", "params"), f"{tmp_path}/scores.npz")
    assert list(found) == ["flow", "size", "params"]
    np.testing.assert_array_equal(found["size"], np.arange(125))
    np.testing.assert_array_equal(found["flow"], 10.0 ** np.arange(125.0))
    arch = problem.space.enumerate()[77]
    assert found["params"][77] == problem.build(arch).params
    features = as_features([found["flow"], found["size"]])
    assert features.shape == (125, 2) and features.dtype == np.float32 and features.max() == 1
    assert by_place(problem.space, features)(arch)[0] == pytest.approx(2 * 78 / 125 - 1)


@pytest.mark.parametrize(
    ("names", "file", "said"),
    [
        (("synflow",), "scores.npz", r"no column 'synflow'; choose from .*flow.*size.*params, macs"),
        (("short",), "scores.npz", r"'short' must hold a number for each of the table's 125 rows, got float64\(9,\)"),
        (("flow",), "none.npz", "no file of scores at"),
        (("op_names",), "", "must hold a number for each"),
        (("fitness_fraction",), "", "is what the search is to find out"),
        (("flow",), "beyond.npz", r"operation numbers must be 0\.\.4"),
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, names, file, said):
    problem = Problem(searched(tmp_path))
    np.savez(tmp_path / "beyond.npz", flow=np.ones(1), ops=np.array([[0, 0, -1]]))  # no last choice
    with pytest.raises(ValueError, match=said):
        score_columns(problem, names, f"{tmp_path}/{file}" if file else "")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ("search.scores=naswot",),
            r"have columns of a table: add --table=FILE.npz \(--set candidate_scores=naswot scores",
        ),
        (("candidate_scores=synaptic",), "--set candidate_scores=synaptic: no score 'synaptic'; choose from naswot, "),
        (("refuse_worst=0.2",), "needs scores to go by; add --set candidate_scores=naswot"),
        (("refuse_worst=1", "candidate_scores=naswot"), "from 0 to below 1"),
        (("table.path=x.npz", "candidate_scores=naswot"), "with a table write none"),
        (("search.score_file=x.npz",), "search.score_file has no effect without"),
    ],
)
def test_scores_that_cannot_be_had_are_refused(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        config = override(commands.configure("bo", space="tabular_cell"), *settings)
        commands.search(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_space_that_cannot_be_listed_is_refused(tmp_path):
    config = override(commands.configure("bo"), "search.start=params")
    with pytest.raises(
        ValueError, match=r"--space=conv_chain cannot be listed; leave them out \(--set candidate_scores=naswot"
    ):
        commands.search(config, tmp_path / "run", progress=False)


def test_a_candidate_is_compared_with_those_of_its_size():
    sizes = np.array([10.0] * 25 + [1000.0] * 25)
    reference = sizes, {"a": np.array([*range(25), *range(100, 125)], float), "b": np.zeros(50)}
    assert scored.beaten(reference, 10, {"a": 24.5}) == 1 and scored.beaten(reference, 1000, {"a": 24.5}) == 0
    assert scored.beaten(reference, 900, {"a": 112.0}) == pytest.approx(12.5 / 25)  # of an equal one it beats half
    assert scored.beaten(reference, 10, {"a": 24.5, "b": 0.0}) == pytest.approx(0.75)
    assert scored.beaten(reference, 10, {"a": -np.inf}) == 0
    refuse = scored.refusal(
        override(commands.configure("random"), "candidate_scores=naswot", "refuse_worst=0.2"), lambda row: None
    )
    assert refuse({"score_rank": 0.2}) is None and "beat 19% of random architectures" in refuse({"score_rank": 0.19})


def test_scoring_what_candidates_are_compared_with_tells_how_long_it_takes(monkeypatch):
    told, now = [], types.SimpleNamespace(s=0.0)
    monkeypatch.setattr(pace, "time", types.SimpleNamespace(monotonic=lambda: now.s))
    monkeypatch.setattr(scored.activity, "doing", lambda *words: told.append(": ".join(words)))

    def score(built, identity):
        now.s += 6
        return {"naswot": 1.0}

    scored._reference(Problem(override(commands.configure("random"), "candidate_scores=naswot")), score)
    assert told[0] == "scores: random architecture 1 of 50"
    assert told[10] == "scores: random architecture 11 of 50, about 4.0 min left"


def test_images_in_the_order_of_classes_are_scored_by_all_of_them(monkeypatch):
    found = {}
    monkeypatch.setattr(scored, "network_of", lambda built, recipe: types.SimpleNamespace(init=lambda *given: None))
    monkeypatch.setattr(
        scored, "untrained_scores", lambda names, network, variables, choice, x, y, loss: found.update(x=x, y=y)
    )
    classes = np.repeat(np.arange(4), 200)
    task = types.SimpleNamespace(inputs=lambda x, mean, std: x)
    data = types.SimpleNamespace(train=types.SimpleNamespace(x=classes * 10, y=classes), mean=0, std=1)
    config = types.SimpleNamespace(seed=0, recipe=None)
    scored.scorer(types.SimpleNamespace(config=config, data=data, task=task), ("snip",))(None, "")
    assert np.array_equal(found["x"], found["y"] * 10) and np.bincount(found["y"]).min() > 20
    assert len(found["y"]) == scored.IMAGES


@pytest.mark.slow
def test_the_start_is_where_the_scores_are_best_and_rows_have_them(tmp_path):
    """Each is drawn among the best 2 of 125 that are left, whose values are in trials.jsonl."""
    extra = ("search.initial=3", "search.start=flow", f"search.score_file={tmp_path}/scores.npz")
    commands.search(searched(tmp_path, *extra, "trials=2", "width=1"), tmp_path / "run", progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run/trials.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(row["scores"]["flow"] >= 1e122 for row in rows)


@pytest.mark.slow
def test_a_candidate_that_scores_badly_is_refused_before_it_is_trained(monkeypatch):
    """Of the cells with one edge, the one without an operation lets nothing flow, and a convolution the most."""
    monkeypatch.setattr(scored, "REFERENCE", 12)
    tiny = ("data.train_limit=16", "data.valid_limit=8", "data.resize=8", "space.edges=1", "form.channels=2")
    config = override(commands.configure("random", space="tabular_cell"), *tiny, "form.cells=1")
    config = override(config, "candidate_scores=synflow", "refuse_worst=0.5")
    problem = Problem(config)
    describe, refuse = scored.scored(problem, problem.describe), scored.refusal(config, lambda row: None)
    rows = [describe(np.array([op], np.int32)) for op in (0, 3, 0)]
    assert rows[0]["scores"] == rows[2]["scores"] == {"synflow": 0.0} and rows[1]["scores"]["synflow"] > 0
    assert rows[0]["score_rank"] < 0.5 < rows[1]["score_rank"]
    assert [refuse(row) is None for row in rows] == [False, True, False]
