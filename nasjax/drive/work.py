"""A worker's task in a search: builds and counts networks, loads parents' weights, evaluates, saves new weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.store import artifacts, unfinished
from nasjax.train import underway
from nasjax.types import Evaluation, Evaluator, Proposal, Status

Describe = Callable[[np.ndarray], dict[str, Any]]
Refuse = Callable[[dict[str, Any]], str | None]


class Work(NamedTuple):
    """Proposals to evaluate, on the host, so that it can be sent to another process."""

    key: np.ndarray  # the data of the run's key for evaluations
    ids: np.ndarray  # i32[N]; -1 = none
    archs: np.ndarray  # i32[N, A]
    parents: np.ndarray  # i32[N]
    weights: Mapping[int, str]  # parent -> sha256 of its artifact, of those that have any
    fidelities: np.ndarray | None = None  # i32[N], epochs to which each is trained in all; None = all the recipe's
    lost_s: float = 0.0  # seconds of earlier attempts at it that the driver has seen and counts


class Answer(NamedTuple):
    """Results of a `Work`."""

    evaluation: Evaluation  # numpy arrays
    weights: dict[int, str]  # trial -> sha256 of its artifact
    known: Mapping[int, dict[str, Any]] = {}  # position -> what the worker found of the network before its training
    stopped: Mapping[int, tuple[Status, str]] = {}  # position -> why it was not trained


def shelf(folder: Path, every_s: float, counted_s: float = 0.0) -> underway.Shelf:
    """A folder's files as the place where trainings are kept while they are under way; numbers as of `Shelf`."""

    def save(name: str, tree: underway.Tree) -> None:
        unfinished.save(folder, name, tree)

    return underway.Shelf(lambda name: unfinished.load(folder, name), save, every_s, counted_s)


def worker(
    evaluator: Evaluator,
    workdir: Path,
    describe: Describe | None = None,
    refuse: Refuse = lambda row: None,
    save_every: float = 60.0,
) -> Callable[[Work], Answer]:
    """The function that a runtime runs; artifacts pass through the folder `workdir`.

    Args:
      evaluator: what judges candidates.
      workdir: the folder.
      describe: Arch -> what the network's row says of it (params, macs, ...); a ValueError fails the candidate. It may
        hang in a user's code, so it runs here, where a runtime can end it, and not in the driver.
      refuse: the same row -> why not to train it (a limit), or None.
      save_every: seconds of training after which its state is saved, so that a later attempt at the work goes on.
    """

    def work(task: Work) -> Answer:
        known: dict[int, dict[str, Any]] = {}
        stopped: dict[int, tuple[Status, str]] = {}
        ids = task.ids.copy()
        for n in np.flatnonzero(ids >= 0).tolist() if describe else ():
            assert describe is not None
            try:
                known[n] = describe(task.archs[n])
            except ValueError as error:
                stopped[n] = Status.FAILED, str(error)
            else:
                if reason := refuse(known[n]):
                    stopped[n] = Status.REJECTED, reason
        ids[list(stopped)] = -1
        if stopped and (ids < 0).all():
            nothing = np.full(len(ids), np.nan, np.float32)
            return Answer(Evaluation(nothing, nothing, np.zeros(len(ids), np.int8), {}), {}, known, stopped)
        key = jax.random.wrap_key_data(jnp.asarray(task.key))
        given = (ids, task.archs, task.parents, task.fidelities)
        proposal = Proposal(*(None if x is None else jnp.asarray(x) for x in given))  # type: ignore[arg-type]
        inherited = {trial: artifacts.load(workdir, digest) for trial, digest in task.weights.items()}
        with underway.keeping(shelf(workdir, save_every, task.lost_s / int((task.ids >= 0).sum()))):
            (fitness, cost, status, info), kept = evaluator.evaluate(key, proposal, inherited or None)
        info = {name: values if name == "error" else np.asarray(values) for name, values in info.items()}
        weights = {trial: artifacts.save(workdir, tree) for trial, tree in (kept or {}).items()}
        evaluation = Evaluation(np.asarray(fitness), np.asarray(cost), np.asarray(status), info)
        return Answer(evaluation, weights, known, stopped)

    return work
