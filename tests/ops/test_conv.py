"""conv2d against XLA's own convolution in float64: every form, forward and both gradients."""

import time
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nasjax.ops import conv
from nasjax.ops.conv import conv2d, spectral_pays

KERNELS = list(product((1, 3, 5, 7), repeat=2))


def reference(x, w, stride=(1, 1)):
    pads = [(k // 2, k // 2) for k in w.shape[:2]]
    return lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def derivatives(op, xs, ws):
    """Output and both gradients for each (x, w), compiled as one program."""

    def one(x, w):
        y, pullback = jax.vjp(op, x, w)
        return y, pullback(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return jax.jit(lambda xs, ws: [one(x, w) for x, w in zip(xs, ws, strict=True)])(xs, ws)


def agree(op, other, xs, ws, rtol):
    for a, b in zip(*(jax.tree.leaves(derivatives(f, xs, ws)) for f in (op, other)), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * float(jnp.abs(b).max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "stride", "kernels"),
    [
        ((7, 8), (1, 1), KERNELS),
        ((8, 7), (2, 3), KERNELS[::3]),
        ((6, 6), (3, 1), KERNELS[1::3]),
        ((9, 9), (2, 2), [(3, 5)]),
    ],
)
def test_direct_form_equals_lax(size, stride, kernels):
    channels = [(3, 4), (5, 2)] * 8  # both orders of the channel roles in the kernel gradient
    with jax.enable_x64(True):
        xs = [draw(3, *size, c) for _, (c, _) in zip(kernels, channels, strict=False)]
        ws = [draw(*k, *c) for k, c in zip(kernels, channels, strict=False)]
        agree(lambda x, w: conv._direct(x, w, stride, None), lambda x, w: reference(x, w, stride), xs, ws, 1e-13)


@pytest.mark.slow
def test_conv2d_equals_lax_whatever_form_it_chooses():
    shapes = [((4, 8, 8, 24), (7, 7, 24, 24)), ((2, 6, 9, 32), (1, 7, 32, 32)), ((2, 9, 6, 32), (7, 1, 32, 32))]
    shapes += [((2, 8, 8, 3), (3, 3, 3, 8)), ((3, 5, 7, 6), (1, 1, 6, 4)), ((1, 24, 23, 24), (7, 7, 24, 24))]
    assert [spectral_pays(*s) for s in shapes] == [True, True, True, False, False, True]
    with jax.enable_x64(True):
        agree(conv2d, reference, [draw(*x) for x, _ in shapes], [draw(*w) for _, w in shapes], 1e-12)


def test_strided_pointwise_and_strided_conv2d():
    with jax.enable_x64(True):
        xs, ws = [draw(2, 8, 7, 5), draw(2, 8, 7, 24)], [draw(1, 1, 5, 3), draw(7, 7, 24, 24)]
        agree(lambda x, w: conv2d(x, w, (2, 3)), lambda x, w: reference(x, w, (2, 3)), xs, ws, 1e-13)


def test_kernel_gradient_in_pieces_of_the_batch():
    with jax.enable_x64(True):  # two pieces of 8 samples
        agree(
            lambda x, w: conv._direct(x, w, (1, 1), None), reference, [draw(16, 24, 24, 2)], [draw(3, 5, 2, 3)], 1e-13
        )


def test_float32_is_exact_to_1e_5():
    xs, ws = [draw(4, 8, 8, 24), draw(2, 24, 24, 24)], [draw(7, 7, 24, 24), draw(7, 7, 24, 24)]
    agree(conv2d, reference, *([np.float32(a) for a in z] for z in (xs, ws)), 1e-5)


def test_half_precision_stays_direct():
    x, w = jnp.asarray(draw(2, 8, 8, 24), jnp.bfloat16), jnp.asarray(draw(7, 7, 24, 24), jnp.bfloat16)
    assert spectral_pays(x.shape, w.shape)
    y, exact = conv2d(x, w), reference(x.astype(jnp.float32), w.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    assert float(jnp.abs(y - exact).max() / jnp.abs(exact).max()) < 0.01


def test_vmap_over_children():
    xs, ws = np.float32(draw(3, 2, 8, 8, 24)), np.float32(draw(3, 5, 5, 24, 24))
    many = jax.jit(jax.vmap(conv2d))(xs, ws)
    one = jax.jit(conv2d)
    np.testing.assert_allclose(many, jnp.stack([one(x, w) for x, w in zip(xs, ws, strict=True)]), atol=2e-3)


@pytest.mark.parametrize("channels", [3, 4, 32])
def test_second_derivatives_in_a_scan(channels):
    """JAX loses what a `custom_vjp` keeps where an inner pad does nothing; 3 channels are padded, 32 take columns."""

    def product(op):
        def gradient(scale, x, ws):
            def run(x, ws):
                return lax.scan(lambda x, w: (x + scale * op(x, w), None), x, ws)[0]

            by_x, by_ws = jax.vjp(run, x, ws)[1](jnp.cos(x))
            return jnp.square(by_x).sum() + jnp.square(by_ws).sum()

        return jax.jit(jax.grad(gradient, (0, 1, 2)))

    with jax.enable_x64(True):
        x, ws = draw(2, 4, 4, channels), draw(2, 3, 3, channels, channels) / 10
        found, expected = (product(op)(0.3, x, ws) for op in (conv2d, reference))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="odd"):
        conv2d(jnp.zeros((1, 8, 8, 3)), jnp.zeros((2, 3, 3, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["direct", "spectral"])
def test_gradient_in_a_scan_costs_no_more_than_in_a_plain_loop(form):
    # lax.conv's own gradient takes 20 times as long inside control flow.
    op = (
        (lambda x, w: conv._direct(x, w, (1, 1), None))
        if form == "direct"
        else (lambda x, w: conv._spectral(x, w, None))
    )
    x, w = jnp.asarray(draw(32, 8, 8, 24), jnp.float32), jnp.asarray(draw(5, 5, 24, 24), jnp.float32)
    steps = 4

    def step(w, x):
        return w - 1e-3 * jax.grad(lambda w: jnp.square(op(x, w)).mean())(w)

    def loop(w, x):
        for _ in range(steps):
            w = step(w, x)
        return w

    def scan(w, x):
        return lax.scan(lambda w, _: (step(w, x), None), w, None, length=steps)[0]

    runs = [jax.jit(f).lower(w, x).compile() for f in (loop, scan)]
    times = [[], []]
    for _ in range(15):
        for run, spent in zip(runs, times, strict=True):
            start = time.perf_counter()
            run(w, x).block_until_ready()
            spent.append(time.perf_counter() - start)
    assert min(times[1]) < 2 * min(times[0])
