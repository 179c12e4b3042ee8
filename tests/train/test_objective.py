"""A search trains by its task's loss and is told its metric, also one that is no mean over samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.tasks import classification, language, segmentation
from nasjax.train import passes
from nasjax.train.losses import cross_entropy
from nasjax.train.objective import CLASSIFICATION, Objective, objective
from nasjax.types import Metric, Network

LOGITS = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2])
IDENTITY = Network(
    lambda key, choice, x: {"params": {}, "batch_stats": {}},
    lambda variables, choice, x, **options: (x, variables),
)


def recalls(logits, labels):
    of_class = jax.nn.one_hot(labels, 3)
    return {"hit": of_class * (logits.argmax(-1) == labels)[:, None]}, {"hit": of_class}


BALANCED = Objective(
    cross_entropy, recalls, lambda sums: (sums[0]["hit"] / sums[1]["hit"]).mean(), Metric("balanced_accuracy")
)


def balanced(logits, labels):
    hit = logits.argmax(1) == labels
    return np.mean([hit[labels == c].mean() for c in range(3)])


def test_a_metric_that_is_no_mean_of_samples_is_that_of_all_batches_together():
    repeated = (LOGITS[5:], LABELS[5:], np.array([0, 1, 1, 1], np.float32))  # the first of them is the batch before's
    batches = [(LOGITS[:6], LABELS[:6]), repeated]
    loss, metric = passes.validation(IDENTITY, BALANCED, 1)({}, {}, None, batches)
    np.testing.assert_allclose(metric, balanced(LOGITS, LABELS), rtol=1e-6)
    np.testing.assert_allclose(loss, cross_entropy(LOGITS, LABELS), rtol=1e-6)
    assert abs(metric - (LOGITS.argmax(1) == LABELS).mean()) > 1e-3
    at = passes.gradient_pass(IDENTITY, BALANCED, 1)({}, {}, None, jax.random.key(0), None, (LOGITS, LABELS))
    np.testing.assert_allclose(at.score, balanced(LOGITS, LABELS), rtol=1e-6)


def test_without_batches_there_is_no_figure():
    assert np.isnan(passes.validation(IDENTITY, BALANCED, 1)({}, {}, None, [])).all()


def test_the_objective_of_a_task_is_its_loss_and_metric():
    found = objective(classification.TASK)
    assert found.loss(LOGITS, LABELS) == CLASSIFICATION.loss(LOGITS, LABELS)
    assert found.finish((3.0, 4.0)) == 0.75 == CLASSIFICATION.finish((3.0, 4.0))
    for one, other in zip(found.score(LOGITS, LABELS), CLASSIFICATION.score(LOGITS, LABELS), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found is objective(classification.TASK)  # or every use would compile its own programs
    assert [objective(task.TASK).metric.sign for task in (classification, segmentation, language)] == [1, 1, -1]


@pytest.mark.parametrize("outputs", [LOGITS, (LOGITS, LOGITS)])
def test_an_auxiliary_head_is_not_looked_at(outputs):
    assert objective(classification.TASK).loss(outputs, jnp.asarray(LABELS)) == cross_entropy(LOGITS, LABELS)
