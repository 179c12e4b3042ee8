"""The learner of supernets on several devices: a step is that of one."""

import functools

import jax
import jax.numpy as jnp
import pytest
from tools.four_devices import compare_steps, on_four_devices
from tools.tiny_choice_chains import images, tiniest
from tools.toy_tasks import MACRO_F1

from nasjax.learners import samplers
from nasjax.learners.one_shot import EarlyBird, one_shot
from nasjax.learners.one_shot_update import Descent
from nasjax.nets.choice_chain.supernet import choice_supernet

LEARNERS = {
    "spos": (samplers.uniform, {"affine": False}),
    "bn_nas": (
        samplers.uniform,
        {"descent": Descent(clip_value=0.01), "trainable": "all_bn", "early_bird": EarlyBird()},
    ),
    # FairNAS's paths, and a metric that is no mean over devices either
    "macro_f1": (
        samplers.strict_fairness,
        {"task": MACRO_F1, "descent": Descent(learning_rate=0.1, schedule="cosine")},
    ),
}


@pytest.mark.slow
def test_one_device_equals_four():
    """A step of each method's learner in float64: batch norm sees the statistics of the whole batch."""
    assert on_four_devices(__file__, float64=True) == list(LEARNERS)


def compare_devices():
    assert jax.local_device_count() == 4
    batch, plan = {"train": images(3, 8, jnp.float64)}, tiniest()
    for name, (sampler, settings) in LEARNERS.items():
        supernet = choice_supernet(plan, affine=settings.get("affine", True), dropout=0.2)
        make = functools.partial(one_shot, supernet, sampler(plan.space), epochs=2, epoch_steps=2, **settings)
        compare_steps(name, make, batch)


if __name__ == "__main__":
    compare_devices()
