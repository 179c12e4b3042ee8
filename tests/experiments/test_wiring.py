"""Every setting reaches what uses it: each is changed alone, and what a run hands to the library must change.

The records of `tools.handover` are compared. That a receiver uses what it is given is shown by `test_receivers.py`.
"""

import dataclasses
import fnmatch
import functools
import itertools
import json
import re
import typing

import numpy as np
import pytest
from tools.handover import ARRIVED, METHODS_OWN, Handover, Plain, difference

from nasjax import catalog, commands
from nasjax.settings import override

# name: method, space (None = the method's own), settings that all runs of the case share, and which it is about
CASES = {
    **{name: (name, None, (), "") for name in catalog.METHODS},
    "a table": ("random", "tabular_cell", ("table.path=a.npz", "space.edges=3"), "table|truth"),
    "cells": ("random", "tabular_cell", ("space.edges=3",), "form|truth"),
    "darts of cells": ("darts", "tabular_cell", ("space.edges=3",), "form|truth"),
    "pc_darts of cells": ("pc_darts", "tabular_cell", ("space.edges=3",), "form|truth|search"),
    "bo of a table": ("bo", "tabular_cell", ("table.path=a.npz", "space.edges=3"), r"search\.(sc|st)"),
    "topk of chains": ("topk", "choice_chain", (), "search"),
    "spos of cells": ("spos", "tabular_cell", ("space.edges=3",), "form|truth"),
}
for _name in ("random", "reinforce", "topk", "bo", "local_search", "asha"):
    CASES[_name] = (_name, None, ("space.min_layers=2", "space.max_layers=2"), "")
OF_CELLS = ("table.*", "truth*")  # settings that only the cells of NAS-Bench-201 have
NAMES = ("method", "preset", "plugin")  # nothing to change alone

# Settings that change no number, and why. A line that is no longer true fails.
SILENT = {
    "reinforce_rnn: search.depth_first": "cell trees have no depth",
    "p_darts: search.layers": "the stages have depths",
    "topk: search.mutation_rate": "chains of convolutions mutate a decision, not every gene at a rate",
    "msr_darts: space.none": "it has no weights to judge",
    "msr_darts: search.adam": "there are no architecture parameters",
}

# Settings whose other values cannot be tried here: they reach what says so.
REFUSED = {
    "*: inherit": "inherits no weights",
    "*: init_from": "has no trained supernet",
    "bo: search.s[ct]*": "cannot be listed",
    "*: search.score_file": "no file of scores at",
    "asha: strategy": "with strategy vmap children end together",
    "*: form.auxiliary": "the auxiliary head needs maps of 8x8",
    "[!s]*: supernet.last_norms": "is for shuffle blocks",
    "spos*: supernet.entangled": "leaves no choice here",
    "bn_nas: supernet.entangled": "share batch norms among operators",
    "spos of cells: supernet.sampler": "are not known to supernet.sampler=sandwich",
    "[!m]*: space.cells": "leave out space.cells",
    "p_darts: space*": "operators must fall from the space's",
    "drnas: space.robust": "leave out space.operators and none",
    "drnas: space*": "operators must fall from the space's",
    "msr_darts: space.robust": "every edge needs two of",
}

LABELS = ("supernet.distill=false", "supernet.regularise=all")
FAMILY = ("darts", "pc_darts", "p_darts", "msr_darts", "gdas", "drnas")
# What a setting needs beside it to have an effect: what is set in both runs, and the value in one of them.
WITH = {
    "*: data": ((), "data.split_seed=3"),
    "asha: recipe": ((), "recipe.batch_size=32"),  # its epochs are those of the last rung, too
    **{f"{method}: form": ((), "form.channels=10") for method in FAMILY},
    "*: form.channels": ((), "10"),
    "*: *dtype": ((), "bfloat16"),
    "asha: strategy": ((), "vmap"),
    "asha: search.initial": (("search.sampler=bo",), "5"),
    "asha: search.rungs": ((), "3,4"),
    "*: strategy": ((), "exact"),
    "*: runtime": (("workers=1",), "ray"),
    "*: workers": (("workers=1",), "2"),
    "*: ray": (("workers=1", "runtime=ray"), "ray.num_cpus=2"),
    "*: trial_timeout": (("workers=1",), "9"),
    "*: max_params": ((), "50000"),
    "*: max_macs": ((), "500000"),
    "*: latency": ((), "b.json"),
    "*: max_latency_ms": (("latency=b.json",), "7"),
    "*: max_memory_mb": ((), "7"),
    "*: tradeoff*": (("tradeoff.costs=macs", "tradeoff.targets=5.0"), None),
    "*: memory_batch": (("max_memory_mb=7",), "2"),
    "*: search.objectives": (("search.searcher=nsga2",), "params"),
    "*: truth": ((), "b.npz"),
    "*: truth_percent": (("truth=b.npz",), "true"),
    "*: candidate_scores": ((), "naswot"),
    "*: refuse_worst": (("candidate_scores=naswot",), "0.5"),
    "*: search.start": ((), "params"),
    "bo*: search.scores": ((), "params"),
    "bo*: search.score_file": (("search.scores=params,mine",), "x.npz"),
    "a table: table.percent": ((), "true"),
    "a table: table.cost_scale": ((), "0.5"),
    "a table: table.smaller": ((), "true"),
    "a table: table.*": ((), "other"),
    "random: search.depth_first": ((), "1"),
    "random: search.depth_*": (("search.depth_first=2",), None),
    "reinforce: search.depth_first": ((), "1"),
    "reinforce: search.reward": ((), "fitness"),
    "*: search.replicas": (("search.replicas=3",), "2"),
    "topk*: search.[mc]*s": ((), "3"),
    "msr_darts: space.cells": (("form.layers=3",), "3"),
    "msr_darts: search.own_rank": (("search.weigh_by_rank=true",), "true"),
    "gdas: search.tau": ((), "5.0,0.1"),
    "drnas: space.robust": ((), "S2"),
    "drnas: search.partial": ((), "4,1"),
    "drnas: search.operators": ((), "7,5"),
    "p_darts: search.depths": ((), "3,4,4"),
    "p_darts: search.operators": ((), "8,6,3"),
    "p_darts: search.dropout": ((), "0.0,0.4,0.6"),
    "spos*: search.score": (("supernet.affine=true",), "indicator"),
    "bignas: search.score": (("supernet.entangled=false",), "indicator"),
    "bignas: search.searcher": (("search.objectives=macs,params",), "topk"),
    "bignas: search.top_k": (("search.objectives=macs,params", "search.searcher=topk"), "9"),
    "bignas: search.[mc]*s": (("search.objectives=macs,params", "search.searcher=topk"), "9"),
    "bignas: supernet.trainable": (("supernet.entangled=false",), "last_bn"),
    "bignas: supernet.early_bird": (("supernet.entangled=false",), "0.9"),
    "bignas: supernet.sampler": ((*LABELS, "supernet.bins=30000,90000"), "uniform"),
    "bignas: supernet.bins": (
        (*LABELS, "supernet.sampler=macs_bins", "supernet.bins=30000,90000"),
        "30000,60000,90000",
    ),
    "bignas: supernet.fresh_batches": (
        (*LABELS, "supernet.sampler=strict", "space.choose_identity=false", "supernet.batch_size=6"),
        "true",
    ),
    "*: supernet.random_paths": (("supernet.sampler=sandwich",), "1"),
    "*: supernet.distill": (("supernet.sampler=sandwich",), None),
    "*: supernet.regularise": (("supernet.sampler=sandwich",), None),
    "bn_nas: search.calibration_*": (("search.score=accuracy", "search.calibration_batch_size=4"), "9"),
    "bn_nas: search.average": (("search.score=accuracy", "search.calibration_batch_size=1"), "ema"),
    "*: search.average": (("search.calibration_batches=100", "search.calibration_batch_size=1"), "ema"),
    "fairnas: search.top_k": (("search.searcher=topk",), "9"),
    "fairnas: search.[mc]*s": (("search.searcher=topk",), "9"),
    "*: search.mutants": ((), "9"),
    "*: search.crossovers": ((), "9"),
    "*: search.prefer_params": (("search.searcher=nsga2", "search.objectives=macs,params"), "more"),
    "*: supernet.batch_size": ((), "32"),
    "*: supernet.trainable": (("supernet.affine=true",), "last_bn"),
    "*: supernet.early_bird": (("supernet.affine=true",), "0.9"),
    "bn_nas: supernet.affine": (
        ("supernet.trainable=all", "search.score=accuracy", "supernet.early_bird=none"),
        "false",
    ),
    "spos: supernet.fresh_batches": (("supernet.batch_size=4",), "true"),
    "*: supernet.fresh_batches": (("supernet.batch_size=6",), "true"),
    "*: supernet.accumulate": ((), "2"),
    "*: search.accumulate": ((), "2"),
    "*: supernet.last_norms": ((), "both"),
    "spos: supernet.sampler": (("supernet.bins=30000,90000",), "macs_bins"),
    "*: supernet.sampler": (("supernet.bins=90000,990000",), "macs_bins"),
    "spos: supernet.bins": (("supernet.sampler=macs_bins", "supernet.bins=30000,90000"), "30000,60000,90000"),
    "*: supernet.bins": (("supernet.sampler=macs_bins", "supernet.bins=90000,990000"), "90000,500000,990000"),
}


def changed(base, run, phases):
    """The first phase in which two runs differ: the parameters that do, and the calls of the second."""
    for n in phases:
        found = difference(base.phase(n), run.phase(n))
        if any(name.startswith(ARRIVED) for name, _ in found):
            return found, run.phase(n)
    return set(), {}


def settings(config, at=""):
    """(dotted name, value, type) of every setting; a settings record stands before what it holds."""
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value = f"{at}{field.name}", getattr(config, field.name)
        yield name, value, kinds[field.name]
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{name}.")


def others(value, kind):
    """Texts of other values of a setting, for `override`."""
    options = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return [str(option) for option in options if option != value]
    if isinstance(value, bool):
        return [str(not value).lower()]
    if isinstance(value, int):
        return [str(value + 1), str(value - 1), str(value * 2), str(value // 2)]
    if isinstance(value, float):
        return [str(value / 2), "0.25", str(value + 0.5)]
    if isinstance(value, tuple):
        return [",".join(map(str, value[:-1])), ",".join(map(str, value[1:]))] if len(value) > 1 else ["2", "1,3"]
    found = [text for option in options for text in (typing.get_args(option) or [option]) if isinstance(text, str)]
    return [*found, "3", "0.25", "other.npz"]


def alone(config, name, value, kind):
    """`config` with another value of one setting; of a settings record, of the first of its settings that has one."""
    if dataclasses.is_dataclass(value):
        inside = (alone(config, *one) for one in settings(value, f"{name}."))
        return next((found for found in inside if found is not None), None)
    for text in others(value, kind):
        try:
            found = override(config, f"{name}={text}")
        except (TypeError, ValueError):
            continue
        if found != config:
            return found
    return None


def holds(record, whole):
    """Whether a plain value has another somewhere inside."""
    if record == whole:
        return True
    inside = record.values() if isinstance(record, dict) else record if isinstance(record, list) else ()
    return any(holds(one, whole) for one in inside)


def of(table, case, name):
    return next((table[line] for line in table if fnmatch.fnmatch(f"{case}: {name}", line)), None)


def problems(case, folder):
    """What is wrong with the wiring of a method, a line each."""
    method, space, shared, about = CASES[case]
    numbers, runs = itertools.count(), {}
    plain = override(commands.configure(method, space=space), *shared)

    def run(config):
        if repr(config) not in runs:
            runs[repr(config)] = Handover(config, folder / str(next(numbers)))
        return runs[repr(config)]

    again = Handover(plain, folder / "again")
    for n in range(4):  # without a change there is no difference
        yield from [f"{one} differs by itself" for one in difference(run(plain).phase(n), again.phase(n))]
    whole = []  # records that are handed on as they are
    for name, value, kind in settings(plain):
        skipped = name in (*METHODS_OWN, *NAMES) or not re.match(about, name)
        skipped |= space is None and any(fnmatch.fnmatch(name, one) for one in OF_CELLS)
        skipped |= value is None and (kind is typing.Any or any(map(dataclasses.is_dataclass, typing.get_args(kind))))
        if skipped or any(name.startswith(f"{one}.") for one in whole):
            continue
        context, text = of(WITH, case, name) or ((), None)
        base = override(plain, *context)
        value = functools.reduce(getattr, name.split("."), base)
        silent, refused = of(SILENT, case, name), of(REFUSED, case, name)
        if silent:
            whole.append(name)
        try:
            if text:
                other = override(base, text if "=" in text else f"{name}={text}")
            elif (other := alone(base, name, value, kind)) is None:
                yield f"{name}={value}: which other value?"
                continue
            found, calls = changed(run(base), run(other), (3, 0, 1, 2) if name.startswith("retrain") else range(4))
        except ValueError as error:
            if not refused or refused not in str(error):
                yield f"{name}: {error}"
            continue
        if bool(found) == bool(silent):
            yield f"{name} changes {sorted(found) or 'nothing'}"
        elif dataclasses.is_dataclass(value):
            now = Plain()(functools.reduce(getattr, name.split("."), other))
            if any(holds(one.get(parameter), now) for call, parameter in found for one in calls.get(call, ())):
                whole.append(name)
        elif found:
            last, names = name.split(".")[-1], {parameter for _, parameter in found}
            if last in {parameter for ones in calls.values() for one in ones for parameter in one} - names:
                yield f"{name} changes {sorted(found)}, but no {last}"


AGAIN = (" of cells", "cells", " of a table")  # methods of other cases, over another space
ALIKE = (
    "fairnas",
    "bignas",
    "bo",
    "pc_darts",
    "p_darts",
)  # other methods of their families are in the default selection


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case.endswith(AGAIN) or case in ALIKE)) for case in CASES]
)
def test_every_setting_reaches_what_uses_it(case, tmp_path):
    assert not list(problems(case, tmp_path))


# What reaches more than one receiver: method, what else is set, the setting, and all that it must change.
SEVERAL = {
    "darts: seed=5": "drive.learn.learn.key drive.retrain.retrain.job",
    "spos: seed=5": "drive.learn.learn.key drive.search.search.key drive.retrain.retrain.job",
    "random: seed=5": "drive.search.search.key drive.retrain.retrain.job",
    "random: retrain.part=all": "data.dataset.joined.calls",
    "random: recipe.clip=1.0": "evaluators.child.child.recipe",
    "random: workers=1 trial_timeout=9": "drive.search.search.timeout_s",
    "random: data.split_seed=5": "data.dataset.load.config data.dataset.load_test.config",
    "random: max_params=9": "refused.why",
    "random: max_macs=9": "refused.why",
    "random: latency=b.json max_latency_ms=7": "refused.why",
    "spos: max_memory_mb=7": "searchers.topk.topk_evolution.feasible refused.why",
    "spos: latency=b.json max_latency_ms=7": "searchers.topk.topk_evolution.feasible refused.why",
    "fairnas: latency=b.json search.objectives=macs,latency": "evaluators.supernet.with_costs.costs",
    "fairnas: search.objectives=macs,memory": "evaluators.supernet.with_costs.costs",
    "evolution: inherit=false": "evaluators.child.child.inherit evaluators.child.child.keep_weights",
    "msr_darts: search.score.operator=true": (
        "learners.msr_darts.derive.score learners.msr_darts.stable_ranks.score learners.msr_darts.msr_darts.score"
    ),
    "spos: max_macs=50000": "searchers.topk.topk_evolution.feasible refused.why",
    "spos: max_params=8000": "searchers.topk.topk_evolution.feasible refused.why",
    "bn_nas: max_macs=500000": "searchers.topk.topk_evolution.feasible refused.why searchers.additive.best_path.limit",
    "spos: retrain.sample=1 form.dropout=0.5": (
        "evaluators.path_training.trained_alone.supernet drive.retrain.retrain.job"
    ),
    "spos: retrain.sample=1 retrain_recipe.epochs=7": (
        "evaluators.path_training.trained_alone.recipe drive.retrain.retrain.job"
    ),
}


def whole(case, assignments, folder):
    """The calls of all phases, {function: [{parameter: value}]}."""
    method, space, shared, _ = CASES[case]
    run = Handover(override(commands.configure(method, space=space), *shared, *assignments), folder)
    found = {}
    for n in range(4):
        for name, calls in run.phase(n).items():
            found.setdefault(name, []).extend(calls)
    return found


@pytest.mark.parametrize("line", SEVERAL)
def test_a_setting_reaches_all_that_use_it(line, tmp_path):
    case, assignments = line.split(": ")
    *context, setting = assignments.split()
    found = difference(whole(case, context, tmp_path / "a"), whole(case, [*context, setting], tmp_path / "b"))
    assert set(SEVERAL[line].split()) <= {f"{name}.{parameter}" for name, parameter in found}


def test_what_a_search_by_gradients_ends_in(tmp_path):
    """The network, the weights and the scores that the derived cell is judged and derived by."""
    depths = whole("p_darts", ["search.depths=3,4,5"], tmp_path / "a")["nets.darts_cell.mixed.darts_search"]
    assert [call["layers"] for call in depths] == ["3", "4", "5", "5"]  # three stages, and the last network again
    assert "learners.pc_darts.scores" in whole("pc_darts", [], tmp_path / "b")
    record = whole("msr_darts", [], tmp_path / "c")
    assert [call["params"] for call in record["validated"]] == [{"best": "True"}] * 2
    (outcome,) = record["outcome"]  # the second that is judged is the derived cell
    assert (outcome["search_accuracy"], outcome["fitness"]) == ("0.25", "0.5")
    assert [call["batch_statistics"] for call in record["train.passes.validation"]] == ["True"]


def test_the_filtered_candidates_are_the_first(tmp_path):
    """Others for another seed."""
    seeds = [whole("evolution", ["search.prefilter=0.5", f"seed={n}"], tmp_path / str(n)) for n in range(2)]
    firsts = [[call["first"] for call in record["searchers.aging.aging"]] for record in seeds]
    assert [first == "None" for first in firsts[0]] == [True, False] and firsts[0][1] != firsts[1][1]


def test_scores_and_accuracies_of_paths_that_are_trained_alone(tmp_path):
    """Those of another recipe are trained anew."""
    before = None
    for epochs in (3, 4):
        whole("spos", ["retrain.sample=2", f"retrain_recipe.epochs={epochs}"], tmp_path)
        lines = [json.loads(line) for line in (tmp_path / "retrain/standalone.jsonl").read_text().splitlines()]
        assert [(line["score"], line["accuracy"]) for line in lines] == [(0.5, 0.0)] * 2
        settings = {line["settings"] for line in lines}
        assert len(settings) == 1 and settings != before
        before = settings


def test_paths_are_judged_by_the_weights_at_the_end(tmp_path):
    (call,) = whole("spos", [], tmp_path)["evaluators.supernet.inherited_accuracy"]
    assert call["variables"] == Plain()({"params": {"trained": np.float32(1)}, "batch_stats": {}})


def test_rewards_belong_to_metrics(tmp_path):
    of = {
        name: whole(name, [], tmp_path / name)["searchers.reinforce.reinforce"]
        for name in ("reinforce", "reinforce_rnn")
    }
    rewards = {name: str(call["reward"]) for name, (call, *_) in of.items()}
    assert "cube" in rewards["reinforce"] and "inverse_square_perplexity" in rewards["reinforce_rnn"]
