"""The networks of a search's front with the supernet's weights: what an elastic supernet is trained for.

Yu et al. 2020 (BigNAS, arXiv:2003.11142), section 3.1: parts of the trained network are used as they are, after their
batch norms have been calibrated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators.supernet import path_accuracy, path_statistics
from nasjax.experiments.families.supernets import OneShot
from nasjax.train import activity
from nasjax.train.fit import resident
from nasjax.train.streaming import streamed
from nasjax.types import PyTree


def inherited(experiment: OneShot, state: PyTree, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[PyTree, float]]:
    """For each row of trials.jsonl the variables of its path's own network, and its metric on the test part.

    Running statistics are the path's own, calibrated as in the search.

    Args:
      state: of the trained supernet.

    Raises:
      ValueError: the space does not know which weights of the supernet are a path's.
    """
    problem, supernet, search = experiment.problem, experiment.supernet, experiment.config.search
    own = supernet.own
    if own is None:
        raise ValueError(
            f"--space={problem.space.name} does not know which weights of the supernet are those of a path's own "
            "network; train it from scratch instead: --mode=retrain --arch=ARCHITECTURE"
        )
    data, test, task = resident(problem.data), problem.test(), problem.task
    x, y = (test.x, test.y) if streamed(data) else (jnp.asarray(test.x), jnp.asarray(test.y))
    settings: dict[str, Any] = {
        "calibration_batches": search.calibration_batches,
        "batch_size": search.calibration_batch_size,
        "average": search.average,
    }
    accuracy = path_accuracy(supernet, data._replace(valid_x=x, valid_y=y), task, **settings)
    statistics = path_statistics(supernet, data, task, **settings)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    for row in rows:
        activity.doing(f"trial {row['id']}", "testing")
        arch = np.asarray(problem.space.decode(row["arch"]), np.int32)
        tested = task.metric.value(float(accuracy(variables, jnp.asarray(arch)[None])[0]))
        yield own(jax.device_get(statistics(variables, jnp.asarray(arch))), arch), tested
