"""AutoFormer's parameters and multiply-adds: of the released sub-networks, of the supernets, and of our arrays.

Sources: github.com/microsoft/Cream, folder AutoFormer: experiments/subnet/*.yaml (the architectures), the functions
get_sampled_params_numel and get_complexity of model/supernet_transformer.py (how it counts), README.md (the table of
5.8M, 22.9M and 53.7M parameters). Chen et al. 2021 (arXiv:2107.00651), abstract and Table 4: 5.7M, 22.9M, 53.7M; 1.3G,
5.1G and 11G FLOPs. The figures of AutoFormer-T in the release are cut off, not rounded; the paper's may be of another
path.
"""

import json
import math

import jax
import numpy as np
import pytest

from nasjax import commands
from nasjax.catalog import named
from nasjax.nets.vit_chain import blocks as vit_blocks
from nasjax.nets.vit_chain.network import shapes_of, vit_chain
from nasjax.nets.vit_chain.supernet import vit_supernet
from nasjax.spaces.vit_chain.plan import VitPlan
from nasjax.spaces.vit_chain.space import variant, widened

RELEASED = {  # space, parameters, what the README says of them, our multiply-adds, the release's "complexity"
    "AUTOFORMER_T": ("tiny", 5_867_944, "5.8", 1_481_938_432, 1_344_034_362),
    "AUTOFORMER_S": ("small", 22_891_432, "22.9", 5_161_400_832, 4_892_144_730),
    "AUTOFORMER_B": ("base", 53_691_688, "53.7", 11_691_179_008, 11_236_929_660),
}


@pytest.fixture(params=RELEASED)
def released(request):
    space, *counts = RELEASED[request.param]
    tree = named(request.param)
    plan = VitPlan(widened(variant(space), tree))
    return plan, plan.space.decode(tree), tree, counts


def test_published_counts(released):
    plan, arch, _, (params, published, macs, _) = released
    assert plan.count(arch) == (params, macs)
    assert params / 1e6 == pytest.approx(float(published), abs=0.1)


def test_published_counts_are_those_of_the_arrays(released):
    plan, arch, _, (params, *_) = released
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(plan, arch))) == params


def test_multiply_adds_are_those_of_the_network(released, monkeypatch):
    """Of every matrix product that runs on one image."""
    plan, arch, _, (_, _, macs, _) = released
    found = []

    def matmul(x, w, **options):
        found.append(math.prod(x.shape) * w.shape[-1])
        return np_matmul(x, w, **options)

    def einsum(terms, x, y, **options):
        sizes = dict(zip(terms.replace(",", "").partition("->")[0], (*x.shape, *y.shape), strict=True))
        found.append(math.prod(sizes.values()))
        return np_einsum(terms, x, y, **options)

    np_matmul, np_einsum = vit_blocks.jnp.matmul, vit_blocks.jnp.einsum
    monkeypatch.setattr(vit_blocks.jnp, "matmul", matmul)
    monkeypatch.setattr(vit_blocks.jnp, "einsum", einsum)
    network, x = vit_chain(plan, arch), jax.ShapeDtypeStruct((1, *plan.image), np.float32)
    variables = {"params": shapes_of(plan, arch)}
    jax.eval_shape(lambda v, x: network.apply(v, None, x)[0], variables, x)
    assert sum(found) == macs


def test_the_release_counts_complexity_otherwise(released):
    """Norms, half an addition per position, the classifier at every token; two tokens for the class instead of one in
    each layer; and relative positions as if their tables were multiplied, 14 products instead of a head's 64."""
    plan, _, tree, (*_, expected) = released
    width, patches = tree["embed_dim"], plan.tokens - 1
    total = width + patches * 768 * width + plan.tokens * width / 2 + plan.tokens * width * 1000
    tokens = plan.tokens + 1
    for heads, ratio in zip(tree["num_heads"], tree["mlp_ratio"], strict=True):
        inner, hidden = 64 * heads, int(width * ratio)
        relative = 2 * 14 * tokens**2 + tokens**2 / 2 + tokens * inner / 2
        total += tokens * (2 * width + 4 * width * inner + 2 * width * hidden + 2 * tokens * inner) + relative
    assert total == expected


@pytest.mark.parametrize(
    ("name", "params", "size"),
    [
        ("tiny", 10_517_272, 3 * (4**12 + 4**13 + 4**14)),
        ("small", 34_790_440, 3 * (9**12 + 9**13 + 9**14)),
        ("base", 76_882_264, 3 * (9**14 + 9**15 + 9**16)),
    ],
)
def test_supernets_are_the_largest_choice(name, params, size):
    """The release's arrays of tiny and base have 256 and 640 features, of which paths use 240 and 624 at most."""
    plan = VitPlan(variant(name))
    assert plan.largest[0] == params and plan.space.size() == size
    x = jax.ShapeDtypeStruct((1, *plan.image), np.float32)
    arrays = jax.eval_shape(vit_supernet(plan).init, jax.random.key(0), None, x)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(arrays)) == params


@pytest.mark.parametrize("name", RELEASED)
def test_inspect_prints_the_published_counts(name):
    config = commands.configure("random", "paper", "imagenet", "vit_chain")
    found = commands.inspect(config, json.dumps(named(name)))
    assert (found["params"], found["macs"]) == (RELEASED[name][1], RELEASED[name][3])
    assert found["arch"] == named(name)
