"""Twice the resolution, by interpolation or by a transposed convolution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.ops.conv import conv2d


def double(x: jax.Array) -> jax.Array:
    """Bilinear interpolation with aligned corners, [B, H, W, C] -> [B, 2 H, 2 W, C].

    Corners of the output are corners of the input: along an axis of n, output i lies at i (n - 1) / (2 n - 1). So every
    input lies between two outputs, and the weights have a closed form.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        back = np.arange(n) / (2 * n - 1)  # weight of the neighbour before, for outputs 0, 2, 4, ...
        shape = tuple(n if i == axis else 1 for i in range(4))
        before, after = (jnp.asarray(w.reshape(shape), x.dtype) for w in (back, back[::-1]))
        first, last = (jax.lax.slice_in_dim(x, *ends, axis=axis) for ends in ((0, 1), (n - 1, n)))
        previous = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
        following = jnp.concatenate([jax.lax.slice_in_dim(x, 1, n, axis=axis), last], axis)
        pair = jnp.stack([x + before * (previous - x), x + after * (following - x)], axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
    return x


def transposed_conv2d(x: jax.Array, w: jax.Array, *, precision: jax.lax.PrecisionLike = None) -> jax.Array:
    """Transposed convolution, 2x2 with stride 2, as a 1x1 convolution to the four outputs of each input.

    Args:
      x: [B, H, W, Cin].
      w: [2, 2, Cin, Cout]; w[i, j] is the kernel of outputs (2 h + i, 2 w + j).
      precision: of the multiplications.

    Returns:
      [B, 2 H, 2 W, Cout].
    """
    b, height, width, c_in = x.shape
    y = conv2d(x, w.transpose(2, 0, 1, 3).reshape(1, 1, c_in, -1), precision=precision)
    y = y.reshape(b, height, width, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 2 * height, 2 * width, -1)
