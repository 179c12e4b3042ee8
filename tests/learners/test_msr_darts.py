"""MSR-DARTS on a toy network: normalisation, its gradient, the score and its variants, the best epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.toy_search_network import toy_batch, toy_conv_network, toy_layout

from nasjax.experiments.msr_darts import operators_of
from nasjax.learners.msr_darts import OPERATORS, LastKernels, Layout, Score, derive, mean_ranks, msr_darts, stable_ranks
from nasjax.learners.normalised import Convs, get, iterate, normalise, put, start
from nasjax.learners.search_layout import search_layout
from nasjax.nets.darts_cell.mixed import _mixing, darts_search
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.spaces.darts_cell.derivation import discrete_choice, every_edge
from nasjax.spaces.darts_cell.plan import SearchPlan
from nasjax.spaces.darts_cell.space import CELLS, EDGES, DartsCell
from nasjax.train.sgd import Sgd

BATCH = toy_batch(0)
LAYOUT = toy_layout()


def close(a, b, **kwargs):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **kwargs)


@pytest.fixture(scope="module")
def stepped():
    learner = msr_darts(toy_conv_network(), LAYOUT, sgd=Sgd(clip=1e9, weight_decay=0.0), devices=1)
    state = learner.init(jax.random.key(0), BATCH)
    return learner, state, learner.step(jax.random.key(1), state, BATCH)[0]


CONVS = (
    Convs((("a", "pointwise"), ("b", "pointwise")), depthwise=False),
    Convs((("a", "strided"),), depthwise=True, size=(6, 5), stride=2),
    Convs((("a", "dilated"), ("b", "dilated")), depthwise=True, size=(6, 6), dilation=2),
)


def stacks():
    k = iter(jax.random.split(jax.random.key(0), 5))
    a = {"pointwise": (2, 4, 4), "strided": (3, 3, 3, 2), "dilated": (1, 5, 5, 2)}
    b = {"pointwise": (3, 4, 4), "dilated": (2, 5, 5, 2)}
    draws = {cell: {n: jax.random.normal(next(k), s) for n, s in of.items()} for cell, of in (("a", a), ("b", b))}
    return {**draws, "free": jnp.ones(2)}


def norms(group, w):
    """Spectral norms of depthwise kernels, from the matrices of the convolutions."""
    channels = w.shape[-1]
    basis = jnp.eye(group.size[0] * group.size[1] * channels).reshape(-1, *group.size, channels)
    apply = jax.jit(lambda k: depthwise_conv2d(basis, k, group.stride, group.dilation).reshape(len(basis), -1))
    return [np.linalg.norm(apply(k), 2) for k in w]


@pytest.mark.slow
def test_every_convolution_of_a_stack_gets_norm_one():
    params = stacks()
    kept = start(jax.random.key(1), params, CONVS)
    assert set(kept) == {"a/pointwise"}
    after = jax.jit(lambda p, u: normalise(p, CONVS, iterate(jax.random.key(2), p, CONVS, u, 300)))(params, kept)
    for cell in "ab":
        np.testing.assert_allclose(np.linalg.norm(after[cell]["pointwise"], 2, axis=(-2, -1)), 1, atol=1e-3)
    for group in CONVS[1:]:
        for w in get(after, [group]).values():
            np.testing.assert_allclose(norms(group, w), 1, atol=1e-3)
    close(after["free"], params["free"], rtol=0)
    close(put(after, get(params, CONVS)), params, rtol=0)


@pytest.mark.slow
def test_dense_vectors_persist_and_depthwise_ones_do_not():
    params = stacks()
    kept = start(jax.random.key(1), params, CONVS)
    run = jax.jit(lambda key, kept, iterations: iterate(key, params, CONVS, kept, iterations))
    one, other = (run(jax.random.key(k), kept, 1) for k in (2, 3))
    close(one["a/pointwise"], other["a/pointwise"], rtol=1e-6)
    assert not np.allclose(one["a/dilated"][0], other["a/dilated"][0], atol=1e-2)
    more = run(jax.random.key(2), {"a/pointwise": one["a/pointwise"][0]}, 1)
    close(more["a/pointwise"], run(jax.random.key(2), kept, 2)["a/pointwise"], rtol=1e-5)


@pytest.mark.slow
def test_the_gradient_passes_through_the_division(stepped):
    """The first step against autodiff of the loss of the normalised network, u and v fixed."""
    _, before, after = stepped
    network, (x, y) = toy_conv_network(), BATCH["train"]
    key_depthwise, _ = jax.random.split(jax.random.key(1))

    def loss(params):
        vectors = iterate(key_depthwise, before.params, LAYOUT.convs, before.vectors, 5)
        normalised = normalise(params, LAYOUT.convs, vectors)
        variables = {"params": normalised, "batch_stats": before.batch_stats}
        logits, _ = network.apply(variables, before.choice, x, train=True)
        return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean(), get(normalised, LAYOUT.convs)

    gradient, normalised = jax.jit(jax.grad(loss, has_aux=True))(before.params)
    close(after.momentum, gradient, rtol=1e-3, atol=1e-5)
    close(after.normalised, normalised, rtol=1e-5)
    assert set(after.vectors) == {"normal/last"}
    close(after.choice, {cell: np.ones((14, 4)) for cell in CELLS})


def last(*kernels):
    return [LastKernels(cell, size, jnp.broadcast_to(k, (14, 4, *k.shape))) for cell, size, k in kernels]


@pytest.mark.slow
def test_ranks_are_averaged_over_the_cells_of_a_type():
    eye, one = jnp.eye(4), jnp.zeros((4, 4)).at[0, 0].set(3)
    cells = last(("normal", (8, 8), eye), ("normal", (4, 4), one), ("reduce", (4, 4), eye))
    ranks = mean_ranks(cells, Score())
    np.testing.assert_allclose(ranks["normal"], 2.5, rtol=1e-5)
    np.testing.assert_allclose(ranks["reduce"], 4, rtol=1e-5)
    ranks = mean_ranks(cells, Score(operator=True))
    np.testing.assert_allclose(ranks["normal"], (64 * 4 + 16) / 2, rtol=1e-5)
    np.testing.assert_allclose(ranks["reduce"], 64, rtol=1e-5)
    compat = mean_ranks(cells, Score(operator=True, compat=True))
    np.testing.assert_allclose(compat["normal"], ranks["normal"], rtol=1e-5)
    expected = [64 if source < 2 else 256 for source, _ in EDGES]
    np.testing.assert_allclose(compat["reduce"][:, 0], expected, rtol=1e-5)


def planted(best):
    """Params whose last kernels have stable rank 4, but for the operators `best` = {(cell, edge, operator): rank}."""
    params = {cell: np.tile(np.eye(4), (14, 4, 1, 1)) for cell in CELLS}
    for (cell, edge, op), rank in best.items():
        params[cell][edge, op] = np.diag(np.arange(4) < rank).astype(float)
    return params


PLANTED = Layout((), lambda params: [LastKernels(cell, (4, 4), jnp.asarray(params[cell])) for cell in CELLS])


@pytest.mark.slow
def test_derivation_takes_the_least_rank_and_the_two_strongest_predecessors(stepped):
    _, state, _ = stepped
    params = planted({("normal", 8, 2): 1, ("normal", 6, 3): 2, ("normal", 7, 1): 3, ("reduce", 13, 3): 3})
    tree = derive(state._replace(best_params=params), PLANTED)
    assert tree["normal"][4:6] == [["dil_conv_3x3", 3], ["dil_conv_5x5", 1]]
    assert tree["reduce"][6:] == [["dil_conv_5x5", 4], ["sep_conv_3x3", 0]]
    DartsCell(OPERATORS).decode(tree)  # so the space takes it
    # The compatible operator score holds the intermediate edges of the reduction cell back.
    compat = derive(state._replace(best_params=params), PLANTED, Score(operator=True, compat=True))
    assert {source for _, source in compat["reduce"]} == {0, 1} and compat["normal"] == tree["normal"]


@pytest.mark.slow
def test_weights_by_rank_follow_the_epochs():
    learner = msr_darts(toy_conv_network(), LAYOUT, weigh_by_rank=True, devices=1)
    state = learner.init(jax.random.key(0), BATCH)
    for _ in range(2):
        ranks = stable_ranks(state.params, LAYOUT)
        close(state.choice, {cell: jax.nn.softmax(-ranks[cell]) for cell in CELLS}, rtol=1e-5)
        stepped, _ = learner.step(jax.random.key(1), state, BATCH)
        close(stepped.choice, state.choice, rtol=0)  # constant within the epoch
        state, _ = learner.epoch(jax.random.key(2), stepped, ())
    assert not np.array_equal(state.choice["normal"], stepped.choice["normal"])


@pytest.mark.slow
def test_the_epoch_of_the_lowest_error_is_kept(stepped):
    """Validation uses the last normalised kernels, not the weights that the last update left."""
    learner, _, state = stepped
    state, _ = learner.epoch(jax.random.key(2), state, [BATCH["train"]])
    close(get(state.best_params, LAYOUT.convs), state.normalised, rtol=0)
    close(state.best_params["head"], state.params["head"], rtol=0)
    assert state.best_error == np.float32(1 - state.valid_accuracy)
    moved = state._replace(params={**state.params, "head": state.params["head"] + 1.0})
    for error, keeps in ((0.0, True), (1.1, False)):
        after, _ = learner.epoch(jax.random.key(2), moved._replace(best_error=np.float32(error)), [BATCH["train"]])
        assert np.array_equal(after.best_params["head"], state.best_params["head"]) == keeps
    broken = moved._replace(params={**moved.params, "head": moved.params["head"] * jnp.nan})
    after, _ = learner.epoch(jax.random.key(2), broken, [BATCH["train"]])
    assert np.isnan(after.valid_accuracy) and after.best_error == state.best_error
    latest, _ = learner.epoch(jax.random.key(2), moved._replace(best_error=np.float32(np.inf)), ())
    assert np.array_equal(latest.best_params["head"], moved.params["head"])


@pytest.mark.slow
def test_cells_are_derived_from_their_own_ranks_where_they_are_searched_one_by_one(stepped):
    """Two normal cells that disagree, whose mean would choose for both."""
    first = planted({("normal", 8, 2): 1, ("normal", 6, 3): 2})
    params = {"one": first["normal"], "two": planted({("normal", 8, 1): 2, ("normal", 5, 0): 1})["normal"]}
    layout = Layout((), lambda params: [LastKernels("normal", (4, 4), jnp.asarray(p)) for p in params.values()])
    state = stepped[1]._replace(best_params=params)
    tree = derive(state, layout, each_cell=True)
    assert [cell[4:6] for cell in tree["cells"]] == [
        [["dil_conv_3x3", 3], ["dil_conv_5x5", 1]],
        [["sep_conv_3x3", 0], ["sep_conv_5x5", 3]],
    ]
    space = DartsCell(OPERATORS, cells=2)
    assert space.encode(space.decode(tree)) == tree
    learner = msr_darts(toy_conv_network(), LAYOUT, weigh_by_rank=True, own_rank=True, devices=1)
    choice = learner.init(jax.random.key(0), BATCH).choice
    ranks = stable_ranks(learner.init(jax.random.key(0), BATCH).params, LAYOUT)  # the toy has a cell of each type
    close([choice["cell0"], choice["cell1"]], [jax.nn.softmax(-ranks[cell]) for cell in CELLS], rtol=1e-5)


def test_a_cells_own_weights_go_before_those_of_its_kind():
    """In the search network, and where a derived cell is written as a choice."""
    kinds = {cell: np.full((14, 4), n, np.float32) for n, cell in enumerate(CELLS)}
    choice = {**kinds, "cell1": np.full((14, 4), 7.0, np.float32)}
    for k, kind, expected in ((0, "normal", 0), (1, "reduce", 7), (2, "reduce", 1)):
        of_operators, of_edges = _mixing(choice, k=k, kind=kind, edges=np.array([3]), operators=4)
        assert (of_operators == expected).all() and of_edges is None
    names = every_edge(OPERATORS)
    pairs = [[OPERATORS[0], 0], [OPERATORS[1], 1]] * 4
    other = [[OPERATORS[2], 0], [OPERATORS[3], 1]] * 4
    like = {f"cell{k}": kinds["normal"] for k in range(3)}
    own = discrete_choice({"cells": [pairs, other, pairs]}, names, like)
    by_kind = discrete_choice({"normal": pairs, "reduce": other}, names, like)
    assert own["cell1"][0].tolist() == [0, 0, 1, 0] and own["cell0"][0].tolist() == [1, 0, 0, 0]
    np.testing.assert_array_equal(by_kind["cell1"], own["cell1"])  # of three cells the second and the third reduce
    np.testing.assert_array_equal(by_kind["cell2"], own["cell1"])
    np.testing.assert_array_equal(by_kind["cell0"], own["cell0"])


def test_wrong_use():
    with pytest.raises(ValueError, match="operator=True, compat=True"):
        Score(compat=True)
    with pytest.raises(ValueError, match="iterations must be >= 1"):
        msr_darts(toy_conv_network(), LAYOUT, iterations=0)


@pytest.mark.slow
def test_a_subset_of_the_operators():
    """Those of the space that have weights: in the layout, and so in ranks and cells."""
    operators = operators_of(DartsCell(("skip_connect", "dil_conv_5x5", "sep_conv_3x3")))
    assert operators == ("sep_conv_3x3", "dil_conv_5x5")
    plan = SearchPlan(4, 3, 3, operators, image=(8, 8, 1))
    layout, network = search_layout(plan), darts_search(channels=4, layers=3, classes=3, operators=operators)
    choice = dict.fromkeys(CELLS, jnp.ones((len(EDGES), 2)))
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), choice, jnp.zeros((1, 8, 8, 1))))["params"]
    last = jax.eval_shape(lambda params: [cell.kernels for cell in layout.last(params)], params)
    assert layout.operators == operators and [kernels.shape for kernels in last] == [
        (14, 2, cell.channels, cell.channels) for cell in plan.cells
    ]
    arrays = sum(leaf.ndim >= 3 for leaf in jax.tree.leaves({k: v for k, v in params.items() if "cell" in k}))
    inputs = 2 * len(plan.cells)  # 1x1 convolutions outside of operators
    assert sum(len(convs.paths) for convs in layout.convs) == arrays - inputs
