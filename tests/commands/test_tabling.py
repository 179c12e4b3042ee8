"""`--mode=table`: finished searches as a table, which gives their numbers when it is searched."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.commands import here, rows

from nasjax.commands import configure, tabulate, with_table
from nasjax.commands.configuration import record_of
from nasjax.evaluators.table import load_columns, load_table, table
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.types import Proposal, Status

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
    drawn = np.asarray(jax.vmap(CONFIG.space.sample)(jax.random.split(jax.random.key(0), 12)))
    return np.unique(drawn, axis=0)[:5]


def looked_up(file):
    """What a search of the table would see of each of its architectures: (Evaluation, its configuration)."""
    config = with_table(configure("random", space="from_table"), str(file))
    space, columns = config.space, np.load(file)
    proposal = Proposal(jnp.arange(len(columns["ops"])), jnp.asarray(columns["ops"]), jnp.full(len(columns["ops"]), -1))
    rows = load_table(file, space, metric=config.table.metric)
    return table(space, rows).evaluate(jax.random.key(0), proposal, None)[0], config


def test_a_run_as_a_table_gives_its_numbers_again(archs, tmp_path):
    fitness = [0.25, 0.5, None, 0.1, 0.7]
    path = workdir(tmp_path / "a", archs, fitness, statuses=["ok", "ok", "failed", "ok", "rejected"])
    lines = tabulate([path], tmp_path / "a.npz")
    assert "4 architectures of 4 trials" in lines[0] and lines[1].endswith(
        f"--space=from_table --table={tmp_path}/a.npz"
    )
    found, config = looked_up(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.fitness, np.array([0.25, 0.5, np.nan, 0.1], np.float32))
    np.testing.assert_array_equal(found.cost, np.array([0.1, 1.1, 2.1, 3.1], np.float32))
    np.testing.assert_array_equal(found.status, [Status.OK, Status.OK, Status.FAILED, Status.OK])
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
    found, config = looked_up(tmp_path / "ab.npz")
    np.testing.assert_array_equal(found.fitness, [-90, -80, -71, -60])
    assert Problem(config).metric == ("perplexity", "plain", -1)
    runs = load_columns(tmp_path / "ab.npz")["perplexity_seeds"]
    np.testing.assert_array_equal(runs, [[90, np.nan], [80, np.nan], [70, 72], [60, np.nan]])


def test_what_makes_no_table_is_said(archs, tmp_path):
    a = workdir(tmp_path / "a", archs[:2], [0.1, 0.2])
    other = workdir(tmp_path / "other", archs[:2], [-9.0, -8.0], PERPLEXITY)
    none = workdir(tmp_path / "none", archs[:1], [None], statuses=["lost"])
    (tmp_path / "there.npz").touch()
    for paths, out, message in (
        ([a], "a.txt", "a table is an .npz; write --out="),
        ([a], "there.npz", "there.npz is there already"),
        ([a, other], "a.npz", "differ in space or metric"),
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
    again = ["--method=bo", "--space=from_table", f"--table={tmp_path}/a.npz", f"--workdir={tmp_path}/b"]
    code, out, err = here(*again, "--trials=30")
    assert code == 0, err
    first, second = ({json.dumps(row["arch"]): row for row in rows(tmp_path / name)} for name in "ab")
    assert set(second) == set(first) and "architectures of --space=from_table were tried" in out
    for arch, row in first.items():
        assert [row[name] for name in ("fitness", "cost_s")] == [second[arch][name] for name in ("fitness", "cost_s")]
    code, _, err = here(*again, "--mode=retrain", "--trials=30")
    assert code == 2
