"""A plugin's space in a supernet: its paths, masks and costs."""

import json
import re

import jax
import numpy as np
import pytest
from tools.commands import rows
from tools.plugin_files import BLOCKS, SHORT, TINY, clean, command, written  # noqa: F401 - clean is a fixture

import nasjax
from nasjax import catalog, commands
from nasjax.experiments.families import supernets
from nasjax.problem.problem import Problem


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spos", "fairnas"])
def test_a_space_of_ones_own_in_a_supernet(tmp_path, capsys, method):
    """Costs bound the paths and are those of the networks; the best is retrained as its own network."""
    mine, run = written(tmp_path, "shared"), tmp_path / "run"
    small = ["--set=supernet.epochs=2", "--set=supernet.batch_size=32", "--set=search.population=2", *TINY[1:3]]
    if method == "spos":
        small += ["--set=search.top_k=2", "--set=search.mutants=1", "--set=search.crossovers=1"]
    args = [f"--plugin={mine}", f"--method={method}", "--space=shared", f"--workdir={run}", *small]
    assert command(*args, "--trials=2", "--max_params=2400") == 0
    assert {row["arch"]["choices"]["width"]: (row["params"], row["macs"]) for row in rows(run)} == {
        16: (16 * 74, 16 * 74),
        32: (32 * 74, 32 * 74),
    }
    capsys.readouterr()
    own = [f"--plugin={run}/plugin.py", f"--workdir={run}"]
    assert command(*own, "--mode=retrain", "--set=retrain.sample=2", *SHORT) == 0
    assert json.loads((run / "result.json").read_text())["params"] in (16 * 74, 32 * 74)
    alone = [json.loads(line) for line in (run / "standalone.jsonl").read_text().splitlines()]
    assert len(alone) == 2
    config = commands.config_of(run)
    exec(BLOCKS["shared"].replace("jax.nn.relu", "jax.nn.gelu"), {"__name__": "cell"})
    now = supernets.parts(Problem(config)).facts["networks"]
    assert now != json.loads((run / "config.json").read_text())["networks"]  # so that a program's run is refused


@pytest.mark.slow
def test_a_path_moves_what_it_uses_and_nothing_else():
    """Of both arrays the first 16 or 32 units; the rest is the old, bit by bit."""
    exec(BLOCKS["shared"], {"__name__": "cell"})
    builder = catalog.builder("shared")
    signature = nasjax.Signature(jax.ShapeDtypeStruct((8, 8, 1), np.float32), 10)
    shared = builder.shared(builder.default, None, signature)
    old = {"hidden": {"dense": np.zeros((64, 64))}, "out": {"dense": np.zeros((64, 10))}}
    new = jax.tree.map(lambda leaf: leaf + 1, old)
    moved = shared.network().select(np.array([[0], [1]]), new, old)
    assert moved["hidden"]["dense"].sum() == 64 * 32 and moved["hidden"]["dense"][:, :32].all()
    assert moved["out"]["dense"].sum() == 32 * 10 and moved["out"]["dense"][:32].all()
    assert (shared.smallest, shared.largest_macs) == ((16 * 74, 16 * 74), 64 * 74)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("(units(choices).sum()", "(1 + units(choices).sum()", r"gives \(\d+, \d+\) parameters and .* network has"),
        ('"out": {"dense": units(choices)[:, None]}', '"out": {}', "must return a mask for every array"),
        ("units(choices)[:, None]}}", "units(choices)}}", r"a mask of shape \[64\] for an array of \[64, 10\]"),
        ("units(choices).sum() *", "1 / 0 *", "ZeroDivisionError"),
    ],
)
def test_masks_and_costs_that_do_not_fit_are_refused(old, new, expected):
    assert old in BLOCKS["shared"]
    exec(compile(BLOCKS["shared"].replace(old, new), "mine.py", "exec"), {"__name__": "cell"})
    builder = catalog.builder("shared")
    with pytest.raises(ValueError, match=expected):
        builder.shared(builder.default, None, nasjax.Signature(jax.ShapeDtypeStruct((8, 8, 1), np.float32), 10))


@pytest.mark.slow
def test_a_supernet_without_costs_says_what_it_cannot_do():
    exec(re.sub(r"    costs=.*\n", "", BLOCKS["shared"]), {"__name__": "cell"})
    builder = catalog.builder("shared")
    shared = builder.shared(builder.default, None, nasjax.Signature(jax.ShapeDtypeStruct((8, 8, 1), np.float32), 10))
    assert shared.smallest is None
    with pytest.raises(ValueError, match=r"register it with costs=, or leave --max_params"):
        shared.counter("params")
