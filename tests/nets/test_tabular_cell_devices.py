"""One device equals four with NAS-Bench-201's cells: a supernet whose path is data, and the mixture of PC-DARTS.

The learners' own sums over devices are tested with smaller networks; here it is the networks' batch norms.
"""

import jax
import numpy as np
import pytest
from tools.four_devices import compare_steps, on_four_devices

from nasjax.learners import samplers
from nasjax.learners.one_shot import one_shot
from nasjax.learners.one_shot_update import Descent
from nasjax.learners.pc_darts import pc_darts
from nasjax.nets.tabular_cell.mixed import tabular_mixed
from nasjax.nets.tabular_cell.supernet import tabular_supernet
from nasjax.spaces.tabular_cell.plan import TabularForm, TabularPlan
from nasjax.spaces.tabular_cell.space import TabularCell

SPACE = TabularCell()
PLAN = TabularPlan(SPACE, TabularForm(channels=2, cells=1), (8, 4, 3), 3)
EDGES = {"operators": len(SPACE.ops), "edges": {"cell": PLAN.pairs}}


def supernet(devices):
    network, descent = tabular_supernet(PLAN, dropout=0.2), Descent(learning_rate=0.1)
    return one_shot(network, samplers.uniform(SPACE), epochs=2, epoch_steps=2, devices=devices, descent=descent)


CASES = {
    "spos": supernet,
    "pc_darts": lambda devices: pc_darts(tabular_mixed(PLAN, partial=2), devices=devices, frozen_epochs=0, **EDGES),
}


@pytest.mark.slow
def test_one_device_equals_four():
    """State and metrics after a step, in float64: batch norm sees the whole batch's statistics."""
    assert on_four_devices(__file__, float64=True) == list(CASES)


def compare_devices():
    assert jax.local_device_count() == 4
    rng = np.random.default_rng(0)
    batch = {part: (rng.standard_normal((8, 8, 4, 3)), np.arange(8, dtype=np.int32) % 3) for part in ("train", "val")}
    for name, make in CASES.items():
        compare_steps(name, make, batch)


if __name__ == "__main__":
    compare_devices()
