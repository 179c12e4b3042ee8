"""The specialised network: initial values, layer bodies, compile rules by hand, numerics options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.nets import initial
from nasjax.nets.conv_chain.network import conv_chain, pad_to
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import TYPES, ConvChain

WINDOW = {"filter_height": 3, "filter_width": 3}
SPACE = ConvChain(1, 3, filter_counts=(2, 64), types=TYPES, strides=(1, 2))


def planned(*layers, image=(6, 6, 2), classes=3):
    return plan(SPACE, SPACE.decode({"space": "conv_chain", "layers": list(layers)}), image, classes)


def conv(inputs, filters=2, stride=1):
    strides = {"stride_height": stride, "stride_width": stride}
    return {"type": "conv", **WINDOW, **strides, "num_filters": filters, "inputs": inputs}


@pytest.mark.slow
def test_initial_statistics():
    """He normal, fan-in, over the concatenated input; dense with variance 1 / fan-in."""
    chain = planned(conv([], 64), conv([0], 64), conv([0, 1], 64))
    variables = conv_chain(chain).init(jax.random.key(0), None, jnp.zeros(1))
    params = variables["params"]
    for name, fan_in in (("layer0", 18), ("layer1", 576), ("layer2", 1152)):
        kernel = params[name]["kernel"]
        assert abs(float(kernel.std()) * (fan_in / 2) ** 0.5 - 1) < 0.05
        assert abs(float(kernel.mean())) * fan_in**0.5 < 0.1
        assert float(params[name]["gamma"].min()) == float(variables["batch_stats"][name]["var"].max()) == 1
        assert not params[name]["beta"].any() and not variables["batch_stats"][name]["mean"].any()
    dense = params["head"]["kernel"]
    assert dense.shape == (64, 3) and abs(float(dense.std()) * 8 - 1) < 0.2
    assert not params["head"]["bias"].any()
    # Every weight has a draw of its own.
    values = np.concatenate([np.ravel(params[f"layer{i}"]["kernel"]) for i in range(3)])
    assert len(np.unique(values)) > 0.99 * len(values)


def test_a_weight_keeps_its_value_in_every_architecture():
    """The 3x3 kernel lies in the centre of the 5x7 one, and fewer filters are the first of more."""
    key, links, channels = jax.random.key(1), np.full(2, initial.link(4, 2), np.uint32), np.arange(2, dtype=np.uint32)
    small, large = initial.kernels(
        key, [(links, channels, initial.words(size, n)) for size, n in (((3, 3), 2), ((5, 7), 3))]
    )
    np.testing.assert_array_equal(small, large[1:4, 2:5, :, :2])
    rows = initial.rows(key, links, jnp.asarray(channels), initial.words((5, 7), 3).reshape(-1))
    np.testing.assert_allclose(np.asarray(rows).reshape(2, 5, 7, 3).transpose(1, 2, 0, 3), large, rtol=1e-6)
    other = initial.kernels(key, [(np.full(2, initial.link(2, 4), np.uint32), channels, initial.words((3, 3), 2))])[0]
    assert not np.isclose(small, other).any()


def test_padding_puts_the_extra_row_at_the_bottom_and_right():
    x = jnp.ones((1, 2, 3, 1))
    padded = pad_to(x, (5, 4))[0, :, :, 0]
    expected = np.zeros((5, 4))
    expected[1:3, 0:3] = 1
    np.testing.assert_array_equal(padded, expected)


@pytest.mark.slow
def test_forward_pass_by_hand():
    """Layer 1 pools the image and layer 0's smaller map (zero-padded); both norms have no ReLU; the head averages."""
    chain = planned(conv([], stride=2), {"type": "batch_norm", "inputs": []}, conv([0, 1]))
    network = conv_chain(chain)
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 2))
    variables = network.init(jax.random.key(1), None, x)
    shift = jnp.array([0.5, -0.5])
    variables["params"]["layer1"]["beta"] = shift
    logits, same = network.apply(variables, None, x)
    assert same is variables

    def body(x, kernel, stride):
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
        )
        return jax.nn.relu(y / np.sqrt(1 + 1e-5))

    params = variables["params"]
    first = body(x, params["layer0"]["kernel"], 2)
    second = x / np.sqrt(1 + 1e-5) + shift[None, None, None, :]
    framed = jnp.pad(first, [(0, 0), (1, 2), (1, 2), (0, 0)])
    third = body(jnp.concatenate([framed, second], -1), params["layer2"]["kernel"], 1)
    expected = third.mean((1, 2)) @ params["head"]["kernel"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_training_mode_updates_only_statistics():
    network = conv_chain(planned(conv([]), {"type": "local_contrast_norm", "inputs": [0]}))
    x = 3 + jax.random.normal(jax.random.key(0), (8, 6, 6, 2))
    variables = network.init(jax.random.key(1), None, x)
    assert set(variables["params"]) == {"layer0", "head"}  # local contrast norm has none
    _, after = network.apply(variables, None, x, train=True, bn_momentum=0.5)
    assert after["params"] is variables["params"]
    stats = after["batch_stats"]["layer0"]
    assert float(jnp.abs(stats["mean"]).min()) > 0
    # momentum 0.5: half of the start value (mean 0, variance 1) and half of the batch's
    _, fresh = network.apply(variables, None, x, train=True, bn_momentum=0.0)
    np.testing.assert_allclose(stats["mean"], 0.5 * fresh["batch_stats"]["layer0"]["mean"], rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.5 + 0.5 * fresh["batch_stats"]["layer0"]["var"], rtol=1e-5)


@pytest.mark.slow
def test_epsilon_and_dtype():
    chain = planned(conv([]), conv([0]))
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 2))
    variables = conv_chain(chain).init(jax.random.key(1), None, x)
    logits = {
        options: conv_chain(chain, bn_eps=options[0], dtype=options[1]).apply(variables, None, x)[0]
        for options in ((1e-5, "float32"), (1.0, "float32"), (1e-5, "tf32"), (1e-5, "bfloat16"))
    }
    plain = logits[1e-5, "float32"]
    np.testing.assert_allclose(logits[1.0, "float32"], plain / 2, rtol=1e-3, atol=1e-3)  # 1 / sqrt(1 + 1), twice
    np.testing.assert_allclose(logits[1e-5, "tf32"], plain, rtol=1e-2, atol=1e-2)
    difference = float(jnp.abs(logits[1e-5, "bfloat16"] - plain).max())
    assert 0 < difference < 0.05 * float(jnp.abs(plain).max()) and logits[1e-5, "bfloat16"].dtype == jnp.float32
    with pytest.raises(ValueError, match="choose float32, tf32 or bfloat16"):
        conv_chain(chain, dtype="half")
