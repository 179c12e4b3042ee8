"""The paths of a supernet of choice blocks as parts: stem, one operator a layer, tail, classifier.

An operator that the layers of a group share is one program for all of them. The layer is a number that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.cell_parts import Mode, classify
from nasjax.nets.choice_chain.blocks import Block, Step, apply_block, apply_step
from nasjax.nets.choice_chain.sharing import Sharing
from nasjax.nets.supernet import Ways
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.types import Key, Part, PyTree

Apply = Callable[..., tuple[PyTree, PyTree]]


def ways(
    plan: ChoicePlan,
    before: Mapping[str, Step],
    behind: Mapping[str, Step],
    groups: Mapping[str, Any],
    sharing: Sharing,
    *,
    dropout: float,
    bn_eps: float,
    dtype: str,
) -> Ways:
    """The paths of `choice_supernet`, whose arguments these are; `groups` are its layers of equal shape."""
    space, factored = plan.space, bool(plan.space.channel_factors)

    def part(run: Callable[..., tuple[jax.Array, PyTree]]) -> Apply:
        """The `apply` of a part, by run(variables, choice, x, mode, key) -> y, new running statistics."""

        def apply(
            variables: PyTree,
            choice: Any,
            inputs: tuple[jax.Array],
            *,
            key: Key | None = None,
            train: bool = False,
            drop_rate: Any = 0.0,
            bn_momentum: Any = 0.9,
        ) -> tuple[PyTree, PyTree]:
            y, stats = run(variables, choice, inputs[0], Mode(train, bn_momentum, bn_eps, dtype), key)
            return (y,), {**variables, "batch_stats": stats} if stats else variables

        return apply

    def fixed(step: Step) -> Apply:
        def run(variables: PyTree, choice: Any, x: jax.Array, mode: Mode, key: Key | None) -> tuple[jax.Array, PyTree]:
            return apply_step(step, variables["params"], variables["batch_stats"], x, mode)

        return part(run)

    def chosen(blocks: Mapping[str, Block], operator: str) -> Apply:
        def run(variables: PyTree, choice: Any, x: jax.Array, mode: Mode, key: Key | None) -> tuple[jax.Array, PyTree]:
            place, factor = choice
            own = of_layer = jax.tree.map(lambda leaf: leaf[place], variables)
            if not sharing.apart:
                own = {kind: sharing.take(blocks, operator, tree) for kind, tree in of_layer.items()}
            params, stats = own["params"], own["batch_stats"]
            y, after = apply_block(blocks[operator], params, stats, x, mode, factor if factored else None)
            if not sharing.apart:
                after = sharing.put(blocks, operator, of_layer["batch_stats"], after)
            return y, jax.tree.map(lambda all, one: all.at[place].set(one), variables["batch_stats"], after)

        return part(run)

    def classified(
        variables: PyTree, choice: Any, x: jax.Array, mode: Mode, key: Key | None
    ) -> tuple[jax.Array, PyTree]:
        return classify(variables["params"], x, key if mode.train else None, dropout), {}

    head = part(classified)
    fixed_parts = {name: fixed(step) for name, step in {**before, **behind}.items()}
    programs = {
        (name, operator): chosen(group.blocks, operator) for name, group in groups.items() for operator in group.blocks
    }
    layers = {layer: (name, place) for name, group in groups.items() for place, layer in enumerate(group.layers)}

    def parts(arch: np.ndarray) -> tuple[Part, ...]:
        arch = np.asarray(arch)
        operators = np.asarray(space.path(jnp.asarray(arch)))
        steps: list[tuple[tuple[str, ...], Apply, Any]] = [((name,), fixed_parts[name], ()) for name in before]
        for layer, (name, place) in sorted(layers.items()):
            if operators[layer] < 0:
                continue
            operator = space.operators[operators[layer]]
            choice = np.int32(place), np.int32(arch[space.layers + layer] if factored else 0)
            steps.append(((name, operator) if sharing.apart else (name,), programs[name, operator], choice))
        steps += [((name,), fixed_parts[name], ()) for name in behind]
        steps.append((("head",), head, ()))
        names = ["x", *(f"x{i}" for i in range(1, len(steps))), "y"]

        def pick(choice: Any) -> Callable[[Any], Any]:
            return lambda arch: choice

        return tuple(
            Part(path, apply, (names[i],), (names[i + 1],), pick(choice))
            for i, (path, apply, choice) in enumerate(steps)
        )

    every = np.tile(np.arange(len(space.operators), dtype=np.int32)[:, None], (1, space.layers))
    every[:, list(space.removed)] = -1
    if factored:
        every = np.concatenate([every, np.where(every < 0, -1, 0)], 1)
    return Ways(parts, every.astype(np.int32))
