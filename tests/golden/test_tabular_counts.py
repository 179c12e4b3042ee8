"""NAS-Bench-201's networks: counts of the published sizes, and of all 15,625 cells of the benchmark's table."""

import numpy as np
import pytest
from tools.real_data import nas_bench_201

from nasjax.spaces.tabular_cell.plan import TabularForm, TabularPlan
from nasjax.spaces.tabular_cell.space import TabularCell

PLAN = TabularPlan(TabularCell(), TabularForm(), (32, 32, 3), 10)


def test_the_largest_and_the_smallest_cell():
    assert PLAN.count(np.full(6, 3)) == (1_531_546, 220_119_690)  # six 3x3 convolutions
    assert PLAN.count(np.zeros(6, int)) == PLAN.smallest() == (73_306, 7_783_050)  # six times none
    assert PLAN.largest_macs() == 220_119_690


def test_by_hand_at_another_size():
    plan = TabularPlan(TabularCell(edges=1), TabularForm(channels=2, cells=1), (8, 4, 1), 3)
    stem, cells = 9 * 2 + 4, sum(9 * c * c + 2 * c for c in (2, 4, 8))
    blocks = sum(9 * c * 2 * c + 9 * 4 * c * c + 2 * c * c + 8 * c for c in (2, 4))
    assert plan.count(np.array([3])) == (
        stem + cells + blocks + 16 + 27,
        9 * 2 * 32 + 9 * (4 * 32 + 16 * 8 + 64 * 2) + (18 * 4 + 36 * 4 + 8) * 8 + (18 * 16 + 36 * 16 + 32) * 2 + 27,
    )


def test_every_cell_of_the_table():
    table = nas_bench_201()
    params, macs = PLAN.count(table["ops"].astype(int))
    np.testing.assert_array_equal(params, table["params_cifar10"])
    np.testing.assert_array_equal(macs, table["flops_cifar10"])
    archs = TabularCell().enumerate()[::625]
    for what, found in zip(("params", "macs"), PLAN.count(archs), strict=True):
        np.testing.assert_array_equal(PLAN.counter(what)(archs), found)


@pytest.mark.parametrize(
    ("space", "image", "said"),
    [
        (TabularCell(ops=("skip", "conv")), (8, 8, 1), "'skip'"),
        (TabularCell(edges=4), (8, 8, 1), "complete cell"),
        (TabularCell(), (10, 8, 1), "multiple of 4"),
    ],
)
def test_what_has_no_network(space, image, said):
    with pytest.raises(ValueError, match=said):
        TabularPlan(space, TabularForm(), image, 10)
