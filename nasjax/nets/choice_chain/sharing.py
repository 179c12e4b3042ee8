"""How the operators of a layer share weights: each has its own, or all are parts of the largest.

Own weights: Guo et al. 2020 (SPOS, arXiv:1904.00420). Parts of the largest: Yu et al. 2020 (BigNAS, arXiv:2003.11142)
and Cai et al. 2020 (once-for-all, arXiv:1908.09791), section 3: a smaller kernel is the centre of the larger one, fewer
channels are the first of them. Once-for-all turns the centre by a matrix of its own, BigNAS does not, and nor do we.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.choice_chain.blocks import Block, Step, named_steps, step_shapes
from nasjax.types import PyTree

Blocks = Mapping[str, Block]  # of one layer, by operator


class Sharing(NamedTuple):
    """Where the arrays of an operator lie. A tree is {"params"} or {"batch_stats"} of one layer, or of n equal ones.

    shapes(blocks, affine, lead) -> shapes of both; `lead` = leading axes of every array
    take(blocks, operator, tree of a layer) -> that operator's arrays
    put(blocks, operator, tree of a layer, the operator's arrays) -> the tree with these in it
    pick(blocks, chosen i32[P, n], new, old) -> trees of n layers, `new` where one of P paths uses it, else `old`
    apart: whether an operator's arrays are a subtree of the layer's, by its name
    """

    shapes: Callable[[Blocks, bool, tuple[int, ...]], PyTree]
    take: Callable[[Blocks, str, PyTree], PyTree]
    put: Callable[[Blocks, str, PyTree, PyTree], PyTree]
    pick: Callable[[Blocks, jax.Array, PyTree, PyTree], PyTree]
    apart: bool


def corner(kind: str, step: Step, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of an array of this shape that a step has as its own: a kernel's centre, the first channels."""
    if kind == "depthwise":
        rim = (shape[0] - step.size) // 2
        return (slice(rim, rim + step.size),) * 2 + (slice(step.c_out),)
    return (slice(step.c_in), slice(step.c_out)) if kind == "pointwise" else (slice(step.c_out),)


def cut(steps: Mapping[str, Step], tree: PyTree) -> PyTree:
    """The parts of a tree's arrays, {step: {kind: array}}, that some steps have as their own."""
    return {
        name: {kind: leaf[corner(kind, steps[name], leaf.shape)] for kind, leaf in of.items()}
        for name, of in tree.items()
    }


def _own_shapes(blocks: Blocks, affine: bool, lead: tuple[int, ...]) -> PyTree:
    found = {name: step_shapes(named_steps(block), affine, lead) for name, block in blocks.items()}
    return {kind: {name: of[kind] for name, of in found.items()} for kind in ("params", "batch_stats")}


def _own_pick(blocks: Blocks, chosen: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    def of(number: int, operator: str) -> PyTree:
        used = (chosen == number).any(0)

        def pick(a: jax.Array, b: jax.Array) -> jax.Array:
            return jnp.where(used.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

        return jax.tree.map(pick, new[operator], old[operator])

    return {operator: of(number, operator) for number, operator in enumerate(blocks)}


OWN = Sharing(
    _own_shapes,
    lambda blocks, operator, tree: tree[operator],
    lambda blocks, operator, tree, part: {**tree, operator: part},
    _own_pick,
    apart=True,
)


def largest(blocks: Blocks) -> dict[str, Step]:
    """Steps that hold those of all operators, which must be alike but for their sizes."""
    alike = [named_steps(block) for block in blocks.values()]

    def most(name: str, size: str) -> int:
        return max(getattr(steps[name], size) for steps in alike)

    return {
        name: step._replace(c_in=most(name, "c_in"), c_out=most(name, "c_out"), size=most(name, "size"))
        for name, step in alike[0].items()
    }


def _put(blocks: Blocks, operator: str, tree: PyTree, part: PyTree) -> PyTree:
    steps = named_steps(blocks[operator])
    return {
        name: {kind: leaf.at[corner(kind, steps[name], leaf.shape)].set(part[name][kind]) for kind, leaf in of.items()}
        for name, of in tree.items()
    }


def _pick(blocks: Blocks, chosen: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    steps = {operator: named_steps(block) for operator, block in blocks.items()}

    def one(name: str, kind: str, a: jax.Array, b: jax.Array) -> jax.Array:
        used: Any = False
        for number, operator in enumerate(blocks):
            inside = np.zeros(a.shape[1:], bool)
            inside[corner(kind, steps[operator][name], inside.shape)] = True
            used |= (chosen == number).any(0).reshape(-1, *(1,) * inside.ndim) & inside[None]
        return jnp.where(used, a, b)

    return {
        name: {kind: one(name, kind, leaf, old[name][kind]) for kind, leaf in of.items()} for name, of in new.items()
    }


PARTS = Sharing(
    lambda blocks, affine, lead: step_shapes(largest(blocks), affine, lead),
    lambda blocks, operator, tree: cut(named_steps(blocks[operator]), tree),
    _put,
    _pick,
    apart=False,
)
