"""A search that keeps to milliseconds: the file of latencies, what refuses it, and networks timed in earnest."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.commands import here

from nasjax import commands
from nasjax.experiments.families.path_costs import cost_of, within
from nasjax.experiments.families.supernets import shared_of
from nasjax.latency import record
from nasjax.latency.measuring import _groups
from nasjax.problem.problem import Problem
from nasjax.settings import override

TINY = ["space.stem=4", "space.channels=8", "space.depths=2", "space.strides=2", "space.tail=8"]
OF_FILE = {"format": record.FORMAT, "batch": 1, "runtime": "xla", "threads": 1, "device": "1 x cpu", "processor": "P"}


@pytest.fixture
def file(tmp_path):
    """Times that say that k3 takes 1 ms, k5 2 ms, k7 3 ms and Xception 4 ms in either layer, and 1 ms beside them."""
    about = Problem(override(commands.configure("spos"), *TINY))
    arch = about.space.encode(np.array([3, 3], np.int32))
    found = {"base": 1.0, "choices": [[0, 1, 2, 3, 4]] * 2, "params_ms": 0.0, "macs_ms": 0.0}
    path = tmp_path / "latency.json"
    rows = {"measured": [{"arch": arch, "ms": 9.0}]}
    path.write_text(json.dumps({**OF_FILE, **about.networks, "predictor": found, **rows}))
    return path


def problem(file, *settings):
    return Problem(override(commands.configure("spos"), *TINY, f"latency={file}", *settings))


def test_a_file_tells_the_milliseconds_of_a_path_and_where(file):
    about = problem(file)
    assert about.predicted(np.array([0, 2]), 5, 5) == {"latency_ms": 5.0}
    assert about.latency.where == "batch 1, xla, 1 thread, 1 x cpu, P"
    assert problem("").latency is None and problem("").predicted(np.array([0, 2]), 5, 5) == {}


def test_paths_within_a_limit_are_told_in_a_program(file):
    about = problem(file, "max_latency_ms=5")
    feasible = within([(5.0, cost_of("latency", shared_of(about).counter, about.latency))])
    with jax.disable_jit():
        found = {pair: bool(feasible(jnp.array(pair, jnp.int32))) for pair in ((0, 0), (0, 2), (1, 2), (3, 0))}
    assert found == {(0, 0): True, (0, 2): True, (1, 2): False, (3, 0): False}


def test_a_limit_that_no_network_meets_names_the_fastest(file):
    told = r'max_latency_ms=2\.5, but the fastest network takes 3 ms \(batch 1, xla.*\): \{"space": .*"path": \[0, 0\]'
    with pytest.raises(ValueError, match=told):
        problem(file, "max_latency_ms=2.5").latency  # noqa: B018


def test_networks_are_timed_together_as_far_as_their_weights_fit():
    assert list(_groups([3, 3, 3, 9, 1, 1], 6)) == [range(2), range(2, 3), range(3, 4), range(4, 6)]


def test_times_of_other_networks_are_refused(file):
    with pytest.raises(ValueError, match=r"times of networks with another space \(.*; measure these with --mode=lat"):
        problem(file, "space.tail=12").latency  # noqa: B018
    file.write_text("{}")
    with pytest.raises(ValueError, match="is no file of --mode=latency"):
        problem(file).latency  # noqa: B018
    with pytest.raises(FileNotFoundError, match=r"--mode=latency --out=\S*none.json makes one"):
        problem(file.with_name("none.json")).latency  # noqa: B018


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method=spos", "--max_latency_ms=3"], "max_latency_ms needs --latency=FILE.json"),
        (["--method=spos", "--latency=a.json", "--max_latency_ms=-3"], "max_latency_ms must be positive"),
        (["--method=darts", "--latency=a.json"], "--latency has no effect with --method=darts"),
        (["--method=fairnas", "--set=search.objectives=latency"], "add --latency=FILE.json"),
        (["--method=spos", "--set=search.objectives=macs"], "no effect with search.searcher=topk"),
        (
            ["--method=fairnas", "--set=search.objectives=speed"],
            "are distinct ones of latency, macs, memory, params",
        ),
        (["--method=spos", "--target=xla"], "--target has no effect with --mode=search"),
        (["--method=spos", "--mode=latency"], "needs --out=FILE.json"),
        (
            ["--method=spos", "--mode=latency", "--out=a.json", "--target=tpu"],
            "unknown --target=tpu; choose xla or",
        ),
        (["--method=spos", "--mode=latency", "--out=a.json", "--networks=2"], "--networks 4"),
        (["--method=spos", "--mode=latency", "--arch=best", "--out=a.json"], "best"),
    ],
)
def test_mistakes_are_told_in_a_line(words, told):
    code, _, err = here(*words)
    assert code == 2 and told in err and err.count("\n") == 1


@pytest.mark.slow
def test_networks_are_timed_and_a_search_keeps_to_the_limit(tmp_path):
    """Of the 16 paths of two layers eight are timed; NSGA-II goes by accuracy and milliseconds."""
    file, sets = tmp_path / "latency.json", [f"--set={one}" for one in TINY]
    code, out, err = here(
        "--mode=latency", "--method=spos", *sets, f"--out={file}", "--networks=6", "--unseen=2", "--clock=cpu"
    )
    assert code == 0, err
    facts = json.loads(file.read_text())
    assert len(facts["measured"]) == 6 and len(facts["unseen"]) == 2 and "8 of 8: " in err
    assert "6 networks of --space=choice_chain take " in out and f"--latency={file} --max_latency_ms=N" in out
    assert "round 5 of 5" in err and all(len(row["rounds_ms"]) == 5 for row in facts["unseen"])
    ms = sorted(row["ms"] for row in facts["measured"])
    assert ms[0] > 0 and all(row["temporary_bytes"] >= 0 for row in facts["measured"])
    limit = sum(ms) / 6
    words = ["--method=spos", *sets, "--trials=4", "--set=supernet.epochs=1", "--set=supernet.batch_size=16"]
    words += ["--set=data.train_limit=48", "--set=data.valid_limit=32", "--set=search.population=4"]
    words += ["--set=retrain_recipe.batch_size=16"]
    words += ["--set=search.calibration_batches=1", "--set=search.searcher=nsga2", "--set=search.objectives=latency"]
    code, out, err = here(*words, f"--latency={file}", f"--max_latency_ms={limit}", f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "run/trials.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(row["latency_ms"] <= limit for row in rows)
    assert [row["fitness"][1] for row in rows] == pytest.approx([-row["latency_ms"] for row in rows], rel=1e-5)
    assert " ms predicted (batch 1, xla, " in out
    code, out, err = here("--mode=latency", f"--workdir={tmp_path / 'run'}", "--arch=best")
    assert code == 0 and " calls): batch 1, xla, " in out and f"by {file}" in out, err
