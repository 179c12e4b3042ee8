"""NAS-Bench-201's networks: against plain NumPy, a path of the supernet against the cell's own, training by path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.tabular_reference import reference
from tools.tiny_choice_chains import quick

from nasjax.data.dataset import Dataset
from nasjax.data.sources import Split
from nasjax.evaluators.child import child
from nasjax.evaluators.zero_cost import relu_kernel
from nasjax.learners.samplers import strict_fairness
from nasjax.nets.tabular_cell.network import own, tabular_cell
from nasjax.nets.tabular_cell.supernet import tabular_supernet
from nasjax.problem.builders.tabular_cell import BUILDER
from nasjax.spaces.tabular_cell.plan import TabularForm, TabularPlan
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.types import Proposal

PLAN = TabularPlan(TabularCell(), TabularForm(channels=2, cells=2), (8, 4, 3), 3)
# Every operation; an edge that leads nowhere and a node that holds zeros
CELLS = [(3, 0, 1, 2, 4, 3), (3, 0, 0, 2, 0, 0)]


@pytest.fixture(scope="module")
def ran():
    """Per cell: the supernet's and the own network's logits, gradients and statistics, in float64."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(1), (3, 8, 4, 3), jnp.float64)
        target = jax.random.normal(jax.random.key(2), (3, 3), jnp.float64)
        supernet = tabular_supernet(PLAN)
        variables = supernet.init(jax.random.key(0), None, x)
        variables = jax.tree.map(
            lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), variables
        )

        def run(network, variables, choice):
            def loss(params):
                logits, after = network.apply({**variables, "params": params}, choice, x, train=True)
                return (logits * target).sum(), (logits, after["batch_stats"])

            gradient, (logits, stats) = jax.grad(loss, has_aux=True)(variables["params"])
            tested, _ = network.apply(variables, choice, x)
            return {"params": gradient, "batch_stats": stats}, logits, tested

        whole, found = quick(lambda arch: run(supernet, variables, arch)), []
        for cell in CELLS:
            arch = np.array(cell)
            alone = tabular_cell(PLAN, arch)
            mine = own(PLAN, arch, variables)
            found.append((arch, whole(jnp.asarray(arch)), quick(lambda v, a=alone: run(a, v, None))(mine)))
        return x, variables, found


@pytest.mark.slow
def test_a_path_equals_the_cell_s_own_network(ran):
    _, variables, found = ran
    for arch, (moved, logits, tested), (own_moved, own_logits, own_tested) in found:
        np.testing.assert_allclose(logits, own_logits, atol=1e-12)
        np.testing.assert_allclose(tested, own_tested, atol=1e-12)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), own(PLAN, arch, moved), own_moved)
        assert sum(leaf.size for leaf in jax.tree.leaves(own_moved["params"])) == PLAN.count(arch)[0]
        # What no cell uses has no gradient, and its statistics stay.
        idle = {kind: moved[kind]["stage0"]["edge0"]["nor_conv_1x1"] for kind in moved}
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(idle["params"]))
        before = variables["batch_stats"]["stage0"]["edge0"]["nor_conv_1x1"]
        jax.tree.map(np.testing.assert_array_equal, idle["batch_stats"], before)


@pytest.mark.slow
def test_logits_by_plain_numpy(ran):
    x, variables, found = ran
    for arch, (_, _, tested), _ in found:
        names = [PLAN.space.ops[op] for op in arch]
        by_numpy = reference(variables, np.asarray(x), lambda e, x, operate, names=names: operate(names[e], x))
        np.testing.assert_allclose(tested, by_numpy, atol=1e-10)


@pytest.mark.slow
def test_a_step_moves_only_what_its_paths_use(ran):
    _, variables, _ = ran
    supernet, old = tabular_supernet(PLAN), jax.tree.map(np.float32, variables["params"])
    new = jax.tree.map(lambda leaf: leaf + 1, old)
    out = supernet.select(jnp.array(CELLS), new, old)
    used = {(e, cell[e]) for cell in CELLS for e in range(6)}
    for e in range(6):
        for op, name in ((2, "nor_conv_1x1"), (3, "nor_conv_3x3")):
            expected = (new if (e, op) in used else old)["stage1"][f"edge{e}"][name]
            jax.tree.map(np.testing.assert_array_equal, out["stage1"][f"edge{e}"][name], expected)
    jax.tree.map(np.testing.assert_array_equal, out["reduce1"], new["reduce1"])


@pytest.mark.slow
def test_scores_are_the_scales_of_convolutions_and_0_elsewhere():
    supernet = tabular_supernet(PLAN)
    params = supernet.init(jax.random.key(0), None, jnp.zeros((1, 8, 4, 3)))["params"]
    for stage, value in (("stage0", -1.0), ("stage1", 2.0), ("stage2", 3.0)):
        params[stage]["edge4"]["nor_conv_3x3"]["norm"]["gamma"] *= value
    expected = np.zeros((6, 6))
    expected[:, 2:4] = 1
    expected[4, 3] = 2
    np.testing.assert_allclose(supernet.scores(params), expected)
    assert supernet.last_norm(("stage0", "edge1", "nor_conv_1x1", "norm", "gamma"))
    assert not supernet.last_norm(("reduce1", "first", "norm", "gamma"))


def test_without_scales_only_the_edges_have_none():
    supernet = tabular_supernet(PLAN, affine=False)
    params = supernet.init(jax.random.key(0), None, jnp.zeros((1, 8, 4, 3)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PLAN.supernet_params(False)
    assert set(params["stage0"]["edge0"]["nor_conv_1x1"]) == {"kernel"} and "norm" in params["stem"]


@pytest.mark.slow
def test_training_by_path_equals_training_the_own_network():
    rng = np.random.default_rng(0)
    train, valid = (Split(rng.random((n, 8, 4, 3), np.float32), np.arange(n) % 3) for n in (24, 9))
    data = Dataset("random", 3, ("a", "b", "c"), train, valid, np.full(3, 0.5, np.float32), np.ones(3, np.float32), "")
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.05, augment=Augment(crop="none", flip=False))
    signature = TASK.signature(data)
    masked = BUILDER.masked(PLAN.space, PLAN.form, signature)
    archs = jnp.array(CELLS)
    proposal = Proposal(jnp.arange(2), archs, jnp.full(2, -1))

    def build(arch):
        return BUILDER.build(PLAN.space, PLAN.form, PLAN.space.encode(arch), signature)

    found = []
    for ways in ({"masked": masked, "path": True}, {}):
        evaluator = child(build, data, TASK, recipe=recipe, last_epochs=1, keep_weights=True, **ways)
        found.append(evaluator.evaluate(jax.random.key(0), proposal))
    (by_path, kept), (alone, own_kept) = found
    np.testing.assert_allclose(by_path.info["train_loss"], alone.info["train_loss"], rtol=1e-4)
    for n in range(2):
        same = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3)  # noqa: E731
        jax.tree.map(same, kept[n]["variables"], own_kept[n]["variables"])


@pytest.mark.slow
def test_a_cell_of_zeros_and_one_of_skips_have_networks_too():
    x = jnp.ones((2, 8, 4, 3))
    for cell in ((0,) * 6, (1,) * 6):
        network = tabular_cell(PLAN, np.array(cell))
        variables = network.init(jax.random.key(0), None, x)
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PLAN.count(np.array(cell))[0]
        logits, _ = network.apply(variables, None, x)
        assert logits.shape == (2, 3) and np.isfinite(logits).all()


@pytest.mark.slow
def test_strict_fairness_uses_every_operation_of_every_edge_once():
    archs = np.asarray(strict_fairness(PLAN.space)(jax.random.key(0)))
    assert archs.shape == (5, 6) and (np.sort(archs, 0) == np.arange(5)[:, None]).all()


def test_cells_share_their_programs():
    """Six operations, an equal one twice or with and without a sum before it, whatever cell and stage they are in."""
    modules = set()
    for cell in CELLS:
        network = tabular_cell(PLAN, np.array(cell))
        modules |= {part.apply for part in network.parts}
        assert len(network.parts) > len({part.apply for part in network.parts})
    assert len(modules) <= 10  # stem, two residual blocks, head, two convolutions, pooling, skip, zeros, first


@pytest.mark.slow
def test_naswot_sees_every_relu_and_compiles_once_per_kind_of_part():
    x = jax.random.normal(jax.random.key(3), (6, 8, 4, 3))
    cell = np.array(CELLS[0])
    network = tabular_cell(PLAN, cell)
    variables = network.init(jax.random.key(0), None, x)
    kernel = np.asarray(relu_kernel(network, variables, None, x))
    per_cell = 3  # convolutions on edges 0, 3 and 5
    sizes = [2 * 32, 4 * 8, 8 * 2]
    relus = 2 * per_cell * sum(sizes) + (2 * 32 + 4 * 8) + (4 * 8 + 8 * 2) + 8 * 2  # edges, residual blocks, head
    np.testing.assert_array_equal(np.diag(kernel), relus)
