"""A supernet without batch norms: its learner, its evaluator, a whole search, and settings that are then refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.toy_tasks import MACRO_F1, macro_f1

from nasjax import commands
from nasjax.drive.epochs import Epochs
from nasjax.drive.learn import Progress
from nasjax.evaluators.supernet import path_accuracy
from nasjax.experiments.families import supernets
from nasjax.experiments.families.supernets_run import _told, run
from nasjax.learners import samplers
from nasjax.learners.one_shot import EarlyBird, one_shot
from nasjax.learners.one_shot_update import Descent
from nasjax.nets.supernet import Supernet
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.tasks.classification import TASK
from nasjax.tasks.segmentation import TASK as SEGMENTATION
from nasjax.train.step import Data
from nasjax.types import Metric, Watch

SPACE = TabularCell(edges=2, ops=("a", "b", "c"))
WIDTH = 8


def plain(edges=2, operators=3, classes=10):
    """Images -> logits: edge e adds tanh of a product with the weights of its operator. It has nothing but params."""

    def init(key, choice, x):
        keys = jax.random.split(key, 3)
        inputs = int(np.prod(x.shape[1:]))
        stem = jax.random.normal(keys[0], (inputs, WIDTH)) / inputs**0.5
        layers = jax.random.normal(keys[1], (edges, operators, WIDTH, WIDTH)) / WIDTH**0.5
        head = jax.random.normal(keys[2], (WIDTH, classes)) / WIDTH**0.5
        return {"params": {"stem": {"dense": stem}, "layers": {"dense": layers}, "head": {"dense": head}}}

    def apply(variables, choice, x, *, key=None, train=False, drop_rate=0.0, bn_momentum=0.9):
        params = variables["params"]
        h = x.reshape(x.shape[0], -1) @ params["stem"]["dense"]
        for edge in range(edges):
            h = h + jnp.tanh(h @ params["layers"]["dense"][edge, choice[edge]])
        return h @ params["head"]["dense"], variables

    def select(archs, new, old):
        used = (archs[:, :, None] == jnp.arange(operators)[None, None]).any(0)[..., None, None]
        return {**new, "layers": {"dense": jnp.where(used, new["layers"]["dense"], old["layers"]["dense"])}}

    return Supernet(init, apply, select)


def batch(seed, size=24, classes=3):
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, size)
    x = random.normal(size=(size, 2, 2, 1)) + np.eye(classes, 4)[y].reshape(size, 2, 2, 1)
    return x.astype(np.float32), y.astype(np.int32)


def learner(**settings):
    sampler = samplers.uniform(SPACE)
    return one_shot(
        plain(classes=3), sampler, epochs=2, epoch_steps=20, descent=Descent(learning_rate=0.1), devices=1, **settings
    )


@pytest.mark.slow
def test_it_trains_by_the_loss_and_the_metric_of_its_task():
    """Nothing else is there: no statistics, no scores. A path's metric is that of the batch, no mean over samples."""
    doubled = MACRO_F1._replace(loss=lambda outputs, y, recipe: 2 * TASK.loss(outputs, y, recipe))
    one, train = learner(task=doubled), {"train": batch(0)}
    state = one.init(jax.random.key(0), train)
    assert state.batch_stats == {} and not np.any(state.scores) and np.isnan(state.tau)
    key_path, _ = jax.random.split(jax.random.key(1))
    arch = samplers.uniform(SPACE)(key_path)[0]
    logits, _ = plain(classes=3).apply({"params": state.params}, arch, train["train"][0])
    after, metrics = one.step(jax.random.key(1), state, train)
    assert set(metrics) == {"train_loss", "train_macro_f1"}
    np.testing.assert_allclose(metrics["train_macro_f1"], macro_f1(logits, train["train"][1]), rtol=1e-5)
    target = 0.9 * np.eye(3)[train["train"][1]] + 0.1 / 3  # Descent smooths labels by 0.1
    smoothed = -(target * jax.nn.log_softmax(logits)).sum(-1).mean()
    np.testing.assert_allclose(metrics["train_loss"], 2 * smoothed, rtol=1e-5)
    moved = np.asarray(after.params["layers"]["dense"] != state.params["layers"]["dense"]).any((2, 3))
    np.testing.assert_array_equal(moved, np.arange(3)[None] == np.asarray(arch)[:, None])
    for t in range(2, 40):
        after, metrics = one.step(jax.random.key(t), after, train)
    assert metrics["train_loss"] < 0.8 * 2 * smoothed and after.batch_stats == {}
    after, done = one.epoch(jax.random.key(0), after, ())
    assert not done and not np.any(after.scores) and one.epoch(jax.random.key(0), after, ())[1]


def test_a_task_without_label_smoothing_says_so():
    one = learner(task=SEGMENTATION)
    train = {"train": batch(0)}
    with pytest.raises(ValueError, match=r"label_smoothing .* set both to 0 for segmentation"):
        one.step(jax.random.key(1), one.init(jax.random.key(0), train), train)


@pytest.mark.slow
def test_its_paths_are_measured_as_they_are():
    """Directly, on 50 images in pieces of 16; how a calibration would go makes no difference."""
    (train_x, train_y), (valid_x, valid_y) = batch(1), batch(2, 50)
    data = Data(*map(jnp.asarray, (train_x, train_y, valid_x, valid_y)), jnp.full(1, 0.1), jnp.full(1, 1.5))
    net, archs = plain(classes=3), np.array([[0, 1], [2, 2], [1, 0]], np.int32)
    variables = net.init(jax.random.key(0), None, train_x)
    logits = [net.apply(variables, arch, (valid_x - 0.1) / 1.5)[0] for arch in archs]
    told = MACRO_F1._replace(metric=MACRO_F1.metric._replace(sign=-1))
    for task, sign in ((MACRO_F1, 1), (told, -1)):
        judge = path_accuracy(net, data, task, batch_size=16)
        found = judge({**variables, "batch_stats": {}}, archs)
        np.testing.assert_allclose(found, [sign * macro_f1(one, valid_y) for one in logits], rtol=1e-5)
        assert len(set(np.asarray(found).tolist())) == 3
    for more in ({"calibration_batches": 1}, {"over": "vmap"}):
        other = path_accuracy(net, data, told, batch_size=16, **more)(variables, archs)
        np.testing.assert_allclose(other, found, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"trainable": "all_bn"}, "set trainable=all"), ({"early_bird": EarlyBird()}, "there are none; set it to None")],
)
def test_a_learner_that_needs_scales_is_refused(settings, expected):
    with pytest.raises(ValueError, match=expected):
        learner(**settings)


def problem(*settings):
    """spos over the cells, with the plain network for its supernet."""
    small = ["data.train_limit=48", "data.valid_limit=32", "supernet.epochs=2", "supernet.batch_size=16", "trials=6"]
    small += [f"search.{name}" for name in ("population=4", "top_k=2", "mutants=2", "crossovers=2")]
    one = Problem(override(commands.configure("spos", space="tabular_cell"), *small, *settings))
    shared = one.builder.shared

    def without(space, form, signature):
        whole = shared(space, form, signature)
        return whole._replace(network=lambda **options: plain(space.edges, len(space.ops), signature.outputs))

    one.__dict__["builder"] = one.builder._replace(shared=without)
    return one


@pytest.mark.parametrize(
    "settings",
    [["search.score=indicator"], ["supernet.trainable=all_bn"], ["supernet.early_bird=0.9"]],
)
def test_a_search_by_scales_is_refused(settings):
    with pytest.raises(ValueError, match=r"no batch norms .* set supernet\.trainable=all, .* search\.score=accuracy"):
        supernets.parts(problem("supernet.affine=true", *settings))


def test_scales_of_a_space_without_batch_norms_are_refused_by_its_name():
    with pytest.raises(ValueError, match="networks of --space=vit_chain have no batch norms for --method=bn_nas"):
        supernets.parts(Problem(commands.configure("bn_nas", space="vit_chain")))


@pytest.mark.slow
def test_a_limit_beyond_32_bits_leaves_every_path():
    found = problem("max_macs=3000000000", "max_params=3000000000")
    searcher = supernets.searcher_of(found.config, supernets.shared_of(found))
    _, proposal = searcher.ask(jax.random.key(0), searcher.init(jax.random.key(0)), 3)
    assert (np.asarray(proposal.id) >= 0).all()


def test_counts_beyond_32_bits_are_refused_before_the_supernet_is_trained():
    wide = ("widths=4096", "heads=64", "head_width=64", "mlp_ratios=4.0")
    config = override(commands.configure("fairnas", space="vit_chain"), *(f"space.{change}" for change in wide))
    with pytest.raises(ValueError, match=r"macs of these transformers reach 2\^31"):
        supernets.parts(Problem(config))


@pytest.mark.parametrize(("value", "shown"), [(None, "f1 none"), (0.5, "f1 50.00%")])
def test_an_epoch_whose_metric_is_not_finite_is_told(value, shown):
    """As the F1 of a class that no batch had is not."""
    told = []
    row = {"train_loss": 1.0, "train_f1": value}
    _told(Watch(say=told.append), Metric("f1"), Epochs(Watch(), (2,)))(Progress(0, {}, None, 1, row, 2.0, 0))
    assert shown in told[0] and "loss 1.0000" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("affine", ["false", "true"])
def test_a_whole_search(tmp_path, affine):
    found = supernets.parts(problem(f"supernet.affine={affine}"))
    outcome = run(found, tmp_path, Watch())
    assert outcome.trials == 6 and outcome.failed == 0 and 0 < outcome.best["fitness"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "supernet" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and not {"tau", "scores"} & set(lines[0]) and 0 <= lines[1]["train_accuracy"] <= 1
