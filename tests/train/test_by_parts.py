"""Training of graphs part by part, and what a child has from its parent."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.killing import KilledError, killed_after

from nasjax.data.dataset import Dataset, Split
from nasjax.drive.work import shelf
from nasjax.evaluators.child import child
from nasjax.nets.resolution_graph.inherit import inherit
from nasjax.problem.builders.resolution_graph import BUILDER, SMALL
from nasjax.spaces.resolution_graph.form import to_tree
from nasjax.spaces.resolution_graph.space import ResolutionGraph
from nasjax.tasks import segmentation
from nasjax.train import fit, underway
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.types import Proposal, Signature

SPACE = ResolutionGraph(
    levels=2, max_nodes=10, max_edges=20, channels=(4,), min_params=100, max_params=20_000, extra_nodes=1
)
FORM = Signature(jax.ShapeDtypeStruct((8, 8, 1), jnp.float32), 1)
RECIPE = Recipe(
    epochs=2, batch_size=4, learning_rate=0.05, weight_decay=1e-3, augment=Augment(crop="none", rotate=True)
)
KEY = jax.random.key(1)
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **more: (
        COMPILED.append(name) if name == "/jax/core/compile/backend_compile_duration" else None
    )
)


def data():
    x = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    y = (x > 128).astype(np.uint8)
    grey = np.float32([0.5]), np.float32([0.3])
    fields = {"name": "toy", "train": Split(x[:12], y[:12]), "valid": Split(x[12:], y[12:]), "mean": grey[0]}
    fields |= {"std": grey[1], "classes": 1, "sha256": "", "class_names": ("nucleus",)}
    return Dataset(**{field: fields[field] for field in Dataset._fields if field in fields})


def build(arch):
    return BUILDER.build(SPACE, None, SPACE.encode(arch), FORM)


@pytest.fixture(scope="module")
def family():
    """A parent, and children of one mutation each."""
    parent = np.asarray(SPACE.sample(jax.random.key(4)))
    return parent, [np.asarray(SPACE.mutate(jax.random.key(n), parent)) for n in range(24)]


def evaluate(archs, *, recipe=RECIPE, inherited=None, parents=None, **options):
    options = {"keep_weights": True, **options}
    evaluator = child(build, data(), segmentation.TASK, recipe=recipe, last_epochs=1, **options)
    ids = jnp.arange(len(archs))
    parents = jnp.full(len(archs), -1) if parents is None else jnp.asarray(parents)
    return evaluator.evaluate(KEY, Proposal(ids, jnp.asarray(np.stack(archs)), parents), inherited)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [{}, {"optimizer": "adam", "learning_rate": 1e-3, "clip": 0.5, "decay_on": "kernels", "rate_per_step": True}],
)
def test_part_by_part_is_the_whole(family, more):
    recipe = dataclasses.replace(RECIPE, **more)
    a, kept = evaluate(family[1][:2], recipe=recipe, parts=True)
    b, whole = evaluate(family[1][:2], recipe=recipe)
    assert not any(a.info["error"]) and not any(b.info["error"])
    np.testing.assert_allclose(a.info["train_loss"], b.info["train_loss"], rtol=2e-3)
    for n in kept:
        x, y = (jax.tree.leaves(one[n]["variables"]["params"]) for one in (kept, whole))
        for left, right in zip(x, y, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-2 if more else 2e-3)  # Adam: 6 steps of 1e-3, either way


@pytest.mark.slow
def test_part_by_part_a_training_in_two_legs_is_the_training_at_once(family):
    recipe = dataclasses.replace(RECIPE, optimizer="adam", learning_rate=1e-3)
    evaluator = child(build, data(), segmentation.TASK, recipe=recipe, last_epochs=1, parts=True, continued=True)
    arch = jnp.asarray(family[0])[None]

    def leg(trial, epochs, parent=-1, inherited=None):
        proposal = Proposal(*(jnp.asarray(x, jnp.int32) for x in ([trial], arch, [parent], [epochs])))
        return evaluator.evaluate(KEY, proposal, inherited)

    second, end = leg(5, 2, parent=2, inherited=leg(2, 1)[1])
    whole, at_once = leg(2, 2)
    assert second.info["error"] == [""] and second.fitness == whole.fitness
    for a, b in zip(jax.tree.leaves(end[5]), jax.tree.leaves(at_once[2]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_part_by_part_a_training_that_was_killed_goes_on(family, tmp_path, monkeypatch):
    """In the middle of its second epoch."""
    monkeypatch.setattr(fit, "DISPATCH_S", 0.0)  # a step at a time, of six
    whole, at_once = evaluate(family[1][:1], parts=True)
    kept, saved = shelf(tmp_path, 0.0), []
    with pytest.raises(KilledError), underway.keeping(killed_after(kept, 4)):
        evaluate(family[1][:1], parts=True)
    with underway.keeping(kept._replace(save=lambda name, tree: saved.append(name))):
        again, end = evaluate(family[1][:1], parts=True)
    assert len(saved) == 1
    np.testing.assert_array_equal(again.info["valid_curve"], whole.info["valid_curve"])
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(at_once), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_graph_of_known_parts_compiles_nothing(family):
    parent, children = family
    evaluate([parent, *children[:12]], parts=True)
    seen = {SPACE.identity(arch) for arch in (parent, *children[:12])}
    ops = {str(part) for arch in (parent, *children[:12]) for part in pieces(arch)}
    new = [a for a in children[12:] if SPACE.identity(a) not in seen and {str(part) for part in pieces(a)} <= ops]
    assert new
    COMPILED.clear()
    evaluation, _ = evaluate(new, parts=True)
    assert not any(evaluation.info["error"])
    assert len(COMPILED) == 0


def pieces(arch):
    return [part.apply for part in build(arch).network(bn_eps=1e-5, dtype="float32").parts]


class Grown(NamedTuple):
    child: object
    parent: object
    old: dict
    born: dict
    share: float


@pytest.fixture(scope="module")
def grown(family):
    """A child that only has more than its parent, and one whose parent's node changed."""
    parent, children = family
    old = evaluate([parent], parts=True)[1][0]["variables"]
    found = []
    for arch in children:
        a, b = build(arch).plan, build(parent).plan
        nodes, edges = ({x.id for x in g.graph.nodes} for g in (a, b)), ({x.id for x in g.graph.edges} for g in (a, b))
        (na, nb), (ea, eb) = nodes, edges
        same = {x.id: x.op for x in a.graph.nodes if x.id in nb} == {x.id: x.op for x in b.graph.nodes}
        kept = {x.id: x.op for x in a.graph.edges if x.id in eb} == {x.id: x.op for x in b.graph.edges}
        fresh = network(arch).init(KEY, None, jnp.zeros((1, 8, 8, 1)))
        if same and kept and nb <= na and eb < ea:
            found.append(Grown(arch, parent, old, *inherit(a, b, fresh, old)))
    assert found
    return found


def network(arch):
    return build(arch).network(bn_eps=1e-5, dtype="float32")


@pytest.mark.slow
def test_a_grown_child_computes_what_its_parent_computes(grown):
    x = jax.random.normal(KEY, (2, 8, 8, 1))
    for one in grown[:3]:
        before, _ = network(one.parent).apply(one.old, None, x)
        after, _ = network(one.child).apply(one.born, None, x)
        np.testing.assert_allclose(after, before, atol=1e-5)
        assert 0 < one.share < 1


@pytest.mark.slow
def test_no_new_kernel_is_dead_after_a_step(grown):
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=12)
    one = grown[0]
    left = {7: {"arch": np.asarray(one.parent), "variables": one.old}}
    options = {"parts": True, "inherit": BUILDER.inherit, "inherited": left}
    evaluation, kept = evaluate([one.child, one.child], recipe=recipe, parents=[7, 8], **options)
    np.testing.assert_allclose(evaluation.info["inherited"], [one.share, 0.0], atol=1e-6)  # 8 left nothing
    new = set(kept[0]["variables"]["params"]) - set(one.old["params"])
    assert new
    for name in new:
        for leaf in jax.tree.leaves(kept[0]["variables"]["params"][name]):
            assert np.abs(leaf).max() > 0, name


@pytest.mark.slow
def test_rules_of_inheritance(family):
    """Changed operators are fresh, statistics go with their layer, other shapes share what they have in common."""
    parent, children = family
    b, old = build(parent).plan, evaluate([parent], parts=True)[1][0]["variables"]
    changed = 0
    for arch in children:
        a = build(arch).plan
        fresh = network(arch).init(KEY, None, jnp.zeros((1, 8, 8, 1)))
        born, share = inherit(a, b, fresh, old)
        theirs = {f"node{n.id}": n.op for n in b.graph.nodes} | {f"edge{e.id}": e.op for e in b.graph.edges}
        own = {f"node{n.id}": n.op for n in a.graph.nodes} | {f"edge{e.id}": e.op for e in a.graph.edges}
        assert 0 <= share <= 1
        for name in set(own) & set(born["params"]):
            source = old if own[name] == theirs.get(name) else fresh
            changed += name in theirs and own[name] != theirs[name]
            if name in theirs:
                for x, y in zip(
                    jax.tree.leaves(born["params"][name]), jax.tree.leaves(source["params"][name]), strict=True
                ):
                    np.testing.assert_array_equal(x, y)
    assert changed
    wide = dataclasses.replace(SPACE, channels=(8,))
    tree = SPACE.encode(parent)
    wider = BUILDER.build(wide, None, {**tree, "channels": 8}, FORM) if "channels" in tree else None
    if wider is not None:
        fresh = wider.network(bn_eps=1e-5, dtype="float32").init(KEY, None, jnp.zeros((1, 8, 8, 1)))
        born, share = inherit(wider.plan, b, fresh, old)
        assert 0.1 < share < 0.9
        x, y = (jax.tree.leaves_with_path(one["batch_stats"]) for one in (born, fresh))
        assert all(np.array_equal(p[1], q[1]) for p, q in zip(x, y, strict=True))


def test_what_cannot_be_trained_by_parts_says_so():
    assert SMALL.name == SPACE.name and to_tree(build(np.asarray(SPACE.sample(KEY))).plan.graph)
    evaluation, _ = evaluate(
        [np.asarray(SPACE.sample(KEY))], recipe=dataclasses.replace(RECIPE, refresh_epochs=1), parts=True
    )
    assert "refresh_epochs" in evaluation.info["error"][0] and "strategy=exact" in evaluation.info["error"][0]
