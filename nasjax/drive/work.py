"""What a worker does with a task of a search: hands the parents' weights on, evaluates, and keeps the new weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.store import artifacts
from nasjax.types import Evaluation, Evaluator, Proposal


class Work(NamedTuple):
    """Proposals to evaluate, on the host, so that it can be sent to another process."""

    key: np.ndarray  # the data of the run's key for evaluations
    ids: np.ndarray  # i32[N]; -1 = none
    archs: np.ndarray  # i32[N, A]
    parents: np.ndarray  # i32[N]
    weights: Mapping[int, str]  # parent -> sha256 of its artifact, of those that have any


class Answer(NamedTuple):
    """What became of them."""

    evaluation: Evaluation  # numpy arrays
    weights: dict[int, str]  # trial -> sha256 of its artifact


def worker(evaluator: Evaluator, workdir: Path) -> Callable[[Work], Answer]:
    """The function that a runtime runs; artifacts pass through the folder `workdir`."""

    def work(task: Work) -> Answer:
        key = jax.random.wrap_key_data(jnp.asarray(task.key))
        proposal = Proposal(*(jnp.asarray(x) for x in (task.ids, task.archs, task.parents)))
        inherited = {trial: artifacts.load(workdir, digest) for trial, digest in task.weights.items()}
        (fitness, cost, status, info), kept = evaluator.evaluate(key, proposal, inherited or None)
        info = {name: values if name == "error" else np.asarray(values) for name, values in info.items()}
        weights = {trial: artifacts.save(workdir, tree) for trial, tree in (kept or {}).items()}
        return Answer(Evaluation(np.asarray(fitness), np.asarray(cost), np.asarray(status), info), weights)

    return work
