"""Layers by their definitions in NumPy, [B, C, H, W], for references that import nothing of ours."""

import numpy as np


def relu(x):
    return np.maximum(x, 0)


def convolved(x, weight, stride=1, padding=0, dilation=1):
    """Weight [O, I, k, k]; [C, 1, k, k] on C > 1 channels is depthwise."""
    size, depthwise = weight.shape[-1], weight.shape[1] == 1 and x.shape[1] == len(weight)
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    reach = dilation * (size - 1) + 1
    height, width = ((n - reach) // stride + 1 for n in x.shape[2:])
    y = 0
    for i in range(size):
        for j in range(size):
            rows = slice(i * dilation, i * dilation + (height - 1) * stride + 1, stride)
            columns = slice(j * dilation, j * dilation + (width - 1) * stride + 1, stride)
            z, tap = x[:, :, rows, columns], weight[:, :, i, j]
            y = y + (z * tap[:, 0, None, None] if depthwise else np.einsum("bihw,oi->bohw", z, tap))
    return y


def pooled(x, stride, kind):
    """3x3, padding 1; the mean is over the positions inside."""
    fill = -np.inf if kind == "max" else np.nan
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=fill)
    height, width = ((n - 3) // stride + 1 for n in x.shape[2:])
    windows = [
        x[:, :, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]
    return np.max(windows, 0) if kind == "max" else np.nanmean(windows, 0)
