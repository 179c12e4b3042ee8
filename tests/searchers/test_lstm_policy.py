"""The controller's steps, and that inactive sites leave it alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.searchers.lstm_policy import lstm_cell, lstm_policy, step_table
from nasjax.spaces.conv_chain.space import ConvChain, variant
from nasjax.types import Site


def test_steps_are_emitted_in_the_papers_order():
    """Height, width, strides, anchor point, filters; then the next layer; the anchors of a layer are one step."""
    space = ConvChain(3, 3, strides=(1, 2, 3), learning_rates=(0.1, 0.2))
    heads = {site.group: len(site.choices) for site in space.sites if site.group not in ("depth", "anchor")}
    table = step_table(space, heads)
    names = ["anchor" if a else list(heads)[h] for a, h in zip(table.anchor, table.head, strict=True)]
    layer = ["filter_height", "filter_width", "stride_height", "stride_width", "anchor", "num_filters"]
    assert names == layer * 3 + ["learning_rate"]
    assert list(table.layer) == [0] * 6 + [1] * 6 + [2] * 6 + [-1]
    decided = [[space.sites[c].name for c in row if c < len(space.sites)] for row in table.columns[table.anchor]]
    assert decided == [[], ["layer1/anchor0"], ["layer2/anchor0", "layer2/anchor1"]]


@pytest.mark.slow
def test_every_pair_of_layers_is_one_coin():
    space = ConvChain(3, 3, filter_heights=(1,), filter_widths=(1,), filter_counts=(4,))
    policy = lstm_policy(space, hidden=4, embedding=4)
    params = policy.init(jax.random.key(0))
    params["attention"]["v"] = jnp.zeros(4)  # every link has probability 1/2, and the other sites one choice
    logp, entropy = jax.jit(policy.log_prob)(params, space.sample(jax.random.key(0)))
    assert float(logp) == pytest.approx(3 * np.log(0.5)) and float(entropy) == pytest.approx(3 * np.log(2))


@pytest.mark.slow
def test_log_prob_equals_a_plain_loop():
    """The controller written out token by token; what a batch-norm layer does not need is not a step at all."""
    sizes = {"filter_heights": (1, 3, 5), "filter_widths": (1, 3), "filter_counts": (4, 8)}
    space = ConvChain(2, 3, types=("conv", "batch_norm"), **sizes)
    policy = lstm_policy(space, hidden=5, embedding=5, init_scale=0.7)
    p = policy.init(jax.random.key(4))
    layers = [
        {"type": "conv", "filter_height": 3, "filter_width": 1, "num_filters": 8, "inputs": []},
        {"type": "batch_norm", "inputs": []},
        {"type": "conv", "filter_height": 1, "filter_width": 3, "num_filters": 8, "inputs": [0, 1]},
    ]
    arch = space.decode({"space": "conv_chain", "layers": layers})
    x, lower, upper = p["start"], (jnp.zeros(5),) * 2, (jnp.zeros(5),) * 2
    memory, total, cell = [], 0.0, jax.jit(lstm_cell)
    for i, layer in enumerate(layers):
        for group in ("type", "filter_height", "filter_width", "anchor", "num_filters"):
            if group != "anchor" and group not in layer:
                continue
            lower = cell(p["lstm0"], lower, x)
            upper = cell(p["lstm1"], upper, lower[0])
            h = upper[0]
            if group != "anchor":
                token = int(arch[space.columns[f"layer{i}/{group}"]])
                total += jax.nn.log_softmax(h @ p["heads"][group]["kernel"] + p["heads"][group]["bias"])[token]
                x = p["embeddings"][group][token]
                continue
            for j, h_j in enumerate(memory):
                link = jnp.tanh(h_j @ p["attention"]["previous"] + h @ p["attention"]["current"]) @ p["attention"]["v"]
                total += jnp.log(jax.nn.sigmoid(link if j in layer["inputs"] else -link))
            chosen = [memory[j] for j in layer["inputs"]]
            x = sum(chosen) / len(chosen) if chosen else p["start"]
            memory.append(h)
    assert float(jax.jit(policy.log_prob)(p, arch)[0]) == pytest.approx(float(total), rel=1e-5)


@pytest.mark.slow
def test_sites_of_one_choice_cost_nothing_and_a_saturated_head_is_certain():
    space = ConvChain(2, 2, filter_heights=(1, 3), filter_widths=(1,), filter_counts=(4, 8), skips=False)
    policy = lstm_policy(space, hidden=4, embedding=4)
    params = policy.init(jax.random.key(0))
    for group in ("filter_height", "num_filters"):
        params["heads"][group]["bias"] = jnp.array([-50.0, 50.0])
    arch = jax.jit(policy.sample)(jax.random.key(1), params, jnp.int32(2))
    assert np.array_equal(arch, [0, 1, 0, 1, 1, 0, 1])
    assert float(jax.jit(policy.log_prob)(params, arch)[0]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_layers_beyond_the_depth_do_not_count():
    """2 layers have the same log-probability in a space of 2 layers and in one of up to 4."""
    small, large = ConvChain(2, 2), ConvChain(2, 4)
    params = lstm_policy(small).init(jax.random.key(0))
    arch = np.array(small.sample(jax.random.key(1)))
    wide = np.concatenate([arch, np.full(len(large.sites) - len(arch), -1, np.int32)])
    narrow = jax.jit(lstm_policy(small).log_prob)(params, arch)
    np.testing.assert_allclose(jax.jit(lstm_policy(large).log_prob)(params, wide), narrow, rtol=1e-6)


def test_wrong_use_says_what_to_write():
    with pytest.raises(ValueError, match="write embedding=8"):
        lstm_policy(variant("v1"), hidden=8, embedding=4)

    class Gap:
        name = "gap"
        sites = (Site("a", (0, 1), "op", 0), Site("b", (0, 1), "anchor", 2))

    with pytest.raises(ValueError, match="needs i adjacent anchor sites"):
        lstm_policy(Gap())
