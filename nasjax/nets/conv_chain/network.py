"""A `conv_chain` network specialised to one architecture.

Zoph & Le 2017, section 3.3 (compile rules); layer body and head as in docs/methods/reinforce.md (our choices:
convolution, batch norm, ReLU; global average, dense).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets import initial
from nasjax.nets.numerics import cast, precision
from nasjax.ops import pool
from nasjax.ops.conv import conv2d
from nasjax.ops.norm import batch_norm, local_contrast_norm
from nasjax.spaces.conv_chain.plan import IMAGE, LayerPlan, Plan, Source
from nasjax.types import Key, Network, PyTree


def conv_chain(plan: Plan, *, bn_eps: float = 1e-5, dtype: str = "float32") -> Network:
    """The network of one architecture.

    variables = {"params": {"layer0": {"kernel", "gamma", "beta"}, ..., "head": {"kernel", "bias"}},
    "batch_stats": {"layer0": {"mean", "var"}, ...}}; a `batch_norm` layer has no kernel, pools and local contrast norm
    have nothing, and only a convolution is followed by ReLU. Kernels start He normal with fan-in, the dense kernel
    normal with variance 1 / fan-in (our choice), its bias 0. `choice`, `key` and `drop_rate` are not used.

    Args:
      plan: `spaces.conv_chain.plan.plan(space, arch, image, classes)`.
      bn_eps: epsilon of batch norm.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Network: x [B, H, W, C] -> logits [B, classes]. `init` runs on the host, outside jit, and takes its dtype from x.

    Raises:
      ValueError: another dtype.

    Example:
      >>> network = conv_chain(plan(space, arch, (8, 8, 1), 10))
      >>> variables = network.init(jax.random.key(0), None, x)
      >>> logits, variables = network.apply(variables, None, x, train=True)
    """
    precision(dtype)
    module = _Chain(plan, bn_eps, dtype)

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        return initialise(key, plan, jnp.result_type(x, jnp.float32))

    def apply(
        variables: PyTree,
        choice: Any,
        x: jax.Array,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[jax.Array, PyTree]:
        outputs: Any
        if not train:
            outputs = module.apply(variables, x, train=False, bn_momentum=bn_momentum)
            return outputs, variables
        outputs = module.apply(variables, x, train=True, bn_momentum=bn_momentum, mutable=["batch_stats"])
        return outputs[0], {**variables, **outputs[1]}

    return Network(init, apply)


def initialise(key: Key, plan: Plan, dtype: Any = jnp.float32) -> PyTree:
    """Initial variables of one architecture, on the host. They do not depend on the space of the architecture."""
    convs = [(i, layer) for i, layer in enumerate(plan.layers) if layer.type == "conv"]
    names = [(*_channels(i, layer.sources), initial.words(layer.kernel, layer.filters)) for i, layer in convs]
    names.append((*_channels(initial.HEAD, plan.head), initial.words((1, 1), plan.classes)))
    *draws, dense = initial.kernels(key, names)
    params: dict[str, Any] = {
        "head": {"kernel": dense[0, 0] / np.sqrt(plan.head_channels), "bias": np.zeros(plan.classes)}
    }
    stats = {}
    for i, layer in enumerate(plan.layers):
        if layer.type in ("conv", "batch_norm"):
            params[f"layer{i}"] = {"gamma": np.ones(layer.filters), "beta": np.zeros(layer.filters)}
            stats[f"layer{i}"] = {"mean": np.zeros(layer.filters), "var": np.ones(layer.filters)}
    for (i, layer), draw in zip(convs, draws, strict=True):
        params[f"layer{i}"]["kernel"] = draw * np.sqrt(2 / (layer.kernel[0] * layer.kernel[1] * layer.in_channels))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), {"params": params, "batch_stats": stats})


def _channels(reader: int, sources: tuple[Source, ...]) -> tuple[np.ndarray, np.ndarray]:
    links = np.concatenate([np.full(s.channels, initial.link(reader, s.layer), np.uint32) for s in sources])
    return links, np.concatenate([np.arange(s.channels, dtype=np.uint32) for s in sources])


class _Layer(nn.Module):
    """One layer of the plan, on its concatenated input."""

    plan: LayerPlan
    bn_eps: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, bn_momentum: float | jax.Array) -> jax.Array:
        plan = self.plan
        if plan.type == "max_pool":
            return pool.max_pool(x, plan.kernel, plan.stride)
        if plan.type == "avg_pool":
            return pool.avg_pool(x, plan.kernel, plan.stride)
        if plan.type == "local_contrast_norm":
            return local_contrast_norm(x)
        if plan.type == "conv":
            kernel = self.param("kernel", nn.initializers.he_normal(), (*plan.kernel, plan.in_channels, plan.filters))
            x, kernel = cast(self.dtype, x, kernel)
            x = conv2d(x, kernel, plan.stride, precision=precision(self.dtype))
        width = (plan.filters,)
        gamma = self.param("gamma", nn.initializers.ones, width)
        beta = self.param("beta", nn.initializers.zeros, width)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        var = self.variable("batch_stats", "var", jnp.ones, width)
        x, statistics = batch_norm(
            x, gamma, beta, mean.value, var.value, train=train, momentum=bn_momentum, eps=self.bn_eps
        )
        if train:
            mean.value, var.value = statistics
        return nn.relu(x) if plan.type == "conv" else x


class _Chain(nn.Module):
    """All layers of the plan and the classifier."""

    plan: Plan
    bn_eps: float
    dtype: str

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool, bn_momentum: float | jax.Array) -> jax.Array:
        outputs = {(IMAGE, 0): image}  # (layer, poolings after it)

        def gather(sources: tuple[Source, ...], size: tuple[int, int]) -> jax.Array:
            for source in sources:
                for pools in range(1, source.pools + 1):
                    if (source.layer, pools) not in outputs:
                        outputs[source.layer, pools] = pool.halve(outputs[source.layer, pools - 1])
            parts = [pad_to(outputs[s.layer, s.pools], size) for s in sources]
            dtype = jnp.result_type(*parts)
            return jnp.concatenate([part.astype(dtype) for part in parts], -1) if len(parts) > 1 else parts[0]

        for i, layer in enumerate(self.plan.layers):
            body = _Layer(layer, self.bn_eps, self.dtype, name=f"layer{i}")
            outputs[i, 0] = body(gather(layer.sources, layer.in_size), train=train, bn_momentum=bn_momentum)
        features = gather(self.plan.head, self.plan.head_size)
        features = features.astype(jnp.promote_types(features.dtype, jnp.float32)).mean((1, 2))
        return _Head(self.plan.classes, name="head")(features)


class _Head(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.classes))
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        return jnp.matmul(x, kernel, precision="highest") + bias[None]


def pad_to(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Zero-pads [B, H, W, C] symmetrically to `size`, the extra row and column at the bottom and right."""
    pads = [((n - m) // 2, n - m - (n - m) // 2) for n, m in zip(size, x.shape[1:3], strict=True)]
    return x if x.shape[1:3] == tuple(size) else jnp.pad(x, [(0, 0), *pads, (0, 0)])
