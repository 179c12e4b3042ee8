"""Counts of the published cells: by pure functions, and by the shapes of the built evaluation networks."""

import jax
import jax.numpy as jnp
import pytest

from nasjax.catalog import named
from nasjax.nets import cell_parts
from nasjax.nets.darts_cell import network as darts_eval_module
from nasjax.nets.darts_cell.mixed import darts_search
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.spaces.darts_cell.plan import DartsPlan, SearchPlan, operator_weights
from nasjax.spaces.darts_cell.space import EDGES, OPERATORS, DartsCell, genotype

CIFAR20 = {"channels": 36, "layers": 20}
CIFAR8 = {"channels": 36, "layers": 8}
IMAGENET = {"channels": 48, "layers": 14, "classes": 1000, "stem": "imagenet", "image": (224, 224, 3)}
PARAMS = {
    "DARTS_V2": (3_349_342, 1_154_926, 4_718_752),
    "PC_DARTS_cifar": (3_634_678, 1_527_958, 5_270_560),
    "PDARTS": (3_433_798, 1_343_206, 4_944_352),
    "MSRDARTS": (4_007_710, 1_628_830, 5_671_744),
}
CASES = [
    (name, form, count)
    for name, counts in PARAMS.items()
    for form, count in zip((CIFAR20, CIFAR8, IMAGENET), counts, strict=True)
]


def planned(name, form, **more):
    return DartsPlan(genotype(named(name)), **form, **more)


def built(plan):
    """Parameters of the network's arrays, and the part of them that is the auxiliary head's."""
    image = jax.ShapeDtypeStruct((1, *plan.image), jnp.float32)
    params = jax.eval_shape(lambda key, x: darts_eval(plan).init(key, None, x), jax.random.key(0), image)["params"]
    total, auxiliary = (sum(leaf.size for leaf in jax.tree.leaves(t)) for t in (params, params.get("auxiliary")))
    return total, auxiliary


@pytest.mark.parametrize(("name", "form", "count"), CASES)
def test_published_parameters(name, form, count):
    assert planned(name, form, auxiliary=True).params == planned(name, form).params == count


# To trace 20 layers takes long, and they are the parts of which there are 8 in the next form.
BUILT = [pytest.param(*case, marks=pytest.mark.slow if case[1] is CIFAR20 else ()) for case in CASES]


@pytest.mark.parametrize(("name", "form", "count"), BUILT)
def test_built_networks_have_the_published_parameters(name, form, count):
    plan = planned(name, form, auxiliary=True)
    assert built(plan) == (count + plan.auxiliary_params, plan.auxiliary_params)


def test_parameters_with_the_auxiliary_head():
    plan = planned("DARTS_V2", CIFAR20, auxiliary=True)
    assert (plan.params, plan.params + plan.auxiliary_params) == (3_349_342, 3_825_768)
    assert planned("DARTS_V2", CIFAR20).auxiliary_params == 0


@pytest.mark.parametrize(
    ("plan", "count"),
    [
        (SearchPlan(), 1_930_618),
        (SearchPlan(partial=4), 299_578),
        (SearchPlan(operators=OPERATORS[4:]), 1_889_658),
        (SearchPlan(layers=5), 1_275_834),
    ],
)
def test_search_networks(plan, count):
    assert plan.params == count
    edges = {cell: (tuple(plan.operators),) * len(EDGES) for cell in ("normal", "reduce")}
    per_edge = SearchPlan(layers=plan.layers, operators=edges, partial=plan.partial)
    assert (per_edge.params, per_edge.macs) == (plan.params, plan.macs)


def by_hand(width, layers, partial, operators, stem, image=224, classes=1000):
    """Parameters and multiply-adds of a search network behind a stem for ImageNet, edge by edge.

    The stem of the releases (PC-DARTS's model_search_imagenet.py, MSR-DARTS's model_search.py): 3 -> S / 2 -> S -> S
    channels, S = 3 C or C, each with stride 2 and batch norm; the first cell takes the last two, of which the first is
    twice as large.
    """
    side, before, last, c = image // 2, stem * width, stem * width, width
    params = macs = 0
    for a, b in ((3, before // 2), (before // 2, before), (before, before)):
        params, macs, side = params + 9 * a * b + 2 * b, macs + 9 * a * b * side**2, side // 2
    side *= 2
    for k in range(layers):
        reduces = k in (layers // 3, 2 * layers // 3)
        c *= 1 + reduces
        params, macs = params + (before + last) * c, macs + (before + last) * c * side**2
        side //= 1 + reduces
        part, weights = c // partial, 0
        for node in range(2, 6):
            for source in range(node):
                for name in operators:
                    if "conv" in name:
                        weights += (1 + name.startswith("sep")) * (int(name[-1]) ** 2 * part + part**2)
                    elif name == "skip_connect" and reduces and source < 2:
                        weights += part**2
        params, macs = params + weights, macs + weights * side**2
        before, last = last, 4 * c
    return params + (last + 1) * classes, macs + last * classes


@pytest.mark.parametrize(
    ("layers", "partial", "operators", "stem"),
    [(8, 1, OPERATORS, 1), (8, 2, OPERATORS, 3), (14, 1, OPERATORS[4:], 1)],
)
def test_search_networks_on_imagenet(layers, partial, operators, stem):
    """DARTS's, PC-DARTS's and MSR-DARTS's: the cells begin with maps of 28x28."""
    form = {1: "imagenet", 3: "imagenet_wide"}[stem]
    plan = SearchPlan(16, layers, 1000, operators, partial, (224, 224, 3), form)
    assert plan.cells[0].in_size == (28, 28) and plan.cells[0].follows_reduction
    assert (plan.params, plan.macs) == by_hand(16, layers, partial, operators, stem)
    if partial == 2:
        assert plan.params == 956_512


@pytest.mark.slow
def test_a_search_network_has_the_arrays_of_its_plan_behind_imagenets_stem():
    plan = SearchPlan(4, 3, 5, OPERATORS[3:5], image=(32, 32, 3), stem="imagenet")
    network = darts_search(channels=4, layers=3, classes=5, operators=OPERATORS[3:5], stem="imagenet")
    choice = dict.fromkeys(("normal", "reduce"), jnp.ones((len(EDGES), 2)))
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda key, x: network.init(key, choice, x), jax.random.key(0), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == plan.params
    logits, _ = jax.eval_shape(lambda v, x: network.apply(v, choice, x), variables, x)
    assert logits.shape == (2, 5)


def test_a_network_of_cells_of_their_own():
    """Equal ones are the network that repeats them; each of 8 counts for itself; others are refused in one line."""
    tree = named("MSRDARTS")
    cells = [tree["reduce" if k in (2, 5) else "normal"] for k in range(8)]
    own = {"space": "darts_cell", "cells": cells}
    repeated, plan = planned("MSRDARTS", CIFAR8), DartsPlan(genotype(own), **CIFAR8)
    assert (plan.params, plan.macs) == (repeated.params, repeated.macs) == (1_628_830, repeated.macs)
    cells[7] = [["sep_conv_5x5", source] for _, source in cells[7]]  # 144 channels: of a dil_conv_3x3 9 C + C^2 + 2 C
    last = {"sep_conv_3x3": (2, 9), "sep_conv_5x5": (2, 25), "dil_conv_3x3": (1, 9), "dil_conv_5x5": (1, 25)}
    old, new = (
        sum(n * (k * 144 + 144**2 + 288) for n, k in map(last.get, names))
        for names in ([name for name, _ in tree["normal"]], ["sep_conv_5x5"] * 8)
    )
    assert DartsPlan(genotype(own), **CIFAR8).params == 1_628_830 - old + new
    with pytest.raises(ValueError, match=r"has 8 cells, the network 20; in the command write --set form.layers=8"):
        DartsPlan(genotype(own), **CIFAR20)


def test_the_counts_that_eight_cells_of_their_own_can_have():
    """Those of the article's 1.65M (Machida et al. 2021, section 4.1) are not published; its four operators span it."""
    found = []
    for operator in OPERATORS[4:]:
        own = {"space": "darts_cell", "cells": [[[operator, source] for source in (0, 1) * 4]] * 8}
        found.append(DartsPlan(genotype(own), **CIFAR8).params)
    assert sorted(found) == [1_201_366, 1_293_526, 1_907_542, 2_091_862] and found[2] < 1_650_000 < found[0]


def test_operators_at_36_channels():
    found = {}
    for name in OPERATORS:
        weights = operator_weights(name, 36, 1)
        found[name] = weights.kernels + 2 * weights.normalised
    assert found == {
        "none": 0,
        "max_pool_3x3": 0,
        "avg_pool_3x3": 0,
        "skip_connect": 0,
        "sep_conv_3x3": 3_384,
        "sep_conv_5x5": 4_536,
        "dil_conv_3x3": 1_692,
        "dil_conv_5x5": 2_268,
    }
    weights = operator_weights("skip_connect", 36, 2)
    assert weights.kernels + 2 * weights.normalised == 1_368
    with pytest.raises(ValueError, match="choose from none, max_pool_3x3"):
        operator_weights("conv", 36, 1)


def test_multiply_adds_of_the_imagenet_network():
    assert round(planned("DARTS_V2", IMAGENET).macs / 1e6, 1) == 529.9


@pytest.mark.parametrize(("stem", "image"), [("cifar", (16, 12, 2)), ("imagenet", (64, 48, 3))])
def test_multiply_adds_are_those_of_the_convolutions_that_run(stem, image, monkeypatch):
    plan = planned("PDARTS", {"channels": 4, "layers": 3, "stem": stem, "image": image})
    network, x = darts_eval(plan), jnp.zeros((1, *image))
    variables = network.init(jax.random.key(0), None, x)
    macs = variables["params"]["head"]["kernel"].size

    def counted(op):
        def run(x, w, *args, **options):
            nonlocal macs
            y = op(x, w, *args, **options)
            macs += w.size * y.shape[1] * y.shape[2]
            return y

        return run

    places = [(cell_parts, "conv2d"), (darts_eval_module, "conv2d"), (darts_eval_module, "depthwise_conv2d")]
    for module, name in places:
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    jax.eval_shape(lambda v, x: network.apply(v, None, x), variables, x)
    assert macs == plan.macs


def test_sizes_of_the_spaces():
    assert DartsCell().size() == 1_037_664_180**2  # about 1.04e9 per cell type
    assert DartsCell(OPERATORS[4:]).size() == 11_796_480**2


def test_plans_that_cannot_be_built_say_why():
    cells = genotype(named("DARTS_V2"))
    with pytest.raises(ValueError, match=r"needs maps of 8x8.*this network has \(2, 2\); write auxiliary=False"):
        DartsPlan(cells, 8, 5, image=(8, 8, 1), auxiliary=True)
    with pytest.raises(ValueError, match="channels must be even"):
        DartsPlan(cells, 7)
    with pytest.raises(ValueError, match="layers and classes"):
        DartsPlan(cells, layers=0)
    with pytest.raises(ValueError, match="choose cifar or imagenet"):
        DartsPlan(cells, stem="mnist")
    with pytest.raises(ValueError, match="partial must divide the 16 channels"):
        SearchPlan(partial=3)
