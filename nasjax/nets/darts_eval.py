"""The evaluation network of the DARTS family: one genotype in every cell, trained from scratch.

Liu et al. 2019, "DARTS: Differentiable Architecture Search" (arXiv:1806.09055), section 3.2 and their code: cells,
stems, drop path and auxiliary head.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.nets.cell_parts import ZEROS, Conv, Dense, Mode, Norm, initialise, wide
from nasjax.nets.numerics import cast, precision
from nasjax.ops import pool
from nasjax.ops.collective import sample_index
from nasjax.ops.conv import conv2d
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.spaces.darts_cell import NODES, Pair
from nasjax.spaces.darts_plan import AUXILIARY, AUXILIARY_WINDOW, STEM_MULTIPLIER, CellPlan, DartsPlan, stride_of
from nasjax.types import Key, Network, PyTree

_PAIRS = 2 * len(NODES)


def darts_eval(plan: DartsPlan, *, bn_eps: float = 1e-5, dtype: str = "float32") -> Network:
    """The network of one genotype.

    variables = {"params", "batch_stats"}, by part ("stem...", "cell0", ..., "auxiliary", "head") and operator. Kernels
    start uniform within 1 / sqrt(fan-in), as in the authors' code, the biases of the dense layers at 0 (ours).
    `choice` is not used.

    Args:
      plan: `spaces.darts_plan.DartsPlan`.
      bn_eps: epsilon of batch norm.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Network: x [B, H, W, colours] -> logits [B, classes]; in training and if the plan has an auxiliary head,
      (logits, auxiliary logits). In training each operator but the identity is dropped per sample with probability
      `drop_rate` (may be traced; needs `key`) and divided by 1 - drop_rate.

    Raises:
      ValueError: another dtype; at the call: images of another shape than the plan's, drop_rate without key.

    Example:
      >>> network = darts_eval(DartsPlan(genotype(named("DARTS_V2")), channels=8, layers=5, image=(8, 8, 1)))
      >>> variables = network.init(jax.random.key(0), None, x)
      >>> logits, variables = network.apply(variables, None, x, key=key, train=True, drop_rate=0.2)
    """
    precision(dtype)
    module = _Network(plan)

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        mode = Mode(False, 0.9, bn_eps, dtype)
        shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, mode, None), x[:1])
        return initialise(key, shapes, jnp.result_type(x, jnp.float32))

    def apply(
        variables: PyTree,
        choice: Any,
        x: jax.Array,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float | jax.Array = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[PyTree, PyTree]:
        outputs: Any
        if not train:
            return module.apply(variables, x, Mode(False, bn_momentum, bn_eps, dtype), None), variables
        keep = None
        if not isinstance(drop_rate, (int, float)) or drop_rate:
            if key is None:
                raise ValueError("drop path needs randomness: give key, or drop_rate=0")
            keep = _keep(key, drop_rate, len(x), plan.layers)
        mode = Mode(True, bn_momentum, bn_eps, dtype)
        outputs = module.apply(variables, x, mode, keep, mutable=["batch_stats"])
        return outputs[0], {**variables, **outputs[1]}

    return Network(init, apply)


def _keep(key: Key, drop_rate: float | jax.Array, batch: int, layers: int) -> jax.Array:
    """What the operators' outputs are multiplied by, f32[layers, 8, batch]: 0 or 1 / (1 - drop_rate)."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, sample_index(batch))
    draws = jax.vmap(lambda key: jax.random.uniform(key, (layers, _PAIRS)))(keys)
    return jnp.where(draws >= drop_rate, 1 / (1 - drop_rate), 0.0).transpose(1, 2, 0)


class _FactorizedReduce(nn.Module):
    """Half the channels from the even pixels, half from the odd ones; ReLU, 1x1 convolutions, batch norm.

    At odd sizes the odd pixels are one fewer: a zero stands in (ours; the authors' code takes even sizes only).
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        kernel = self.param("kernel", ZEROS, (1, 1, x.shape[-1], self.features))
        x, kernel = cast(mode.dtype, nn.relu(x), kernel)
        shifted = jnp.pad(x[:, 1:, 1:], [(0, 0), (0, 1), (0, 1), (0, 0)])
        kernels = jnp.split(kernel, 2, axis=-1)
        halves = [
            conv2d(z, w, (2, 2), precision=precision(mode.dtype)) for z, w in zip((x, shifted), kernels, strict=True)
        ]
        return Norm(name="norm")(jnp.concatenate(halves, -1), mode)


class _Depthwise(nn.Module):
    """ReLU, depthwise and pointwise convolution, batch norm."""

    size: int
    stride: int
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        kernel = self.param("kernel", ZEROS, (self.size, self.size, x.shape[-1]))
        x, kernel = cast(mode.dtype, nn.relu(x), kernel)
        x = depthwise_conv2d(x, kernel, self.stride, self.dilation)
        return Conv(x.shape[-1], name="pointwise")(x, mode)


class _Operator(nn.Module):
    """One of `darts_cell.OPERATORS`, with `stride`."""

    operator: str
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        step = (self.stride, self.stride)
        match self.operator:
            case "max_pool_3x3":
                return pool.max_pool(x, (3, 3), step)
            case "avg_pool_3x3":
                return pool.avg_pool(x, (3, 3), step)
            case "skip_connect":
                return x if self.stride == 1 else _FactorizedReduce(x.shape[-1], name="reduce")(x, mode)
            case "sep_conv_3x3" | "sep_conv_5x5":
                x = _Depthwise(int(self.operator[-1]), self.stride, name="first")(x, mode)
                return _Depthwise(int(self.operator[-1]), 1, name="second")(x, mode)
            case "dil_conv_3x3" | "dil_conv_5x5":
                return _Depthwise(int(self.operator[-1]), self.stride, 2, name="dilated")(x, mode)
            case other:
                raise ValueError(f"{other!r} is not an operator of a discrete cell")


class _Cell(nn.Module):
    """Preprocessing, four nodes, concatenation."""

    plan: CellPlan
    pairs: tuple[Pair, ...]

    @nn.compact
    def __call__(self, s0: jax.Array, s1: jax.Array, mode: Mode, keep: jax.Array | None) -> jax.Array:
        plan = self.plan
        if plan.follows_reduction:
            s0 = _FactorizedReduce(plan.channels, name="input0")(s0, mode)
        else:
            s0 = Conv(plan.channels, name="input0")(nn.relu(s0), mode)
        states = [s0, Conv(plan.channels, name="input1")(nn.relu(s1), mode)]
        for node in NODES:
            total: Any = 0.0
            for i in (2 * node - 4, 2 * node - 3):
                operator, source = self.pairs[i]
                stride = stride_of(plan.kind, source)
                y = _Operator(operator, stride, name=f"pair{i}")(states[source], mode)
                if keep is not None and not (operator == "skip_connect" and stride == 1):
                    y = y * keep[i].astype(y.dtype)[:, None, None, None]
                total = total + y
            states.append(total)
        return jnp.concatenate(states[2:], -1)


class _Auxiliary(nn.Module):
    """The second classifier, on maps of 8x8 (CIFAR) or 7x7 (ImageNet)."""

    plan: DartsPlan

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        corners = [slice(start, start + AUXILIARY_WINDOW) for start in (0, self.plan.auxiliary_stride)]
        x = nn.relu(x)
        x = jnp.stack([jnp.stack([x[:, rows, columns].mean((1, 2)) for columns in corners], 1) for rows in corners], 1)
        x = nn.relu(Conv(AUXILIARY[0], name="first")(x, mode))
        kernel = self.param("kernel", ZEROS, (2, 2, *AUXILIARY))  # without padding: one position
        x, kernel = cast(mode.dtype, x, kernel)
        x = jnp.einsum("bhwi,hwio->bo", x, kernel, precision=precision(mode.dtype))
        if self.plan.stem == "cifar":  # the authors' ImageNet head has no batch norm here
            x = Norm(name="norm")(x[:, None, None, :], mode)[:, 0, 0]
        return Dense(self.plan.classes, name="head")(nn.relu(x))


class _Network(nn.Module):
    """Stem, cells, classifiers."""

    plan: DartsPlan

    @nn.compact
    def __call__(self, image: jax.Array, mode: Mode, keep: jax.Array | None) -> PyTree:
        plan = self.plan
        if image.shape[1:] != plan.image:
            raise ValueError(f"the plan is for images {plan.image}, got {image.shape[1:]}; set DartsPlan(image=...)")
        if plan.stem == "cifar":
            s0 = s1 = Conv(STEM_MULTIPLIER * plan.channels, 3, name="stem")(image, mode)
        else:
            s0 = nn.relu(Conv(plan.channels // 2, 3, 2, name="stem0")(image, mode))
            s0 = Conv(plan.channels, 3, 2, name="stem1")(s0, mode)
            s1 = Conv(plan.channels, 3, 2, name="stem2")(nn.relu(s0), mode)
        auxiliary = None
        for k, cell in enumerate(plan.cells):
            body = _Cell(cell, getattr(plan.genotype, cell.kind), name=f"cell{k}")
            s0, s1 = s1, body(s0, s1, mode, None if keep is None else keep[k])
            if plan.auxiliary and k == plan.auxiliary_index and (mode.train or self.is_initializing()):
                auxiliary = _Auxiliary(plan, name="auxiliary")(s1, mode)
        logits = Dense(plan.classes, name="head")(wide(s1).mean((1, 2)))
        return logits if auxiliary is None else (logits, auxiliary)
