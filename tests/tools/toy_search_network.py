"""Tiny networks that take the choice of a DARTS search network, for tests of learners: they compile in a second."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasjax.learners.msr_darts import LastKernels, Layout
from nasjax.learners.normalised import Convs
from nasjax.nets.cell_parts import Dense
from nasjax.nets.parts import Line, assemble
from nasjax.ops.collective import sample_index
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.ops.norm import batch_norm
from nasjax.spaces.darts_cell.space import CELLS
from nasjax.types import Network

EDGES = 14


def toy_network(*, width=6, operators=8, classes=3, edges=False, activation=jax.nn.softplus):
    """x [B, H, W, C] -> logits; per cell type a batch norm and channel weights mixed by choice[cell] (and edges)."""

    def init(key, choice, x):
        k = iter(jax.random.split(key, 4))
        params = {
            "stem": 0.5 * jax.random.normal(next(k), (x.shape[-1], width)),
            "head": jax.random.normal(next(k), (width, classes)) / np.sqrt(width),
        }
        params |= {cell: jax.random.normal(next(k), (EDGES, operators, width)) for cell in CELLS}
        stats = {cell: {"mean": jnp.zeros(width, x.dtype), "var": jnp.ones(width, x.dtype)} for cell in CELLS}
        return {"params": jax.tree.map(lambda leaf: leaf.astype(x.dtype), params), "batch_stats": stats}

    def apply(variables, choice, x, *, key=None, train=False, drop_rate=0.0, bn_momentum=0.9):
        params, stats = variables["params"], {}
        h, one, zero = x @ params["stem"], jnp.ones(width, x.dtype), jnp.zeros(width, x.dtype)
        for cell in CELLS:
            old = variables["batch_stats"][cell].values()
            h, (mean, var) = batch_norm(h, one, zero, *old, train=train, momentum=bn_momentum)
            stats[cell] = {"mean": mean, "var": var}
            per_edge = jnp.einsum("eo,eod->ed", choice[cell], params[cell])
            weight = choice[f"{cell}_edges"] if edges else jnp.ones(EDGES, x.dtype)
            h = activation(h) * (weight @ per_edge)[None, None, None, :]
        if train and not (isinstance(drop_rate, float) and drop_rate == 0):
            draw = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(sample_index(len(x)))
            h = h * ((draw >= drop_rate) / (1 - drop_rate))[:, None, None, None]
        return h.mean((1, 2)) @ params["head"], {"params": params, "batch_stats": stats}

    return Network(init, apply)


def toy_batch(seed, size=8, classes=3, dtype=np.float32):
    """{"train": (x, y), "val": (x, y)}, x [size, 4, 4, 4]: images whose channels lean towards their class."""
    rng = np.random.default_rng(seed)

    def draw():
        y = rng.integers(classes, size=size)
        leaning = 1.5 * np.eye(classes, 4)[y][:, None, None, :]
        return (rng.standard_normal((size, 4, 4, 4)) + leaning).astype(dtype), y.astype(np.int32)

    return {"train": draw(), "val": draw()}


def toy_conv_network(*, width=3, classes=3):
    """For MSR-DARTS: each cell sums, over edges and operators, 1x1 convolutions, the first after depthwise 3x3 ones."""

    def init(key, choice, x):
        k = iter(jax.random.split(key, 5))
        params = {
            "stem": 0.5 * jax.random.normal(next(k), (x.shape[-1], width)),
            "head": jax.random.normal(next(k), (width, classes)) / np.sqrt(width),
            "depthwise": jax.random.normal(next(k), (EDGES * 4, 3, 3, width)),
        }
        params |= {cell: {"last": jax.random.normal(next(k), (EDGES * 4, width, width))} for cell in CELLS}
        stats = {cell: {"mean": jnp.zeros(width, x.dtype), "var": jnp.ones(width, x.dtype)} for cell in CELLS}
        return {"params": jax.tree.map(lambda leaf: leaf.astype(x.dtype), params), "batch_stats": stats}

    def apply(variables, choice, x, *, key=None, train=False, drop_rate=0.0, bn_momentum=0.9):
        params, stats = variables["params"], {}
        h, one, zero = x @ params["stem"], jnp.ones(width, x.dtype), jnp.zeros(width, x.dtype)
        for cell in CELLS:
            old = variables["batch_stats"][cell].values()
            h, (mean, var) = batch_norm(h, one, zero, *old, train=train, momentum=bn_momentum)
            stats[cell] = {"mean": mean, "var": var}
            wide = jnp.tile(jax.nn.softplus(h), (1, 1, 1, EDGES * 4))
            if cell == "normal":
                wide = depthwise_conv2d(wide, params["depthwise"].transpose(1, 2, 0, 3).reshape(3, 3, -1))
            wide = wide.reshape(*h.shape[:3], EDGES * 4, width)
            h = jnp.einsum("bhwei,eij,e->bhwj", wide, params[cell]["last"], choice[cell].reshape(-1))
        return h.mean((1, 2)) @ params["head"], {"params": params, "batch_stats": stats}

    return Network(init, apply)


def toy_layout():
    """Where the convolutions of `toy_conv_network` are, for images of `toy_batch`."""
    convs = [Convs((("depthwise",),), depthwise=True, size=(4, 4))]
    convs += [Convs(tuple((cell, "last") for cell in CELLS), depthwise=False)]
    shape = (EDGES, 4, 3, 3)
    return Layout(convs, lambda params: [LastKernels(c, (2, 2), params[c]["last"].reshape(shape)) for c in CELLS])


class _Affine(nn.Module):
    """The sum of what it reads, normalised, mixed by its choice; twice the same, so the parts share a program."""

    width: int = 6

    @nn.compact
    def __call__(self, inputs, choice, mode, key, rate):
        x = sum(inputs[1:], inputs[0])
        kernel = self.param("kernel", nn.initializers.zeros, (1, 1, x.shape[-1], self.width))
        mean = self.variable("batch_stats", "mean", jnp.zeros, self.width)
        var = self.variable("batch_stats", "var", jnp.ones, self.width)
        one = jnp.ones(self.width, x.dtype)
        x, moved = batch_norm(x @ kernel[0, 0], one, 0 * one, mean.value, var.value, train=mode.train)
        if mode.train:
            mean.value, var.value = moved
        x = jax.nn.softplus(x) * (choice * jnp.linspace(0.0, 16.0, choice.size).reshape(choice.shape)).mean()
        if key is not None:
            draw = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(sample_index(len(x)))
            x = x * ((draw >= rate) / (1 - rate))[:, None, None, None]
        return x, jnp.tanh(x)


class _Head(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, inputs, choice, mode, key, rate):
        return (Dense(self.classes, name="dense")(sum(inputs[1:], inputs[0]).mean((1, 2))),)


def toy_parts_network():
    """A network of parts: values read twice and once, equal parts with other variables and other choices."""
    lines = [Line(("stem",), _Affine(), ("x",), ("a", "b"), lambda choice: choice["normal"])]
    for i, (reads, cell) in enumerate(((("a", "b"), "normal"), (("a", "c0"), "reduce"))):
        pick = partial(lambda choice, cell, i: choice[cell][i], cell=cell, i=i)
        lines.append(Line((f"cell{i}", "body"), _Affine(), reads, (f"c{i}", f"d{i}"), pick))
    lines.append(Line(("head",), _Head(), ("b", "d0", "c1", "d1"), ("y",)))
    return assemble(lines)
