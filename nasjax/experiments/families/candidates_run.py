"""Methods that try candidates one by one: a searcher, and an evaluator that trains each or looks it up in a table."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax import catalog
from nasjax.data.dataset import in_files
from nasjax.drive.pictures import take
from nasjax.drive.progress import progress
from nasjax.drive.recorded import Summary
from nasjax.drive.search import search
from nasjax.drive.streams import streams
from nasjax.drive.work import worker
from nasjax.evaluators.child import STRATEGIES, child
from nasjax.evaluators.cost_model import choose_strategy, chunk_size, later_seconds, usable_bytes
from nasjax.evaluators.table import check_accuracies, load_table, require_cost, table
from nasjax.experiments.families import scored
from nasjax.experiments.families.candidates import CandidateConfig
from nasjax.experiments.families.limits import limited, longest, require_reachable
from nasjax.experiments.families.settings import closing, dataset_facts, latency_facts, nothing_left, refusal
from nasjax.experiments.families.traded import traded
from nasjax.experiments.families.true_results import with_truth
from nasjax.problem.meaning import of_networks
from nasjax.problem.problem import Problem
from nasjax.runtime.inline import inline, within
from nasjax.store import artifacts, checkpoint, workdir
from nasjax.train import activity
from nasjax.train.augment import require_suited
from nasjax.train.by_parts import unsuited
from nasjax.train.compiling import jit
from nasjax.train.recipe import require_batch
from nasjax.types import (
    Budget,
    Built,
    Evaluator,
    Experiment,
    Outcome,
    PyTree,
    Runtime,
    Searcher,
    Space,
    Watch,
    afterwards,
)

_WEIGHT_BYTES = 5  # of a stored weight, with its share of the running statistics
_STATE_BYTES = 2 * _WEIGHT_BYTES + 8  # with the state of its training: the weights again, two numbers of the optimiser
_FILE_BYTES = 2**18  # of the names and headers in a file of weights, at most
_SAMPLES = 16  # architectures whose mean stands for the space in the estimate of time and memory


class Judged(NamedTuple):
    """How the candidates of a space are judged."""

    evaluator: Evaluator
    facts: dict[str, Any]  # for config.json: data, metric, chosen strategy, estimates


def experiment(
    problem: Problem,
    searcher: Searcher,
    metrics: Callable[[PyTree], dict[str, Any]] | None = None,
    kept: int | None = None,
    most: int | None = None,
    known_scores: Callable[[np.ndarray], dict[str, float | None]] | None = None,
    continued: bool = False,
    beside_first: tuple[float, float] = (1.0, 1.0),
    drawn: Space | None = None,
) -> Experiment:
    """A searcher on a problem.

    Args:
      problem: what is searched, and how candidates are trained.
      searcher: what to try next.
      metrics: its state -> scalars for metrics.jsonl.
      kept: how many finished trials the searcher may still inherit from, beside the parents of those at work and the
        best; None if unknown. Used to estimate disk space before a run.
      most: trials that it can make; None = any number.
      known_scores: Arch -> {name: score}, for trials.jsonl, where the searcher goes by any.
      continued: whether it proposes that a candidate's training goes on, so that its state is kept.
      beside_first: what a proposal compiles and trains in the mean, beside the first one; for the estimate of a run.
      drawn: the `limited` space, where the searcher draws from it: then limits that no draw keeps to are refused.
        That of memory always is.

    Raises ValueError or FileNotFoundError that says what to write instead.
    """
    config: CandidateConfig = problem.config
    budget = Budget(config.trials, config.wall_s, config.cost_s)
    found = functools.cache(lambda: judged(problem, kept, continued))
    refuse = scored.refusal(config, refusal(config))
    describe = None if problem.looked_up else scored.scored(problem, problem.describe)

    def named(arch: np.ndarray) -> dict[str, Any]:
        row = problem.named(arch)
        return {**row, "scores": known_scores(arch)} if known_scores else row

    def run(path: Path, watch: Watch, runtime: Runtime | None = None) -> Outcome:
        metric = problem.metric
        # Children of one program train side by side; others wait for none.
        strategy = (workdir.read(path) if runtime else found().facts)["strategy"]
        width = config.width if runtime is None or strategy == "vmap" else 1
        done = len(checkpoint.read_lines(path / "trials.jsonl"))
        workers = runtime.workers if runtime else 0
        compiles, trains = beside_first

        def later(count: int, programs_s: float, rest_s: float) -> float:
            return later_seconds(strategy, width, count, compiles * programs_s, trains * rest_s)

        activity.doing("search", "" if runtime else "preparing the first candidates")
        so_far: Summary | None = None

        def told(summary: Summary) -> None:
            nonlocal so_far
            so_far = summary
            show(summary)

        def shown() -> None:  # also of a search that was interrupted
            if so_far is not None and so_far.weights is not None:
                _show_best(problem, path, so_far)

        alone = runtime is None and strategy == "exact" and width == 1  # no other one's program is compiled meanwhile
        pace: dict[str, Any] = {"later": later, "workers": workers, "anew": compiles, "second": alone}
        with afterwards(shown), progress(budget, metric, watch, done=done, **pace) as show:
            so_far = search(
                streams(config.seed).search,
                searcher,
                runtime or inline(worker(found().evaluator, path, describe, refuse, config.save_every)),
                workdir=path,
                budget=budget,
                describe=with_truth(config, named),
                width=width,
                nothing_left=nothing_left(config, most),
                metrics=metrics,
                timeout_s=config.trial_timeout,
                on_told=told,
                record=watch.record,
            )
        return closing(problem, path, so_far, metric, not problem.looked_up)

    def facts() -> dict[str, Any]:
        known = found().facts
        if drawn is not None or config.max_memory_mb is not None:
            require_reachable(problem, limited(problem) if drawn is None else drawn)
        return known

    return Experiment(
        config,
        facts=facts,
        run=run,
        evaluator=lambda: found().evaluator,
        describe=lambda: describe,
        refuse=refuse,
        searcher=searcher,
    )


def _show_best(problem: Problem, path: Path, summary: Summary) -> None:
    """What the best trial, with the weights that it ended with, makes of some validation samples."""
    assert summary.best is not None and summary.weights is not None
    built, data = problem.built(summary.best["arch"]), problem.data
    variables = artifacts.load(path, summary.weights)["variables"]
    title = f"The best of the search, trial {summary.best['id']}"
    take(path / "pictures" / "best.npz", problem.task, built, problem.config.recipe, variables, data.valid, data, title)


def judged(problem: Problem, kept: int | None = None, continued: bool = False) -> Judged:
    """Loads the data or the table that a problem names. Raises ValueError or FileNotFoundError with what to write.

    `kept` and `continued` as of `experiment`.
    """
    config, space, builder = problem.config, problem.space, problem.builder
    with_truth(config, space.encode)  # refuses a table that cannot be read
    if problem.looked_up:
        return _tabular(problem)
    task, data = problem.task, problem.data
    require_suited(config.recipe.augment, data.train.x.shape[1:], "recipe.augment")
    require_batch(config.recipe.batch_size, len(data.train.y), "recipe.batch_size")
    masked = builder.masked(space, problem.form, problem.signature) if builder.masked else None
    builts = _sample(problem)
    scored.require(problem, builts[0])
    size = len(data.train.y)
    chosen, estimates = choose_strategy(builts, masked, config.recipe, size, jax.default_backend(), config.trials)
    if config.strategy != "auto":
        chosen = config.strategy
    elif problem.begun in STRATEGIES:
        chosen = problem.begun
    elif chosen == "vmap" and (continued or in_files(data)):
        chosen = "exact"  # children of several lengths do not end together, images in files go to one child at a time
    if (chosen == "vmap" and not masked) or (chosen == "path" and not (masked and masked.branching)):
        raise ValueError(f"--space={space.name} has no network for strategy {chosen}; use --set strategy=exact")
    if (need := estimates["bytes"].get(chosen, 0)) > usable_bytes():
        raise ValueError(
            f"one child needs about {need / 2**30:.1f} GiB with strategy {chosen}, "
            f"{usable_bytes() / 2**30:.1f} GiB are usable; try --set strategy=exact, "
            "a smaller --set recipe.batch_size or a smaller space"
        )
    if chosen == "parts":
        network = builts[0].network(bn_eps=config.recipe.bn_eps, dtype=config.recipe.dtype)
        if reason := unsuited(network, config.recipe):
            raise ValueError(f"no network of --space={space.name} trains by parts: {reason}; use --set strategy=exact")
    if config.inherit and (builder.inherit is None or chosen in ("vmap", "path")):
        raise ValueError(f"--space={space.name} with strategy {chosen} inherits no weights; use --set inherit=false")
    if continued and config.inherit:
        raise ValueError(f"--method={config.method} goes on with a child's own weights; use --set inherit=false")
    if continued and chosen == "vmap":
        raise ValueError(
            f"--method={config.method} trains for different numbers of epochs, and with strategy vmap children end "
            "together; use --set strategy=exact"
        )
    chunk = None
    if chosen == "vmap":
        chunk = min(config.width, chunk_size(room)) if (room := estimates["bytes"].get("vmap")) else config.width
    evaluator = child(
        problem.build,
        data,
        task,
        recipe=config.recipe,
        masked=masked if chosen in ("vmap", "path") else None,
        path=chosen == "path",
        last_epochs=config.last_epochs,
        chunk=chunk,
        parts=chosen == "parts",
        inherit=builder.inherit if config.inherit else None,
        keep_weights=config.inherit,
        continued=continued,
    )
    if (config.inherit or continued) and kept is not None:
        estimates["disk"] = _disk(config, builts, kept, _STATE_BYTES if continued else _WEIGHT_BYTES)
    evaluator = traded(evaluator, config.tradeoff, problem.costs, task.metric)
    facts = {**dataset_facts(data, task), "strategy": chosen, "chunk": chunk, "estimates": estimates}
    facts["metric"] = problem.metric._asdict()
    facts |= latency_facts(problem)
    if catalog.is_own("space", space.name):
        settings = {"bn_eps": config.recipe.bn_eps, "dtype": config.recipe.dtype}
        facts["networks"] = of_networks(builts, problem.signature, **settings)
    return Judged(evaluator, facts)


def _disk(config: CandidateConfig, builts: Sequence[Built], kept: int, weight_bytes: int) -> int:
    """Bytes that inherited weights take at most: `kept` trials, the best, those at work and their parents."""
    limits = [limit for limit in (config.max_params, getattr(config.space, "max_params", None)) if limit]
    params = min(limits) if limits else max(built.params for built in builts)
    at_work = 2 * max(1, config.workers) * config.width
    return (kept + 1 + at_work) * (params * weight_bytes + _FILE_BYTES)


def _sample(problem: Problem) -> list[Built]:
    """Some networks of the space. Raises ValueError where none fits the data.

    One that is not built within the limits of time (it may hang) is left out, and after two of them all that follow.
    """

    config: CandidateConfig = problem.config
    builts, reason, hung = [], "", set[bytes]()
    for arch in np.asarray(jit(jax.vmap(config.space.sample))(jax.random.split(jax.random.key(0), _SAMPLES))):
        if len(hung) == 2 or arch.tobytes() in hung:
            continue
        try:
            builts.append(within(longest(config), functools.partial(problem.build, arch)))
        except ValueError as error:  # this one fails in training too
            reason = str(error)
        except TimeoutError as error:
            hung.add(arch.tobytes())
            reason = f"building {error}"
    if not builts:
        raise ValueError(f"no network of --space={config.space.name} fits --dataset={config.data.name}: {reason}")
    return builts


def _tabular(problem: Problem) -> Judged:
    names = problem.config.table
    if problem.config.cost_s is not None and names.cost is None and not names.fidelities:
        require_cost(names.path, problem.space, names.fitness)
    rows = load_table(
        names.path,
        problem.space,
        fitness=names.fitness,
        cost=names.cost,
        result=names.result,
        cost_scale=names.cost_scale,
        percent=names.percent,
        metric=names.metric,
        smaller=names.smaller,
        fidelities=names.fidelities,
    )
    if problem.metric.unit == "fraction":
        check_accuracies(rows, names.path)
    columns = jax.tree.leaves(rows)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns)).hexdigest()
    facts = {
        "dataset": {"name": "table", "path": names.path, "sha256": digest},
        "metric": problem.metric._asdict(),
        "strategy": "table",
    }
    return Judged(table(problem.space, rows), facts)
