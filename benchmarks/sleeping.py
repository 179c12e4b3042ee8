"""A plugin: aging evolution whose candidates are looked up in a table and then sleep for their cost.

python -m nasjax.launch --plugin=benchmarks/sleeping.py --method=sleeping --space=tabular_cell --table=TABLE.npz
"""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from nasjax import catalog
from nasjax.experiments import evolution
from nasjax.problem.problem import Problem
from nasjax.types import Evaluation, Evaluator, Experiment, Key, Proposal


def configure(name: str, dataset: str | None, space: str | None) -> Any:
    """Evolution's settings, under the name by which the workers find this method."""
    return dataclasses.replace(evolution.configure(name, dataset, space), method="sleeping")


def make(problem: Problem) -> Experiment:
    """Evolution's experiment, whose workers take as long as the table says."""
    experiment = evolution.make(problem)
    looked_up = experiment.evaluator

    def asleep() -> Evaluator:
        assert looked_up is not None
        table = looked_up()

        def evaluate(key: Key, proposal: Proposal, inherited: Any) -> tuple[Evaluation, Any]:
            found, kept = table.evaluate(key, proposal, inherited)
            time.sleep(float(np.asarray(found.cost).max()))
            return found, kept

        return Evaluator(evaluate)

    return experiment._replace(evaluator=asleep)


catalog.add("method", "sleeping", SimpleNamespace(**{**vars(evolution), "configure": configure, "make": make}))
