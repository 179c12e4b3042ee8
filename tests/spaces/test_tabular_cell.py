"""NAS-Bench-201's space: its string, its lattice, its errors (the laws of every space are in contracts/)."""

import jax
import numpy as np
import pytest

from nasjax.spaces.tabular_cell.space import NAS_BENCH_201_OPS, TabularCell

SPACE = TabularCell()
# Row 0 and row 1 of the published benchmark.
ROW_0 = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
ROW_1 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"


def test_it_is_nas_bench_201():
    assert SPACE.size() == 15_625
    assert SPACE.ops == NAS_BENCH_201_OPS == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert len(SPACE.sites) == 6
    assert {site.group for site in SPACE.sites} == {"op"}


@pytest.mark.parametrize(("text", "arch"), [(ROW_0, [4, 2, 1, 2, 1, 1]), (ROW_1, [3, 3, 4, 1, 3, 1])])
def test_the_benchmarks_string(text, arch):
    np.testing.assert_array_equal(SPACE.parse(text), arch)
    assert SPACE.format(arch) == text


def test_the_json_form():
    tree = {"space": "tabular_cell", "ops": ["nor_conv_3x3"] * 5 + ["none"]}
    arch = SPACE.decode(tree)
    np.testing.assert_array_equal(arch, [3, 3, 3, 3, 3, 0])
    assert SPACE.encode(arch) == tree


def test_index_is_the_row_of_enumerate():
    rows = SPACE.enumerate()
    np.testing.assert_array_equal(jax.jit(SPACE.index)(rows), np.arange(15_625))
    np.testing.assert_array_equal(rows[1], [0, 0, 0, 0, 0, 1])  # the last edge varies fastest
    one = jax.jit(SPACE.index)(rows[4321])
    assert one.shape == ()
    assert int(one) == 4321
    np.testing.assert_array_equal(jax.vmap(SPACE.index)(rows[:7]), np.arange(7))


def test_mutation_is_uniform_over_edges_and_other_operations():
    parent = np.array([0, 1, 2, 3, 4, 0], np.int32)
    keys = jax.random.split(jax.random.key(0), 24_000)
    mutants = np.asarray(jax.jit(jax.vmap(SPACE.mutate, in_axes=(0, None)))(keys, parent))
    counts = np.array([[(mutants[:, e] == op).sum() for op in range(5)] for e in range(6)])
    counts = counts[np.arange(5)[None, :] != parent[:, None]]  # 24 (edge, other operation) pairs, 1,000 each expected
    assert abs(counts - 1000).max() < 5 * 1000**0.5


def test_other_tables_fit():
    space = TabularCell(edges=3, ops=("a", "b"))
    assert space.size() == 8
    assert space.format([0, 1, 1]) == "|a~0|+|b~0|b~1|"
    np.testing.assert_array_equal(space.parse("|b~0|+|a~0|a~1|"), [1, 0, 0])
    np.testing.assert_array_equal(
        TabularCell(edges=1, ops=("a",)).mutate(jax.random.key(0), np.zeros(1, np.int32)), [0]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TabularCell(edges=0), "edges and ops must be at least one"),
        (lambda: TabularCell(ops=()), "edges and ops must be at least one"),
        (lambda: TabularCell(ops=("a", "a")), "distinct"),
        (lambda: TabularCell(edges=14), "too many for a table"),
        (lambda: TabularCell(edges=9).enumerate(), "too large to enumerate"),
        (lambda: TabularCell(edges=4).format([0, 0, 0, 0]), "only a complete cell"),
        (lambda: SPACE.validate([0, 0, 0]), "6 entries"),
        (lambda: SPACE.validate([0, 0, 5, 0, 0, 0]), "edge2 has no operation number 5; choose 0..4"),
        (lambda: SPACE.decode({"space": "tabular_cell", "ops": ["none"]}), "must list 6 operations"),
        (lambda: SPACE.decode({"space": "tabular_cell", "ops": ["none"] * 5 + ["conv"]}), "edge5: 'conv' is not an"),
        (lambda: SPACE.decode({"space": "conv_chain", "layers": []}), "tabular_cell architecture is"),
        (lambda: SPACE.parse(ROW_0[:-1]), "write it like |none~0|"),
        (lambda: SPACE.parse(ROW_0.replace("skip_connect~2", "skip_connect~1")), "write it like"),
        (lambda: SPACE.parse(ROW_0.replace("avg", "max")), "edge0: 'max_pool_3x3' is not an"),
    ],
)
def test_wrong_use_says_what_to_write(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
