"""A loss has its own unit; a task that takes another loss does not keep the unit of the first."""

from types import SimpleNamespace

import numpy as np

from nasjax.experiments.families.settings import dataset_facts
from nasjax.tasks import classification, language, segmentation


def unit(task):
    part = SimpleNamespace(x=np.zeros((2, 4)), y=np.zeros(2))
    data = SimpleNamespace(name="toy", train=part, valid=part, classes=2, sha256="")
    return dataset_facts(data, task)["loss_unit"]


def test_cross_entropies_are_in_nats_and_others_have_no_unit():
    assert [unit(module.TASK) for module in (classification, language, segmentation)] == ["nats", "nats", ""]


def test_a_squared_error_in_place_of_the_cross_entropy_is_not_in_nats():
    def squared(outputs, targets, recipe):
        return ((outputs - targets) ** 2).mean()

    task = classification.TASK._replace(name="depth", loss=squared)
    assert unit(task) == ""
    squared.unit = "m²"
    assert unit(task) == "m²"
