"""A language model around any recurrent cell: embedding, recurrent layers, softmax.

Zoph & Le 2017, section 4.2; dropout with one mask for a whole window after Gal & Ghahramani 2016, "A Theoretically
Grounded Application of Dropout in Recurrent Neural Networks". The cell is data where the plan has none: cells of one
base number share every matrix shape, so that `jax.vmap` over (variables, choice) trains a population of different cells
as one program. `cell_tree_plan.training_bytes` says what one of them needs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from nasjax.nets.cell_tree.cell import masked_step
from nasjax.nets.cell_tree.cell import step as fixed_step
from nasjax.nets.cell_tree.recurrent import State, dot, layer
from nasjax.nets.numerics import precision
from nasjax.ops.collective import sample_keys
from nasjax.spaces.cell_tree.plan import RecurrentPlan
from nasjax.spaces.cell_tree.space import CellTree
from nasjax.types import Key, Network, PyTree


def recurrent_model(plan: RecurrentPlan, space: CellTree | None = None, *, dtype: str = "float32") -> Network:
    """The network of one cell, or of every cell of a space.

    variables = {"params": {"embedding" [V, E], "layer0": {"kernel" [E, P H], "recurrent_kernel" [H, P H],
    "bias" [P H]}, ..., "softmax": {"kernel" [H, V], "bias" [V]}}}, without what the plan's form leaves out.

    Args:
      plan: `cell_tree_plan.plan(cell, form, words)`; of a base number instead of a cell where the cell is `choice`.
      space: of the choice, an Arch i32[4B + 2] which may be traced and vmapped; only where the plan has no cell.
      dtype: of the matrix products, "float32", "tf32" or "bfloat16"; weights, states and steps stay float32.

    Returns:
      Network: x = (tokens i32[B, T], state) -> (logits [B, T, V], state). The state is that of `network.carry(B)`: c
      and h, f32[layers, B, H] each. The gradient ends at the state that comes in (truncated backpropagation).
      `drop_rate` is the rate of every dropout for which the form has none. `bn_momentum` is not used.

    Raises:
      ValueError: another dtype, or a space that does not belong to the plan.

    Example:
      >>> network = recurrent_model(plan("lstm", RecurrentForm(hidden=200), 10_000))
      >>> x = tokens, network.carry(20)
      >>> variables = network.init(jax.random.key(0), None, x)
      >>> (logits, state), _ = network.apply(variables, None, x)
    """
    precision(dtype)
    form = plan.form
    if (plan.cell is None) != (space is not None):
        raise ValueError("pass the space exactly where the plan is of a base number and not of a cell")
    if space is not None and space.base != plan.matrices:
        raise ValueError(f"a plan of base {plan.matrices} with a space of base {space.base}")
    step = fixed_step(plan.cell) if plan.cell is not None else masked_step(space)  # type: ignore[arg-type]

    def init(key: Key, choice: Any, x: Any) -> PyTree:
        shapes: dict[str, Any] = {"embedding": (plan.vocabulary, form.width)}
        for n in range(form.layers):
            columns = plan.matrices * form.hidden
            shapes[f"layer{n}"] = {
                "kernel": (form.hidden if n else form.width, columns),
                "recurrent_kernel": (form.hidden, columns),
                **({"bias": (columns,)} if form.bias else {}),
            }
        softmax: dict[str, Any] = {} if form.tied else {"kernel": (form.hidden, plan.vocabulary)}
        softmax |= {"bias": (plan.vocabulary,)} if form.softmax_bias else {}
        shapes |= {"softmax": softmax} if softmax else {}
        leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda shape: isinstance(shape, tuple))

        def draw(n: int, shape: tuple[int, ...]) -> jax.Array:
            if len(shape) == 1:
                return jnp.zeros(shape, jnp.float32)
            scale = form.init_scale
            return jax.random.uniform(jax.random.fold_in(key, n), shape, jnp.float32, -scale, scale)

        return {"params": jax.tree.unflatten(tree, [draw(n, shape) for n, shape in enumerate(leaves)])}

    def apply(
        variables: PyTree,
        choice: Any,
        x: tuple[jax.Array, State],
        *,
        key: Key | None = None,
        train: bool = False,
        drop_rate: float | jax.Array = 0.0,
        bn_momentum: float | jax.Array = 0.9,
    ) -> tuple[tuple[jax.Array, State], PyTree]:
        params = variables["params"]
        (tokens, state), table = x, params["embedding"]
        c, h = (jax.lax.stop_gradient(leaf.astype(table.dtype)) for leaf in state)

        batch = tokens.shape[0]

        def mask(place: int, rate: float | jax.Array | None, width: int, of_words: bool = False) -> jax.Array | None:
            """0 or 1 / (1 - rate), f32[B, width], or [width] for words; None where nothing is dropped."""
            rate = form.dropout if rate is None else rate
            rate = drop_rate if rate is None else rate
            if not train or (isinstance(rate, float | int) and rate == 0):
                return None
            if key is None:
                raise ValueError("dropout in training needs a key")
            keep, here = 1 - jnp.float32(rate), jax.random.fold_in(key, place)
            keys = here if of_words else sample_keys(here, batch)
            draw = partial(jax.random.bernoulli, p=keep, shape=(width,))
            return (draw(keys) if of_words else jax.vmap(draw)(keys)).astype(table.dtype) / keep.astype(table.dtype)

        values, after = table[tokens.T], []  # [T, B, E]
        words = mask(0, form.embedding_dropout, plan.vocabulary, of_words=True)
        if words is not None:
            values = values * words[tokens.T][:, :, None]
        for n in range(form.layers):
            inputs = mask(2 * n + 1, form.input_dropout, values.shape[-1])
            recurrent = mask(2 * n + 2, form.recurrent_dropout, form.hidden)
            values = values if inputs is None else values * inputs[None]
            values, last = layer(step, params[f"layer{n}"], choice, values, (c[n], h[n]), recurrent, dtype=dtype)
            after.append(last)
        outputs = mask(2 * form.layers + 1, form.output_dropout, form.hidden)
        values = (values if outputs is None else values * outputs[None]).swapaxes(0, 1)
        logits = dot(dtype, values, table.T if form.tied else params["softmax"]["kernel"])
        if form.softmax_bias:
            logits += params["softmax"]["bias"][None, None]
        return (logits, (jnp.stack([s[0] for s in after]), jnp.stack([s[1] for s in after]))), variables

    def carry(batch_size: int) -> State:
        zeros = jnp.zeros((form.layers, batch_size, form.hidden), jnp.float32)
        return zeros, zeros

    return Network(init, apply, carry=carry)
