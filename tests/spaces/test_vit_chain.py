"""The space of transformers beyond the contract of all spaces: JSON, variants, counters, wrong use."""

import dataclasses

import jax
import numpy as np
import pytest

from nasjax.catalog import named
from nasjax.spaces.vit_chain.plan import VitPlan, counter
from nasjax.spaces.vit_chain.space import VitChain, variant, widened

TINY = VitChain((1, 2), (4, 6), (1, 2), (1.0, 2.0), patch=2, head_width=3, distance=1)
PLAN = VitPlan(TINY, (4, 6, 2), 3)


def test_json_is_that_of_the_release():
    space = variant("small")
    tree = named("AUTOFORMER_S")
    arch = space.decode(tree)
    assert space.encode(arch) == tree and arch[:2].tolist() == [1, 1] and arch[-2:].tolist() == [-1, -1]


def test_a_released_architecture_widens_the_space_by_what_it_lacks():
    """AutoFormer-T has MLP ratios of 3, which its supernet's file does not list."""
    with pytest.raises(ValueError, match=r'"mlp_ratio" entry 2 must be one of 3\.5, 4\.0; got 3\.0'):
        variant("tiny").decode(named("AUTOFORMER_T"))
    assert widened(variant("tiny"), named("AUTOFORMER_T")) == dataclasses.replace(
        variant("tiny"), mlp_ratios=(3.0, 3.5, 4.0)
    )
    assert widened(variant("small"), named("AUTOFORMER_S")) == variant("small")
    for tree in ({}, {"num_heads": 3}, {"num_heads": ["3"], "mlp_ratio": [3.5], "embed_dim": 192}):
        assert widened(variant("tiny"), tree) == variant("tiny")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": ()}, "heads must be positive and ascending"),
        ({"widths": (8, 4)}, "widths must be positive and ascending"),
        ({"depths": (0, 1)}, "depths must be positive and ascending"),
        ({"mlp_ratios": (2.0, 2.0)}, "mlp_ratios must be positive and ascending"),
        ({"mlp_ratios": (0.1,)}, "leave no hidden unit at width 4"),
        ({"patch": 0}, "patch and head_width must be at least 1"),
        ({"distance": -1}, "distance at least 0"),
    ],
)
def test_a_space_that_cannot_be_built_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 5}, '"embed_dim" must be one of 4, 6; got 5'),
        ({"num_heads": [1]}, "must be lists of equal length"),
        ({"num_heads": [1, 3]}, '"num_heads" entry 1 must be one of 1, 2; got 3'),
        ({"mlp_ratio": [1.0, True]}, '"mlp_ratio" entry 1 must be one of'),
        ({"num_heads": [1] * 3, "mlp_ratio": [1.0] * 3}, "number of layers must be one of 1, 2; got 3"),
    ],
)
def test_decode_says_what_to_write(changes, message):
    tree = {"space": "vit_chain", "embed_dim": 4, "num_heads": [1, 2], "mlp_ratio": [1.0, 2.0]}
    TINY.decode(tree)
    with pytest.raises(ValueError, match=message):
        TINY.decode(tree | changes)


def test_variants_can_be_planned():
    for name, image in (
        ("tiny", (224, 224, 3)),
        ("base", (224, 224, 3)),
        ("cifar", (32, 32, 3)),
        ("digits", (8, 8, 1)),
    ):
        plan = VitPlan(variant(name), image, 10)
        counts = plan.count(np.asarray(plan.space.sample(jax.random.key(1))))
        assert all(low <= n <= high for low, n, high in zip(plan.smallest, counts, plan.largest, strict=True))
    with pytest.raises(ValueError, match="choose tiny, small, base, cifar, digits"):
        variant("huge")


def test_counters_agree_with_the_plan_and_their_bounds_are_reached():
    archs = TINY.enumerate()
    counts = np.array([PLAN.count(arch) for arch in archs])
    for column, what in enumerate(("params", "macs")):
        np.testing.assert_array_equal(jax.jit(counter(PLAN, what))(archs), counts[:, column])
        assert (counts[:, column].min(), counts[:, column].max()) == (PLAN.smallest[column], PLAN.largest[column])
    with pytest.raises(ValueError, match=r"macs of these transformers reach 2\^31"):
        counter(VitPlan(variant("base")), "macs")
    with pytest.raises(ValueError, match="choose params or macs"):
        counter(PLAN, "seconds")


def test_patches_must_cover_the_image():
    with pytest.raises(ValueError, match=r"set space\.patch to a divisor of both"):
        VitPlan(TINY, (4, 5, 1), 3)
    with pytest.raises(ValueError, match="all positive"):
        VitPlan(TINY, (4, 4, 0), 3)
