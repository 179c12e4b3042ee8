"""One step of a recurrent cell, given its products with matrices.

Zoph & Le 2017, section 3.4. A *step* is `step(choice, u, w, c, h) -> (c, h)`: u, w [B, P, H] are the P products of the
input and of the last hidden state, c and h [B, H] the last states. A step has no weights, so a layer of any cell is one
wide product followed by a step. Two forms of a cell of the tree, with equal results: `masked_step`, where the cell is
data, and `static_step`, where it is fixed and nothing unused is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.spaces.cell_tree.named import Program
from nasjax.spaces.cell_tree.space import Cell, CellTree

Step = Callable[[Any, jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def step(cell: Program) -> Step:
    """The step of a fixed cell: one of the tree, or a reference by its name."""
    if isinstance(cell, str):
        return {"lstm": _lstm, "gru": _gru, "rnn": _rnn}[cell]
    return partial(_static, cell)


def masked_step(space: CellTree) -> Step:
    """The step whose cell is its `choice`, an Arch i32[4B + 2] of `space`, which may be traced and vmapped."""
    return partial(_masked, space)


# -- the tree, fixed -------------------------------------------------------------------------------------------


def _static(
    cell: Cell, choice: Any, u: jax.Array, w: jax.Array, c: jax.Array, h: jax.Array
) -> tuple[jax.Array, jax.Array]:
    outputs: list[jax.Array] = []
    new = c
    for node, (combination, activation) in enumerate(cell.nodes):
        children = cell.children(node)
        pair = (u[:, node], w[:, node]) if children is None else (outputs[children[0]], outputs[children[1]])
        pre = _COMBINE[combination](*pair)
        if node == cell.new_from:
            new = pre
        out = _ACTIVATE[activation](pre)
        if node == cell.inject_at:
            out = _ACTIVATE[cell.inject[1]](_COMBINE[cell.inject[0]](out, c))
        outputs.append(out)
    return new, outputs[-1]


_COMBINE: dict[str, Callable[..., jax.Array]] = {"add": jnp.add, "elem_mult": jnp.multiply, "max": jnp.maximum}
_ACTIVATE: dict[str, Callable[..., jax.Array]] = {
    "identity": lambda x: x,
    "tanh": jnp.tanh,
    "sigmoid": lambda x: 0.5 * jnp.tanh(0.5 * x) + 0.5,  # the masked form has one tanh for both
    "relu": jax.nn.relu,
    "sin": jnp.sin,
}


# -- the tree, as data -----------------------------------------------------------------------------------------


def _masked(
    space: CellTree, choice: jax.Array, u: jax.Array, w: jax.Array, c: jax.Array, h: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Level by level; where a level has no injection, its c is taken as 0 and the result is not used."""
    units = choice[:-2].reshape(-1, 2)
    new_from, inject_at = choice[-2], choice[-1]
    inject = units[-1:]
    new = jnp.zeros_like(c)
    first, left, right = 0, u, w
    while True:
        nodes = first + np.arange(left.shape[1])
        level = units[nodes]
        pre = _combine(space.combinations, level[:, :1], left, right)
        new += _only(pre, new_from == nodes)
        out = _activate(space.activations, level[:, 1:], pre)
        here = inject_at == nodes
        entering = jnp.where(here.any(), c, 0)[:, None]
        mixed = _combine(space.combinations, inject[:, :1], _only(out, here)[:, None], entering)
        out = jnp.where(here[:, None], _activate(space.activations, inject[:, 1:], mixed), out)
        if len(nodes) == 1:
            return new, out[:, 0]
        first, left, right = nodes[-1] + 1, out[:, ::2], out[:, 1::2]


def _only(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The node of [B, N, H] that `mask` bool[N] marks, 0 if none: [B, H]. Another node's infinity does not enter."""
    return jnp.where(mask[:, None], x, 0).sum(1)


def _select(names: tuple[str, ...], kind: jax.Array, values: Callable[[str], Any]) -> Any:
    """values(names[kind]) by selection; kind i32[N, 1] stands in front of the units of every node."""
    found = values(names[-1])
    for n, name in reversed(list(enumerate(names[:-1]))):
        found = jnp.where(kind == n, values(name), found)
    return found


# Both have their own gradients: the derivative is selected first and then multiplied, so that unused functions cannot
# spoil a cell's gradient (0 times infinity), and there is one product instead of one per choice.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _combine(names: tuple[str, ...], kind: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return _select(names, kind, lambda name: _COMBINE[name](a, b))


def _combine_forward(names, kind, a, b):
    return _combine(names, kind, a, b), (kind, a, b)


def _combine_backward(names, kept, g):
    kind, a, b = kept
    larger = {"add": lambda a, b: jnp.ones_like(a), "elem_mult": lambda a, b: b, "max": _larger}

    def gradient(a: jax.Array, b: jax.Array) -> jax.Array:
        return g * _select(names, kind, lambda name: larger[name](a, b))

    return None, gradient(a, b), gradient(b, a)


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(a == b, 0.5, (a > b).astype(a.dtype))


_combine.defvjp(_combine_forward, _combine_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _activate(names: tuple[str, ...], kind: jax.Array, x: jax.Array) -> jax.Array:
    halved = kind == names.index("sigmoid") if "sigmoid" in names else jnp.zeros(kind.shape, bool)
    tanh = jnp.tanh(jnp.where(halved, 0.5 * x, x)) if {"tanh", "sigmoid"} & set(names) else x

    def value(name: str) -> jax.Array:
        return tanh if name == "tanh" else 0.5 * tanh + 0.5 if name == "sigmoid" else _ACTIVATE[name](x)

    return _select(names, kind, value)


def _activate_forward(names, kind, x):
    y = _activate(names, kind, x)
    return y, (kind, x, y)


def _activate_backward(names, kept, g):
    kind, x, y = kept
    slopes: dict[str, Callable[[], jax.Array]] = {
        "identity": lambda: jnp.ones_like(x),
        "tanh": lambda: 1 - y * y,
        "sigmoid": lambda: y * (1 - y),
        "relu": lambda: (x > 0).astype(x.dtype),
        "sin": lambda: jnp.cos(x),
    }
    return None, g * _select(names, kind, lambda name: slopes[name]())


_activate.defvjp(_activate_forward, _activate_backward)


# -- references ------------------------------------------------------------------------------------------------


def _lstm(choice: Any, u: jax.Array, w: jax.Array, c: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gates in the order input, forget, candidate, output, as in `flax.linen.OptimizedLSTMCell`."""
    i, f, g, o = jnp.unstack(u + w, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def _gru(choice: Any, u: jax.Array, w: jax.Array, c: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Reset gate, update gate, candidate; the reset gate multiplies the product, as in `flax.linen.GRUCell`."""
    r, z = jnp.unstack(jax.nn.sigmoid(u[:, :2] + w[:, :2]), axis=1)
    n = jnp.tanh(u[:, 2] + r * w[:, 2])
    return c, (1 - z) * n + z * h


def _rnn(choice: Any, u: jax.Array, w: jax.Array, c: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    return c, jnp.tanh(u[:, 0] + w[:, 0])
