"""depthwise_conv2d against XLA's own convolution in float64: values, gradients, gradients of gradients, loops."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nasjax.ops.depthwise import depthwise_conv2d

CASES = [
    (3, 1, 1),
    (5, 1, 1),
    (3, 2, 1),
    (5, 2, 1),
    (3, 1, 2),
    (5, 1, 2),
    (3, 2, 2),
    (5, 2, 2),
]  # size, stride, dilation
C = 3


def reference(x, w, stride=1, dilation=1):
    return lax.conv_general_dilated(
        x,
        w[:, :, None],
        (stride, stride),
        [(dilation * (k // 2),) * 2 for k in w.shape[:2]],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
    )


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def first_order(op, x, w):
    y, pullback = jax.vjp(op, x, w)
    return y, pullback(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


def second_order(op, x, w):
    """Gradient of a function of the gradients, none of whose terms vanish."""

    def slope(x, w):
        dx, dw = jax.grad(lambda x, w: jnp.sin(op(x, w)).sum(), (0, 1))(x, w)
        return jnp.square(dx).sum() + jnp.cos(dw).sum()

    return jax.grad(slope, (0, 1))(x, w)


def agree(results, expected):
    for a, b in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * float(jnp.abs(b).max()))


IMAGES = [(7, 6), *(pytest.param(image, marks=pytest.mark.slow) for image in [(6, 6), (5, 9)])]


@pytest.mark.slow
@pytest.mark.parametrize("image", IMAGES, ids=str)  # one has an even and an odd side
@pytest.mark.parametrize("derivatives", [first_order, second_order])
def test_equals_lax(image, derivatives):
    def all_cases(op):
        def run(x, ws):
            forms = [lambda x, w, s=s, d=d: op(x, w, s, d) for _, s, d in CASES]
            return [derivatives(form, x, w) for form, w in zip(forms, ws, strict=True)]

        return jax.jit(run)

    with jax.enable_x64(True):
        x, ws = draw(2, *image, C), [draw(k, k, C) for k, _, _ in CASES]
        agree(all_cases(depthwise_conv2d)(x, ws), all_cases(reference)(x, ws))


def test_oblong_kernels():
    with jax.enable_x64(True):
        x, w = draw(2, 6, 7, C), draw(3, 5, C)
        agree(first_order(depthwise_conv2d, x, w), first_order(reference, x, w))


def test_vmap_and_scan():
    """Kernels of several children under vmap; a scan that carries the image through the convolution."""
    with jax.enable_x64(True):
        x, ws = draw(2, 6, 6, C), draw(4, 3, 3, C) / 3

        def through(op):
            def chain(x, ws):
                return jnp.sin(lax.scan(lambda x, w: (op(x, w), None), x, ws)[0]).sum()

            def run(x, ws):
                many = jax.vmap(lambda w: first_order(op, x, w))(ws)
                return many, jax.grad(chain, (0, 1))(x, ws)

            return jax.jit(run)

        agree(through(depthwise_conv2d)(x, ws), through(reference)(x, ws))


@pytest.mark.parametrize(("kernel", "message"), [((2, 3, C), "odd"), ((3, 3, C + 1), r"\[kh, kw, 3\]")])
def test_wrong_kernels_are_refused(kernel, message):
    with pytest.raises(ValueError, match=message):
        depthwise_conv2d(jnp.zeros((1, 8, 8, C)), jnp.zeros(kernel))


@pytest.mark.slow
def test_gradient_in_a_scan_costs_no_more_than_in_a_plain_loop():
    x, w, steps = jnp.asarray(draw(16, 16, 16, 32), jnp.float32), jnp.asarray(draw(5, 5, 32), jnp.float32), 4

    def step(w):
        return w - 1e-3 * jax.grad(lambda w: jnp.square(depthwise_conv2d(x, w)).mean())(w)

    def loop(w):
        for _ in range(steps):
            w = step(w)
        return w

    runs = [jax.jit(f) for f in (loop, lambda w: lax.scan(lambda w, _: (step(w), None), w, None, length=steps)[0])]
    np.testing.assert_allclose(*(run(w) for run in runs), rtol=1e-4)
    times = [[], []]
    for _ in range(15):
        for run, spent in zip(runs, times, strict=True):
            start = time.perf_counter()
            run(w).block_until_ready()
            spent.append(time.perf_counter() - start)
    assert min(times[1]) < 2 * min(times[0])
