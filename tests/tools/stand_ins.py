"""What stands in for host loops, networks and data while a method's calls are recorded (`tools.handover`)."""

import functools
import json
import types

import jax
import numpy as np

from nasjax.data.dataset import DataConfig
from nasjax.drive.learn import Progress
from nasjax.drive.recorded import Summary
from nasjax.evaluators.table import Table
from nasjax.latency.memory import Memory
from nasjax.latency.predictor import Predictor
from nasjax.learners.one_shot import OneShotState
from nasjax.types import Evaluation, Evaluator, Network, Status

ROW = {"id": 0, "parent": -1, "fitness": 0.5, "params": 9, "macs": 9, "cost_s": 1.0, "status": "ok", "error": None}
CELL = {"space": "darts_cell", **dict.fromkeys(("normal", "reduce"), [["sep_conv_3x3", 0], ["sep_conv_3x3", 1]] * 4)}
EPOCH = {"skips": 1, "eigenvalue": 1.0, "done": True}


class Enough(Exception):
    """Ends what would train."""


def state_of(config, learner):
    """The learner's state before any step, or where networks have none here, what the search reads of it."""
    if hasattr(config, "supernet"):
        scores = np.zeros((config.space.layers, len(config.space.operators) + 1), np.float32)
        none = {name: np.float32(0) for name in ("momentum", "step", "epoch", "tau", "settled")}
        return OneShotState(params={"trained": np.float32(1)}, batch_stats={}, scores=scores, **none)
    if config.method == "msr_darts":
        some = {
            "choice": dict.fromkeys(("normal", "reduce"), np.ones((14, 4))),
            "valid_loss": 0.0,
            "valid_accuracy": 0.0,
        }
        return types.SimpleNamespace(params={}, batch_stats={}, best_params={"best": True}, **some)
    return learner.init(jax.random.key(0), {"train": (None, None)})


def tree_of(space):
    """An architecture as JSON."""
    if space.name == "darts_cell":
        return CELL
    return json.loads(json.dumps(space.encode(_sample(space))))


@functools.cache
def _sample(space):
    return np.asarray(jax.jit(space.sample)(jax.random.key(0)))


# -- recording --------------------------------------------------------------------------------------------------------


# -- stand-ins: (handover, the real function, *arguments, **settings) -> what it returns instead -----------------------


def learn(handover, real, key, stages, batches, *, workdir, history, stop=lambda rows: False, **settings):
    facts, row, stage, state = stages.facts(0, None, None), {}, 0, None
    while True:
        learner = stages.learner(stage, facts)
        handover.saw("learner", {"learner": learner})
        before, state = state, state_of(handover.config, learner)
        state = stages.carry(stage, facts, before, state) if stage else state
        row = {**EPOCH, "epoch": stage + 1, "stage": stage, **history(stage, facts, state)}
        rows = [{**row, "eigenvalue": float(n > 5), "skips": n % 3} for n in range(12)]
        stops = [stop(rows[: n + 1]) for n in range(12)]
        handover.saw("epoch", {"row": row, "stops": stops})
        following = stages.facts(stage + 1, facts, state)
        if following is None:
            (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
            return Progress(stage, facts, state, stage + 1, row, 1.0, 0)
        stage, facts = stage + 1, following


def search(handover, real, key, searcher, runtime, *, workdir, describe, refuse=lambda row: None, **settings):
    refusals(handover, "search refuses", refuse)
    return Summary(1, 0, {**ROW, "arch": {}}, None, None, 1.0, 1.0, 0, 0, 1, None)


def refusals(handover, name, refuse):
    for beyond in ({"params": 10**9}, {"macs": 10**9}, {"latency_ms": 9.0}, {"memory_mb": 9.0}, {"score_rank": 0.3}):
        row = {"params": 0, "macs": 0, "latency_ms": 0.0, "memory_mb": 0.0, "score_rank": 1.0, **beyond}
        handover.saw(name, {"why": refuse(row)})


def worker(handover, real, evaluator, workdir, describe=None, refuse=lambda row: None, save_every=60.0):
    refusals(handover, "worker refuses", refuse)


def train(handover, real, job, workdir, watch):
    job.test()
    raise Enough


def toy_network(handover, real, *arguments, **settings):
    def init(key, choice, x):
        return {"params": {"w": np.zeros(2, np.float32)}, "batch_stats": {}}

    return Network(init, lambda *given: (real, arguments, settings))  # it is never applied, but it differs as they do


def judge(handover, real, *arguments, **settings):
    def validate(params, batch_stats, choice, batches):
        handover.saw("validated", {"params": params})
        return 0.5, 0.25 * len(handover.calls["validated"])

    return validate


def scored(handover, real, *arguments, **settings):
    def evaluate(key, proposal, inherited=None):
        n = len(proposal.id)
        return Evaluation(np.arange(n) / n, np.zeros(n), np.full(n, Status.OK, np.int8), {}), None

    return Evaluator(evaluate)


def untrained(handover, real, names, *arguments):
    return {name: float(len(handover.calls["evaluators.scores.named.untrained_scores"])) for name in names}


def known_data(handover, real, config, source, told=None):
    return _data(real, config.name, source)


@functools.cache
def _data(real, name, source):
    data = real(DataConfig(name), source)
    if hasattr(data, "train"):
        parts = (data.train, data.valid)
        first = [jax.tree.map(lambda leaf: leaf[:128], part) for part in parts]
        return data._replace(train=first[0], valid=first[1])
    return jax.tree.map(lambda leaf: leaf[:8], data)


def known_latency(handover, real, file):
    fastest = {"ms": 0.5, "arch": tree_of(handover.config.space)}
    own = {"facts": {"measured": [fastest]}, "where": "here", "sha256": "", "require": lambda networks, file: None}
    return types.SimpleNamespace(predictor=Predictor(1.0, np.zeros((1, 2)), 0.0, 0.0), **own)


def known_table(handover, real, path, space, **names):
    assert space.size() < 10**5, "a table holds every architecture"
    rows = np.arange(space.size(), dtype=np.float32) / space.size()
    return Table(rows, rows, rows, rows >= 0)


def no_workers(handover, real, begin, arguments, **settings):
    raise Enough


STAND_INS = {
    "nasjax.drive.learn.learn": learn,
    "nasjax.drive.search.search": search,
    "nasjax.drive.work.worker": worker,
    "nasjax.drive.retrain.retrain": train,
    "nasjax.drive.foresight.require_trainable": lambda *given, **settings: None,
    "nasjax.nets.darts_cell.mixed.darts_search": toy_network,
    "nasjax.nets.tabular_cell.mixed.tabular_mixed": toy_network,
    "nasjax.train.passes.validation": judge,
    "nasjax.learners.curvature.hessian_product": lambda *given, **settings: lambda *at: None,
    "nasjax.learners.curvature.largest_eigenvalue": lambda *given, **settings: 1.0,
    "nasjax.learners.msr_darts.stable_ranks": lambda *given, **settings: {"normal": np.zeros((1, 1))},
    "nasjax.learners.msr_darts.derive": lambda *given, each_cell=False, **settings: (
        {"space": CELL["space"], "cells": [CELL["normal"]] * 3} if each_cell else CELL
    ),
    "nasjax.evaluators.path_training.trained_alone": scored,
    "nasjax.evaluators.scores.named.untrained_scores": untrained,
    "nasjax.data.dataset.load": known_data,
    "nasjax.data.dataset.load_test": known_data,
    "nasjax.evaluators.table.load_table": known_table,
    "nasjax.latency.record.read": known_latency,
    "nasjax.latency.memory.memory": lambda handover, real, built, signature, batch: Memory(0, 10**6 * batch),
    "nasjax.latency.fastest.fastest": lambda handover, real, space, start, ms: (start, 0.5),
    "nasjax.runtime.process.process": no_workers,
    "nasjax.runtime.ray.ray": no_workers,
}
