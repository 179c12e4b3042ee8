"""One path of a chain of choice blocks as a network of its own, to be trained from scratch.

SPOS: Guo et al. 2020 (arXiv:1904.00420) and its code. docs/methods/spos.md, fairnas.md, bn_nas.md: blocks, retraining.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.nets.cell_parts import Mode, classify
from nasjax.nets.choice_chain.blocks import apply_block, block, named_steps, step_shapes
from nasjax.nets.choice_chain.frame import frame_steps, head_shapes, initialise, run_steps
from nasjax.nets.numerics import precision
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.types import Key, Network, PyTree


def choice_chain(
    plan: ChoicePlan, arch: np.ndarray, *, dropout: float = 0.0, bn_eps: float = 1e-5, dtype: str = "float32"
) -> Network:
    """The network of one architecture; all batch norms scale and shift.

    variables = {"params", "batch_stats"} by part ("stem", ..., "layer0", ..., "tail", "head") and step ("main0", ...).
    `choice` and `drop_rate` are not used.

    Args:
      plan: space, image and classes.
      arch: i32[S], an architecture of plan.space.
      dropout: before the classifier, in training, if `apply` has a key.
      bn_eps: epsilon of batch norm.
      dtype: of the multiplications, "float32", "tf32" or "bfloat16"; weights and statistics stay float32.

    Returns:
      Network: x [B, H, W, colours] -> logits [B, classes].

    Raises:
      ValueError: another dtype, or no architecture of the space.
    """
    precision(dtype)
    space = plan.space
    space.validate(arch)
    before, behind = frame_steps(plan)
    path = np.asarray(space.path(jnp.asarray(arch)))
    blocks = {}
    for layer, chosen in enumerate(path.tolist()):
        if chosen >= 0:
            factor = space.channel_factors[arch[space.layers + layer]] if space.channel_factors else 1.0
            shape = space.layer_shapes[layer]
            blocks[f"layer{layer}"] = block(space.family, space.operators[chosen], shape, (factor,))

    def init(key: Key, choice: Any, x: jax.Array) -> PyTree:
        shapes = step_shapes(before | behind, True)
        shapes["params"]["head"] = head_shapes(plan)
        for name, steps in blocks.items():
            for kind, of in step_shapes(named_steps(steps), True).items():
                shapes[kind][name] = of
        return initialise(key, space, shapes, jnp.result_type(x, jnp.float32))

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
        mode = Mode(train, bn_momentum, bn_eps, dtype)
        params, stats = variables["params"], variables["batch_stats"]
        x, after = run_steps(before, params, stats, x, mode)
        for name, steps in blocks.items():
            x, after[name] = apply_block(steps, params[name], stats[name], x, mode)
        x, last = run_steps(behind, params, stats, x, mode)
        logits = classify(params["head"], x, key if train else None, dropout)
        return logits, ({**variables, "batch_stats": {**after, **last}} if train else variables)

    return Network(init, apply)
