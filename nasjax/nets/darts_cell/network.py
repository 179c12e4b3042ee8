"""The evaluation network of the DARTS family: one genotype in every cell, trained from scratch.

Liu et al. 2019, "DARTS: Differentiable Architecture Search" (arXiv:1806.09055), section 3.2 and their code: cells,
stems, drop path and auxiliary head.

Every operator is a part of its own: 20 cells have some 200 parts but about 15 kinds, so that a host which runs them
part by part compiles 15 programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.nets.cell_parts import ZEROS, Conv, Dense, Layer, Mode, Norm, noise, wide
from nasjax.nets.numerics import cast, precision
from nasjax.nets.parts import Line, assemble
from nasjax.ops import pool
from nasjax.ops.collective import sample_keys
from nasjax.ops.conv import conv2d
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.spaces.darts_cell.plan import AUXILIARY, AUXILIARY_WINDOW, STEM_MULTIPLIER, CellPlan, DartsPlan, stride_of
from nasjax.spaces.darts_cell.space import NODES, Pair
from nasjax.types import Key, Network, PyTree

_PAIRS = 2 * len(NODES)


def darts_eval(plan: DartsPlan, *, bn_eps: float = 1e-5, dtype: str = "float32") -> Network:
    """The network of one genotype.

    variables = {"params", "batch_stats"}, by part ("stem...", "cell0", ..., "auxiliary", "head") and operator. Kernels
    start uniform within 1 / sqrt(fan-in), as in the authors' code, the biases of the dense layers at 0 (ours).
    `choice` is not used.

    Args:
      plan: `spaces.darts_cell.plan.DartsPlan`.
      bn_eps: epsilon of batch norm.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Network of parts: x [B, H, W, colours] -> logits [B, classes]; in training and if the plan has an auxiliary head,
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
    return assemble(tuple(_lines(plan)), bn_eps=bn_eps, dtype=dtype)


def _lines(plan: DartsPlan) -> Iterator[Line]:
    """Stem, cells, classifiers, in the order in which they run."""
    dropped = [
        [f"keep{k}.{i}" if _droppable(cell, *pair) else "" for i, pair in enumerate(plan.genotype.of(k, cell.kind))]
        for k, cell in enumerate(plan.cells)
    ]
    flat = [name for names in dropped for name in names]
    if any(flat):
        pairs = tuple(n for n, name in enumerate(flat) if name)
        yield Line(("keep",), _Keep(plan.layers, pairs), ("x",), tuple(filter(None, flat)))
    if plan.stem == "cifar":
        yield Line(("stem",), Layer(Conv(STEM_MULTIPLIER * plan.channels, 3), image=plan.image), ("x",), ("stem",))
        s0 = s1 = "stem"
    else:
        first, second = Conv(plan.channels // 2, 3, 2), Conv(plan.channels, 3, 2)
        yield Line(("stem0",), Layer(first, image=plan.image), ("x",), ("stem0",))
        yield Line(("stem1",), Layer(second, relu=True), ("stem0",), ("stem1",))
        yield Line(("stem2",), Layer(second, relu=True), ("stem1",), ("stem2",))
        s0, s1 = "stem1", "stem2"
    auxiliary: tuple[str, ...] = ()
    for k, cell in enumerate(plan.cells):
        yield from _cell(k, cell, plan.genotype.of(k, cell.kind), dropped[k], s0, s1)
        s0, s1 = s1, f"cell{k}"
        if plan.auxiliary and k == plan.auxiliary_index:
            auxiliary = ("auxiliary",)
            yield Line(auxiliary, _Auxiliary(plan.stem, plan.auxiliary_stride, plan.classes), (s1,), auxiliary)
    yield Line(("head",), _Head(Dense(plan.classes)), (s1, *auxiliary), ("y",))


def _cell(k: int, plan: CellPlan, pairs: tuple[Pair, ...], dropped: list[str], s0: str, s1: str) -> Iterator[Line]:
    """Preprocessing, four nodes, concatenation."""
    name = f"cell{k}"
    reduced = Layer(_FactorizedReduce(plan.channels))
    squeezed = Layer(Conv(plan.channels), relu=True)
    yield Line((name, "input0"), reduced if plan.follows_reduction else squeezed, (s0,), (f"{name}.0",))
    yield Line((name, "input1"), squeezed, (s1,), (f"{name}.1",))
    states = [f"{name}.0", f"{name}.1"]
    for node in NODES:
        total: tuple[str, ...] = ()
        for i in (2 * node - 4, 2 * node - 3):
            operator, source = pairs[i]
            stride = stride_of(plan.kind, source)
            if _is_identity(operator, stride) and not total:  # nothing to compute: its input is the first summand
                total = (states[source],)
                continue
            keep = (dropped[i],) if dropped[i] else ()
            written = f"{name}.pair{i}"
            module = _Operator(operator, stride, bool(keep))
            yield Line((name, f"pair{i}"), module, (states[source], *keep, *total), (written,))
            total = (written,)
        states.append(total[0])
    yield Line((name, "output"), _Concatenation(), tuple(states[2:]), (name,))


def _is_identity(operator: str, stride: int) -> bool:
    return operator == "skip_connect" and stride == 1


def _droppable(plan: CellPlan, operator: str, source: int) -> bool:
    return not _is_identity(operator, stride_of(plan.kind, source))


def _keep(key: Key, drop_rate: float | jax.Array, batch: int, layers: int) -> jax.Array:
    """Factors of the operators' outputs, f32[layers, 8, batch]: 0 or 1 / (1 - drop_rate)."""
    keys = sample_keys(key, batch)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (layers, _PAIRS)))(keys)
    return jnp.where(draws >= drop_rate, 1 / (1 - drop_rate), 0.0).transpose(1, 2, 0)


class _Keep(nn.Module):
    """Drop path's factors of the pairs that may be dropped, numbered over all cells; () where nothing is dropped."""

    layers: int
    pairs: tuple[int, ...]

    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Key | None, drop_rate: Any) -> tuple[PyTree, ...]:
        (image,) = reads
        if key is None:
            return ((),) * len(self.pairs)
        keep = _keep(key, drop_rate, len(image), self.layers).reshape(self.layers * _PAIRS, -1)
        return tuple(keep[pair] for pair in self.pairs)


class _FactorizedReduce(nn.Module):
    """Half the channels from the even pixels, half from the odd ones; ReLU, 1x1 convolutions, batch norm.

    At odd sizes there is one odd pixel fewer: a zero replaces it (ours; the authors' code takes even sizes only).
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
    """One of `darts_cell.KNOWN` with `stride`, times drop path's factors, plus its node's sum so far."""

    operator: str
    stride: int
    droppable: bool

    @property
    def draws(self) -> bool:
        """Whether it needs a key in training, with or without drop path."""
        return self.operator == "noise"

    @nn.compact
    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[jax.Array]:
        x, *more = reads
        y = noise(key, x, self.stride) if self.draws else self._of(x, mode)
        if self.droppable and not isinstance(keep := more.pop(0), tuple):
            y = y * jax.lax.stop_gradient(keep).astype(y.dtype)[:, None, None, None]
        return (sum(more, y),)

    def _of(self, x: jax.Array, mode: Mode) -> jax.Array:
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


class _Concatenation(nn.Module):
    """The cell's output: its nodes side by side."""

    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[jax.Array]:
        return (jnp.concatenate(reads, -1),)


class _Auxiliary(nn.Module):
    """The second classifier, on maps of 8x8 (CIFAR) or 7x7 (ImageNet); () outside training."""

    stem: str
    stride: int
    classes: int

    @nn.compact
    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[PyTree]:
        (x,) = reads
        if not mode.train:
            return ((),)
        corners = [slice(start, start + AUXILIARY_WINDOW) for start in (0, self.stride)]
        x = nn.relu(x)
        x = jnp.stack([jnp.stack([x[:, rows, columns].mean((1, 2)) for columns in corners], 1) for rows in corners], 1)
        x = nn.relu(Conv(AUXILIARY[0], name="first")(x, mode))
        kernel = self.param("kernel", ZEROS, (2, 2, *AUXILIARY))  # without padding: one position
        x, kernel = cast(mode.dtype, x, kernel)
        x = jnp.einsum("bhwi,hwio->bo", x, kernel, precision=precision(mode.dtype))
        if self.stem == "cifar":  # the authors' ImageNet head has no batch norm here
            x = Norm(name="norm")(x[:, None, None, :], mode)[:, 0, 0]
        return (Dense(self.classes, name="head")(nn.relu(x)),)


class _Head(nn.Module):
    """The classifier; in training with the logits of the auxiliary head, where there is one."""

    layer: Dense

    def setup(self) -> None:
        nn.share_scope(self, self.layer)

    def __call__(self, reads: Any, choice: Any, mode: Mode, key: Any, drop_rate: Any) -> tuple[PyTree]:
        x, *auxiliary = reads
        logits = self.layer(wide(x).mean((1, 2)))
        return ((logits, *auxiliary) if auxiliary and mode.train else logits,)
