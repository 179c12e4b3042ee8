"""The search network of the DARTS family: every operator on every edge, mixed by given weights.

Liu et al. 2019 (arXiv:1806.09055), section 2 and their code; partial channels: Xu et al. 2020 (PC-DARTS,
arXiv:1907.05737), section 3.2; dropout behind skips: Chen et al. 2019 (P-DARTS, arXiv:1904.12760), section 3.3.

Written edge by edge this network takes a quarter of an hour to compile. Here all edges that leave a node are computed
together: they read the same tensor, so its ReLU, poolings and their batch norms exist once, and the convolutions of one
operator on all its edges are one operator with more channels. The mixing weights are the scales of the batch norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.nets.cell_parts import ZEROS, Conv, Dense, Mode, initialise, wide
from nasjax.nets.numerics import cast, precision
from nasjax.ops import pool
from nasjax.ops.collective import sample_index
from nasjax.ops.conv import conv2d
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.ops.norm import batch_norm
from nasjax.spaces.darts_cell import CELLS, EDGES, NODES, OPERATORS
from nasjax.spaces.darts_plan import STEM_MULTIPLIER, CellPlan, SearchPlan, stride_of
from nasjax.types import Key, Network, PyTree

Lists = tuple[tuple[str, ...], ...]  # the operators of each edge


def darts_search(
    *,
    channels: int = 16,
    layers: int = 8,
    classes: int = 10,
    operators: Sequence[str] | Mapping[str, Sequence[Sequence[str]]] = OPERATORS,
    partial: int = 1,
    bn_eps: float = 1e-5,
    dtype: str = "float32",
) -> Network:
    """The search network.

    `choice` = {"normal": f32[14, O], "reduce": f32[14, O]}, the weight of each edge's operators in the order of
    `operators`; where it also has {"normal_edges": f32[14], "reduce_edges": f32[14]}, edges are weighted, too. In
    training `drop_rate` is the rate of dropout (per element, as in the authors' code) behind identity skips.

    params["cell3"]["source1"]["sep_conv_5x5"] holds the operator on those edges that leave node 1 and have it, in the
    order of `EDGES` (see `operator_edges`): {"depthwise1": [E, 5, 5, c], "pointwise1": [E, c, c], "depthwise2",
    "pointwise2"}; a dilated convolution has {"depthwise1", "pointwise1"}, a strided skip {"pointwise1": [E, c, c]},
    whose output channels are the halves of FactorizedReduce. c = C / partial.

    Args:
      channels, layers: C and L; C doubles at the reduction cells.
      classes: number of logits.
      operators: names for every edge, or {"normal": 14 lists, "reduce": 14 lists} of equal length.
      partial: K of PC-DARTS: one channel in K goes through the operators, the others pass by.
      bn_eps: epsilon of batch norm.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Network: x [B, H, W, colours] -> logits [B, classes].

    Raises:
      ValueError: unknown operators, lists of different lengths, sizes that cannot be built.
    """
    precision(dtype)
    lists = _lists(operators)
    module = _Search(
        SearchPlan(channels, layers, classes, partial=partial), (lists["normal"], lists["reduce"]), partial
    )

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        mode = Mode(True, 0.9, bn_eps, dtype)
        shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, choice, mode, None, 0.0), x[:1])
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
    ) -> tuple[jax.Array, PyTree]:
        mode = Mode(train, bn_momentum, bn_eps, dtype)
        outputs: Any
        drops = train and not (isinstance(drop_rate, (int, float)) and not drop_rate)
        if drops and key is None:
            raise ValueError("dropout needs randomness: give key, or drop_rate=0")
        arguments = (x, choice, mode, key if drops else None, drop_rate)
        if not train:
            outputs = module.apply(variables, *arguments)
            return outputs, variables
        outputs = module.apply(variables, *arguments, mutable=["batch_stats"])
        return outputs[0], {**variables, **outputs[1]}

    return Network(init, apply)


def _lists(operators: Sequence[str] | Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Lists]:
    per_edge = operators if isinstance(operators, Mapping) else dict.fromkeys(CELLS, [operators] * len(EDGES))
    lists = {cell: tuple(tuple(names) for names in per_edge[cell]) for cell in CELLS}
    for names in (names for cell in CELLS for names in lists[cell]):
        if unknown := set(names) - set(OPERATORS):
            raise ValueError(f"unknown operator {sorted(unknown)[0]!r}; choose from {', '.join(OPERATORS)}")
        if len(set(names)) != len(names):
            raise ValueError(f"an edge names an operator twice: {names}")
    if len({len(names) for cell in CELLS for names in lists[cell]}) != 1 or any(len(lists[c]) != 14 for c in CELLS):
        raise ValueError("give each of the 14 edges of both cells equally many operators")
    return lists


def operator_edges(names: Lists, source: int, operator: str) -> list[int]:
    """The edges (positions in EDGES) that leave node `source` and have the operator, in the order of the parameters."""
    return [e for e, (start, _) in enumerate(EDGES) if start == source and operator in names[e]]


class _Norm(nn.Module):
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


class _Conv(nn.Module):
    """1x1 convolution and batch norm without parameters. Strided, it is FactorizedReduce without its ReLU."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        kernel = self.param("kernel", ZEROS, (1, 1, x.shape[-1], self.features))
        x, kernel = cast(mode.dtype, x, kernel)
        return _Norm(name="norm")(_pointwise(x, kernel[0, 0], self.stride, mode), mode)


def _pointwise(x: jax.Array, kernel: jax.Array, stride: int, mode: Mode) -> jax.Array:
    """1x1 convolution; with stride 2 the second half of the outputs reads the odd pixels (FactorizedReduce)."""
    if stride == 1:
        return conv2d(x, kernel[None, None], precision=precision(mode.dtype))
    shifted = jnp.pad(x[:, 1:, 1:], [(0, 0), (0, 1), (0, 1), (0, 0)])
    halves = zip((x, shifted), jnp.split(kernel, 2, axis=-1), strict=True)
    return jnp.concatenate([conv2d(z, w[None, None], (2, 2), precision=precision(mode.dtype)) for z, w in halves], -1)


def _blocks(kernels: jax.Array) -> jax.Array:
    """[E, i, o] -> block-diagonal [E i, E o]: a dense product on the CPU costs less than a batch of thin ones."""
    many, c_in, c_out = kernels.shape
    eye = jnp.eye(many, dtype=kernels.dtype)
    return (kernels[:, :, None, :] * eye[:, None, :, None]).reshape(many * c_in, many * c_out)


def _copies(x: jax.Array, many: int) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, many C]. As a matrix product XLA cannot fuse the copying into what reads it."""
    if many == 1:
        return x
    return jnp.einsum("bhwc,cd->bhwd", x, jnp.tile(jnp.eye(x.shape[3], dtype=x.dtype), (1, many)), precision="highest")


class _Convolutions(nn.Module):
    """A separable or dilated convolution on `edges` edges that read the same tensor, scaled by their weights."""

    operator: str
    edges: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array, mode: Mode) -> jax.Array:
        """x [B, H, W, c] after ReLU, weights [E] -> [B, H', W', E c]."""
        c, size = x.shape[-1], int(self.operator[-1])
        dilated = self.operator.startswith("dil")
        for stage in (1,) if dilated else (1, 2):
            depthwise = self.param(f"depthwise{stage}", ZEROS, (self.edges, size, size, c))
            pointwise = self.param(f"pointwise{stage}", ZEROS, (self.edges, c, c))
            x, depthwise, pointwise = cast(mode.dtype, x, depthwise, pointwise)
            if stage == 1:
                x = _copies(x, self.edges)
            depthwise = depthwise.transpose(1, 2, 0, 3).reshape(size, size, self.edges * c)
            x = depthwise_conv2d(x, depthwise, self.stride if stage == 1 else 1, 2 if dilated else 1)
            x = conv2d(x, _blocks(pointwise)[None, None], precision=precision(mode.dtype))
            last = dilated or stage == 2
            x = _Norm(name=f"norm{stage}")(x, mode, jnp.repeat(weights, c) if last else None)
            x = x if last else nn.relu(x)
        return x


class _Source(nn.Module):
    """All that leaves one node of a cell."""

    source: int
    kind: str
    names: Lists

    @nn.compact
    def __call__(
        self, x: jax.Array, weights: jax.Array, mode: Mode, key: Key | None, drop_rate: Any
    ) -> dict[int, jax.Array]:
        """x [B, H, W, c], weights [14, O] -> {edge: [B, H', W', c]}."""
        stride, c = stride_of(self.kind, self.source), x.shape[-1]
        total: dict[int, Any] = dict.fromkeys((e for e, (start, _) in enumerate(EDGES) if start == self.source), 0.0)
        positive = nn.relu(x)
        for operator in OPERATORS:
            edges = operator_edges(self.names, self.source, operator)
            if not edges or operator == "none":
                continue
            mixing = jnp.stack([weights[e, self.names[e].index(operator)] for e in edges])
            if operator == "skip_connect" and stride == 2:
                module = _Reduce(len(edges), name=operator)
                wide = module(positive, mixing, mode)
            elif "conv" in operator:
                wide = _Convolutions(operator, len(edges), stride, name=operator)(positive, mixing, mode)
            else:
                shared = x
                if operator != "skip_connect":
                    form = pool.max_pool if operator == "max_pool_3x3" else pool.avg_pool
                    shared = _Norm(name=operator)(form(x, (3, 3), (stride, stride)), mode)
                for e, weight in zip(edges, mixing, strict=True):
                    y = shared
                    if operator == "skip_connect" and key is not None:
                        y = _dropout(jax.random.fold_in(key, e), y, drop_rate)
                    total[e] = total[e] + y * weight.astype(y.dtype)
                continue
            for i, e in enumerate(edges):
                total[e] = total[e] + wide[..., i * c : (i + 1) * c]
        return total


class _Reduce(nn.Module):
    """FactorizedReduce on `edges` edges that read the same tensor, scaled by their weights."""

    edges: int

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array, mode: Mode) -> jax.Array:
        """x [B, H, W, c] after ReLU, weights [E] -> [B, H / 2, W / 2, E c]."""
        c = x.shape[-1]
        kernel = self.param("pointwise1", ZEROS, (self.edges, c, c))
        x, kernel = cast(mode.dtype, x, kernel)
        halves = kernel.reshape(self.edges, c, 2, c // 2).transpose(1, 2, 0, 3).reshape(c, -1)  # all first halves first
        y = _pointwise(x, halves, 2, mode)
        y = y.reshape(*y.shape[:3], 2, self.edges, c // 2).swapaxes(3, 4).reshape(*y.shape[:3], -1)
        return _Norm(name="norm1")(y, mode, jnp.repeat(weights, c))


def _dropout(key: Key, x: jax.Array, rate: Any) -> jax.Array:
    """Every element with probability `rate` to 0, the others divided by 1 - rate."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, sample_index(len(x)))
    draws = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], x.dtype))(keys)
    return jnp.where(draws >= rate, x / (1 - rate), 0).astype(x.dtype)


class _Cell(nn.Module):
    plan: CellPlan
    names: Lists
    partial: int

    @nn.compact
    def __call__(
        self, s0: jax.Array, s1: jax.Array, choice: Mapping[str, jax.Array], mode: Mode, key: Key | None, rate: Any
    ) -> jax.Array:
        plan, c = self.plan, self.plan.channels // self.partial
        first = _Conv(plan.channels, 2 if plan.follows_reduction else 1, name="input0")(nn.relu(s0), mode)
        states = [first, _Conv(plan.channels, name="input1")(nn.relu(s1), mode)]
        weights, edge_weights = choice[plan.kind], choice.get(f"{plan.kind}_edges")
        edges: dict[int, jax.Array] = {}
        for source in range(NODES[-1]):
            if source >= 2:
                incoming = [e for e, (_, node) in enumerate(EDGES) if node == source]
                states.append(sum((edges[e] for e in incoming), jnp.zeros((), s1.dtype)))
            x = states[source]
            body = _Source(source, plan.kind, self.names, name=f"source{source}")
            leaving = body(x[..., :c], weights, mode, None if key is None else jax.random.fold_in(key, source), rate)
            past = x[..., c:]
            if self.partial > 1 and stride_of(plan.kind, source) == 2:
                past = pool.halve(past)
            for e, mixed in leaving.items():
                if self.partial > 1:
                    mixed = shuffle_channels(jnp.concatenate([mixed, past], -1), self.partial)
                edges[e] = mixed if edge_weights is None else mixed * edge_weights[e].astype(mixed.dtype)
        incoming = [e for e, (_, node) in enumerate(EDGES) if node == NODES[-1]]
        states.append(sum((edges[e] for e in incoming), jnp.zeros((), s1.dtype)))
        return jnp.concatenate(states[2:], -1)


def shuffle_channels(x: jax.Array, groups: int) -> jax.Array:
    """Channel g n + i becomes channel i groups + g: with 4 groups, 0..7 become 0 2 4 6 1 3 5 7 (ShuffleNet)."""
    return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(x.shape)


class _Search(nn.Module):
    plan: SearchPlan
    names: tuple[Lists, Lists]
    partial: int

    @nn.compact
    def __call__(
        self, x: jax.Array, choice: Mapping[str, jax.Array], mode: Mode, key: Key | None, rate: Any
    ) -> jax.Array:
        plan = self.plan
        s0 = s1 = _Stem(STEM_MULTIPLIER * plan.channels, name="stem")(x, mode)
        for k, cell in enumerate(plan.cells):
            body = _Cell(cell, self.names[CELLS.index(cell.kind)], self.partial, name=f"cell{k}")
            s0, s1 = s1, body(s0, s1, choice, mode, None if key is None else jax.random.fold_in(key, k), rate)
        return Dense(plan.classes, name="head")(wide(s1).mean((1, 2)))


class _Stem(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        return Conv(self.features, 3, name="conv")(x, mode)
