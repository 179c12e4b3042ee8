"""A user's own network as a `Network`: a Flax module, two plain functions, or a `Network` itself.

A Flax NNX module comes in through `flax.nnx.bridge.to_linen(MyModule, ...)`, which is a Linen module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from nasjax.types import Key, Network, PyTree


def own_network(made: Any) -> Network:
    """The return value of a user's `build` as a Network.

    Args:
      made: a Linen module (called with x, and with `train` or `deterministic` where it takes them; other collections
        than "params", such as batch statistics, are updated in training; "dropout" has a key in training); a pair of
        functions init(key, x) -> params and apply(params, x) -> outputs; or a Network. An NNX module behind the bridge
        is put in the mode of training or of evaluation. A module with a method `carry(batch_size)` is called with
        (x, state) and returns (outputs, state).

    Raises:
      ValueError: it is none of these.
    """
    if isinstance(made, Network):
        return made
    if isinstance(made, nn.Module):
        return _linen(made)
    if isinstance(made, tuple) and len(made) == 2 and all(map(callable, made)):
        return plain(made)
    raise ValueError(
        f"build must return a Flax Linen module, a pair of functions (init, apply) or a nasjax.Network, got "
        f"{type(made).__name__}; an NNX module comes in as flax.nnx.bridge.to_linen(Module, ...)"
    )


def plain(
    pair: tuple[Callable[..., PyTree], Callable[..., PyTree]], choices: Callable[..., Any] | None = None
) -> Network:
    """A Network of init(key, x) -> params and apply(params, x) -> outputs.

    With `choices` (Arch -> the choice that the user's functions receive) they are init(key, choice, x) and
    apply(params, choice, x).
    """
    init, apply = pair

    def given(choice: Any) -> tuple[Any, ...]:
        return () if choices is None else (choices(choice),)

    def network_init(key: Key, choice: Any, x: PyTree) -> PyTree:
        return {"params": init(key, *given(choice), x)}

    def network_apply(
        variables: PyTree,
        choice: Any,
        x: PyTree,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: Any = 0.0,
        bn_momentum: Any = 0.9,
    ) -> tuple[PyTree, PyTree]:
        return apply(variables["params"], *given(choice), x), variables

    return Network(network_init, network_apply)


def _in_mode(module: nn.Module, train: bool) -> nn.Module:
    """The module; one of NNX in the mode of training or of evaluation, where the bridge builds it anew at each call."""
    if not isinstance(module, nnx.bridge.ToLinen):
        return module
    make = module.nnx_class

    def made(*args: Any, **options: Any) -> Any:
        own = make(*args, **options)
        (own.train if train else own.eval)()
        return own

    return module.clone(nnx_class=made)


def _linen(module: nn.Module) -> Network:
    modes = {train: _in_mode(module, train) for train in (False, True)}
    taken = inspect.signature(module.__call__).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())

    def mode(train: bool) -> dict[str, Any]:
        if "train" in taken:
            return {"train": train}
        if "deterministic" in taken and not anything:
            return {"deterministic": not train}
        return {}

    def init(key: Key, choice: Any, x: PyTree) -> PyTree:
        key_params, key_dropout = jax.random.split(key)
        return dict(modes[False].init({"params": key_params, "dropout": key_dropout}, x, **mode(False)))

    def apply(
        variables: PyTree,
        choice: Any,
        x: PyTree,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: Any = 0.0,
        bn_momentum: Any = 0.9,
    ) -> tuple[PyTree, PyTree]:
        rest = [name for name in variables if name != "params"]
        rngs = {} if key is None else {"dropout": key}
        if not (train and rest):
            return modes[train].apply(variables, x, rngs=rngs, **mode(train)), variables
        outputs, changed = modes[True].apply(variables, x, rngs=rngs, mutable=rest, **mode(train))
        return outputs, {**variables, **changed}

    network = Network(init, apply)
    return network._replace(carry=module.carry) if hasattr(module, "carry") else network
