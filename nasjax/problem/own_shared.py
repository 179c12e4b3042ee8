"""The supernet of a user's own space: the functions that trace their choices, with one set of weights for all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.own import plain
from nasjax.nets.supernet import Shared, Supernet
from nasjax.train.step import example
from nasjax.types import Built, Network, PyTree, Signature

_ENUMERATED = 100_000  # architectures at most, whose costs are all compared


def own_shared(
    space: Any,
    traced: Callable[[Signature], tuple[Callable[..., PyTree], Callable[..., PyTree]]],
    used: Callable[[dict[str, jax.Array], PyTree], PyTree],
    costs: Callable[[dict[str, jax.Array], Signature], tuple[Any, Any]] | None,
    choices: Callable[[Any], dict[str, jax.Array]],
    built: Callable[[np.ndarray, Signature], Built],
    signature: Signature,
) -> Shared:
    """The supernet for one form of data.

    Args:
      space: a Space.
      traced: signature -> (init(key, choices, x), apply(params, choices, x)).
      used: (choices, params) -> for every array whether the architecture uses it, or a mask that can be broadcast to
        it; of `params` only the shapes count.
      costs: (choices, signature) -> its (parameters, multiply-adds), traceable; None = not known before it is built.
      choices: Arch -> what these functions are given.
      built: the architecture's own network.
      signature: of the data.

    Raises:
      ValueError: masks or costs that do not fit the networks.
    """
    whole = plain(traced(signature), choices)
    first = np.asarray(space.sample(jax.random.key(0)))

    def init(key: jax.Array, choice: Any, x: PyTree) -> PyTree:
        return whole.init(key, first if choice is None else choice, x)

    x = example(Network(init, whole.apply), signature)
    params = jax.eval_shape(lambda key, x: init(key, None, x), jax.random.key(0), x)["params"]
    _fits(used, choices, first, params)

    def select(archs: jax.Array, new: PyTree, old: PyTree) -> PyTree:
        def any_of(mask: Any, a: jax.Array, b: jax.Array) -> jax.Array:
            return jnp.where(jnp.any(mask, 0), a, b)

        return jax.tree.map(any_of, jax.vmap(lambda arch: _masks(used(choices(arch), new)))(archs), new, old)

    def counts(arch: np.ndarray) -> tuple[int, int]:
        found = built(np.asarray(arch), signature)
        return found.params, found.macs

    def counter(what: str) -> Callable[[jax.Array], jax.Array]:
        if costs is None:
            raise ValueError(
                f"--space={space.name} does not say what its networks cost before they are built: register it with "
                "costs=, or leave --max_params, --max_macs, search.searcher=nsga2 and supernet.sampler=macs_bins out"
            )
        at = ("params", "macs").index(what)
        one = lambda arch: jnp.asarray(costs(choices(arch), signature)[at], jnp.int32)  # noqa: E731
        return lambda archs: jnp.vectorize(one, signature="(s)->()")(archs)

    smallest, largest_macs, ends = None, None, None
    if costs is not None:
        told = tuple(int(counter(what)(jnp.asarray(first))) for what in ("params", "macs"))
        if told != (real := counts(first)):
            raise ValueError(
                f"register(costs=...) of --space={space.name} gives {told} parameters and multiply-adds for "
                f"{space.encode(first)}, whose network has {real}"
            )
        if (every := _every(space)) is not None:
            params_of, macs_of = (np.asarray(counter(what)(jnp.asarray(every))) for what in ("params", "macs"))
            smallest, largest_macs = (int(params_of.min()), int(macs_of.min())), int(macs_of.max())
            ends = every[[macs_of.argmax(), macs_of.argmin()]]
    return Shared(
        network=lambda **options: Supernet(init, whole.apply, select),
        counts=counts,
        counter=counter,
        params=lambda affine: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        smallest=smallest,
        largest_macs=largest_macs,
        fixed_macs=0,
        macs=None,
        ends=ends,
    )


def _masks(masks: PyTree) -> PyTree:
    return jax.tree.map(lambda mask: jnp.asarray(mask, bool), masks)


def _fits(used: Callable[..., PyTree], choices: Callable[[Any], Any], arch: np.ndarray, params: PyTree) -> None:
    masks = jax.eval_shape(lambda arch, params: _masks(used(choices(arch), params)), arch, params)
    given, needed = (str(jax.tree.structure(tree)) for tree in (masks, params))
    if given != needed:
        raise ValueError(
            f"register(used=...) must return a mask for every array of the parameters, {needed}, got {given}"
        )
    for mask, leaf in zip(jax.tree.leaves(masks), jax.tree.leaves(params), strict=True):
        if mask.shape and (
            len(mask.shape) != len(leaf.shape) or np.broadcast_shapes(mask.shape, leaf.shape) != leaf.shape
        ):
            raise ValueError(
                f"register(used=...) gives a mask of shape {list(mask.shape)} for an array of {list(leaf.shape)}; give "
                "one number, or as many axes, of length 1 or of the array's"
            )


def _every(space: Any) -> np.ndarray | None:
    """All architectures of a space in which every site always counts, where they are few."""
    size = space.size()
    shape = [len(site.choices) for site in space.sites]
    if size is None or size > _ENUMERATED or size != math.prod(shape):
        return None
    return np.stack(np.unravel_index(np.arange(size), shape), -1).astype(np.int32)
