"""Who is given a setting uses it: each is changed alone, and the programs of a toy run or its numbers must change.

Trainings run as ghosts (`tools.ghosts`), so no number is computed: a change shows in a traced program, in a number that
the host hands to one, or in how many there are. `test_wiring.py` shows that the settings of methods come here.
"""

import dataclasses
import inspect
import tempfile
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.ghosts import ghosts
from tools.toy_jobs import DATA, built
from tools.toy_search_network import toy_batch, toy_conv_network, toy_layout, toy_network

from nasjax.drive.retrain import Job, RetrainConfig, retrain
from nasjax.evaluators.child import child
from nasjax.evaluators.supernet import path_accuracy
from nasjax.learners import darts, drnas, gdas, msr_darts, p_darts, pc_darts
from nasjax.learners.architecture_gradient import second_order_difference, second_order_exact
from nasjax.learners.descent import Adam
from nasjax.learners.one_shot import one_shot
from nasjax.learners.one_shot_update import Descent
from nasjax.learners.stopping import Stopping, stopped
from nasjax.nets.supernet import Supernet
from nasjax.store import checkpoint
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.batches import paired, training
from nasjax.train.fit import resident
from nasjax.train.objective import CLASSIFICATION
from nasjax.train.photometric import prepared
from nasjax.train.recipe import Recipe
from nasjax.train.sgd import Sgd
from nasjax.types import Proposal, Watch

BATCH = toy_batch(0)


def still(network):
    """The network with zeros for weights: its own would be drawn by a compiled program per shape."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), None, BATCH["train"][0])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return network._replace(init=lambda key, choice, x: zeros)


MIXED = {n: still(toy_network(operators=n)) for n in (5, 7, 8)}
EDGED = {n: still(toy_network(operators=n, edges=True)) for n in (5, 8)}
CONVS, LAYOUT = still(toy_conv_network()), toy_layout()


def searched(learner, epochs=3):
    """A short search's programs, and whether each epoch is the last."""
    with ghosts() as record:
        made = learner()
        state = made.init(jax.random.key(0), BATCH)
        for epoch in range(epochs):
            state, _ = made.step(jax.random.key(epoch), state, BATCH)
            state, done = made.epoch(jax.random.key(epoch), state, [BATCH["val"]])
            record.append(done)
    return record


# -- learners ----------------------------------------------------------------------------------------------------------


def first_order(**settings):
    return searched(lambda: darts.darts(MIXED[settings.get("operators", 8)], devices=1, **settings))


def drawn(**settings):
    return searched(lambda: gdas.gdas(MIXED[settings.get("operators", 8)], devices=1, **settings))


def dirichlet(**settings):
    """The second stage, from the end of the first."""

    def learner():
        stages = drnas.drnas([MIXED[7]] * 2, devices=1, **settings)
        facts = stages.facts(0, None, None)
        before, second = stages.learner(0, facts).init(jax.random.key(0), BATCH), stages.learner(1, facts)

        def init(key, batch):
            begun = stages.carry(1, facts, before, second.init(key, batch))
            starts.append(str(drnas.probabilities(begun)))
            return begun

        return second._replace(init=init)

    starts = []
    settings = {"frozen_epochs": 1, **settings}
    return [*searched(learner), starts]


def partial_channels(**settings):
    settings = {"frozen_epochs": 1, **settings}
    return searched(lambda: pc_darts.pc_darts(EDGED[settings.get("operators", 8)], devices=1, **settings))


def progressive(**settings):
    """The second stage."""

    def network(depth, names):
        depths.append(depth)
        return MIXED[len(names["normal"][0])]

    def learner():
        stages = p_darts.p_darts(network, devices=1, **settings)
        facts = stages.facts(0, None, None)
        state = stages.learner(0, facts).init(jax.random.key(0), BATCH)
        return stages.learner(1, stages.facts(1, facts, state))

    depths = []
    settings = {"operators": (8, 8, 8), "frozen_epochs": 1, **settings}
    return [*searched(learner), depths]


def stable_rank(**settings):
    record = searched(lambda: msr_darts.msr_darts(CONVS, LAYOUT, devices=1, **settings))
    params, score = CONVS.init(None, None, None)["params"], settings.get("score") or msr_darts.Score()
    return [*record, str(jax.make_jaxpr(lambda params: msr_darts.mean_ranks(LAYOUT.last(params), score))(params))]


ONES = np.ones(3, np.float32)


def supernet():
    """Two layers of three numbers, with a batch norm's scale; dropout is not its affair."""

    def init(key, choice, x):
        params = {"stem": {"conv": ONES, "gamma": ONES}, "layers": {"conv": np.ones((2, 3, 3), np.float32)}}
        return {"params": params, "batch_stats": {"mean": np.float32(0), "var": np.float32(1)}}

    def apply(variables, choice, x, *, key=None, train=False, bn_momentum=0.9, drop_rate=0.0):
        params, old = variables["params"], variables["batch_stats"]
        chosen = params["layers"]["conv"][jnp.arange(2), choice].sum(0) * params["stem"]["gamma"]
        stats = {name: bn_momentum * value + x.mean() for name, value in old.items()} if train else old
        y = x.mean((1, 2, 3))[:, None] * (params["stem"]["conv"] + chosen)[None]
        return y - old["mean"], {**variables, "batch_stats": stats}

    def select(archs, new, old):
        return new

    return Supernet(
        init, apply, select, lambda params: params["layers"]["conv"][:, :, 0], lambda path: "layers" in path
    )


SUPERNET = supernet()


def one_path(**settings):
    settings = {"epochs": 2, "epoch_steps": 2, "descent": Descent(), **settings}
    archs = jnp.zeros((2, 2), jnp.int32)
    return searched(lambda: one_shot(SUPERNET, lambda key: archs, devices=1, **settings), 2)


# -- trainings of one network ------------------------------------------------------------------------------------------


SMALL = Augment("pad", 1, False)
RECIPE = Recipe(epochs=2, batch_size=4, auxiliary_weight=0.4, augment=SMALL)


def reared(recipe=RECIPE, **settings):
    """One child, by its own program."""
    archs, none = jnp.zeros((1, 1), jnp.int32), jnp.full(1, -1)
    with ghosts() as record:
        evaluator = child(lambda arch: built(rate=None), DATA, TASK, recipe=recipe, **settings)
        evaluation, _ = evaluator.evaluate(jax.random.key(0), Proposal(jnp.arange(1), archs, none), None)
    assert evaluation.info["error"] == [""]
    return record


def by_recipe(**changes):
    return reared(dataclasses.replace(RECIPE, **changes))


def retrained(**changes):
    """A job with a grid of one setting; what else it tries is told."""
    settings, told = RetrainConfig(**{**GRID, **changes}), []

    def formed(tree, form):
        told.append(form)
        return built(form.get("dropout", 0.0))

    job = Job([built()], DATA, DATA, lambda: DATA.valid, TASK, RECIPE, settings, 0, {}, formed)
    with tempfile.TemporaryDirectory() as folder, ghosts() as record, mock.patch.object(checkpoint, "save"):
        retrain(job, Path(folder), Watch())
    return [record, told]


def augmented(**changes):
    x, cfg = jnp.zeros((2, 4, 4, 3), jnp.uint8), dataclasses.replace(SMALL, **changes)
    one = jnp.ones(3)
    return str(jax.make_jaxpr(lambda key: prepared(TASK, key, x, x, one, one, cfg))(jax.random.key(0)))


def judged(**settings):
    """The accuracy of a path."""
    with ghosts() as record:
        accuracy = path_accuracy(SUPERNET, resident(DATA), TASK, **{"batch_size": 4, **settings})
        accuracy(SUPERNET.init(None, None, None), jnp.zeros((1, 2), jnp.int32))
    return record


ONE = ("grid_weight_decays", "grid_bn_eps", "grid_decays")
GRID = {"grid": True, "grid_epochs": 1, "grid_learning_rates": (0.1,), "use_token": True, **dict.fromkeys(ONE, ())}


# -- what is held against what -----------------------------------------------------------------------------------------


def of_record(function, name, kind):
    """A run by one of its settings' records, whose fields are changed."""
    return lambda **changes: function(**{name: dataclasses.replace(kind, **changes)})


SGD = {"learning_rate": 0.1, "final_rate": 0.01, "warmup_epochs": 2, "momentum": 0.5, "weight_decay": 0.1, "clip": 1.0}
ADAM = {"learning_rate": 0.1, "b1": 0.6, "b2": 0.9, "weight_decay": 0.1, "clip": 1.0}
TWICE = CLASSIFICATION._replace(loss=lambda outputs, labels: 2 * CLASSIFICATION.loss(outputs, labels))
GRADIENTS = {
    "epochs": 2,
    "sgd": Sgd(learning_rate=0.1),
    "adam": Adam(learning_rate=0.1),
    "objective": TWICE,
    "accumulate": 2,
}
# What a setting needs beside it to have an effect.
NEEDS = {
    ("msr_darts", "own_rank"): {"weigh_by_rank": True},
    ("Recipe", "betas"): {"optimizer": "adam"},
    ("Recipe", "final_rate"): {"schedule": "cosine"},
    ("Recipe", "rate_per_step"): {"schedule": "cosine"},
    ("Recipe", "rate_decay"): {"schedule": "exponential"},
    ("Augment", "crop_scale"): {"crop": "resized"},
    ("Augment", "crop_ratio"): {"crop": "resized"},
    ("RetrainConfig", "use_token"): {"grid": False},
}
NOT_HERE = {  # parameters that are no settings, or are held elsewhere
    "architecture_gradient",  # learners/test_bilevel.py, and "darts" here
    "early_bird",  # learners/test_one_shot.py: needs scores that move
    "eval_streams",  # tasks/test_language.py: of texts
    "average",  # evaluators/test_supernet.py: needs a hundred batches
    *("part", "top_k", "sample"),  # of commands.retrain, experiments/test_wiring.py
    *("network", "networks", "layout", "devices", "names", "edges", "supernet", "sampler", "data", "task", "over"),
}
CASES = {
    "darts": (first_order, darts.darts, {**GRADIENTS, "operators": 5}),
    "gdas": (drawn, gdas.gdas, {**GRADIENTS, "operators": 5, "tau": (5.0, 0.1)}),
    "drnas": (dirichlet, drnas.drnas, {**GRADIENTS, "epochs": 24, "frozen_epochs": 0, "operators": (7, 5)}),
    "pc_darts": (partial_channels, pc_darts.pc_darts, {**GRADIENTS, "frozen_epochs": 0, "operators": 5}),
    "p_darts": (
        progressive,
        p_darts.p_darts,
        {
            **{**GRADIENTS, "epochs": 24},
            "frozen_epochs": 0,
            "depths": (5, 12, 17),
            "operators": (8, 7, 7),
            "dropout": (0.0, 0.3, 0.7),
        },
    ),
    "msr_darts": (
        stable_rank,
        msr_darts.msr_darts,
        {
            "epochs": 2,
            "sgd": Sgd(learning_rate=0.1),
            "iterations": 2,
            "weigh_by_rank": True,
            "own_rank": True,
            "score": msr_darts.Score(operator=True),
            "objective": TWICE,
            "accumulate": 2,
        },
    ),
    "one_shot": (
        one_path,
        one_shot,
        {
            "epochs": 3,
            "epoch_steps": 3,
            "descent": Descent(learning_rate=0.1),
            "trainable": "last_bn",
            "fresh_batches": True,
            "accumulate": 2,
            "distill": True,
            "regularised": "first",
            "affine": False,
        },
    ),
    "Sgd": (of_record(partial_channels, "sgd", Sgd()), Sgd, SGD),
    "Sgd of msr_darts": (of_record(stable_rank, "sgd", Sgd()), Sgd, SGD),
    "Adam": (of_record(partial_channels, "adam", Adam()), Adam, ADAM),
    "Score": (
        of_record(stable_rank, "score", msr_darts.Score(operator=True)),
        msr_darts.Score,
        {"operator": False, "compat": True},
    ),
    "Recipe": (
        by_recipe,
        Recipe,
        {
            **{"epochs": 3, "batch_size": 2, "learning_rate": 0.2, "optimizer": "adam", "momentum": 0.5},
            **{"nesterov": False, "betas": (0.5, 0.9), "weight_decay": 0.1, "decay_on": "kernels", "drops": (0.3,)},
            **{"drop_factor": 0.5, "schedule": "cosine", "final_rate": 0.01, "rate_per_step": True},
            **{"rate_decay": 0.5, "warmup_epochs": 1, "clip": 1.0, "drop_path": 0.1, "auxiliary_weight": 0.2},
            **{"label_smoothing": 0.1, "bn_momentum": 0.5, "bn_eps": 1e-3, "refresh_epochs": 1},
            **{"accumulate": 2, "ema": 0.5, "augment": Augment("none"), "dtype": "bfloat16"},
        },
    ),
    "Augment": (
        augmented,
        Augment,
        {
            **{"crop": "none", "crop_size": 2, "flip": True, "cutout": 2, "rotate": True, "colour": 0.5},
            **{"crop_scale": (0.2, 0.5), "crop_ratio": (1.0, 2.0), "jitter": (0.4, 0, 0, 0), "lighting": 0.1},
        },
    ),
    "RetrainConfig": (
        retrained,
        RetrainConfig,
        {
            **{"grid": False, "grid_epochs": 2, "grid_learning_rates": (0.1, 0.2), "grid_weight_decays": (0.1,)},
            **{"grid_bn_eps": (1e-3,), "grid_decays": (0.3,), "grid_init_scales": (0.1,), "grid_dropouts": (0.1,)},
            **{"use_token": False},
        },
    ),
    "path_accuracy": (judged, path_accuracy, {"calibration_batches": 1, "batch_size": 3}),
    "Descent": (
        of_record(one_path, "descent", Descent(weight_decay=0.5)),
        Descent,
        {
            **{**SGD, "final_rate": 0.2, "clip_value": 1.0},
            "schedule": "cosine",
            "label_smoothing": 0.2,
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_setting_changes_the_run(case):
    run, receiver, others = CASES[case]
    known = set(inspect.signature(receiver).parameters) - NOT_HERE
    assert sorted(known ^ set(others)) == [], "a setting without another value to try"
    base = run()
    assert run() == base
    silent = []
    for name, value in others.items():
        needs = NEEDS.get((case, name), {})
        if run(**needs, **{name: value}) == (run(**needs) if needs else base):
            silent.append(name)
    assert not silent


def test_the_order_of_darts_changes_the_run():
    runs = [
        first_order(),
        *(first_order(architecture_gradient=of) for of in (second_order_difference, second_order_exact)),
    ]
    assert all(a != b for a, b in zip(runs, [*runs[1:], runs[0]], strict=True))


@pytest.mark.parametrize("batches", [paired, training])
def test_images_of_both_sides_are_augmented(batches):
    """Alpha's batch, too."""
    task = TASK._replace(augment=lambda key, x, y, cfg: (x + cfg.cutout, y))
    made = batches(resident(DATA), task, batch_size=4, cfg=Augment(cutout=100))
    found = made.batch(jax.random.key(3), np.arange(8, dtype=np.int32), 0)
    assert set(found) == {"train"} | ({"val"} if batches is paired else set())
    assert all(np.min(x) > 50 for x, _ in found.values())


def test_every_setting_of_stopping_changes_its_end():
    rows = [{"skips": n % 4, "eigenvalue": 1.1**n if n % 5 else None} for n in range(40)]

    def end(**settings):
        rule = Stopping(**settings)
        return [rule.measured, rule.lanczos_steps, [stopped(rule, rows[:n]) for n in range(1, 40)]]

    by = {"rule": "eigenvalue"}
    others = {"window": 3, "delta": 6, "factor": 1.6, "start": 15, "lanczos_steps": 3}
    assert not [name for name, value in others.items() if end(**by, **{name: value}) == end(**by)]
    assert end(rule="skips", skips=3) != end(rule="skips") != end() != end(measure=True)
    assert {*others, "rule", "skips", "measure"} == {field.name for field in dataclasses.fields(Stopping)}
