"""Networks of the releases on ImageNet, counted by running their code, beside what `--mode=inspect` says of ours.

Parameters of yuhuixu1993/PC-DARTS (model_search_imagenet.py), machida-k-3136/msrdarts (NetworkImageNet of
model_search.py), xiangning-chen/DrNAS (model_search_imagenet.py), megvii-model/SinglePathOneShot and bychen515/BNNAS
(their supernets), each made with its defaults for ImageNet; architecture parameters do not count. FairNAS has no
released supernet: its blocks are those of the released models.
"""

import json

import pytest
from tools.commands import here

from nasjax.catalog import named
from nasjax.spaces.choice_chain.space import variant
from nasjax.spaces.darts_cell.plan import DartsPlan
from nasjax.spaces.darts_cell.space import genotype

IMAGENET = "--dataset=imagenet"
RELEASED = {
    "pc_darts": (["--method=pc_darts", IMAGENET], 956_512),
    "msr_darts": (["--method=msr_darts", IMAGENET], 3_453_968),
    "drnas": (["--method=drnas", IMAGENET], 3_642_896),
    "drnas, second stage": (["--method=drnas", IMAGENET, "--set=search.partial=3,3"], 5_739_344),
    "spos": (["--method=spos"], 8_388_176),
}


def inspected(*args):
    code, out, err = here("--mode=inspect", "--preset=paper", *args)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("name", RELEASED)
def test_a_search_network_has_the_parameters_of_the_release(name):
    args, params = RELEASED[name]
    assert inspected(*args)["params"] == params


def block(a, b, kernel, expansion):
    """Parameters of an inverted residual block from a to b channels, scales and shifts among them."""
    mid = expansion * a
    return a * mid + kernel**2 * mid + mid * b + 2 * (2 * mid + b)


def layer(a, b):
    """All six operators of a layer."""
    return sum(block(a, b, kernel, expansion) for kernel in (3, 5, 7) for expansion in (3, 6))


def test_the_supernet_of_bn_nas_lacks_only_the_layers_that_are_never_used():
    """The release builds layers 1, 5, 6 and 9, which its paths leave out: 27,684,320 parameters in all."""
    unused = sum(layer(c, c) for c in (32, 56, 56, 112))
    assert inspected("--method=bn_nas")["params"] == 27_684_320 - unused == 26_391_008


def test_the_supernet_of_fairnas_by_hand():
    """Stem, separable convolution, six operators for each of 19 layers, the last convolution and the classifier."""
    space, before = variant("fairnas"), 16
    params = 27 * 32 + 2 * 32 + (9 * 32 + 2 * 32) + (32 * 16 + 2 * 16)
    for width, depth in zip(space.channels, space.depths, strict=True):
        for _ in range(depth):
            params, before = params + layer(before, width), width
    params += before * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert inspected("--method=fairnas")["params"] == params == 15_992_600


# Of the released evaluation network, 14 cells of 48 channels at 224x224: parameters, multiply-adds of convolutions and
# classifier, and elements that go through its batch norms and through its ReLUs.
CELLS = {
    "DARTS_V1": (4_510_432, 505_864_704, 3_876_096, 5_531_904),
    "DARTS_V2": (4_718_752, 529_911_552, 4_139_520, 5_795_328),
    "PDARTS": (4_944_352, 542_819_328, 4_101_888, 6_096_384),
    "PC_DARTS_cifar": (5_270_560, 571_137_408, 4_271_232, 6_265_728),
    "PC_DARTS_image": (5_342_464, 581_627_328, 4_478_208, 6_472_704),
    "MSRDARTS": (5_671_744, 622_890_816, 4_769_856, 7_103_040),
    "DrNAS_cifar10": (5_738_464, 633_832_320, 4_948_608, 6_943_104),
    "DrNAS_imagenet": (5_726_368, 624_405_504, 5_005_056, 6_999_552),
}


def elements(plan):
    """What goes through the batch norms and the ReLUs of an evaluation network for ImageNet, by hand."""

    def area(size):
        return size[0] * size[1]

    c, (height, width, _) = plan.channels, plan.image
    halves = [(height // n) * (width // n) for n in (2, 4, 8)]
    norms = c // 2 * halves[0] + c * halves[1] + c * halves[2]
    relus = c // 2 * halves[0] + c * halves[1]  # the second stem begins with one
    for k, cell in enumerate(plan.cells):
        before = area(cell.in_size) * (4 if cell.follows_reduction else 1)
        relus += cell.inputs[0] * before + cell.inputs[1] * area(cell.in_size)
        norms += 2 * cell.channels * area(cell.in_size)
        for operator, source in plan.genotype.of(k, cell.kind):
            reads = area(cell.in_size) if source < 2 else area(cell.out_size)
            if operator == "skip_connect" and reads == area(cell.out_size):
                continue
            if "pool" not in operator:
                relus, norms = relus + cell.channels * reads, norms + cell.channels * area(cell.out_size)
            if operator.startswith("sep"):
                relus, norms = relus + cell.channels * area(cell.out_size), norms + cell.channels * area(cell.out_size)
    return norms, relus


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_on_imagenet_has_the_counts_of_the_release(name):
    plan = DartsPlan(genotype(named(name)), 48, 14, 1000, "imagenet", (224, 224, 3))
    assert (plan.params, plan.macs, *elements(plan)) == CELLS[name]


@pytest.mark.parametrize(
    ("name", "published"), [("PDARTS", 557), ("PC_DARTS_cifar", 586), ("PC_DARTS_image", 597), ("MSRDARTS", 632)]
)
def test_published_multiply_adds_have_two_for_every_element_of_a_batch_norm(name, published):
    """And those of P-DARTS and PC-DARTS one for every element of a ReLU. DARTS's 574M are not found so."""
    _, macs, norms, relus = CELLS[name]
    assert round((macs + 2 * norms + (relus if name != "MSRDARTS" else 0)) / 1e6) == published
