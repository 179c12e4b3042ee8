"""DARTS's and PC-DARTS's search network over NAS-Bench-201's cells, and searches in it by command."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from tools.commands import here, rows
from tools.tabular_reference import alone, reference
from tools.tiny_choice_chains import quick

from nasjax.experiments.families import true_results
from nasjax.nets.tabular_cell.mixed import tabular_mixed
from nasjax.nets.tabular_cell.supernet import tabular_supernet
from nasjax.problem.builders.tabular_cell import BUILDER
from nasjax.spaces.tabular_cell.plan import TabularForm, TabularPlan
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Signature

SPACE = TabularCell()
PLAN = TabularPlan(SPACE, TabularForm(channels=4, cells=2), (8, 4, 3), 3)


def weights(seed, *shape):
    positive = np.exp(np.random.default_rng(seed).normal(size=shape))
    return positive / positive.sum(-1, keepdims=True)


def started(network):
    """Images, and variables of which none is 0 or 1."""
    x = jax.random.normal(jax.random.key(1), (3, 8, 4, 3), jnp.float64)
    variables = network.init(jax.random.key(0), {"cell": jnp.zeros((6, 5)), "cell_edges": jnp.zeros(6)}, x)
    return x, jax.tree.map(lambda v: v + 0.1 * jnp.cos(jnp.arange(v.size)).reshape(v.shape), variables)


@pytest.mark.slow
def test_an_edge_is_the_weighted_sum_of_its_operations():
    with jax.enable_x64(True):
        network, mixed = tabular_mixed(PLAN), weights(2, 6, 5)
        x, variables = started(network)
        logits, _ = quick(network.apply)(variables, {"cell": mixed}, x)

        def edge(e, x, operate):
            return sum(weight * operate(op, x) for weight, op in zip(mixed[e], SPACE.ops, strict=True))

        np.testing.assert_allclose(logits, reference(variables, np.asarray(x), edge), atol=1e-10)
        params = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert params == PLAN.mixed()[0] == PLAN.supernet_params(False)


@pytest.mark.slow
def test_partial_channels_pass_by_and_edges_are_weighted():
    with jax.enable_x64(True):
        network, mixed, beta = tabular_mixed(PLAN, partial=2), weights(2, 6, 5), weights(3, 6)
        x, variables = started(network)
        logits, _ = quick(network.apply)(variables, {"cell": mixed, "cell_edges": beta}, x)

        def edge(e, x, operate):
            through, past = np.split(x, 2, axis=-1)
            y = sum(weight * operate(op, through) for weight, op in zip(mixed[e], SPACE.ops, strict=True))
            return beta[e] * np.stack([y, past], -1).reshape(x.shape)  # shuffled: one of these, one of those, ...

        np.testing.assert_allclose(logits, reference(variables, np.asarray(x), edge), atol=1e-10)
        params = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert params == PLAN.mixed(partial=2)[0]


@pytest.mark.slow
def test_the_choice_of_a_cell_alone_computes_the_supernet_s_path():
    signature = Signature(jax.ShapeDtypeStruct(PLAN.image, jnp.float32), 3)
    found = BUILDER.mixed(SPACE, PLAN.form, None, signature, 1)
    tree = found.derive({"cell": weights(5, 6, 5)})
    like = {"cell": np.zeros((6, 5)), "cell_edges": np.zeros(6)}
    choice = found.discrete(tree, found.names, like)
    assert choice["cell"].sum(1).tolist() == [1] * 6 and choice["cell_edges"].tolist() == [1] * 6
    np.testing.assert_array_equal(choice["cell"].argmax(1), weights(5, 6, 5).argmax(1))
    with jax.enable_x64(True):
        network, supernet = found.network("float32"), tabular_supernet(PLAN, affine=False)
        x, variables = started(supernet)
        apart = {
            kind: {
                name: {f"cell{n}": alone(part, n) for n in range(2)} if name.startswith("stage") else part
                for name, part in of.items()
            }
            for kind, of in variables.items()
        }
        mixed, _ = quick(network.apply)(apart, {"cell": choice["cell"]}, x)
        path, _ = quick(supernet.apply)(variables, jnp.asarray(SPACE.decode(tree)), x)
        np.testing.assert_allclose(mixed, path, atol=1e-10)


def test_partial_must_divide_the_channels(tmp_path):
    args = ["--method=pc_darts", "--space=tabular_cell", "--set=form.channels=6", f"--workdir={tmp_path / 'run'}"]
    code, _, err = here(*args)
    assert code == 2 and "search.partial=4 must divide form.channels=6" in err and not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param("darts", marks=pytest.mark.slow), "pc_darts"])
def test_a_search_by_command_tells_the_truth_of_every_epoch(method, tmp_path):
    archs = SPACE.enumerate()
    results = (archs == 1).sum(1) / 10 + archs @ [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]
    np.savez(tmp_path / "truth.npz", arch=archs, fitness=results, cost=np.ones(len(archs)))
    path = tmp_path / "run"
    sizes = [f"--set={name}" for name in ("form.channels=4", "data.train_limit=64", "data.valid_limit=32")]
    sizes += ["--set=retrain_recipe.batch_size=64"]
    sizes += ["--set=truth_percent=false"]
    search = ["--set=search.epochs=2", *(["--set=search.frozen_epochs=1"] if method == "pc_darts" else [])]
    truth = f"--truth={tmp_path / 'truth.npz'}"
    code, out, err = here(f"--method={method}", "--space=tabular_cell", *sizes, *search, truth, f"--workdir={path}")
    assert code == 0, err
    epochs = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (row,) = rows(path)
    assert len(epochs) == 2
    for found in [*epochs, row]:
        n = int(SPACE.index(SPACE.decode(found["arch"])))
        assert (found["true_result"] if "true_result" in found else found["result"]) == pytest.approx(results[n])
    assert row["arch"] == epochs[-1]["arch"] and row["params"] > 0
    facts = json.loads((path / "truth.json").read_text())
    assert facts["scores"] == {name: epochs[-1][f"true_{name}"] for name in ("tau", "spearman")}
    assert "Truth: the best has" in out and SPACE.format(SPACE.decode(row["arch"])) in out
    assert "Weights of the search network" in (path / "report.html").read_text()


def test_weights_of_operations_order_all_cells(tmp_path):
    """The sum of log weights, written out; a truth that is that sum is ordered wholly, another one partly."""
    archs, found = SPACE.enumerate(), weights(0, 6, 5)
    sums = np.array([sum(np.log(found[e, op]) for e, op in enumerate(arch)) for arch in archs])
    for truth in (np.exp(sums), sums + np.random.default_rng(1).normal(size=len(sums))):
        np.savez(tmp_path / "truth.npz", arch=archs, fitness=truth, cost=np.ones(len(archs)))
        true_results._table.cache_clear()
        config = SimpleNamespace(truth=str(tmp_path / "truth.npz"), truth_percent=False, space=SPACE)
        order = true_results.order_by_weights(config, found)
        assert order["true_spearman"] == pytest.approx(spearmanr(sums, truth).statistic, abs=1e-6)
        assert order["true_tau"] == pytest.approx(kendalltau(sums, truth).statistic, abs=1e-4)
    assert 0.3 < order["true_tau"] < 0.95
