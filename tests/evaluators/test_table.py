"""Tables: both layouts of file, every error on one line, and the evaluator that looks results up."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.real_data import TABLE

from nasjax.evaluators.table import (
    COST,
    FITNESS,
    RESULT,
    check_accuracies,
    load_columns,
    load_table,
    require_cost,
    table,
)
from nasjax.spaces.from_table.space import table_space
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Proposal, Status

SPACE = TabularCell(edges=3, ops=("none", "skip", "conv"))  # 27 cells
ROWS = np.random.default_rng(0).permutation(SPACE.enumerate())


def benchmark(**changes):
    n = np.arange(27, dtype=np.float32)
    columns = {
        "ops": ROWS.astype(np.int8),
        "op_names": np.array(SPACE.ops),
        FITNESS: n + 50,
        COST: n * 100,
        RESULT: n + 60,
    }
    return {name: value for name, value in {**columns, **changes}.items() if value is not None}


def plain(**changes):
    columns = {"arch": ROWS, "fitness": np.linspace(0, 1, 27), "cost": np.full(27, 2.5)}
    return {name: value for name, value in {**columns, **changes}.items() if value is not None}


@pytest.fixture
def save(tmp_path):
    def to_file(columns):
        np.savez(tmp_path / "table.npz", **columns)
        return tmp_path / "table.npz"

    return to_file


def propose(archs):
    n = len(archs)
    return Proposal(jnp.arange(n), jnp.asarray(archs, jnp.int32), jnp.full(n, -1))


def test_benchmark_layout(save):
    rows = load_table(save(benchmark()), SPACE)
    at = np.asarray(SPACE.index(ROWS))
    np.testing.assert_allclose(rows.fitness[at], (np.arange(27) + 50) / 100, rtol=1e-6)
    np.testing.assert_allclose(rows.cost[at], np.arange(27) * 6.0, rtol=1e-6)  # 12 of 200 epochs
    np.testing.assert_allclose(rows.result[at], (np.arange(27) + 60) / 100, rtol=1e-6)
    assert rows.known.all()
    assert all(column.dtype == np.float32 for column in rows[:3])


def test_seconds_of_another_training_are_no_budget(save):
    path = save(benchmark())
    require_cost(path, SPACE, None)
    require_cost(save(plain()), SPACE, "fitness")
    with pytest.raises(ValueError, match=r"the seconds of 'hp200_cifar10_test' are not known"):
        require_cost(save(benchmark()), SPACE, RESULT)


def test_names_and_cells_may_be_bytes(save):
    of_bytes = load_table(save(benchmark(op_names=np.array(SPACE.ops, "S"))), SPACE)
    np.testing.assert_array_equal(of_bytes.fitness, load_table(save(benchmark()), SPACE).fitness)
    cells = np.array(SPACE.ops, "S")[ROWS]
    np.testing.assert_array_equal(load_table(save(plain(arch=cells)), SPACE, percent=False).known, True)


def test_columns_scale_and_percent_are_options(save):
    path = save(benchmark(params=np.arange(27) * 1000))
    chosen = load_table(path, SPACE, fitness="params", cost=COST, result=FITNESS, cost_scale=0.5, percent=False)
    at = np.asarray(SPACE.index(ROWS))
    np.testing.assert_array_equal(chosen.fitness[at], np.arange(27) * 1000)
    np.testing.assert_array_equal(chosen.cost[at], np.arange(27) * 50.0)
    np.testing.assert_array_equal(chosen.result[at], np.arange(27) + 50)
    assert load_table(path, SPACE, cost=COST).cost.max() == 2600.0  # a cost column that was named is not rescaled
    with pytest.raises(ValueError, match=r"whether column 'params' holds percents is not known; write --set table\."):
        load_table(path, SPACE, fitness="params")


@pytest.mark.parametrize("values", [(-1.0, 95.0), (0.0, 100.0), (0.0, 1.0), (0.3, 0.9), (20.0, 101.0)])
def test_the_unit_is_said_and_never_guessed(save, values):
    """By the column's name or by the user, whatever the extremes."""
    ends = np.linspace(*values, 27).astype(np.float32)
    path = save(plain(fitness=ends, accuracy_percent=ends, val_fraction=ends, percent_or_fraction=ends))
    at, percents = np.asarray(SPACE.index(ROWS)), ends / np.float32(100)
    for options in ({}, {"fitness": "percent_or_fraction"}):
        with pytest.raises(
            ValueError, match=r"is not known; write --set table\.percent=true .* or --set table\.percent=f"
        ):
            load_table(path, SPACE, **options)
    for options, expected in (
        ({"percent": True}, percents),
        ({"percent": False}, ends),
        ({"fitness": "accuracy_percent"}, percents),
        ({"fitness": "val_fraction"}, ends),
        ({"fitness": "val_fraction", "percent": True}, percents),
    ):
        rows = load_table(path, SPACE, **options)
        np.testing.assert_array_equal(rows.fitness[at], expected)
        np.testing.assert_array_equal(rows.result[at], expected)
    for percent in (True, False):
        said = load_table(path, SPACE, percent=percent)
        with nullcontext() if said.fitness.max() <= 1 else pytest.raises(ValueError, match=r"accuracy is .*=true if"):
            check_accuracies(said, path)
    known = load_table(save(benchmark(**{FITNESS: ends, RESULT: ends})), SPACE)
    np.testing.assert_array_equal(known.fitness[at], percents)
    np.testing.assert_array_equal(known.result[at], percents)


def test_operations_may_be_numbered_otherwise(save):
    other = ("conv", "none", "skip")
    renumbered = np.array([other.index(op) for op in SPACE.ops])[ROWS]
    a = load_table(save(benchmark(ops=renumbered, op_names=np.array(other))), SPACE)
    b = load_table(save(benchmark()), SPACE)
    np.testing.assert_array_equal(a.fitness, b.fitness)


@pytest.mark.parametrize(
    "arch",
    [ROWS, np.array(SPACE.ops)[ROWS], np.array([SPACE.format(row) for row in ROWS])],
    ids=["int", "names", "str"],
)
def test_plain_table(save, arch):
    rows = load_table(save(plain(arch=arch)), SPACE, percent=False)
    at = np.asarray(SPACE.index(ROWS))
    np.testing.assert_allclose(rows.fitness[at], np.linspace(0, 1, 27), rtol=1e-6)
    np.testing.assert_array_equal(rows.cost, 2.5)
    np.testing.assert_array_equal(rows.result, rows.fitness)
    percents = load_table(save(plain(arch=arch, fitness=np.linspace(0, 100, 27))), SPACE, percent=True)
    np.testing.assert_allclose(percents.fitness, rows.fitness, rtol=1e-6)


def test_evaluator_looks_up_fails_and_rejects(save):
    part = {name: value[:20] for name, value in plain().items()}
    part["fitness"][[3, 7]] = np.nan, np.inf
    evaluator = table(SPACE, load_table(save(part), SPACE, percent=False))
    archs = np.concatenate([ROWS[[5, 3, 25, 7]], np.full((1, 3), -1)])
    evaluation, artifacts = jax.jit(evaluator.evaluate)(jax.random.key(0), propose(archs), None)
    assert artifacts is None
    expected = [Status.OK, Status.FAILED, Status.REJECTED, Status.FAILED, Status.REJECTED]
    np.testing.assert_array_equal(evaluation.status, expected)
    np.testing.assert_allclose(evaluation.fitness, [5 / 26, *[np.nan] * 4], rtol=1e-6)
    np.testing.assert_array_equal(evaluation.cost, [2.5, 2.5, 0.0, 2.5, 0.0])
    np.testing.assert_allclose(evaluation.info["result"], evaluation.fitness)
    assert evaluation.status.dtype == jnp.int8


@pytest.mark.slow
def test_evaluator_vmaps_and_ignores_order(save):
    evaluator = table(SPACE, load_table(save(benchmark()), SPACE))
    key = jax.random.key(0)
    many, _ = jax.vmap(lambda archs: evaluator.evaluate(key, propose(archs), None))(ROWS.reshape(9, 3, 3))
    whole, _ = evaluator.evaluate(key, propose(ROWS), None)
    backwards, _ = evaluator.evaluate(key, propose(ROWS[::-1]), None)
    np.testing.assert_array_equal(many.fitness.ravel(), whole.fitness)
    np.testing.assert_array_equal(backwards.fitness[::-1], whole.fitness)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (benchmark(**{FITNESS: None}), f"no column '{FITNESS}'; its columns of numbers are {RESULT}, {COST}"),
        (plain(cost=None), "no column 'cost'; its columns of numbers are fitness"),
        (plain(arch=None), "neither a column 'ops' nor 'arch' (plain table); it has cost, fitness"),
        (benchmark(ops=ROWS[:, :2]), "column 'ops': needs the shape (N, 3), got int32(27, 2)"),
        (benchmark(**{COST: np.ones((27, 3))}), f"column '{COST}' must hold 27 numbers, got float64(27, 3)"),
        (plain(fitness=np.ones(26)), "column 'fitness' must hold 27 numbers, got float64(26,)"),
        (plain(fitness=np.array(["high"] * 27)), "column 'fitness' must hold 27 numbers"),
        (plain(cost=np.full(27, np.nan)), "column 'cost' must hold finite seconds"),
        (plain(cost=np.full(27, -1.0)), "column 'cost' must hold finite seconds"),
        (benchmark(ops=ROWS + 1), "operation numbers must be 0..2"),
        (benchmark(op_names=np.array(["none", "skip", "pool"])), "'pool' is not an operation here"),
        (plain(arch=np.array([["none", "skip", "pool"]] * 27)), "'pool' is not an operation here"),
        (plain(arch=np.array(["|none~0|"] * 27)), "is not an architecture string"),
        (plain(arch=np.ones((27, 3))), "needs the shape (N, 3), got float64(27, 3)"),
        (plain(arch=np.concatenate([ROWS[:26], ROWS[:1]])), "1 architectures are repeated, the first is ["),
        ({k: v[:26] if len(v) == 27 else v for k, v in benchmark().items()}, "1 of 27 architectures missing, first ["),
    ],
)
def test_wrong_files_are_explained_on_one_line(save, columns, message):
    path = save(columns)
    with pytest.raises(ValueError) as error:
        load_table(path, SPACE)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_npz(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "pickle.npz", arch=np.array([{}], object))
    (tmp_path / "text.npz").write_text("arch,fitness\n")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "whole.npz", **plain())
    (tmp_path / "torn.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-200])
    for name in ("one.npy", "pickle.npz", "text.npz", "empty.npz", "torn.npz"):
        with pytest.raises(ValueError, match=rf"{name} is not an \.npz of plain arrays: [^\n]+$"):
            load_table(tmp_path / name, SPACE)
    for name in ("absent.npz", ""):
        with pytest.raises(ValueError, match=r"no table at .*\.npz file$"):
            load_table(tmp_path / name, SPACE)


def test_a_table_of_another_space_is_refused(save):
    rows = load_table(save(plain()), SPACE, percent=False)
    with pytest.raises(ValueError, match="the table has 27 rows, the space 15625 architectures"):
        table(TabularCell(), rows)


@pytest.mark.skipif(not TABLE.exists(), reason="no NAS-Bench-201 table; set NASJAX_DATA")
def test_nas_bench_201_facts():
    space = TabularCell()
    rows = load_table(TABLE, space)
    assert rows.known.all()
    with np.load(TABLE) as file:
        best, strings = file["ops"][6111], file["arch_str"][:50]
        for text, ops in zip(strings, file["ops"], strict=False):
            assert space.format(ops) == text
    assert rows.result.max() == rows.result[int(space.index(best))] == pytest.approx(0.9437, abs=1e-4)  # the best cell
    assert rows.cost.mean() == pytest.approx(109, abs=5)  # seconds: 12,000 are about 110 trials


def test_a_part_of_any_lattice_is_looked_up_and_the_rest_rejected(save):
    ops = np.array([[2, 0], [0, 1], [1, 1]])
    names = np.array([["a", "b", "c"], ["x", "y", ""]])
    path = save({"ops": ops, "op_names": names, "fitness": np.array([0.1, 0.2, np.nan]), "cost": np.arange(3.0)})
    space = table_space(path)
    with pytest.raises(ValueError, match="holds percents is not known"):
        load_table(path, space)
    rows = load_table(path, space, percent=False)
    evaluation, _ = jax.jit(table(space, rows).evaluate)(jax.random.key(0), propose([*ops, [0, 0]]), None)
    np.testing.assert_array_equal(evaluation.status, [Status.OK, Status.OK, Status.FAILED, Status.REJECTED])
    np.testing.assert_allclose(evaluation.fitness, [0.1, 0.2, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(evaluation.cost, [0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"no column 'acc'; .* are cost, .*; write --set table\.fitness=COLUMN"):
        load_table(path, space, fitness="acc")
    lacking = save({"ops": ops, "op_names": names, "acc": np.ones(3), "hours": np.ones(3)})
    for given, told in (
        ({}, r"'fitness' and no column 'cost'; .*--set table\.fitness=COLUMN --set table\.cost=COLUMN \(.*ones\)$"),
        ({"fitness": "acc"}, r"no column 'cost'; .* are acc, hours; write --set table\.cost=COLUMN \(.*ones\)$"),
        ({"percent": None}, r"or ones\) and, where .* nor fraction, --set table\.percent=true \(93.*metric=NAME"),
        ({"percent": None, "metric": "loss"}, r"--set table\.cost=COLUMN \(seconds, or ones\)$"),
    ):
        with pytest.raises(ValueError, match=told):
            load_table(lacking, space, **{"percent": False, **given})
    save({"ops": ops[:2], "op_names": names, "fitness": np.ones(2), "cost": np.ones(2)})
    with pytest.raises(ValueError, match="has other sites or architectures than --space=from_table was made of"):
        load_table(path, space, percent=False)


def test_a_file_says_itself_what_its_figures_are(save):
    said = {"metric": np.array("perplexity"), "unit": np.array("plain"), "smaller_is_better": np.array(True)}
    columns = {"ops": np.arange(3)[:, None], "op_names": np.array(["a", "b", "c"]), "cost": np.ones(3)}
    columns["perplexity"] = np.array([90, 80, 95])
    path = save({**columns, **said})
    rows = load_table(path, table_space(path))
    np.testing.assert_array_equal(rows.fitness, [-90, -80, -95])
    np.testing.assert_array_equal(rows.result, [90, 80, 95])
    others = load_table(path, table_space(path), smaller=False, fitness="cost", result="cost")
    np.testing.assert_array_equal(others.fitness, 1)
    said = {"metric": np.array("iou"), "unit": np.array("percent"), "iou": np.array([50, 60, 70])}
    path = save({**columns, **said})
    np.testing.assert_allclose(load_table(path, table_space(path)).fitness, [0.5, 0.6, 0.7], rtol=1e-6)


LENGTHS = [f"12:{FITNESS}:{COST}*0.06", f"200:{RESULT}:{COST}"]


def test_a_proposal_of_a_fidelity_gets_its_column_and_pays_for_the_epochs_that_are_added(save):
    rows = load_table(save(benchmark()), SPACE, fidelities=LENGTHS)
    evaluate = jax.jit(table(SPACE, rows).evaluate)
    proposal = propose(ROWS[[3, 3, 5, 5]])._replace(
        parent=jnp.array([-1, 0, 7, -1]), fidelity=jnp.array([12, 200, 12, 50])
    )
    found, _ = evaluate(jax.random.key(0), proposal, None)
    np.testing.assert_allclose(found.fitness, [0.53, 0.63, 0.55, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found.cost, [18, 300 - 18, 30, 0], rtol=1e-6)
    np.testing.assert_array_equal(found.status, [Status.OK, Status.OK, Status.OK, Status.REJECTED])
    alone, _ = evaluate(jax.random.key(0), proposal._replace(parent=jnp.full(4, -1)), None)
    assert alone.cost[1] == 300
    with pytest.raises(ValueError, match=r"the table has one fidelity; .* --set table\.fidelities="):
        jax.eval_shape(table(SPACE, load_table(save(benchmark()), SPACE)).evaluate, jax.random.key(0), proposal, None)


@pytest.mark.parametrize(
    ("fidelities", "message"),
    [
        (["12:a"], "'12:a' is no EPOCHS:FITNESS:COST or EPOCHS:FITNESS:COST*FACTOR"),
        ([LENGTHS[1], LENGTHS[0]], "epochs must rise from 1 on, got 200, 12"),
        ([f"12:{FITNESS}:{COST}", f"200:{RESULT}:{COST}*0.5"], "more epochs must not cost less"),
        ([f"12:{FITNESS}:{COST}*1.2.3"], "'1.2.3' in"),
        (["12:none:none"], "no column 'none'"),
    ],
)
def test_wrong_fidelities_are_refused(save, fidelities, message):
    with pytest.raises(ValueError) as error:
        load_table(save(benchmark()), SPACE, fidelities=fidelities)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_columns_with_several_runs_come_in_the_order_of_the_space(save):
    runs = np.stack([np.arange(27.0), np.arange(27.0) + 1, np.full(27, np.nan)], 1)
    path = save(benchmark(val_seeds=runs))
    assert set(load_columns(path)) == {FITNESS, COST, RESULT, "val_seeds"}
    np.testing.assert_array_equal(load_columns(path)["val_seeds"], runs)
    ordered = load_columns(path, SPACE)
    np.testing.assert_array_equal(ordered["val_seeds"][np.asarray(SPACE.index(ROWS))], runs)
    part = save({name: value[:20] for name, value in plain(fitness_seeds=runs).items()})
    assert np.isnan(load_columns(part, SPACE)["fitness_seeds"]).all(1).sum() == 7
