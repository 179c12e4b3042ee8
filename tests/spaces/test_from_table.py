"""The space that a file of results makes: sites of any number and choices, the whole lattice or a part of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.commands import configure, with_table
from nasjax.commands.settings_help import listed
from nasjax.problem.problem import Problem
from nasjax.settings import as_json, from_json, override
from nasjax.spaces.from_table.space import TableSpace, table_space
from nasjax.spaces.tabular_cell.space import TabularCell

NAMES = (("a", "b"), ("a", "b", "c"), ("x",))
LATTICE = np.array([[i, j, 0] for i in range(2) for j in range(3)], np.int8)
PART = LATTICE[[4, 1, 0, 5]]  # a x, in no order


@pytest.fixture
def save(tmp_path):
    def to_file(ops=LATTICE, **changes):
        names = np.array([["a", "b", ""], ["a", "b", "c"], ["x", "", ""]])
        columns = {"ops": ops, "op_names": names, "fitness": np.linspace(0, 1, len(ops)), "cost": np.ones(len(ops))}
        kept = {name: value for name, value in {**columns, **changes}.items() if value is not None}
        np.savez(tmp_path / "table.npz", **kept)
        return str(tmp_path / "table.npz")

    return to_file


def test_a_site_chooses_from_its_own_row_of_names_or_from_the_shared_ones(save):
    own = table_space(save())
    assert own.ops == NAMES and own.size() == 6 and own.part == ""
    assert [site.name for site in own.sites] == ["site0", "site1", "site2"]
    shared = table_space(save(op_names=np.array(["a", "b", "c"]), site_names=np.array([b"one", b"two", b"three"])))
    assert shared.ops == (("a", "b", "c"),) * 3 and shared.site_names == ("one", "two", "three")
    assert shared.size() == 6 and shared.part  # 6 of 27
    assert len({site.group for site in own.sites}) == 3 and len({site.group for site in shared.sites}) == 1


@pytest.mark.parametrize("ops", [LATTICE, PART], ids=["lattice", "part"])
def test_every_architecture_has_its_row_and_others_have_none(save, ops):
    space = table_space(save(ops))
    archs = space.enumerate()
    assert len(archs) == space.size() == len(ops) and {*map(tuple, archs.tolist())} == {*map(tuple, ops.tolist())}
    np.testing.assert_array_equal(space.index(archs), np.arange(len(ops)))
    others = [arch for arch in LATTICE.tolist() if arch not in ops.tolist()] + [[-1, 0, 0], [0, 3, 0], [0, 0, 1]]
    assert (np.asarray(space.index(np.array(others))) == -1).all()
    for arch in archs:
        np.testing.assert_array_equal(space.decode(space.encode(arch)), arch)


@pytest.mark.slow
def test_of_a_part_only_what_it_holds_is_drawn_bred_and_mutated_into_neighbours(save):
    space = table_space(save(PART))
    keys = jax.random.split(jax.random.key(0), 40)

    @jax.jit
    def bred(keys):
        a, b = jax.vmap(space.sample)(keys), jax.vmap(space.sample)(keys[::-1])
        return a, jax.vmap(space.mutate)(keys, a), jax.vmap(space.crossover)(keys, a, b)

    drawn, mutants, children = map(np.asarray, bred(keys))
    asked = np.concatenate([space.enumerate(), [[-1, 0, 0], [0, 2, 0], [1, 0, 0]]])
    np.testing.assert_array_equal(jax.jit(space.index)(jnp.asarray(asked)), space.index(asked))  # traced as in NumPy
    assert list(space.index(asked)) == [0, 1, 2, 3, -1, -1, -1]
    assert {*np.asarray(space.index(drawn))} == {0, 1, 2, 3}
    assert (np.asarray(space.index(mutants)) >= 0).all() and (np.asarray(space.index(children)) >= 0).all()
    assert ((drawn != mutants).sum(1) == 1).all()  # each of these has a neighbour


def test_the_benchmarks_edges_give_the_features_of_its_cells(save):
    cell = TabularCell(edges=6, ops=("none", "conv"))
    edges = np.array([(start, end) for end in range(4) for start in range(end)])
    space = table_space(save(cell.enumerate(), op_names=np.array(cell.ops), edges=edges))
    assert space.groups == cell.groups
    plain = table_space(save(cell.enumerate(), op_names=np.array(cell.ops)))
    assert plain.groups == cell.groups[:2]
    assert [site.name for site in space.sites] == [site.name for site in cell.sites]


def test_config_json_holds_the_whole_space(save):
    for ops in (LATTICE, PART):
        space = table_space(save(ops, edges=np.array([(0, 1), (0, 2), (1, 2)])))
        assert from_json(TableSpace(), json.loads(json.dumps(as_json(space)))) == space
        assert len({space, table_space(save(ops, edges=np.array(space.edges)))}) == 1


def test_its_lists_are_the_files_and_no_setting_writes_them(save):
    config = with_table(configure("random", space="from_table"), save())
    with pytest.raises(ValueError, match=r"--set space\.ops: it holds lists, which follow from other settings"):
        override(config, "space.ops=a,b")
    (line,) = [line for line in listed(config, {}) if line.startswith("space.ops=")]
    assert "[lists, which no --set writes]" in line


def test_a_table_that_names_its_metric_sets_it(save):
    config = configure("random", space="from_table")
    with pytest.raises(ValueError, match=r"--space=from_table is what a table holds; add --table=FILE\.npz"):
        Problem(config)
    assert Problem(with_table(config, save())).metric == ("accuracy", "fraction", 1)
    said = {"metric": np.array("perplexity"), "unit": np.array("plain"), "smaller_is_better": np.array(True)}
    config = with_table(config, save(**said, fidelities=np.array(["3:perplexity:cost"])))
    assert Problem(config).metric == ("perplexity", "plain", -1) and config.table.fidelities == ("3:perplexity:cost",)
    assert config.trials == configure("random", space="from_table").trials
    with pytest.raises(ValueError, match="beside 'metric' the file must say its 'unit': percent, fraction, plain"):
        with_table(config, save(metric=np.array("perplexity")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op_names": None}, "no column 'op_names'"),
        ({"ops": LATTICE + 0.0}, "column 'ops' needs the shape (N, sites) and whole numbers, got float64(6, 3)"),
        ({"ops": LATTICE[:, 0]}, "column 'ops' needs the shape (N, sites) and whole numbers, got int8(6,)"),
        ({"ops": LATTICE - 1}, "operation numbers of site 0 must be 0..1"),
        ({"op_names": np.array([["a", "b"]] * 2)}, "'op_names' needs the shape (k,), for all sites, or (3, k)"),
        ({"op_names": np.array(["a", "", "c"])}, "'op_names' of site 0 must be distinct and not empty"),
        ({"op_names": np.array(["a", "a", "c"])}, "'op_names' of site 0 must be distinct and not empty"),
        ({"site_names": np.array(["one", "one", "two"])}, "'site_names' must hold 3 distinct names"),
        ({"edges": np.array([(1, 0), (0, 2), (1, 2)])}, "'edges' needs the shape (3, 2), nodes (from, to)"),
        ({"ops": LATTICE[[0, 1, 1]]}, "1 architectures are repeated, the first is ['a', 'b', 'x']"),
    ],
)
def test_what_does_not_fit_is_said_on_one_line(save, changes, message):
    path = save(**changes)
    with pytest.raises(ValueError) as error:
        table_space(path)
    assert message in str(error.value) and str(error.value).startswith(path) and "\n" not in str(error.value)
