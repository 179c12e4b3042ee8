"""Convolution at stride 1 with fewer products than taps, of the minimal filters of Winograd (1980).

Along an axis with k taps, m outputs take n = m + k - 1 products, not m k: y = A'[(G w) (B' d)] for the n inputs d under
them (Lavin & Gray 2016, section 4.1). Here these are F(2, 3) along both axes of a
3x3 kernel, 4 products an output, and F(4, 3), F(4, 5), F(4, 7) along a row or column: 1.5, 2 and 2.5.
Over channels each is a matrix product. The kernel's gradient is G'[(B' d)(A g)]; that of the input is the convolution
of g with the kernel turned around. A piece of the batch is small enough for its tiles to stay in a CPU's cache.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.ops.pieces import piece_of

_FLOATS = 500_000  # of the tiles of a piece; three times as many took up to 1.15x longer
_MOST = 12_000_000  # of the tiles of one sample


class Form(NamedTuple):
    """The matrices of F(m, k), n = m + k - 1."""

    outputs: np.ndarray  # A', [m, n]
    inputs: np.ndarray  # B', [n, n]
    kernel: np.ndarray  # G, [n, k]


def _form(m: int, k: int, points: tuple[float, ...]) -> Form:
    """Polynomials of degree < n, taken at n - 1 points and at infinity, are multiplied there (Toom-Cook)."""
    at = np.asarray(points)
    others = [np.delete(at, j) for j in range(len(at))]
    scales = np.array([math.prod(point - rest) for point, rest in zip(at, others, strict=True)])
    last = np.eye(1, m, m - 1), np.eye(1, k, k - 1)
    outputs = np.concatenate([np.vander(at, m, increasing=True), last[0]]).T
    kernel = np.concatenate([np.vander(at, k, increasing=True) / scales[:, None], last[1]])
    inputs = np.stack([*(np.append(np.poly(rest)[::-1], 0) for rest in others), np.poly(at)[::-1]])
    return Form(outputs, inputs, kernel)


_HALVES = (0, 1, -1, 2, -2, 0.5, -0.5)
_ONE = Form(*(np.ones((1, 1)),) * 3)
_SQUARE = _form(2, 3, (0, 1, -1))  # along both axes F(4, 3) is no faster, and its errors are ten times as large
_LINES = {
    3: _form(4, 3, (0, 1, -1, 2, -2)),
    5: _form(4, 5, _HALVES),
    7: _form(4, 7, (*_HALVES, 4 / 3, -3 / 4)),  # a third of the error with 3 and -3
}
FORMS = {(3, 3): (_SQUARE, _SQUARE)}
FORMS |= {(k, 1): (form, _ONE) for k, form in _LINES.items()} | {(1, k): (_ONE, form) for k, form in _LINES.items()}


def pay(x: tuple[int, ...], w: tuple[int, ...]) -> bool:
    """Whether `gradients` beats the other forms on CPU, from the shapes of x and w.

    From 24 channels on both sides (measured with AVX-512 and batches of 64: 1.0 to 1.9x; 0.7 to 0.9x with 8 or 16) and
    16x16 images (0.6 to 1.0x at 8x8; with 7 taps 1.0x at 16x16), where kernels are not so many that they outweigh
    the images, nor images so large that the tiles of one fall out of every cache.
    """
    places = x[1] * x[2]
    enough = places >= (1024 if 7 in w[:2] else 256) and min(w[2:]) >= 24
    return w[:2] in FORMS and enough and w[2] * w[3] <= 64 * places and _sample(x, w) <= _MOST


def forward_pays(x: tuple[int, ...], w: tuple[int, ...]) -> bool:
    """Whether `forward` beats them too: from 48 channels of x (1.0 to 1.8x; 0.5 to 0.9x from 24 and 36)."""
    return pay(x, w) and w[2] >= 48


def forward(x: jax.Array, w: jax.Array, precision: Any = None) -> jax.Array:
    """[B, H, W, Cin], [kh, kw, Cin, Cout] with (kh, kw) in FORMS -> [B, H, W, Cout], zero-padded by k // 2."""
    forms = FORMS[w.shape[0], w.shape[1]]
    kernels = lax.optimization_barrier(_kernels(w, forms))

    def piece(x: jax.Array) -> jax.Array:
        tiles = zip(_inputs(x, forms), kernels, strict=True)
        return _outputs([jnp.matmul(tile, kernel, precision=precision) for tile, kernel in tiles], x.shape, forms)

    pieces = _pieces(x, w)
    y = piece(x) if pieces.shape[0] == 1 else lax.map(piece, pieces)
    return y.reshape(*x.shape[:3], w.shape[3])


def gradients(x: jax.Array, w: jax.Array, g: jax.Array, precision: Any = None) -> tuple[jax.Array, jax.Array]:
    """The gradients of x and w, from that of the output, g [B, H, W, Cout]."""
    forms = FORMS[w.shape[0], w.shape[1]]

    def piece(total: jax.Array, xg: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        pairs = zip(_inputs(xg[0], forms), _spread(xg[1], forms), strict=True)
        products = [jnp.einsum("nc,no->co", tile, over, precision=precision) for tile, over in pairs]
        return total + jnp.stack(products), None

    xs, gs = _pieces(x, w), _pieces(g, w)
    across = len(forms[1].kernel)
    zero = jnp.zeros((len(forms[0].kernel) * across, *w.shape[2:]), x.dtype)
    total = piece(zero, (x, g))[0] if xs.shape[0] == 1 else lax.scan(piece, zero, (xs, gs))[0]
    lines = [[_combined(row, list(total[j::across])) for j in range(across)] for row in forms[0].kernel.T]
    dw = jnp.stack([jnp.stack([_combined(row, line) for row in forms[1].kernel.T]) for line in lines])
    return forward(g, w[::-1, ::-1].swapaxes(2, 3), precision), dw


def _kernels(w: jax.Array, forms: tuple[Form, Form]) -> list[jax.Array]:
    """G w along both axes: for each product [Cin, Cout]. Sums, since a product by so small a matrix is slow."""
    rows, columns = range(w.shape[0]), range(w.shape[1])
    lines = [[_combined(row, [w[p, q] for p in rows]) for q in columns] for row in forms[0].kernel]
    return [_combined(row, line) for line in lines for row in forms[1].kernel]


def _sample(x: tuple[int, ...], w: tuple[int, ...]) -> int:
    """Numbers in the tiles of one sample, of inputs and outputs."""
    growth = math.prod(len(form.inputs) / len(form.outputs) for form in FORMS[w[0], w[1]])
    return int(x[1] * x[2] * sum(w[2:]) * growth)


def _pieces(z: jax.Array, w: jax.Array) -> jax.Array:
    """[pieces, b, H, W, C], the tiles of b samples having at most _FLOATS numbers."""
    size = piece_of(z.shape[0], _sample(z.shape, w.shape), _FLOATS)
    return z.reshape(z.shape[0] // size, size, *z.shape[1:])


def _inputs(x: jax.Array, forms: tuple[Form, Form]) -> list[jax.Array]:
    """B' d along both axes: for each product [tiles, C]."""
    parts = [_padded(x, forms, before=True)]
    for axis, form in enumerate(forms, 1):
        count, step = -(-x.shape[axis] // len(form.outputs)), len(form.outputs)
        seen = [[_every(part, axis, i, count, step) for i in range(len(form.inputs))] for part in parts]
        parts = [_combined(row, of) for of in seen for row in form.inputs]
    return [part.reshape(-1, x.shape[3]) for part in parts]


def _spread(g: jax.Array, forms: tuple[Form, Form]) -> list[jax.Array]:
    """A g along both axes: for each product [tiles, C]."""
    parts = [_padded(g, forms, before=False)]
    for axis, form in enumerate(forms, 1):
        count, step = -(-g.shape[axis] // len(form.outputs)), len(form.outputs)
        seen = [[_every(part, axis, i, count, step) for i in range(step)] for part in parts]
        parts = [_combined(row, of) for of in seen for row in form.outputs.T]
    return [part.reshape(-1, g.shape[3]) for part in parts]


def _outputs(products: list[jax.Array], shape: tuple[int, ...], forms: tuple[Form, Form]) -> jax.Array:
    """A' y along both axes, the tiles side by side: [B, H, W, C] of `shape`, its channels those of the products."""
    batch, height, width, _ = shape
    rows, columns = (-(-n // len(form.outputs)) for n, form in zip(shape[1:3], forms, strict=True))
    across = len(forms[1].inputs)
    lines = [[_combined(row, products[j::across]) for j in range(across)] for row in forms[0].outputs]
    parts = [[_combined(row, line).reshape(batch, rows, columns, -1) for row in forms[1].outputs] for line in lines]
    y = jnp.stack([jnp.stack(line, 3) for line in parts], 2)  # [B, rows, m, columns, m, C]
    return y.reshape(batch, rows * y.shape[2], columns * y.shape[4], -1)[:, :height, :width]


def _padded(z: jax.Array, forms: tuple[Form, Form], before: bool) -> jax.Array:
    """Up to whole tiles, or (before) to what whole tiles read."""
    pads = []
    for n, form in zip(z.shape[1:3], forms, strict=True):
        reach, rest = form.kernel.shape[1] // 2 * before, -n % len(form.outputs)
        pads.append((reach, reach + rest, 0))
    return lax.pad(z, jnp.zeros((), z.dtype), [(0, 0, 0), *pads, (0, 0, 0)])


def _combined(row: np.ndarray, parts: list[jax.Array]) -> jax.Array:
    used = [(float(factor), part) for factor, part in zip(row, parts, strict=True) if factor]
    return reduce(add, [part if factor == 1 else factor * part for factor, part in used])


def _every(z: jax.Array, axis: int, start: int, count: int, step: int) -> jax.Array:
    return lax.slice_in_dim(z, start, start + (count - 1) * step + 1, step, axis)
