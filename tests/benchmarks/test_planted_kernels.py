"""The problem of benchmarks/truth/planted_kernels.py: a path can tell a distance within its reach, and no other."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from nasjax.nets.choice_chain.network import choice_chain
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.spaces.choice_chain.space import ChoiceChain

FILE = Path(__file__).parents[2] / "benchmarks" / "truth" / "planted_kernels.py"
SPEC = importlib.util.spec_from_file_location("planted_kernels", FILE)
planted_kernels = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(planted_kernels)

OPERATORS = ("mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k7_e3")
LAYERS = 2
SPACE = ChoiceChain(
    family="mobile",
    stem=4,
    stem_stride=1,
    channels=(4,),
    depths=(LAYERS,),
    strides=(1,),
    tail=8,
    operators=OPERATORS,
)


def test_the_label_is_the_distance_and_the_ends_are_far():
    x, y = planted_kernels.planted(500, LAYERS, 20, 0)
    marks = np.argwhere(x[:, 0, :, 0] == 200)[:, 1].reshape(500, 2)
    apart = planted_kernels.distances(LAYERS)
    np.testing.assert_array_equal(marks[:, 1] - marks[:, 0], apart[y])
    assert set(y) == set(range(len(apart)))
    assert marks.min() >= 6 * LAYERS and marks.max() < x.shape[2] - 6 * LAYERS
    assert np.sort(x[:, 0, :, 0], 1)[:, :-2].max() <= 20


def interplay(arch, distance):
    """What the logits of two marks have beyond those of each alone."""
    width = planted_kernels.planted(1, LAYERS, 0, 0)[0].shape[2]
    network = choice_chain(ChoicePlan(SPACE, (1, width, 1), 3), np.array(arch))
    x = np.zeros((4, 1, width, 1), np.float64)
    left = (width - distance) // 2
    x[:2, 0, left], x[::2, 0, left + distance] = 20, 20
    with jax.enable_x64(True):
        logits, _ = network.apply(network.init(jax.random.key(0), None, x), None, x)
    both, one, other, none = np.asarray(logits)
    return np.abs(both - one - other + none).max()


@pytest.mark.slow
@pytest.mark.parametrize("arch", [(0, 0), (0, 2), (2, 1)])
def test_marks_farther_apart_than_the_reach_only_add_up(arch):
    archs = np.array([arch])
    (best,) = planted_kernels.ideal(SPACE, archs)
    apart = planted_kernels.distances(LAYERS)
    seen = round(best * len(apart)) - 1
    assert interplay(arch, apart[seen - 1]) > 1e-9
    assert interplay(arch, apart[seen]) < 1e-12


def test_the_gate_tells_paths_from_seeds():
    means, noise = np.linspace(0, 1, 9), np.array([[0.01], [-0.01]])
    spread, seeds = planted_kernels.gate(means + noise)
    assert spread == pytest.approx(means.std(ddof=1)) and seeds == pytest.approx(0.01 * 2**0.5)
