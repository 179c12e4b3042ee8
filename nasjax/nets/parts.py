"""Networks assembled from parts: equal parts are compiled once if the host runs a network part by part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.nets.cell_parts import Mode, initialise
from nasjax.ops.parts import part_of, put, through, with_part
from nasjax.types import Key, Network, Part, PyTree


class Line(NamedTuple):
    """One line of a straight-line program: writes = module(reads).

    Attributes:
      path: of the module's variables in those of the network.
      module: module(reads, choice, mode, key, drop_rate) -> tuple of what it writes. In training it gets a key if there
        is dropout, or if `module.draws` is true.
      reads, writes: names of values; the images are "x", the network's output is "y". Each is written once.
      pick: the network's choice -> the module's.
    """

    path: tuple[str, ...]
    module: nn.Module
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    pick: Callable[[Any], Any] = lambda choice: ()


def assemble(lines: Sequence[Line], *, bn_eps: float = 1e-5, dtype: str = "float32") -> Network:
    """The network of a straight-line program. Lines with equal modules become parts with one `apply`.

    In training with a `drop_rate` other than 0, line i gets the key `fold_in(key, i)`.

    Raises:
      ValueError: a value is written twice, read before it is written, or never read.
    """
    known, read = {"x"}, {name for line in lines for name in line.reads} | {"y"}
    for line in lines:
        if set(line.reads) - known or set(line.writes) & known or set(line.writes) - read:
            raise ValueError(f"{line.reads} -> {line.writes}: values are written once, and read, and only after that")
        known |= set(line.writes)
    parts = tuple(
        Part(line.path, _apply_of(line.module, bn_eps, dtype), line.reads, line.writes, line.pick) for line in lines
    )

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        mode = Mode(True, 0.9, bn_eps, dtype)
        known: dict[Any, Any] = {}
        values: dict[str, Any] = {"x": jax.eval_shape(lambda x: x[:1], x)}
        shapes: PyTree = {"params": {}, "batch_stats": {}}
        for line in lines:
            inputs = tuple(values[name] for name in line.reads)
            own = jax.eval_shape(line.pick, choice)
            what = (line.module, *((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves((inputs, own))))
            if what not in known:
                start = line.module.init_with_output
                known[what] = jax.eval_shape(lambda *a, f=start: f(jax.random.key(0), *a, mode, None, 0.0), inputs, own)
            outputs, variables = known[what]
            values |= zip(line.writes, outputs, strict=True)
            shapes = put(shapes, line.path, variables)
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
        after = variables

        def run(i: int, part: Part, inputs: PyTree) -> PyTree:
            nonlocal after
            own_key = None if key is None else jax.random.fold_in(key, i)
            options = {"key": own_key, "train": train, "drop_rate": drop_rate, "bn_momentum": bn_momentum}
            outputs, own = part.apply(part_of(variables, part), part.pick(choice), inputs, **options)
            after = with_part(after, part, own)
            return outputs

        return through(parts, run, x), after

    return Network(init, apply, parts)


@functools.lru_cache(maxsize=256)  # equal modules of several networks share programs as well
def _apply_of(module: nn.Module, bn_eps: float, dtype: str) -> Callable[..., tuple[PyTree, PyTree]]:
    def apply(
        variables: PyTree,
        choice: Any,
        inputs: tuple[jax.Array, ...],
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float | jax.Array = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[tuple[jax.Array, ...], PyTree]:
        drops = train and not (isinstance(drop_rate, (int, float)) and not drop_rate)
        if drops and key is None:
            raise ValueError("dropout needs randomness: give key, or drop_rate=0")
        draws = train and getattr(module, "draws", False)
        if draws and key is None:
            raise ValueError("this network draws noise in training: give key")
        arguments: Any = (
            inputs,
            choice,
            Mode(train, bn_momentum, bn_eps, dtype),
            key if drops or draws else None,
            drop_rate,
        )
        outputs: Any
        if not train:
            outputs = module.apply(variables, *arguments)
            return outputs, variables
        outputs = module.apply(variables, *arguments, mutable=["batch_stats"])
        return outputs[0], {**variables, **outputs[1]}

    return apply
