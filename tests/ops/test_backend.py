"""The operators' forms for GPU and TPU, on a CPU: every training step lowers for its platform, with equal values.

A case is programs with their arguments. They are traced in a forced form: exported for the platform, which also checks
that JAX knows how to keep what they call, and run here beside the CPU's form.
"""

import sys
from functools import cache, partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from tools.tiny_choice_chains import images, tiniest, tiny, tiny_shuffle

from nasjax.learners.mixed_product import mixed_product
from nasjax.learners.one_shot_update import one_shot_update
from nasjax.nets.choice_chain.network import choice_chain
from nasjax.nets.choice_chain.supernet import choice_supernet
from nasjax.nets.conv_chain.masked import conv_chain_masked
from nasjax.nets.conv_chain.network import conv_chain
from nasjax.nets.darts_cell.mixed import darts_search
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.ops import backend
from nasjax.ops.conv import conv2d
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.searchers.reinforce import reinforce
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.spaces.darts_cell.plan import DartsPlan
from nasjax.spaces.darts_cell.space import CELLS, OPERATORS, Genotype
from nasjax.tasks.classification import TASK
from nasjax.train import passes
from nasjax.train.objective import CLASSIFICATION
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data, trainer
from nasjax.types import Evaluation

pytestmark = pytest.mark.slow  # compiles for minutes

PLATFORMS = {"gpu": "cuda", "tpu": "tpu"}
KEY = jax.random.key(0)
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # to compile, not to run

NORMAL = (("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("max_pool_3x3", 0)) * 2
REDUCE = (("skip_connect", 0), ("dil_conv_3x3", 1), ("sep_conv_5x5", 1), ("avg_pool_3x3", 0)) * 2


def float64(shape):
    return np.random.default_rng(0).standard_normal(shape)


def data_of(image, classes=3, count=4):
    x, y = float64((count, *image)), np.arange(count, dtype=np.int32) % classes
    return Data(x, y, x, y, np.zeros(image[2]), np.ones(image[2]))


def training(network, recipe, image, t=1):
    """A step and a validation as the child trainer (`exact`) and the retraining run them."""
    data = data_of(image)
    variables = network.init(KEY, None, jnp.zeros((1, *image), jnp.float64))
    train = trainer(network, recipe, len(data.train_y), variables, TASK)
    state = train.start(variables)
    step = (state, None, jnp.float32(0.1), data.train_x, data.train_y, KEY, jnp.int32(t))
    return [(train.update, step), (train.validate, (state, None, data, jnp.int32(t)))]


def child_exact():
    space = ConvChain(3, 3, filter_counts=(2, 6), strides=(1, 2))
    layers = [((3, 5), 6, (1, 1)), ((1, 1), 2, (1, 2)), ((5, 3), 6, (2, 1))]
    tree = {
        "space": "conv_chain",
        "layers": [
            {
                "filter_height": kernel[0],
                "filter_width": kernel[1],
                "stride_height": stride[0],
                "stride_width": stride[1],
                "num_filters": filters,
                "inputs": list(range(i)),
            }
            for i, (kernel, filters, stride) in enumerate(layers)
        ],
    }
    image = (6, 6, 2)
    network = conv_chain(plan(space, space.decode(tree), image, 3))
    return training(network, Recipe(epochs=2, batch_size=4), image)


def child_vmap():
    """`run` of two children, a step and a validation, as data of one program."""
    space = ConvChain(1, 2, filter_heights=(1, 3), filter_widths=(3,), filter_counts=(2, 3))
    image, data = (5, 5, 2), data_of((5, 5, 2))
    network = conv_chain_masked(space, image, 3)
    keys = jax.random.split(KEY, 2)
    archs = jax.vmap(space.sample)(keys)
    variables = jax.vmap(network.init, (0, 0, None))(keys, archs, jnp.zeros(1, jnp.float64))
    train = trainer(network, Recipe(epochs=1, batch_size=4), 4, jax.tree.map(lambda leaf: leaf[0], variables), TASK)
    state = jax.vmap(train.start)(variables)
    run = jax.vmap(train.run, (0, 0, 0, 0, None, None, None))
    return [(run, (keys, state, archs, jnp.full(2, 0.1, jnp.float32), data, jnp.int32(0), jnp.int32(1)))]


def retraining():
    """Of a network of cells, with drop path and the auxiliary head."""
    image = (16, 16, 1)
    cells = DartsPlan(Genotype(NORMAL, REDUCE), 2, 1, 3, image=image, auxiliary=True)
    recipe = Recipe(epochs=2, batch_size=4, drop_path=0.5, auxiliary_weight=0.4, clip=5.0)
    return training(darts_eval(cells), recipe, image)


def retraining_of_a_path():
    plan = tiny()
    return training(choice_chain(plan, np.array([0, 1, 2])), Recipe(epochs=2, batch_size=4), plan.image)


def one_shot(plan, archs, **options):
    supernet = choice_supernet(plan)
    x, y = images(3, 4, jnp.float64)
    variables = supernet.init(KEY, None, x)
    update = one_shot_update(supernet, **options)
    momentum = update.momentum(variables["params"])
    batch = {"train": (x, y)}
    return [
        (update.run, (variables["params"], momentum, variables["batch_stats"], archs, KEY, jnp.float32(0.1), batch))
    ]


def supernet_step():
    """Two paths through a group of equal layers."""
    return one_shot(tiniest(), np.array([[0, 1], [1, 0]], np.int32))


def shuffle_step():
    """Only batch norms move."""
    return one_shot(tiny_shuffle(), np.array([[1, 3, 0]], np.int32), trainable="all_bn")


def controller():
    """It runs in float32 only."""
    searcher = reinforce(ConvChain(2, 3), samples_per_update=2, hidden=4, embedding=4)

    def round_of(key, state, fitness):
        state, proposal = searcher.ask(key, state, 2)
        ok = jnp.zeros(2, jnp.int8)
        return searcher.tell(state, proposal, Evaluation(fitness, jnp.zeros(2), ok, {})), proposal

    return [(round_of, (KEY, searcher.init(KEY), jnp.array([0.5, 0.7], jnp.float32)))]


CASES = {
    "child exact": child_exact,
    "child vmap": child_vmap,
    "retraining of cells": retraining,
    "retraining of a path": retraining_of_a_path,
    "supernet": supernet_step,
    "supernet, batch norms only": shuffle_step,
    "controller": controller,
}


WIDE = {name: name != "controller" for name in CASES}  # in float64


@cache
def programs(name):
    with jax.enable_x64(WIDE[name]):
        return CASES[name]()


@cache
def on_cpu(name):
    with jax.enable_x64(WIDE[name]):
        return [quick(program)(*arguments) for program, arguments in programs(name)]


def lower(form, program, arguments):
    """Raises where the form cannot be lowered for its platform."""
    with backend.forced(form):
        program = program if hasattr(program, "lower") else jax.jit(program)
        exported = jax.export.export(program, platforms=[PLATFORMS[form]])(*arguments)
    assert exported.platforms == (PLATFORMS[form],)


def close(a, b):
    def equal(x, y):
        keys = jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)
        x, y = (jax.random.key_data(z) if keys else z for z in (x, y))
        exact = np.asarray(x).dtype == np.float64
        np.testing.assert_allclose(x, y, rtol=1e-8 if exact else 1e-4, atol=1e-9 if exact else 1e-5)

    jax.tree.map(equal, a, b)


@pytest.mark.parametrize("form", PLATFORMS)
@pytest.mark.parametrize("name", CASES)
def test_a_step_lowers_for_its_platform(name, form):
    with jax.enable_x64(WIDE[name]):
        for program, arguments in programs(name):
            lower(form, program, arguments)


@pytest.mark.parametrize("form", PLATFORMS)
@pytest.mark.parametrize("name", CASES)
def test_a_step_has_the_cpus_values(name, form):
    expected = on_cpu(name)
    with jax.enable_x64(WIDE[name]):
        for (program, arguments), values in zip(programs(name), expected, strict=True):
            with backend.forced(form):
                close(quick(program)(*arguments), values)


# -- the DARTS search network, program by program ---------------------------------------------------------------------


FEW = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")  # one of every kind


def search_passes(layers, names):
    """Of every kind: gradients by weights and mixing, the mixed product of the second order, validation."""
    network = darts_search(channels=2, layers=layers, classes=3, operators=names)
    x, y = float64((2, 6, 6, 1)), np.array([0, 2], np.int32)
    choice = {cell: np.random.default_rng(1).random((14, len(names))) for cell in CELLS}
    variables = network.init(KEY, choice, jnp.asarray(x))
    weights = variables["params"], variables["batch_stats"], choice
    ones = jax.tree.map(jnp.ones_like, variables["params"])
    drop = np.float64(0.2)
    return (
        passes.gradient_pass(network, CLASSIFICATION, 1)(*weights, KEY, drop, (x, y)),
        mixed_product(network, CLASSIFICATION, 1)(*weights, KEY, drop, ones, (x, y)),
        passes.validation(network, CLASSIFICATION, 1)(*weights, [(x, y)]),
    )


def lowered_passes(form, layers, names, monkeypatch):
    """How many programs the passes call; each is lowered, none is run."""
    seen = set()

    def call(program, *arguments):
        leaves, tree = jax.tree.flatten(arguments)
        what = (program, tree, tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))
        if what not in seen:
            seen.add(what)
            lower(form, program, arguments)
        return jax.eval_shape(program, *arguments)

    def execute(walk):
        return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), walk(call))

    for module in (passes, sys.modules[mixed_product.__module__]):
        monkeypatch.setattr(module, "execution", lambda network, devices: execute)
    with jax.enable_x64(True), backend.forced(form):
        search_passes(layers, names)
    return len(seen)


@pytest.mark.parametrize("form", PLATFORMS)
def test_the_search_networks_programs_lower(form, monkeypatch):
    """One reduction cell: edges of stride 1 and 2. Forward, backward and second backward of its parts, validation."""
    assert lowered_passes(form, 1, OPERATORS, monkeypatch) > 20


@pytest.mark.parametrize("form", PLATFORMS)
def test_the_search_network_has_the_cpus_values(form):
    with jax.enable_x64(True):
        expected = search_passes(1, FEW)
        with backend.forced(form):
            close(search_passes(1, FEW), expected)


# -- the choice itself ------------------------------------------------------------------------------------------------


def operators(x, dense, depthwise):
    """Values and gradients of what has forms, at strides and dilations."""

    def total(x, dense, depthwise):
        y = [conv2d(x, dense, stride) for stride in ((1, 1), (2, 1))]
        y += [depthwise_conv2d(x, depthwise, stride, dilation) for stride in (1, 2) for dilation in (1, 2)]
        return sum(jnp.square(z).sum() for z in y)

    return jax.value_and_grad(total, (0, 1, 2))(x, dense, depthwise)


@pytest.mark.parametrize("form", PLATFORMS)
def test_an_operator_has_the_cpus_values_and_gradients(form):
    with jax.enable_x64(True):
        arguments = float64((3, 7, 6, 4)), float64((3, 5, 4, 2)), float64((5, 3, 4))
        expected = quick(operators)(*arguments)
        with backend.forced(form):
            close(quick(operators)(*arguments), expected)


def test_forms_do_not_mix_in_jits_cache():
    """The same jitted function, traced on the CPU first; and inside another one."""
    inner = jax.jit(depthwise_conv2d)
    x, w = jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3))
    for program in (inner, jax.jit(lambda x, w: inner(x, w))):
        before = program.lower(x, w).as_text()
        with backend.forced("gpu"):
            assert backend.form() == "gpu"
            forced = program.lower(x, w).as_text()
        assert "feature_group_count = 3" in forced and "feature_group_count = 3" not in before
        assert program.lower(x, w).as_text() == before
    assert backend.form() == jax.default_backend()


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="choose from cpu, gpu, tpu"):
        backend.forced("cuda")
