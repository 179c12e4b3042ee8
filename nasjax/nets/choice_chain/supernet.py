"""A supernet of choice blocks: all operators of all layers. An architecture, given as data, uses one per layer.

SPOS: Guo et al. 2020 (arXiv:1904.00420), section 3. One compiled program serves every path: each layer branches at run
time into the operator that its choice names. Layers of equal shape follow each other in a scan, so that their operators
are compiled once. `sharing` says which weights an operator has to itself.
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
from nasjax.nets.choice_chain.sharing import OWN, PARTS, Sharing, cut
from nasjax.nets.choice_chain.ways import ways
from nasjax.nets.numerics import precision
from nasjax.nets.supernet import LastNorms, Supernet, switch
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.types import Key, PyTree

_KINDS = ("params", "batch_stats")


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
    entangled: bool = False,
    bn_eps: float = 1e-5,
    dtype: str = "float32",
) -> Supernet:
    """The supernet of a chain.

    params["group2"]["mbconv_k3_e6"]["main1"]["depthwise"] is [n, 3, 3, c]: the operator on the n layers of equal shape
    of that group. Entangled it is the centre and the first channels of params["group2"]["main1"]["depthwise"], [n, 7,
    7, c] with the largest kernel and expansion. A path leaves parameters and running statistics of all that it does not
    use exactly as they are, and their gradients are 0.

    Args:
      plan: space, image and classes.
      affine: whether batch norms scale and shift; not in the supernet of SPOS, always in that of BN-NAS.
      dropout: before the classifier, in training, if `apply` has a key.
      last_norms: which batch norms are an operator's last (BN-NAS). A shuffle block of stride 2 ends in two: "main" is
        that of the main branch, "both" counts the channels of the projection beside it as well.
      entangled: the operators of a layer are parts of the largest; the mobile family only. Batch norms are then shared
        too, so that their scales rank no operators: there are no `scores` and no `last_norm`.
      bn_eps: epsilon of batch norm.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Supernet: x [B, H, W, colours] -> logits [B, classes]. Under `vmap` over `choice` all operators are computed.

    Raises:
      ValueError: another dtype or value of last_norms, or entangled operators of another family.
    """
    precision(dtype)
    if entangled and plan.space.family != "mobile":
        raise ValueError(f"operators of the {plan.space.family} family differ in more than size; set entangled=False")
    if last_norms not in ("main", "both"):
        raise ValueError(f"unknown last_norms {last_norms!r}; choose main or both")
    space = plan.space
    before, behind = frame_steps(plan)
    parts = groups(plan)
    m, factored, sharing = len(space.operators), bool(space.channel_factors), PARTS if entangled else OWN

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        shapes = step_shapes(before | behind, affine)
        shapes["params"]["head"] = head_shapes(plan)
        for name, group in parts.items():
            for kind, of in sharing.shapes(group.blocks, affine, (len(group.layers),)).items():
                shapes[kind][name] = of
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

            layer = functools.partial(_layer, group, sharing, mode, factored)
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
            out[name] = sharing.pick(group.blocks, paths[:, np.array(group.layers)], new[name], old[name])
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

    def own(variables: PyTree, arch: np.ndarray) -> PyTree:
        return _own(plan, parts, sharing, variables, np.asarray(arch))

    paths = ways(plan, before, behind, parts, sharing, dropout=dropout, bn_eps=bn_eps, dtype=dtype)
    if entangled:
        return Supernet(init, apply, select, own=own, ways=paths)
    return Supernet(init, apply, select, scores, last_norm, own=own, ways=paths)


def _layer(
    group: Group, sharing: Sharing, mode: Mode, factored: bool, x: jax.Array, xs: Any
) -> tuple[jax.Array, PyTree]:
    """One layer of a group: x -> x through the chosen operator, and the running statistics of all of them."""
    params, stats, chosen, factor = xs

    def through(operator: str) -> Callable[..., tuple[jax.Array, PyTree]]:
        def run(moving: PyTree, stats: PyTree, factor: jax.Array) -> tuple[jax.Array, PyTree]:
            params, x = moving
            mine, own = (sharing.take(group.blocks, operator, tree) for tree in (params, stats))
            y, after = apply_block(group.blocks[operator], mine, own, x, mode, factor if factored else None)
            return y, sharing.put(group.blocks, operator, stats, after)

        return run

    branches: list[Any] = [through(operator) for operator in group.blocks]
    if group.identity:
        branches.append(lambda moving, stats, factor: (moving[1], stats))
    return switch(branches)(chosen, (params, x), stats, factor)


def _own(plan: ChoicePlan, parts: dict[str, Group], sharing: Sharing, variables: PyTree, arch: np.ndarray) -> PyTree:
    """The variables of a path's own network (`nets.choice_chain.network`); scales that the supernet lacks are 1."""
    space = plan.space
    space.validate(arch)
    path = np.asarray(space.path(jnp.asarray(arch))).tolist()
    found: PyTree = {kind: {n: of for n, of in variables[kind].items() if n not in parts} for kind in _KINDS}
    for name, group in parts.items():
        for place, layer in enumerate(group.layers):
            if path[layer] < 0:
                continue
            operator = space.operators[path[layer]]
            factor = space.channel_factors[arch[space.layers + layer]] if space.channel_factors else 1.0
            steps = named_steps(block(space.family, operator, space.layer_shapes[layer], (factor,)))
            for kind in _KINDS:
                tree = jax.tree.map(lambda leaf, i=place: np.asarray(leaf)[i], variables[kind][name])
                found[kind][f"layer{layer}"] = cut(steps, sharing.take(group.blocks, operator, tree))
    return {**found, "params": _scaled(found["params"], found["batch_stats"])}


def _scaled(params: PyTree, stats: PyTree) -> PyTree:
    """Parameters in which every batch norm scales and shifts."""
    if "mean" in stats:
        return {"gamma": np.ones_like(stats["mean"]), "beta": np.zeros_like(stats["mean"]), **params}
    return {name: _scaled(of, stats[name]) if name in stats else of for name, of in params.items()}
