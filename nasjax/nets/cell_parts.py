"""The common parts of networks of cells: convolution with batch norm, the classifier, initial values."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.initial import draws
from nasjax.nets.numerics import cast, precision
from nasjax.ops.collective import sample_keys
from nasjax.ops.conv import conv2d
from nasjax.ops.norm import batch_norm
from nasjax.types import Key, PyTree

ZEROS = nn.initializers.zeros  # of every parameter in Flax: `initialise` gives the values


def initialise(key: Key, shapes: PyTree, dtype: Any) -> PyTree:
    """Initial values: kernels uniform within 1 / sqrt(fan-in), scales and variances 1, the rest 0.

    All kernels come from one draw: hundreds of small ones would each compile a program.

    Args:
      shapes: of the variables; the last part of a leaf's path is its kind: "kernel" [..., outputs],
        "pointwise..." [..., inputs, outputs], "depthwise..." [..., kh, kw, channels], "gamma", "var", ...
    """
    leaves = jax.tree.leaves_with_path(shapes)
    kinds = [path[-1].key for path, _ in leaves]
    fans = [_fan_in(kind, leaf.shape) for kind, (_, leaf) in zip(kinds, leaves, strict=True)]
    sizes = [leaf.size if fan else 0 for fan, (_, leaf) in zip(fans, leaves, strict=True)]
    drawn = draws(jax.random.uniform, key, sum(sizes), dtype, -1.0, 1.0)
    xp: Any = jnp if isinstance(drawn, jax.core.Tracer) else np
    values = []
    for kind, fan, (_, leaf), end in zip(kinds, fans, leaves, np.cumsum(sizes).tolist(), strict=True):
        if fan:
            values.append(drawn[end - leaf.size : end].reshape(leaf.shape) * fan**-0.5)
        else:
            values.append(xp.full(leaf.shape, float(kind in ("gamma", "var")), dtype))
    return jax.tree.unflatten(jax.tree.structure(shapes), [jnp.asarray(value, dtype) for value in values])


def _fan_in(kind: str, shape: tuple[int, ...]) -> int:
    """The number of inputs that one output of a kernel sums over; 0 for other variables."""
    if kind.startswith("pointwise"):
        return shape[-2]
    if kind.startswith("depthwise"):
        return math.prod(shape[-3:-1])
    return math.prod(shape[:-1]) if kind == "kernel" else 0


class Mode(NamedTuple):
    """The arguments that all layers of one pass share."""

    train: bool
    bn_momentum: float | jax.Array
    bn_eps: float
    dtype: str


def normalise(params: PyTree, stats: PyTree, x: jax.Array, mode: Mode) -> tuple[jax.Array, PyTree]:
    """Batch norm by its variables, {"gamma", "beta"} or {} and {"mean", "var"}; also the new running statistics."""
    mean, var = stats["mean"], stats["var"]
    gamma, beta = params.get("gamma", jnp.ones_like(mean)), params.get("beta", jnp.zeros_like(mean))
    x, (mean, var) = batch_norm(x, gamma, beta, mean, var, train=mode.train, momentum=mode.bn_momentum, eps=mode.bn_eps)
    return x, {"mean": mean, "var": var}


class Norm(nn.Module):
    """Batch norm with scale and shift."""

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        width = x.shape[-1:]
        gamma, beta = self.param("gamma", ZEROS, width), self.param("beta", ZEROS, width)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        var = self.variable("batch_stats", "var", jnp.zeros, width)
        x, statistics = batch_norm(
            x, gamma, beta, mean.value, var.value, train=mode.train, momentum=mode.bn_momentum, eps=mode.bn_eps
        )
        if mode.train:
            mean.value, var.value = statistics
        return x


class UnscaledNorm(nn.Module):
    """Batch norm without parameters; `scale` [C] multiplies its output."""

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode, scale: jax.Array | None = None) -> jax.Array:
        width = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        var = self.variable("batch_stats", "var", jnp.zeros, width)
        dtype = mean.value.dtype
        scale = jnp.ones(width, dtype) if scale is None else scale.astype(dtype)
        shift = jnp.zeros(width, dtype)
        x, statistics = batch_norm(
            x, scale, shift, mean.value, var.value, train=mode.train, momentum=mode.bn_momentum, eps=mode.bn_eps
        )
        if mode.train:
            mean.value, var.value = statistics
        return x


class Conv(nn.Module):
    """Convolution and batch norm; the ReLU, if any, is the caller's."""

    features: int
    size: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        kernel = self.param("kernel", ZEROS, (self.size, self.size, x.shape[-1], self.features))
        x, kernel = cast(mode.dtype, x, kernel)
        x = conv2d(x, kernel, (self.stride, self.stride), precision=precision(mode.dtype))
        return Norm(name="norm")(x, mode)


class Layer(nn.Module):
    """A layer as a part of a network (`nets.parts`), after a ReLU if `relu` is set."""

    layer: nn.Module
    relu: bool = False
    image: tuple[int, ...] | None = None  # the shape that it must read

    def setup(self) -> None:
        nn.share_scope(self, self.layer)

    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[jax.Array]:
        (x,) = reads
        if self.image is not None and x.shape[1:] != self.image:
            raise ValueError(f"the plan is for images {self.image}, got {x.shape[1:]}; set DartsPlan(image=...)")
        return (self.layer(nn.relu(x) if self.relu else x, mode),)


class Dense(nn.Module):
    """The classifier, in float32 whatever its input's dtype."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", ZEROS, (x.shape[-1], self.features))
        bias = self.param("bias", ZEROS, (self.features,))
        return jnp.matmul(wide(x), kernel, precision="highest") + bias[None]


def noise(key: Key | None, x: jax.Array, stride: int) -> jax.Array:
    """Normal noise in place of x [B, H, W, C], [B, H / stride, W / stride, C] (Zela et al. 2020, section 3: S4).

    Every sample has its own. Without a key, in evaluation, it is always the same noise (ours; their code draws again).
    """
    y = x[:, ::stride, ::stride]
    keys = sample_keys(jax.random.key(0) if key is None else key, y.shape[0])
    return jax.vmap(lambda key: jax.random.normal(key, y.shape[1:], y.dtype))(keys)


def classify(params: PyTree, x: jax.Array, key: Key | None, dropout: float) -> jax.Array:
    """Global average, dropout per element (with a key only), dense layer in at least float32: logits [B, classes]."""
    x = wide(x).mean((1, 2))
    if dropout and key is not None:
        keys = sample_keys(key, len(x))
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - dropout, x.shape[1:]))(keys)
        x = jnp.where(keep, x / (1 - dropout), 0)
    logits = jnp.matmul(x, params["dense"], precision="highest")
    return logits + params["bias"][None] if "bias" in params else logits


def wide(x: jax.Array) -> jax.Array:
    """x in at least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
