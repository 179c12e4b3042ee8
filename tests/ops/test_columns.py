"""The column form of convolution against XLA's own in float64, whole and in pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nasjax.ops import columns, conv


def reference(x, w):
    pads = [(k // 2, k // 2) for k in w.shape[:2]]
    return lax.conv_general_dilated(x, w, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def results(forward, gradients, x, w, g):
    return jax.jit(lambda x, w, g: (forward(x, w), *gradients(x, w, g)))(x, w, g)


@pytest.mark.parametrize("kernel", [(1, 3), (3, 1), (5, 3), (1, 1)])
@pytest.mark.parametrize("pieces", [1, 3, 6])
def test_columns_equal_lax(kernel, pieces, monkeypatch):
    draw = np.random.default_rng(0).standard_normal
    x, w, g = draw((6, 5, 7, 4)), draw((*kernel, 4, 3)), draw((6, 5, 7, 3))
    monkeypatch.setattr(columns, "_FLOATS", g[: 6 // pieces].size * kernel[0] * kernel[1])
    assert len(columns._pieces(jnp.asarray(x), jnp.asarray(w))) == pieces
    with jax.enable_x64(True):
        ours = results(columns.forward, columns.gradients, x, w, g)
        theirs = results(reference, lambda x, w, g: jax.vjp(reference, x, w)[1](g), x, w, g)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-13)


@pytest.mark.slow
def test_the_direct_form_takes_columns_where_they_pay(monkeypatch):
    called = []
    forward, gradients = columns.forward, columns.gradients
    monkeypatch.setattr(columns, "forward", lambda *args: called.append(args) or forward(*args))
    monkeypatch.setattr(columns, "gradients", lambda *args: called.append(args) or gradients(*args))

    def run(kernel, c_in, c_out, side=4):
        called.clear()
        x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((1, side, side, c_in), (*kernel, c_in, c_out)))
        jax.make_jaxpr(jax.grad(lambda w, x: conv._direct(x, w, (1, 1), None).sum()))(w, x)
        return len(called)

    both, one, neither = 2, 1, 0
    assert run((3, 3), 48, 16) == run((3, 1), 48, 16) == both
    assert run((3, 3), 32, 32) == run((3, 1), 16, 48) == one  # the way back
    assert run((3, 3), 24, 8) == one  # forward
    assert run((3, 3), 16, 16) == run((3, 3), 8, 56) == neither
    assert run((3, 3), 48, 16, side=1024) == neither  # a sample's columns would take 600 MB


def test_a_kernel_of_3x3_is_spectral_only_where_columns_do_not_fit():
    assert not conv.spectral_pays((16, 8, 8, 256), (3, 3, 256, 256))
    assert conv.spectral_pays((16, 8, 8, 256), (5, 5, 256, 256))
    assert conv.spectral_pays((1, 64, 64, 600), (3, 3, 600, 600))
