"""The Builder of a user's own space, from a function that turns choices into a network."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import catalog
from nasjax.nets.own import own_network, plain
from nasjax.problem.counting import count
from nasjax.problem.own_shared import own_shared
from nasjax.spaces.site_space import values_of
from nasjax.train.augment import Augment
from nasjax.train.compiling import jit
from nasjax.train.recipe import Recipes
from nasjax.train.step import example
from nasjax.types import Builder, Built, Masked, Network, PyTree, Signature, carries_state

Guard = Callable[[Callable[..., Any]], Callable[..., Any]]  # errors of a user's function as one line with its place


def form_of(task: str) -> str:
    """The task whose form a task's samples have: itself, or the one that it is like. Raises ValueError: unknown."""
    return catalog.task(task).like or task


def own_builder(
    space: Any,
    build: Callable[[dict[str, Any], Signature], Any] | None,
    traced: Callable[[Signature], tuple[Callable[..., PyTree], Callable[..., PyTree]]] | None,
    *,
    tasks: tuple[str, ...],
    named: Mapping[str, dict[str, Any]],
    guard: Guard,
    recipes: Callable[[Augment], Recipes] | None = None,
    used: Callable[[dict[str, jax.Array], PyTree], PyTree] | None = None,
    costs: Callable[[dict[str, jax.Array], Signature], tuple[Any, Any]] | None = None,
) -> Builder:
    """The Builder of a space.

    Args:
      space: a Space.
      build: (choices, signature) -> a Linen module, (init, apply) or a Network; choices is {site: value}.
      traced: signature -> (init, apply) that take {site: i32[] number of the choice} beside x, and can trace it: then
        the population trainer can train many architectures in one program. It serves as `build` where that is None.
      tasks: that the networks serve.
      named: architectures with a name, as JSON.
      guard: what the user's functions are wrapped in.
      recipes: as in `Builder`.
      used, costs: of a supernet, see `own_shared`; it needs `traced`.
    """
    source = _source_of(build or traced)  # a network of the same choices by other code is another network
    build = guard(build) if build else None
    traced = guard(traced) if traced else None

    def numbers(arch: Any) -> dict[str, jax.Array]:
        return {site.name: jnp.asarray(arch)[column] for column, site in enumerate(space.sites)}

    def network_of(arch: np.ndarray, signature: Signature) -> Network:
        if build is not None:
            return own_network(build(values_of(space.sites, arch), signature))
        assert traced is not None
        whole = plain(traced(signature), numbers)
        return Network(
            lambda key, choice, x: whole.init(key, arch, x),
            lambda variables, choice, x, **options: whole.apply(variables, arch, x, **options),
        )

    @functools.lru_cache(maxsize=64)  # as many as `evaluators.child_exact` keeps programs of
    def built(text: str, signature: Signature) -> Built:
        arch = space.decode(json.loads(text))
        network = network_of(arch, signature)
        network = network._replace(init=_at_once(network.init))
        params, macs, outputs = guard(count)(network, example(network, signature))
        _check_outputs(outputs, signature, network)
        return Built(
            arch=space.encode(arch),
            params=params,
            macs=macs,
            plan=(space.name, space.identity(arch), signature, params, macs, source),
            network=lambda *, bn_eps, dtype: network,
        )

    def masked(space: Any, form: None, signature: Signature) -> Masked:
        assert traced is not None
        whole = plain(traced(signature), numbers)
        return Masked(
            network=lambda size, *, bn_eps, dtype: whole,
            size=lambda arch: 0,
            pack=lambda arch, variables, size: variables,
        )

    def of(arch: np.ndarray, signature: Signature) -> Built:
        return built(json.dumps(space.encode(arch), sort_keys=True), signature)

    @functools.lru_cache(maxsize=4)
    def shared(space: Any, form: None, signature: Signature) -> Any:
        assert traced is not None and used is not None
        own = guard(costs) if costs else None
        return own_shared(space, traced, guard(used), own, numbers, of, signature)

    return Builder(
        default=space,
        build=lambda space, form, tree, signature: built(json.dumps(tree, sort_keys=True), signature),
        tasks=tasks,
        named=named,
        masked=masked if traced else None,
        recipes=recipes,
        shared=shared if used else None,
    )


def _at_once(init: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`init` as one program, which goes with the network: of single operations JAX keeps one for every new shape."""
    program = functools.cache(lambda: jit(init))

    def begin(key: jax.Array, choice: Any, x: PyTree) -> PyTree:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, choice, x)))
        return init(key, choice, x) if traced else program()(key, choice, x)

    return begin


def _source_of(function: Callable[..., Any] | None) -> str:
    """A digest of a function's source, where it can be had."""
    try:
        text = inspect.getsource(function) if function else ""
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_outputs(outputs: Any, signature: Signature, network: Network) -> None:
    """Raises ValueError unless the network gives one row of `signature.outputs` numbers (or a pair with such a row)."""
    if carries_state(network.carry):
        outputs = outputs[0]
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    shape = getattr(first, "shape", None)
    if shape is None or len(shape) < 2 or shape[0] != 1 or shape[-1] != signature.outputs:
        got = list(shape) if shape is not None else type(outputs).__name__
        raise ValueError(
            f"the network gives {got} for one sample of shape {list(signature.inputs.shape)}; the data need "
            f"[1, ..., {signature.outputs}]"
        )
