"""Golden numbers of the convolutional space: the published v1 network and small cases worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import commands
from nasjax.catalog import named
from nasjax.nets.conv_chain.network import conv_chain
from nasjax.ops.conv import conv2d
from nasjax.problem.problem import Problem
from nasjax.spaces.conv_chain.plan import IMAGE, count_macs, count_params, plan
from nasjax.spaces.conv_chain.space import TYPES, ConvChain, variant

CIFAR = (32, 32, 3)


def sizes(planned, monkeypatch):
    """Parameters of the built network's arrays, and the multiply-adds of the convolutions it really computes."""
    network = conv_chain(planned)
    x = jnp.zeros((1, *planned.image))
    monkeypatch.setattr("nasjax.nets.initial._chunk", lambda key, names: np.zeros(len(names), np.float32))  # no draws
    variables = network.init(jax.random.key(0), None, x)
    macs = variables["params"]["head"]["kernel"].size

    def counted(x, w, stride=(1, 1), *, precision=None):
        nonlocal macs
        y = conv2d(x, w, stride, precision=precision)
        macs += w.size * y.shape[1] * y.shape[2]
        return y

    monkeypatch.setattr("nasjax.nets.conv_chain.network.conv2d", counted)
    logits, _ = jax.eval_shape(lambda v, x: network.apply(v, None, x), variables, x)
    assert logits.shape == (1, planned.classes)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), macs


def test_published_v1_network(monkeypatch):
    tree = named("NAS_RL_V1")
    space = variant("v1")
    arch = space.decode(tree)
    planned = plan(space, arch, CIFAR, 10)
    convolutions = sum(layer.params - 2 * layer.filters for layer in planned.layers)
    normalisation = sum(2 * layer.filters for layer in planned.layers)
    assert (convolutions, normalisation, planned.head_channels * 10 + 10) == (4_199_868, 1_272, 490)
    assert count_params(space, arch, CIFAR, 10) == 4_201_630
    assert sizes(planned, monkeypatch) == (4_201_630, planned.macs)
    assert [source.layer for source in planned.head] == [14]
    assert sum(len(layer["inputs"]) for layer in tree["layers"]) == 65
    assert sum(site.group == "anchor" and site.layer < 15 for site in space.sites) == 105


def test_the_same_layers_as_a_chain():
    tree = named("NAS_RL_V1")
    layers = [{**layer, "inputs": [i - 1] if i else []} for i, layer in enumerate(tree["layers"])]
    space = ConvChain(min_layers=15, max_layers=15, skips=False)
    arch = space.decode({**tree, "layers": layers})
    assert count_params(space, arch, CIFAR, 10) == 809_134


def test_compile_rules_with_four_layers():
    space = ConvChain(min_layers=4, max_layers=4)
    layer = {"filter_height": 3, "filter_width": 3}
    inputs, filters = ([], [], [], [1], [1]), (24, 36, 48, 64)
    # The paper numbers layers from 1 here: skips 1:{} 2:{} 3:{1} 4:{1}.
    layers = [
        {**layer, "num_filters": f, "inputs": [j - 1 for j in i]} for i, f in zip(inputs[1:], filters, strict=True)
    ]
    planned = plan(space, space.decode({"space": "conv_chain", "layers": layers}), CIFAR, 10)
    assert [[source.layer for source in layer.sources] for layer in planned.layers] == [[IMAGE], [IMAGE], [0], [0]]
    assert [source.layer for source in planned.head] == [1, 2, 3]
    assert planned.head_channels == 36 + 48 + 64


SPACES = {
    "v1": ConvChain(1, 5),
    "v2": ConvChain(1, 5, strides=(1, 2, 3)),
    "v3": ConvChain(3, 3, filter_counts=(6, 12, 24, 36), block_layers=3, pool_after=(0, 1)),
    "v3, padded": ConvChain(3, 3, block_layers=2, pool_after=(0,), pool_skips=False, extra_filters=40),
    "types": ConvChain(1, 5, types=TYPES, strides=(1, 2), learning_rates=(0.1, 0.01)),
    "chain": ConvChain(1, 5, skips=False),
}


@pytest.mark.parametrize("draws", [slice(1), pytest.param(slice(1, 6), marks=pytest.mark.slow)], ids=("1", "5 more"))
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("v1", "v2", "v3"))) for name in SPACES]
)
def test_counts_agree_with_the_built_network(name, draws, monkeypatch):
    space = SPACES[name]
    for arch in np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(3), 6)))[draws]:
        planned = plan(space, arch, (17, 13, 2), 7)
        built = sizes(planned, monkeypatch)
        assert built == (planned.params, planned.macs)
        assert (count_params(space, arch, (17, 13, 2), 7), count_macs(space, arch, (17, 13, 2), 7)) == built


@pytest.mark.parametrize(("kind", "error"), [("all_skips", 0.0556), ("no_skips", 0.0797)])
def test_the_perturbed_chains_of_the_paper(kind, error):
    """Section 4.1: every layer reads all earlier ones, or the one before; sizes and filters stay."""
    config = commands.configure("reinforce", "paper")
    problem, layers = Problem(config), named("NAS_RL_V1")["layers"]
    tree = problem.read(f"{kind}(NAS_RL_V1)")
    filters = [layer["num_filters"] for layer in layers]
    reads = [sum(filters[:k]) if kind == "all_skips" else filters[k - 1] for k in range(1, len(layers))]
    params = sum(
        layer["filter_height"] * layer["filter_width"] * c_in * layer["num_filters"] + 2 * layer["num_filters"]
        for layer, c_in in zip(layers, [3, *reads], strict=True)
    )
    built = problem.built(tree)
    assert built.params == params + 48 * 10 + 10
    assert commands.published(config, built.arch)["test_error"] == error
    with pytest.raises(ValueError, match="nothing is no known name of conv_chain"):
        problem.read(f"{kind}(nothing)")
    with pytest.raises(ValueError, match=f"{kind} is for chains of single layers; this space has blocks of 3"):
        Problem(commands.configure("reinforce", "paper_v3")).read(f"{kind}(NAS_RL_V1)")
