"""Winograd's filters against XLA's convolution in float64, whole and in pieces, and how exact they are in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nasjax.ops import conv, winograd


def reference(x, w):
    pads = [(k // 2, k // 2) for k in w.shape[:2]]
    return lax.conv_general_dilated(x, w, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def case(kernel, size=(5, 6), batch=2, channels=(3, 2)):
    draw = np.random.default_rng(0).standard_normal
    return draw((batch, *size, channels[0])), draw((*kernel, *channels)), draw((batch, *size, channels[1]))


def slopes(x, w, g):
    return reference(x, w), *jax.vjp(reference, x, w)[1](g)


def test_a_form_multiplies_polynomials():
    for form in {id(form): form for pair in winograd.FORMS.values() for form in pair}.values():
        taps = form.kernel.shape[1]
        d, w = (np.random.default_rng(taps).standard_normal(n) for n in (len(form.inputs), taps))
        y = form.outputs @ ((form.inputs @ d) * (form.kernel @ w))
        np.testing.assert_allclose(y, np.convolve(d, w[::-1], "valid"), rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [(3, 3), (1, 3), (5, 1), (1, 7)])
@pytest.mark.parametrize("pieces", [1, 2])
def test_winograd_equals_lax(kernel, pieces, monkeypatch):
    x, w, g = case(kernel)
    monkeypatch.setattr(winograd, "_FLOATS", 10**6 if pieces == 1 else 1)
    assert len(winograd._pieces(jnp.asarray(x), jnp.asarray(w))) == pieces
    with jax.enable_x64(True):
        ours = winograd.forward(x, w), *winograd.gradients(*map(jnp.asarray, (x, w, g)))
        for a, b in zip(ours, slopes(x, w, g), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "side", "bound"), [((3, 3), 16, 1e-5), ((1, 5), 16, 1e-5), ((7, 1), 32, 3e-5)])
def test_errors_in_float32_with_many_channels(kernel, side, bound):
    """Against float64, over the largest entry; conv2d chooses these filters."""
    x, w, g = case(kernel, size=(side, side), channels=(96, 32))
    with jax.enable_x64(True):
        exact = [np.asarray(z) for z in slopes(x, w, g)]
    x, w, g = (jnp.float32(z) for z in (x, w, g))
    assert winograd.forward_pays(x.shape, w.shape) and not conv.spectral_pays(x.shape, w.shape)
    y, pullback = jax.vjp(conv.conv2d, x, w)
    for name, ours, theirs in zip(("y", "dx", "dw"), (y, *pullback(g)), exact, strict=True):
        assert np.abs(ours - theirs).max() < bound * np.abs(theirs).max(), name


@pytest.mark.slow
def test_second_derivatives_in_a_scan(monkeypatch):
    monkeypatch.setattr(winograd, "pay", lambda x, w: True)
    monkeypatch.setattr(winograd, "forward_pays", lambda x, w: True)

    def product(op):
        def gradient(x, ws):
            def run(x, ws):
                return lax.scan(lambda x, w: (x + op(x, w), None), x, ws)[0]

            return sum(jnp.square(z).sum() for z in jax.vjp(run, x, ws)[1](jnp.cos(x)))

        return jax.jit(jax.grad(gradient, (0, 1)))

    with jax.enable_x64(True):
        draw = np.random.default_rng(0).standard_normal
        x, ws = draw((2, 4, 4, 2)), draw((2, 3, 3, 2, 2)) / 10
        found, expected = (product(op)(x, ws) for op in (conv.conv2d, reference))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected)
