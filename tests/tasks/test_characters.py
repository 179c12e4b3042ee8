"""Bits per character: the logarithm of the perplexity, of a text whose entropy is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import catalog
from nasjax.data.dataset import DataConfig
from nasjax.data.ptb import SOURCE
from nasjax.experiments.reinforce import reward_of
from nasjax.tasks import language
from nasjax.tasks.characters import TASK
from nasjax.train.scoring import summed


def test_bits_per_character_are_the_logarithm_of_the_perplexity_to_the_base_2():
    """A text of a half a, a quarter each b and c, told by these frequencies: 1.5 bits."""
    text = np.array([0, 0, 1, 2] * 6, np.int32).reshape(3, 8)
    logits = np.broadcast_to(np.log(np.float32([0.5, 0.25, 0.25])), (3, 8, 3))
    sums = summed(TASK, logits, text, np.ones(3, bool))
    assert TASK.score is language.TASK.score
    bits, perplexity = TASK.finish(*sums), language.TASK.finish(*sums)
    assert float(bits) == pytest.approx(1.5) == pytest.approx(np.log2(perplexity))


def test_the_level_of_a_text_decides_its_task():
    assert SOURCE.task_of(DataConfig("ptb")) == "language"
    assert catalog.task(SOURCE.task_of(DataConfig("ptb", level="char"))) is TASK
    assert TASK.metric.value(-1.2) == 1.2 and TASK.like == "language" and TASK.contiguous


def test_the_reward_is_that_of_the_perplexity():
    class Problem:
        task, looked_up = TASK, False
        config = type("Config", (), {"search": type("Search", (), {"reward": "auto"})})

    assert float(reward_of(Problem)(jnp.float32(-3.0))) == pytest.approx(80 / 8**2)
