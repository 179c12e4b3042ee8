"""The Hessian of the validation loss in the architecture, its largest eigenvalue, and the rules that end a search."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from tools.commands import here, rows
from tools.report_pages import report
from tools.toy_search_network import toy_batch, toy_network, toy_parts_network

from nasjax.learners.curvature import hessian_product, largest_eigenvalue
from nasjax.learners.darts import softmax_relaxation
from nasjax.learners.pc_darts import edge_relaxation
from nasjax.learners.stopping import Stopping, stopped
from nasjax.train.losses import cross_entropy


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one program", "parts", "edges"])
def test_the_product_is_that_with_the_loss_s_second_derivative(case):
    network = {"one program": toy_network, "parts": toy_parts_network}.get(case, lambda: toy_network(edges=True))()
    relaxation = edge_relaxation(8) if case == "edges" else softmax_relaxation(8)
    with jax.enable_x64(True):
        x, y = toy_batch(0, dtype=np.float64)["val"]
        alpha = jax.tree.map(lambda a: 300 * a.astype(jnp.float64), relaxation.init(jax.random.key(1)))
        variables = network.init(jax.random.key(0), relaxation.choice(alpha, None, 0), x)
        variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
        flat, unravel = ravel_pytree(alpha)

        def gradient(flat):
            def loss(alpha):
                choice = relaxation.choice(alpha, None, 0)
                outputs, _ = network.apply(variables, choice, x, key=jax.random.key(0), train=True)
                return cross_entropy(outputs, y)

            return ravel_pytree(jax.grad(loss)(unravel(flat)))[0]

        v = jnp.cos(jnp.arange(flat.size, dtype=jnp.float64))
        expected = (jax.jit(gradient)(flat + 1e-5 * v) - jax.jit(gradient)(flat - 1e-5 * v)) / 2e-5
        times = hessian_product(network, relaxation, devices=1)(
            variables["params"], variables["batch_stats"], alpha, (x, y)
        )
        found = times(v)
        assert float(jnp.abs(expected).max()) > 1e-3
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * float(jnp.abs(expected).max()))


def matrix(values, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    return (q * np.array(values)) @ q.T


@pytest.mark.parametrize("values", [[3, -9, 1, 0.5, 0.1], [1, 1, 1, 1], [0, 0, 0], [-5, -2, -1]])
def test_the_largest_eigenvalue_is_not_that_of_the_largest_size(values):
    m = matrix(values)
    found = largest_eigenvalue(lambda v: jnp.asarray(m @ v, jnp.float32), len(values), 20, jax.random.key(0))
    assert found == pytest.approx(max(values), abs=1e-5)


def test_few_steps_find_an_eigenvalue_that_stands_out():
    m = matrix([5, *np.linspace(-1, 1, 99)])
    found = largest_eigenvalue(lambda v: jnp.asarray(m @ v, jnp.float32), 100, 10, jax.random.key(0))
    assert found == pytest.approx(5, rel=1e-3)
    assert np.isnan(largest_eigenvalue(lambda v: jnp.full(3, jnp.inf), 3, 3, jax.random.key(0)))


def epochs(eigenvalues, skips=None):
    return [{"eigenvalue": e, "skips": s} for e, s in zip(eigenvalues, skips or [0] * len(eigenvalues), strict=True)]


def test_a_rising_eigenvalue_ends_the_search_with_the_cell_of_before():
    rule = Stopping("eigenvalue", window=3, delta=2, factor=1.3, start=3)
    calm = [1.0] * 8
    assert all(stopped(rule, epochs(calm[:n])) is None for n in range(9))
    # smoothed around epochs 0, 1, ...: 1, 1, 1, 1, 1.1, 1.4, the last one known at epoch 6; two before it is epoch 3
    rising = [1.0, 1.0, 1.0, 1.0, 1.0, 1.3, 1.9]
    assert [stopped(rule, epochs(rising[:n])) for n in range(8)] == [None] * 7 + [3]
    assert stopped(dataclasses.replace(rule, start=4), epochs(rising)) is None
    assert stopped(dataclasses.replace(rule, factor=1.41), epochs(rising)) is None
    assert stopped(rule, epochs([1.0, 1.0, 9.0, 9.0, 9.0, 9.0])) is None  # before `start`
    assert stopped(rule, epochs([1.0, 1.0, 1.0, 1.0, 1.0, None, 1.7])) == 3  # what is not known is left out
    assert stopped(Stopping(), epochs([1.0] * 20 + [9.0] * 20, [8] * 40)) is None


def test_the_rule_is_that_of_the_authors_code():
    """RobustDARTS, `EVLocalAvg`, written down anew: windows around an epoch, and the offsets of its lists."""
    rng = np.random.default_rng(0)
    rule, ended = Stopping("eigenvalue"), set()
    for _ in range(50):
        values = np.exp(rng.normal(0.03 * np.arange(50), 0.2)).tolist()
        averages, theirs = [], None
        for epoch in range(49):
            if epoch >= 2:
                averages.append(np.mean(values[max(0, epoch - 4) : epoch + 1]))
            if theirs is None and epoch - 2 - 4 >= 10 and averages[-1] / averages[-1 - 4] > 1.3:
                theirs = epoch - 2 - 4
        ours = [stopped(rule, epochs(values[:n])) for n in range(50)]
        assert next((taken for taken in ours if taken is not None), None) == theirs
        ended.add(theirs)
    assert len(ended) > 5


def test_two_skips_end_the_search_with_that_cell():
    rule = Stopping("skips", skips=2)
    assert [stopped(rule, epochs([None] * n, [0, 1, 2][:n])) for n in range(4)] == [None, None, None, 2]


@pytest.mark.slow
def test_a_search_stops_with_the_cell_that_the_rule_takes(tmp_path):
    path = tmp_path / "run"
    tiny = ["--space=tabular_cell", "--set=form.channels=2", "--set=data.train_limit=32", "--set=data.valid_limit=32"]
    tiny += ["--set=retrain_recipe.batch_size=32"]
    rule = [f"--set=search.stopping.{name}" for name in ("rule=skips", "skips=1", "measure=true", "lanczos_steps=2")]
    # A large rate of the architecture, so that some edge soon skips.
    code, out, err = here(
        "--method=darts",
        *tiny,
        *rule,
        "--set=search.adam.learning_rate=0.5",
        "--set=search.epochs=30",
        f"--workdir={path}",
    )
    assert code == 0, err
    (row,) = rows(path)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) < 30 and lines[-1]["done"] and lines[-1]["skips"] >= 1
    assert all(line["skips"] == 0 for line in lines[:-1])
    assert row["arch"] == lines[-1]["arch"] and row["epoch"] == row["stopped_after"] == len(lines)
    assert all(np.isfinite(line["eigenvalue"]) for line in lines)
    assert (
        f"Stopped after epoch {len(lines)} because the cell has too many skip connections; keeping the cell of" in out
    )
    code, _, err = here("--method=darts", *tiny, "--set=search.stopping.rule=sharp", f"--workdir={tmp_path / 'b'}")
    assert code == 2 and "eigenvalue" in err


@pytest.mark.slow
def test_a_rising_eigenvalue_takes_an_earlier_cell(tmp_path):
    """By command: any eigenvalue is above a billionth of the one before, so the third epoch ends the search."""
    path = tmp_path / "run"
    tiny = ["--space=tabular_cell", "--set=form.channels=2", "--set=data.train_limit=32", "--set=data.valid_limit=32"]
    tiny += ["--set=retrain_recipe.batch_size=32"]
    rule = ("rule=eigenvalue", "factor=1e-9", "start=1", "delta=1", "window=1", "lanczos_steps=2")
    changes = [
        *(f"--set=search.stopping.{name}" for name in rule),
        "--set=search.adam.learning_rate=5",
        "--set=search.epochs=9",
        "--seed=3",
    ]
    code, out, err = here("--method=darts", *tiny, *changes, "--verbose", f"--workdir={path}")
    assert code == 0, err
    (row,) = rows(path)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and lines[2]["eigenvalue"] > 0 < lines[1]["eigenvalue"]
    assert lines[1]["arch"] != lines[2]["arch"] == lines[-1]["arch"]  # a large rate of the architecture
    assert (row["arch"], row["epoch"], row["stopped_after"]) == (lines[1]["arch"], 2, 3)
    assert "Stopped after epoch 3 because the dominant eigenvalue rose; keeping the cell of epoch 2." in out
    assert out.count("|+|") and all(f"|{line['arch']['ops'][0]}~0|" in err for line in lines)  # of every epoch
    marks = report(path).marks("Dominant eigenvalue of the validation loss in the architecture", "line")
    assert [mark["y"] for mark in marks] == pytest.approx([line["eigenvalue"] for line in lines], rel=1e-4)
