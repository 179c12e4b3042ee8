"""What the experiments on weight-sharing supernets are made of: the parts of the three phases."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax import catalog
from nasjax.evaluators.supernet import indicator, inherited_accuracy, path_accuracy, with_costs
from nasjax.experiments.families.beginning import beginning
from nasjax.experiments.families.limits import limited, require_reachable
from nasjax.experiments.families.path_costs import Cost, cost_of, memory_of, objectives, within
from nasjax.experiments.families.settings import dataset_facts, latency_facts
from nasjax.experiments.families.supernet_options import network_options
from nasjax.experiments.families.supernets_settings import OneShotConfig
from nasjax.experiments.families.true_results import with_truth
from nasjax.latency.record import Latency
from nasjax.learners import samplers
from nasjax.learners.one_shot import EarlyBird, one_shot
from nasjax.nets.supernet import Shared, Supernet
from nasjax.problem.meaning import of_networks
from nasjax.problem.problem import Problem
from nasjax.searchers.nsga2 import nsga2
from nasjax.searchers.topk import topk_evolution
from nasjax.train.augment import require_suited
from nasjax.train.batches import Batches, training
from nasjax.train.fit import resident
from nasjax.train.parallel import device_count
from nasjax.train.recipe import require_batch
from nasjax.train.streaming import streamed
from nasjax.train.transfer import Transfer
from nasjax.types import Evaluator, Metric, PyTree, Searcher, Stages


class OneShot(NamedTuple):
    """The parts of a one-shot method, ready for `drive.learn` and then `drive.search`."""

    problem: Problem
    metric: Metric  # of the search's scores
    shared: Shared
    supernet: Supernet
    stages: Stages
    batches: Batches
    searcher: Searcher
    evaluator: Callable[[PyTree], Evaluator]  # state of the trained supernet -> how paths are judged
    describe: Callable[[np.ndarray], dict[str, Any]]
    facts: dict[str, Any]  # for config.json
    begin: Callable[[], Callable[[PyTree], Transfer]]  # `beginning`, read when first called; where init_from names any

    @property
    def config(self) -> OneShotConfig:
        """The settings of the run."""
        found: OneShotConfig = self.problem.config
        return found


def parts(problem: Problem) -> OneShot:
    """The parts of the search that the settings of a problem describe.

    Raises ValueError where they do not fit each other or the data, FileNotFoundError where there is no data.
    """
    config: OneShotConfig = problem.config
    task, data = problem.task, problem.data
    require_suited(config.augment, data.train.x.shape[1:], "augment")
    require_batch(config.supernet.batch_size, len(data.train.y), "supernet.batch_size")
    shared = shared_of(problem)
    space, settings, devices = config.space, config.supernet, device_count()
    if settings.fresh_batches and settings.batch_size % ((paths := samplers.strict_paths(space)) * devices):
        raise ValueError(
            f"fresh_batches divides supernet.batch_size={settings.batch_size} among {paths} paths on {devices} "
            f"device(s); make it a multiple of {paths * devices}"
        )
    divided = (samplers.strict_paths(space) if settings.fresh_batches else 1) * devices
    if settings.accumulate > 1 and settings.batch_size % (divided * settings.accumulate):
        raise ValueError(
            f"supernet.accumulate={settings.accumulate} does not divide the "
            f"{settings.batch_size / divided:g} samples that a device has of supernet.batch_size={settings.batch_size}"
        )
    arrays = resident(data)
    more = network_options(settings, shared, space.name)
    supernet = shared.network(affine=settings.affine, dropout=settings.dropout, dtype=settings.dtype, **more)
    scales = settings.trainable, settings.early_bird, config.search.score
    if supernet.scores is None and scales != ("all", None, "accuracy"):
        what = "share batch norms among operators" if settings.entangled else "have no batch norms"
        raise ValueError(
            f"networks of --space={space.name} {what} for --method={config.method} to train or score; "
            "choose another space, or set supernet.trainable=all, supernet.early_bird=none and search.score=accuracy"
        )
    begin = functools.cache(lambda: beginning(problem, supernet))
    if config.init_from and not problem.begun:
        begin()
    batches = training(arrays, task, batch_size=settings.batch_size, cfg=config.augment, devices=devices)
    sampler = sampler_of(config, shared)

    def learner(stage: int, facts: Any) -> Any:
        return one_shot(
            supernet,
            sampler,
            epochs=settings.epochs,
            epoch_steps=batches.epoch_steps,
            task=task,
            descent=settings.descent,
            trainable=settings.trainable,
            fresh_batches=settings.fresh_batches,
            accumulate=settings.accumulate,
            distill=settings.distill,
            regularised="first" if settings.regularise == "largest" else "all",
            early_bird=None if settings.early_bird is None else EarlyBird(settings.early_bird),
            affine=settings.affine,
        )

    # Here, so that what does not fit is told before any training.
    names = config.search.objectives if config.search.searcher == "nsga2" else ()
    memory = memory_of(problem)
    more_params = config.search.prefer_params == "more"
    costs = objectives(names, shared.counter, problem.latency, memory, more_params=more_params)
    if config.max_memory_mb is not None:
        require_reachable(problem, limited(problem))
    accuracy = None
    if config.search.score == "accuracy":
        accuracy = path_accuracy(
            supernet,
            arrays,
            task,
            calibration_batches=config.search.calibration_batches,
            batch_size=config.search.calibration_batch_size,
            average=config.search.average,
        )

    def evaluator(state: PyTree) -> Evaluator:
        if accuracy is None:
            judged = indicator(space, state.scores)
        else:
            together = {"chunk": config.search.population} if streamed(arrays) else {}  # a file is read once for all
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            judged = inherited_accuracy(accuracy, variables, **together)
        if costs:
            judged = with_costs(judged, *costs)
        return judged

    metric = task.metric if accuracy else Metric("batch norm score", "plain")
    strategy = f"one supernet on {devices} device(s)"
    facts = {**dataset_facts(data, task), "metric": metric._asdict(), "strategy": strategy, **latency_facts(problem)}
    if catalog.is_own("space", space.name):
        some = [np.asarray(space.sample(key)) for key in jax.random.split(jax.random.key(0), 4)]
        builts = [problem.build(arch) for arch in some]
        facts["networks"] = of_networks(builts, problem.signature, bn_eps=1e-5, dtype="float32")
    stages = Stages(lambda i, facts, state: {} if i == 0 else None, learner)
    searcher = searcher_of(config, shared, problem.latency, memory)
    describe = with_truth(config, describer(space, shared, problem.predicted))
    return OneShot(problem, metric, shared, supernet, stages, batches, searcher, evaluator, describe, facts, begin)


def shared_of(problem: Problem) -> Shared:
    """The supernet of the problem's space. Raises ValueError where it does not fit the data."""
    assert problem.builder.shared is not None
    shared: Shared = problem.builder.shared(problem.space, problem.form, problem.signature)
    return shared


def describer(
    space: Any, shared: Shared, predicted: Callable[..., dict[str, float]] = lambda arch, params, macs: {}
) -> Callable[[np.ndarray], dict[str, Any]]:
    """Arch -> its JSON form, parameters and multiply-adds of the network that is retrained, and what is `predicted`."""

    def describe(arch: np.ndarray) -> dict[str, Any]:
        params, macs = shared.counts(arch)
        known = {"arch": space.encode(arch), "hash": space.identity(arch), "params": params, "macs": macs}
        return known | predicted(arch, params, macs)

    return describe


def sampler_of(config: OneShotConfig, shared: Shared) -> samplers.Sampler:
    """Which paths a step of the supernet trains."""
    match config.supernet.sampler:
        case "uniform":
            return samplers.uniform(config.space)
        case "macs_bins":
            bins, (_, smallest), largest = config.supernet.bins, shared.smallest or (0, 0), shared.largest_macs
            if bins and (bins[0] > (largest or math.inf) or bins[-1] <= smallest):
                raise ValueError(
                    f"supernet.bins={bins[0]}..{bins[-1]} holds no path: they have {smallest} to {largest} "
                    "multiply-adds; set supernet.bins within"
                )
            return samplers.macs_bins(config.space, shared.counter("macs"), config.supernet.bins)
        case "strict":
            return samplers.strict_fairness(config.space)
        case "sandwich":
            if shared.ends is None:
                raise ValueError(
                    f"the largest and the smallest path of --space={config.space.name} are not known to "
                    "supernet.sampler=sandwich; choose another space, or set supernet.sampler=uniform"
                )
            return samplers.sandwich(config.space, shared.ends, config.supernet.random_paths)


def searcher_of(
    config: OneShotConfig, shared: Shared, latency: Latency | None = None, memory: Cost | None = None
) -> Searcher:
    """The evolution over paths, within --max_macs, --max_params, --max_latency_ms and --max_memory_mb."""
    search, limits = config.search, list[tuple[float, Cost]]()
    for name, limit, least in zip(
        ("params", "macs"), (config.max_params, config.max_macs), shared.smallest or (0, 0), strict=True
    ):
        if limit is not None and limit < least:
            raise ValueError(
                f"max_{name}={limit}, but the smallest path has {least} {name}; allow more, or leave it out"
            )
        if limit is not None:
            limits.append((min(limit, 2**31 - 1), shared.counter(name)))  # counts have 32 bits, so no path is beyond

    if config.max_latency_ms is not None:
        limits.append((config.max_latency_ms, cost_of("latency", shared.counter, latency, memory)))
    if config.max_memory_mb is not None:
        limits.append((config.max_memory_mb, cost_of("memory", shared.counter, latency, memory)))
    bound = within(limits)
    capacity = max(config.trials, search.population, 10_000)  # not the budget itself, which a resumed run may change
    if search.searcher == "nsga2":
        return nsga2(
            config.space,
            objectives=1 + len(search.objectives),
            population=search.population,
            mutation_rate=search.mutation_rate,
            feasible=bound,
            capacity=capacity,
        )
    return topk_evolution(
        config.space,
        population=search.population,
        top_k=search.top_k,
        mutants=search.mutants,
        crossovers=search.crossovers,
        mutation_rate=search.mutation_rate,
        feasible=bound,
        capacity=capacity,
    )


def describe(problem: Problem) -> dict[str, Any]:
    """What --mode=inspect says of the supernet; a path's multiply-adds lie between the two given."""
    shared = shared_of(problem)
    more = {"entangled": True} if problem.config.supernet.entangled else {}
    return {
        "describes": "supernet",
        "params": shared.params(problem.config.supernet.affine, **more),
        "macs": shared.largest_macs,
        "macs_of_smallest_path": shared.smallest[1] if shared.smallest else None,
    }
