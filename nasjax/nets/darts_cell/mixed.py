"""The search network of the DARTS family: every operator on every edge, mixed by given weights.

Liu et al. 2019 (arXiv:1806.09055), section 2 and their code; partial channels: Xu et al. 2020 (PC-DARTS,
arXiv:1907.05737), section 3.2; dropout after skips: Chen et al. 2019 (P-DARTS, arXiv:1904.12760), section 3.3.

Written edge by edge, this network takes a quarter of an hour to compile. Here all edges that leave a node are computed
together: they read the same tensor, so its ReLU, poolings and their batch norms exist once, and the convolutions of one
operator on all its edges are one operator with more channels. The mixing weights are the scales of the batch norms.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.cell_parts import ZEROS, Conv, Dense, Layer, Mode, UnscaledNorm, noise, wide
from nasjax.nets.numerics import cast, precision
from nasjax.nets.parts import Line, assemble
from nasjax.ops import pool
from nasjax.ops.collective import sample_keys
from nasjax.ops.conv import conv2d
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.spaces.darts_cell.plan import CellPlan, SearchPlan, SearchStem, stride_of
from nasjax.spaces.darts_cell.space import CELLS, EDGES, KNOWN, NODES, OPERATORS
from nasjax.types import Key, Network

Lists = tuple[tuple[str, ...], ...]  # the operators of each edge
Choice = Mapping[str, jax.Array]


def darts_search(
    *,
    channels: int = 16,
    layers: int = 8,
    classes: int = 10,
    operators: Sequence[str] | Mapping[str, Sequence[Sequence[str]]] = OPERATORS,
    partial: int = 1,
    stem: SearchStem = "cifar",
    bn_eps: float = 1e-5,
    dtype: str = "float32",
) -> Network:
    """The search network.

    `choice` = {"normal": f32[14, O], "reduce": f32[14, O]}, the weight of each edge's operators in the order of
    `operators`; where it also has {"normal_edges": f32[14], "reduce_edges": f32[14]}, edges are weighted, too. A cell
    that has an entry of its own, {"cell3": f32[14, O]}, takes that instead of its kind's. In training `drop_rate` is
    the rate of dropout (per element, as in the authors' code) after identity skips.

    params["cell3"]["source1"]["sep_conv_5x5"] holds the operator on those edges that leave node 1 and have it, in the
    order of `EDGES` (see `operator_edges`): {"depthwise1": [E, 5, 5, c], "pointwise1": [E, c, c], "depthwise2",
    "pointwise2"}; a dilated convolution has {"depthwise1", "pointwise1"}, a strided skip {"pointwise1": [E, c, c]},
    whose output channels are the halves of FactorizedReduce. c = C / partial.

    Args:
      channels, layers: C and L; C doubles at the reduction cells.
      classes: number of logits.
      operators: names for every edge, or {"normal": 14 lists, "reduce": 14 lists} of equal length.
      partial: K of PC-DARTS: one channel in K goes through the operators, the others bypass them.
      stem: what images enter by, as of `SearchPlan`.
      bn_eps: epsilon of batch norm.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Network: x [B, H, W, colours] -> logits [B, classes].

    Raises:
      ValueError: unknown operators, lists of different lengths, sizes that cannot be built.
    """
    precision(dtype)
    names = _lists(operators)
    plan = SearchPlan(channels, layers, classes, partial=partial, stem=stem)
    if stem == "cifar":
        lines, first = [Line(("stem",), _Stem(plan.width), ("x",), ("out-1",))], -1
    else:
        halved = Layer(Conv(plan.width, 3, 2), relu=True)
        lines, first = [Line(("stem0",), Layer(Conv(plan.width // 2, 3, 2)), ("x",), ("half",))], -2
        lines += [Line(("stem1",), halved, ("half",), ("out-2",)), Line(("stem2",), halved, ("out-2",), ("out-1",))]
    for k, cell in enumerate(plan.cells):
        lines += _cell(k, cell, names[cell.kind], partial, first)
    lines.append(Line(("head",), _Head(classes), (f"out{layers - 1}",), ("y",)))
    return assemble(lines, bn_eps=bn_eps, dtype=dtype)


def _cell(k: int, plan: CellPlan, names: Lists, partial: int, first: int) -> list[Line]:
    """The lines of cell k. Node j is the sum of the edges into it; all edges that leave it are one line.

    `first` is the number of the first output that cells read, -1 or, where the stem has two, -2.
    """

    def edges(*, source: int | None = None, node: int | None = None) -> list[int]:
        return [e for e, (start, end) in enumerate(EDGES) if source == start or node == end]

    def value(name: str, numbers: Sequence[int]) -> tuple[str, ...]:
        return tuple(f"{name}{number}.{k}" for number in numbers)

    lines = []
    for i, before in enumerate((max(k - 2, first), k - 1)):
        conv = _Input(plan.channels, 2 if plan.follows_reduction and i == 0 else 1)
        lines.append(Line((f"cell{k}", f"input{i}"), conv, (f"out{before}",), value("node", [i])))
    for source in range(NODES[-1]):
        leaving = edges(source=source)
        body = _Source(tuple(names[e] for e in leaving), stride_of(plan.kind, source), partial, source >= 2)
        reads = value("edge", edges(node=source)) if source >= 2 else value("node", [source])
        writes = (value("node", [source]) if source >= 2 else ()) + value("edge", leaving)
        pick = functools.partial(_mixing, k=k, kind=plan.kind, edges=np.array(leaving), operators=len(names[0]))
        lines.append(Line((f"cell{k}", f"source{source}"), body, reads, writes, pick))
    last = NODES[-1]
    join = value("edge", edges(node=last)) + value("node", range(2, last))
    return [*lines, Line((f"cell{k}", "join"), _Join(len(edges(node=last))), join, (f"out{k}",))]


def _mixing(
    choice: Choice, *, k: int, kind: str, edges: np.ndarray, operators: int
) -> tuple[jax.Array, jax.Array | None]:
    """The weights of the operators on some edges of cell k [E, O], and of these edges [E] if they have any."""
    own = choice[name] if (name := f"cell{k}") in choice else choice[kind]
    if own.shape != (len(EDGES), operators):
        raise ValueError(
            f"the choice of {kind} cells is {own.shape}, but this network has {len(EDGES)} edges with "
            f"{operators} operators each"
        )
    of_edges = choice.get(f"{kind}_edges")
    return own[edges], None if of_edges is None else of_edges[edges]


def _lists(operators: Sequence[str] | Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Lists]:
    per_edge = operators if isinstance(operators, Mapping) else dict.fromkeys(CELLS, [operators] * len(EDGES))
    lists = {cell: tuple(tuple(names) for names in per_edge[cell]) for cell in CELLS}
    for names in (names for cell in CELLS for names in lists[cell]):
        if unknown := set(names) - set(KNOWN):
            raise ValueError(f"unknown operator {sorted(unknown)[0]!r}; choose from {', '.join(KNOWN)}")
        if len(set(names)) != len(names):
            raise ValueError(f"an edge names an operator twice: {names}")
    if len({len(names) for cell in CELLS for names in lists[cell]}) != 1 or any(len(lists[c]) != 14 for c in CELLS):
        raise ValueError("give each of the 14 edges of both cells equally many operators")
    return lists


def operator_edges(names: Lists, source: int, operator: str) -> list[int]:
    """The edges (positions in EDGES) that leave node `source` and have the operator, in the order of the parameters."""
    return [e for e, (start, _) in enumerate(EDGES) if start == source and operator in names[e]]


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
    """[B, H, W, C] -> [B, H, W, many C]. By a matrix product, so that XLA does not fuse the copying into readers."""
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
            x = UnscaledNorm(name=f"norm{stage}")(x, mode, jnp.repeat(weights, c) if last else None)
            x = x if last else nn.relu(x)
        return x


class _Source(nn.Module):
    """All edges that leave one node of a cell."""

    names: Lists  # the operators of each edge that leaves it
    stride: int
    partial: int
    returns_node: bool

    @property
    def draws(self) -> bool:
        """Whether it needs a key in training, with or without dropout."""
        return any("noise" in names for names in self.names)

    @nn.compact
    def __call__(
        self,
        summands: tuple[jax.Array, ...],
        choice: tuple[jax.Array, jax.Array | None],
        mode: Mode,
        key: Key | None,
        drop_rate: Any,
    ) -> tuple[jax.Array, ...]:
        """Values [B, H, W, C] whose sum is the node; weights [E, O] and [E] -> (the node,) E edges [B, H', W', C]."""
        weights, edge_weights = choice
        node = sum(summands[1:], summands[0])
        c = node.shape[-1] // self.partial
        mixed = self._mixed(node[..., :c], weights, mode, key, drop_rate)
        if self.partial > 1:
            past = node[..., c:]
            if self.stride == 2:  # an odd rest is kept, as by all other operators (ours; the authors' sizes are even)
                past = pool.halve(jnp.pad(past, [(0, 0), *((0, n % 2) for n in past.shape[1:3]), (0, 0)], mode="edge"))
            mixed = [shuffle_channels(jnp.concatenate([y, past], -1), self.partial) for y in mixed]
        if edge_weights is not None:
            mixed = [y * weight.astype(y.dtype) for y, weight in zip(mixed, edge_weights, strict=True)]
        return (node, *mixed) if self.returns_node else tuple(mixed)

    def _mixed(self, x: jax.Array, weights: jax.Array, mode: Mode, key: Key | None, drop_rate: Any) -> list[jax.Array]:
        """x [B, H, W, c] -> each edge's operators, mixed, [B, H', W', c]."""
        c = x.shape[-1]
        terms: list[list[jax.Array]] = [[] for _ in self.names]
        positive = nn.relu(x)
        for operator in KNOWN:
            edges = [e for e, names in enumerate(self.names) if operator in names]
            if not edges or operator == "none":
                continue
            mixing = jnp.stack([weights[e, self.names[e].index(operator)] for e in edges])
            if operator == "skip_connect" and self.stride == 2:
                wide = _Reduce(len(edges), name=operator)(positive, mixing, mode)
            elif "conv" in operator:
                wide = _Convolutions(operator, len(edges), self.stride, name=operator)(positive, mixing, mode)
            else:
                shared = x
                if "pool" in operator:
                    form = pool.max_pool if operator == "max_pool_3x3" else pool.avg_pool
                    shared = UnscaledNorm(name=operator)(form(x, (3, 3), (self.stride, self.stride)), mode)
                for e, weight in zip(edges, mixing, strict=True):
                    y = shared
                    own = None if key is None else jax.random.fold_in(key, e)
                    if operator == "noise":
                        y = noise(own, x, self.stride)
                    elif operator == "skip_connect" and own is not None:
                        y = _dropout(own, y, drop_rate)
                    terms[e].append(y * weight.astype(y.dtype))
                continue
            for i, e in enumerate(edges):
                terms[e].append(wide[..., i * c : (i + 1) * c])
        nothing = x[:, :: self.stride, :: self.stride] * 0  # an edge whose only operator is "none"
        return [sum(of[1:], of[0]) if of else nothing for of in terms]


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
        return UnscaledNorm(name="norm1")(y, mode, jnp.repeat(weights, c))


def _dropout(key: Key, x: jax.Array, rate: Any) -> jax.Array:
    """Every element with probability `rate` to 0, the others divided by 1 - rate."""
    keys = sample_keys(key, len(x))
    draws = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], x.dtype))(keys)
    return jnp.where(draws >= rate, x / (1 - rate), 0).astype(x.dtype)


class _Stem(nn.Module):
    features: int

    @nn.compact
    def __call__(
        self, inputs: tuple[jax.Array], choice: Any, mode: Mode, key: Key | None, rate: Any
    ) -> tuple[jax.Array]:
        return (Conv(self.features, 3, name="conv")(inputs[0], mode),)


class _Input(nn.Module):
    """ReLU, 1x1 convolution, batch norm: a cell's input in the channels (and with stride 2 the size) of its nodes."""

    features: int
    stride: int

    @nn.compact
    def __call__(
        self, inputs: tuple[jax.Array], choice: Any, mode: Mode, key: Key | None, rate: Any
    ) -> tuple[jax.Array]:
        x = nn.relu(inputs[0])
        kernel = self.param("kernel", ZEROS, (1, 1, x.shape[-1], self.features))
        x, kernel = cast(mode.dtype, x, kernel)
        return (UnscaledNorm(name="norm")(_pointwise(x, kernel[0, 0], self.stride, mode), mode),)


class _Join(nn.Module):
    """The output of a cell: its intermediate nodes; the last is still to be summed."""

    edges: int

    @nn.compact
    def __call__(
        self, inputs: tuple[jax.Array, ...], choice: Any, mode: Mode, key: Key | None, rate: Any
    ) -> tuple[jax.Array]:
        edges, nodes = inputs[: self.edges], inputs[self.edges :]
        return (jnp.concatenate([*nodes, sum(edges[1:], edges[0])], -1),)


class _Head(nn.Module):
    classes: int

    @nn.compact
    def __call__(
        self, inputs: tuple[jax.Array], choice: Any, mode: Mode, key: Key | None, rate: Any
    ) -> tuple[jax.Array]:
        return (Dense(self.classes, name="dense")(wide(inputs[0]).mean((1, 2))),)


def shuffle_channels(x: jax.Array, groups: int) -> jax.Array:
    """Channel g n + i becomes channel i groups + g: with 4 groups, 0..7 become 0 2 4 6 1 3 5 7 (ShuffleNet)."""
    return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(x.shape)
