"""A supernet of choice blocks: all operators of all layers. An architecture, given as data, uses one per layer.

SPOS: Guo et al. 2020 (arXiv:1904.00420), section 3. One compiled program serves every path: each layer branches at run
time into the operator that its choice names. Layers of equal shape follow each other in a scan, so that their operators
are compiled once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.cell_parts import Mode, classify
from nasjax.nets.choice_chain.blocks import Block, apply_block, block, named_steps, step_shapes
from nasjax.nets.choice_chain.frame import frame_steps, head_shapes, initialise, run_steps
from nasjax.nets.numerics import precision
from nasjax.nets.supernet import LastNorms, Supernet, switch
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.types import Key, PyTree


class Group(NamedTuple):
    """Consecutive layers of equal shape; removed layers in between are ignored."""

    layers: tuple[int, ...]
    blocks: dict[str, Block]  # by operator
    identity: bool  # whether a path may skip the layers


def groups(plan: ChoicePlan) -> dict[str, Group]:
    """The layers of a supernet by the names of their parameters."""
    space = plan.space
    found: list[tuple[Any, list[int]]] = []
    for layer, shape in enumerate(space.layer_shapes):
        if layer in space.removed:
            continue
        if found and found[-1][0] == shape and shape.stride == 1 and shape.c_in == shape.c_out:
            found[-1][1].append(layer)
        else:
            found.append((shape, [layer]))
    return {
        f"group{i}": Group(
            tuple(layers),
            {name: block(space.family, name, shape, space.channel_factors) for name in space.operators},
            space.choose_identity and shape.stride == 1 and shape.c_in == shape.c_out,
        )
        for i, (shape, layers) in enumerate(found)
    }


def choice_supernet(
    plan: ChoicePlan,
    *,
    affine: bool = True,
    dropout: float = 0.0,
    last_norms: LastNorms = "main",
    bn_eps: float = 1e-5,
    dtype: str = "float32",
) -> Supernet:
    """The supernet of a chain.

    params["group2"]["mbconv_k3_e6"]["main1"]["depthwise"] is [n, 3, 3, c]: the operator on the n layers of equal shape
    of that group. A path leaves parameters and running statistics of all other operators exactly as they are, and their
    gradients are 0.

    Args:
      plan: space, image and classes.
      affine: whether batch norms scale and shift; not in the supernet of SPOS, always in that of BN-NAS.
      dropout: before the classifier, in training, if `apply` has a key.
      last_norms: which batch norms are an operator's last (BN-NAS). A shuffle block of stride 2 ends in two: "main" is
        that of the main branch, "both" counts the channels of the projection beside it as well.
      bn_eps: epsilon of batch norm.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Supernet: x [B, H, W, colours] -> logits [B, classes]. Under `vmap` over `choice` all operators are computed.

    Raises:
      ValueError: another dtype or value of last_norms.
    """
    precision(dtype)
    if last_norms not in ("main", "both"):
        raise ValueError(f"unknown last_norms {last_norms!r}; choose main or both")
    space = plan.space
    before, behind = frame_steps(plan)
    parts = groups(plan)
    m, factored = len(space.operators), bool(space.channel_factors)

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        shapes = step_shapes(before | behind, affine)
        shapes["params"]["head"] = head_shapes(plan)
        for name, group in parts.items():
            found = {o: step_shapes(named_steps(b), affine, (len(group.layers),)) for o, b in group.blocks.items()}
            for kind in shapes:
                shapes[kind][name] = {operator: of[kind] for operator, of in found.items()}
        return initialise(key, space, shapes, jnp.result_type(x, jnp.float32))

    def apply(
        variables: PyTree,
        choice: jax.Array,
        x: jax.Array,
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[jax.Array, PyTree]:
        mode = Mode(train, bn_momentum, bn_eps, dtype)
        params, stats = variables["params"], variables["batch_stats"]
        path = space.path(choice)
        operators = jnp.where(path < 0, m, path)
        factors = choice[space.layers :] if factored else jnp.zeros_like(operators)
        x, after = run_steps(before, params, stats, x, mode)
        for name, group in parts.items():
            index = np.array(group.layers)
            xs = (params[name], stats[name], operators[index], factors[index])

            layer = functools.partial(_layer, group, mode, factored)
            if len(index) > 1:
                x, after[name] = jax.lax.scan(layer, x, xs)
            else:
                x, one = layer(x, jax.tree.map(lambda leaf: leaf[0], xs))
                after[name] = jax.tree.map(lambda leaf: leaf[None], one)
        x, last = run_steps(behind, params, stats, x, mode)
        logits = classify(params["head"], x, key if train else None, dropout)
        return logits, ({**variables, "batch_stats": {**after, **last}} if train else variables)

    def select(archs: jax.Array, new: PyTree, old: PyTree) -> PyTree:
        paths = jax.vmap(space.path)(archs)
        out = dict(new)
        for name, group in parts.items():
            chosen = paths[:, np.array(group.layers)]  # [P, n]
            for i, operator in enumerate(group.blocks):
                used = (chosen == i).any(0)

                def pick(a: jax.Array, b: jax.Array, used: jax.Array = used) -> jax.Array:
                    return jnp.where(used.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

                out[name] = out[name] | {operator: jax.tree.map(pick, new[name][operator], old[name][operator])}
        return out

    def last_steps(block: Block) -> list[str]:
        ends = [("main", block.main), *([("branch", block.branch)] if last_norms == "both" else [])]
        return [f"{path}{len(steps) - 1}" for path, steps in ends if steps]

    def scores(params: PyTree) -> jax.Array:
        table = jnp.zeros((space.layers, m + 1))
        for name, group in parts.items():
            for i, (operator, steps) in enumerate(group.blocks.items()):
                gamma = jnp.concatenate([params[name][operator][step]["gamma"] for step in last_steps(steps)], 1)
                table = table.at[np.array(group.layers), i].set(jnp.abs(gamma).mean(1))
        return table

    def last_norm(path: tuple[str, ...]) -> bool:
        if path[0] not in parts or path[-1] not in ("gamma", "beta"):
            return False
        return path[2] in last_steps(parts[path[0]].blocks[path[1]])

    return Supernet(init, apply, select, scores, last_norm)


def _layer(group: Group, mode: Mode, factored: bool, x: jax.Array, xs: Any) -> tuple[jax.Array, PyTree]:
    """One layer of a group: x -> x through the chosen operator, and the running statistics of all of them."""
    params, stats, chosen, factor = xs

    def through(operator: str) -> Callable[..., tuple[jax.Array, PyTree]]:
        def run(moving: PyTree, stats: PyTree, factor: jax.Array) -> tuple[jax.Array, PyTree]:
            params, x = moving
            y, after = apply_block(
                group.blocks[operator], params[operator], stats[operator], x, mode, factor if factored else None
            )
            return y, {**stats, operator: after}

        return run

    branches: list[Any] = [through(operator) for operator in group.blocks]
    if group.identity:
        branches.append(lambda moving, stats, factor: (moving[1], stats))
    return switch(branches)(chosen, (params, x), stats, factor)
