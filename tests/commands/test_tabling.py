"""`--mode=table`: finished searches as a table, which gives their numbers when it is searched."""

import json
from pathlib import Path

import numpy as np
import pytest
from tools.commands import here

from nasjax.commands import configure, tabulate, with_table
from nasjax.commands.configuration import default_workdir, record_of
from nasjax.evaluators.table import load_columns, load_table
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.store.checkpoint import read_lines

CONFIG = override(configure("random"), "space.min_layers=1", "space.max_layers=2")
PERPLEXITY = {"name": "perplexity", "unit": "plain", "sign": -1}


def workdir(path, archs, fitness, metric=None, config=CONFIG, statuses=None, **more):
    """A search as its files have it."""
    path.mkdir()
    metric = metric or Problem(config).metric._asdict()
    (path / "config.json").write_text(json.dumps(record_of(config, {"metric": metric})))
    found = [
        {"id": n, "arch": config.space.encode(arch), "fitness": value, "cost_s": n + 0.1, "params": 9, "macs": 8}
        | {"status": statuses[n] if statuses else "ok"}
        | {name: values[n] for name, values in more.items()}
        for n, (arch, value) in enumerate(zip(archs, fitness, strict=True))
    ]
    (path / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def archs():
    """Some of a layer, some of two."""
    return np.array(
        [[0, a, b, 1] + [-1] * 4 for a, b in ((0, 0), (3, 1))] + [[1, 0, 0, 1, a, 3, 0, 2] for a in (0, 1, 2)]
    )


def looked_up(file):
    """What a search of the table would see of each of its architectures: fitness, seconds; and its configuration."""
    config, ops = with_table(configure("random", space="from_table"), str(file)), np.load(file)["ops"]
    rows = load_table(file, config.space, metric=config.table.metric)
    at = config.space.index(ops)
    return rows.fitness[at], rows.cost[at], config


def test_a_run_as_a_table_gives_its_numbers_again(archs, tmp_path):
    fitness = [0.25, 0.5, None, 0.1, 0.7]
    path = workdir(tmp_path / "a", archs, fitness, statuses=["ok", "ok", "failed", "ok", "rejected"])
    lines = tabulate([path], tmp_path / "a.npz")
    assert "4 architectures of 4 trials" in lines[0] and lines[1].endswith(
        f"--space=from_table --table={tmp_path}/a.npz"
    )
    found, seconds, config = looked_up(tmp_path / "a.npz")
    np.testing.assert_array_equal(found, np.array([0.25, 0.5, np.nan, 0.1], np.float32))
    np.testing.assert_array_equal(seconds, np.array([0.1, 1.1, 2.1, 3.1], np.float32))
    assert default_workdir(config) == Path("runs/random-from_table-a-s0")  # another table's search is elsewhere
    assert config.space.size() == 4 and Problem(config).metric == Problem(CONFIG).metric
    # the sites are those of the search, one that did not count among their choices
    assert config.space.site_names == tuple(site.name for site in CONFIG.space.sites)
    short = next(arch for arch in archs[:4] if (arch < 0).any())
    chosen = config.space.encode(np.load(tmp_path / "a.npz")["ops"][archs.tolist().index(short.tolist())])["choices"]
    for site, at in zip(CONFIG.space.sites, short, strict=True):
        assert chosen[site.name] == ("inactive" if at < 0 else json.dumps(site.choices[at]))
    columns = load_columns(tmp_path / "a.npz", config.space)
    assert (columns["params"] == 9).all() and (columns["macs"] == 8).all() and "accuracy_seeds" not in columns


def test_several_runs_of_an_architecture_are_their_mean_and_kept_apart(archs, tmp_path):
    a = workdir(tmp_path / "a", archs[:3], [-90.0, -80.0, -70.0], PERPLEXITY)
    b = workdir(tmp_path / "b", archs[[2, 3]], [-72.0, -60.0], PERPLEXITY)
    tabulate([a, b], tmp_path / "ab.npz")
    found, _, config = looked_up(tmp_path / "ab.npz")
    np.testing.assert_array_equal(found, [-90, -80, -71, -60])
    assert Problem(config).metric == ("perplexity", "plain", -1)
    runs = load_columns(tmp_path / "ab.npz")["perplexity_seeds"]
    np.testing.assert_array_equal(runs, [[90, np.nan], [80, np.nan], [70, 72], [60, np.nan]])


def test_trainings_of_several_lengths_are_columns_and_cost_what_was_added(archs, tmp_path):
    """As ASHA leaves them: the first architecture goes on, as a trial whose parent is its first one."""
    lengths = {"fidelity": [1, 1, 3], "parent": [-1, -1, 0]}
    path = workdir(tmp_path / "a", archs[[0, 1, 0]], [0.25, 0.125, 0.5], **lengths)
    tabulate([path], tmp_path / "a.npz")
    found, seconds, config = looked_up(tmp_path / "a.npz")
    np.testing.assert_array_equal(found, [0.5, np.nan])
    np.testing.assert_allclose(seconds, [0.1 + 2.1, 1.1], rtol=1e-6)
    assert config.table.fidelities == ("1:accuracy_1:cost_1", "3:accuracy_3:cost_3")
    rungs = load_table(tmp_path / "a.npz", config.space, fidelities=config.table.fidelities).rungs
    at = config.space.index(np.load(tmp_path / "a.npz")["ops"])
    np.testing.assert_array_equal(rungs.epochs, [1, 3])
    np.testing.assert_array_equal(rungs.fitness[at], [[0.25, 0.5], [0.125, np.nan]])
    np.testing.assert_allclose(rungs.cost[at], [[0.1, 2.2], [1.1, 1.1]], rtol=1e-6)


def test_whole_trainings_are_the_longest_beside_those_of_several_lengths(archs, tmp_path):
    path = workdir(tmp_path / "a", archs[[0, 0]], [0.25, 0.5], fidelity=[1, 4], parent=[-1, 0])
    other = workdir(tmp_path / "b", archs[[0, 1]], [0.7, 0.3])  # without lengths, for recipe.epochs=4
    tabulate([path, other], tmp_path / "ab.npz")
    np.testing.assert_allclose(looked_up(tmp_path / "ab.npz")[0], [0.6, 0.3], rtol=1e-6)


def test_what_makes_no_table_is_said(archs, tmp_path):
    a = workdir(tmp_path / "a", archs[:2], [0.1, 0.2])
    other = workdir(tmp_path / "other", archs[:2], [-9.0, -8.0], PERPLEXITY)
    longer = workdir(tmp_path / "longer", archs[:2], [0.3, 0.4], config=override(CONFIG, "recipe.epochs=9"))
    none = workdir(tmp_path / "none", archs[:1], [None], statuses=["lost"])
    (tmp_path / "there.npz").touch()
    for paths, out, message in (
        ([a], "a.txt", "a table is an .npz; write --out="),
        ([a], "there.npz", "there.npz is there already"),
        ([a, other], "a.npz", "differ in space or metric"),
        ([a, longer], "a.npz", "differ in recipe; write a table of each"),
        ([none], "a.npz", "has no trial that ended with a result"),
    ):
        with pytest.raises(ValueError) as error:
            tabulate(paths, tmp_path / out)
        assert message in str(error.value)
    code, _, err = here("--mode=table", f"--workdir={a}")
    assert code == 2 and "and --out=FILE.npz" in err


@pytest.mark.slow
def test_a_search_of_a_searchs_table_finds_what_that_found(tmp_path):
    cells = np.array([(a, b) for a in range(3) for b in range(3)])
    names, results = np.array(["x", "y", "z"]), np.random.default_rng(0).random(9)
    np.savez(tmp_path / "t.npz", ops=cells, op_names=names, val_fraction=results, cost=np.arange(9.0))
    columns = ["--space=from_table", "--set=table.fitness=val_fraction"]
    code, _, err = here(
        "--method=random", *columns, f"--table={tmp_path}/t.npz", "--trials=9", f"--workdir={tmp_path}/a"
    )
    assert code == 0, err
    code, out, err = here("--mode=table", f"--workdir={tmp_path}/a", f"--out={tmp_path}/a.npz")
    assert code == 0, err
    again = ["--method=random", "--space=from_table", f"--table={tmp_path}/a.npz", f"--workdir={tmp_path}/b"]
    code, out, err = here(*again, "--trials=40")
    assert code == 0, err
    first, second = (
        {
            json.dumps(row["arch"]): (row["fitness"], row["cost_s"])
            for row in read_lines(tmp_path / name / "trials.jsonl")
        }
        for name in "ab"
    )
    assert second == first and f"--space=from_table is exhausted: all its {len(first)} architectures" in out
    code, _, err = here("--mode=retrain", f"--workdir={tmp_path}/b")
    assert code == 2 and "--space=from_table has no networks" in err
