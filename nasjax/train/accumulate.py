"""A batch that goes through a network in parts, so that a published batch fits a device that holds a part of it.

For searches by gradients, whose passes the host runs (`train.passes`); `train.step` has its own for single networks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from nasjax.train.compiling import jit
from nasjax.train.passes import Pass
from nasjax.types import PyTree


def passes_in_parts(run: Callable[..., Pass], parts: int) -> Callable[..., Pass]:
    """A pass of `gradient_pass` over equal parts of its batch, one after the other; 1 = the pass itself.

    Loss and gradients are the means over the parts, which for a loss that is a mean over samples are those of the whole
    batch. Batch norm has the statistics of a part, and the running ones move once a part. The metric is the mean of the
    parts' metrics. Each part has a key of its own.

    Raises (at the call):
      ValueError: the batch does not divide.
    """
    if parts == 1:
        return run

    def whole(params: PyTree, batch_stats: PyTree, choice: PyTree, key: Any, drop_rate: Any, batch: PyTree) -> Pass:
        found: Any = None
        for key_part, part in zip(jax.random.split(key, parts), _parts(batch, parts), strict=True):
            at = run(params, batch_stats, choice, key_part, drop_rate, part)
            batch_stats, one = at.batch_stats, (at.loss, at.score, at.params, at.choice)
            found = _scaled(one, parts) if found is None else _added(found, one, parts)
        loss, score, by_params, by_choice = found
        return Pass(loss, score, by_params, by_choice, batch_stats)

    return whole


def product_in_parts(run: Callable[..., PyTree], parts: int) -> Callable[..., PyTree]:
    """The same of `mixed_product`: the mean over the parts of what is linear in the loss. Keys as in the passes."""
    if parts == 1:
        return run

    def whole(
        params: PyTree, batch_stats: PyTree, choice: PyTree, key: Any, drop_rate: Any, v: PyTree, batch: PyTree
    ) -> PyTree:
        found: PyTree = None
        for key_part, part in zip(jax.random.split(key, parts), _parts(batch, parts), strict=True):
            one = run(params, batch_stats, choice, key_part, drop_rate, v, part)
            found = _scaled(one, parts) if found is None else _added(found, one, parts)
        return found

    return whole


def _parts(batch: PyTree, parts: int) -> list[PyTree]:
    size = len(jax.tree.leaves(batch)[0])
    if size % parts:
        raise ValueError(f"a batch of {size} does not divide into {parts} parts; write another search.accumulate")
    return [_piece(batch, begin, size // parts) for begin in range(0, size, size // parts)]


@functools.partial(jax.jit, static_argnums=2)
def _piece(batch: PyTree, begin: int, size: int) -> PyTree:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, begin, size), batch)


_scaled = jit(lambda one, parts: jax.tree.map(lambda leaf: leaf / parts, one))
_added = jit(lambda total, one, parts: jax.tree.map(lambda a, b: a + b / parts, total, one))
