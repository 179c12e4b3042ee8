"""Images averaged by area, exactly where they are integers."""

from __future__ import annotations

import numpy as np


def resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area average: every new pixel is the mean of the rectangle of old ones that it covers.

    For integers the sums are whole numbers, exact in float64 in any order: the same whatever the number of threads.

    Args:
      x: [N, H, W, C], uint8, uint16 (rounded to integers again) or float32.
      height, width: pixels afterwards; ratios need not be whole.

    Returns:
      [N, height, width, C] of the same type.
    """
    rows, columns = _overlap(x.shape[1], height), _overlap(x.shape[2], width)
    out = np.empty((len(x), height, width, x.shape[3]), x.dtype)
    for start in range(0, len(x), 1000):  # in pieces, to keep the float copies small
        y = np.einsum("ph,nhwc,qw->npqc", rows, x[start : start + 1000].astype(np.float64), columns, optimize=True)
        y /= x.shape[1] * x.shape[2]
        out[start : start + 1000] = np.rint(y) if x.dtype.kind == "u" else y
    return out


def _overlap(old: int, new: int) -> np.ndarray:
    """f64[new, old]: the share of each old pixel in each new one, in whole units of 1/new; rows sum to `old`."""
    edges, pixels = np.arange(new + 1) * old, np.arange(old + 1) * new
    share = np.minimum(edges[1:, None], pixels[1:]) - np.maximum(edges[:-1, None], pixels[:-1])
    return share.clip(0).astype(np.float64)
