"""Strategy `vmap`: children of different architectures train side by side in one masked program."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.evaluators import legs
from nasjax.evaluators.children import Child, ChildResult, Curves, Train, ended_before, kept_form
from nasjax.evaluators.legs import Leg
from nasjax.train import activity, underway
from nasjax.train.compiling import compile_lowered
from nasjax.train.fit import Run, advance
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data, Trainer, TrainState, example, trainer
from nasjax.types import Key, Masked, Signature, Task, carries_state, one_line


def vmapped(
    masked: Masked,
    data: Data,
    signature: Signature,
    task: Task,
    recipe: Recipe,
    chunk: int | None,
    *,
    keep_weights: bool = False,
) -> Train:
    """Trains children in chunks, each chunk as one program: compiled once per size, whatever the architectures.

    Args:
      masked: the network of all children.
      data: on the device.
      signature: what the network reads.
      task: what it is for.
      recipe: the training.
      chunk: children at a time, at most; None = all.
      keep_weights: leave the variables, specialised, in the outcomes.

    Returns:
      train(key, children, width) -> outcomes. Child i is initialised and trained with fold_in(key, i); which children
      share its chunk changes its result by no more than rounding. Its seconds are its share of the chunk's. A chunk
      that raises (if it does not fit the memory, for example) is tried again in halves, down to the child that cannot
      be trained.
    """

    @functools.lru_cache(maxsize=32)
    def programs(size: int, count: int, sites: int) -> tuple[Trainer, Callable[..., TrainState], Run]:
        network = masked.network(size, bn_eps=recipe.bn_eps, dtype=recipe.dtype)
        x = example(network, signature)
        arch = jnp.zeros(sites, jnp.int32)
        like = jax.eval_shape(network.init, jax.random.key(0), arch, x)
        train = trainer(network, recipe, len(data.train_y), like, task)

        def start(key: Key, arch: jax.Array) -> TrainState:
            return train.start(network.init(key, arch, x))

        keys, archs = jax.random.split(jax.random.key(0), count), jnp.zeros((count, sites), jnp.int32)
        begin = compile_lowered(jax.jit(jax.vmap(start)).lower(keys, archs))
        state = jax.eval_shape(jax.vmap(start), keys, archs)
        run = jax.jit(jax.vmap(train.run, (0, 0, 0, 0, None, None, None)), donate_argnums=1)
        lowered = run.lower(keys, state, archs, jnp.zeros(count, jnp.float32), data, jnp.int32(0), jnp.int32(0))
        return train, begin, compile_lowered(lowered, thorough=carries_state(network.carry))

    def attempt(key: Key, children: Sequence[Child], size: int) -> list[ChildResult]:
        """One chunk, filled up to `size` by repeating its first child."""
        watch = activity.Stopwatch()
        activity.doing(
            f"trials {children[0].id} to {children[-1].id}" if len(children) > 1 else f"trial {children[0].id}"
        )
        rows = [*children, *[children[0]] * (size - len(children))]
        largest = max(masked.size(child.arch) for child in rows)
        with activity.compiling():
            train, start, run = programs(largest, size, len(rows[0].arch))
        archs = jnp.asarray(np.stack([child.arch for child in rows]), jnp.int32)
        rates = jnp.asarray([child.built.learning_rate or recipe.learning_rate for child in rows], jnp.float32)
        keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(jnp.asarray([c.id for c in rows]))
        name = underway.name(key, [child.id for child in rows], [child.arch for child in rows])
        kept, began = underway.kept(name), time.monotonic()
        kept = None if kept is None or "result" in kept else kept  # a chunk of one is kept as its child is
        before = 0.0 if kept is None else float(kept["seconds"])
        state = legs.begun(start(keys[:, 0], archs), Leg(recipe.epochs, underway=kept))
        begin = int(np.asarray(state.step)[0])

        def form(state: TrainState) -> underway.Tree:
            seconds = before + (time.monotonic() - began) / len(children)
            return {**legs.left_behind(state, children[0].id), "seconds": np.float64(seconds)}

        with underway.training(name, form):
            state = advance(run, keys[:, 1], state, archs, rates, data, begin, train.steps)
        curves = jax.tree.map(np.asarray, Curves(state.train_loss, state.valid_metric, state.nan_epoch))
        variables = jax.tree.map(np.asarray, jax.vmap(train.variables)(state)) if keep_weights else None

        def outcome(i: int, child: Child) -> ChildResult:
            mine = jax.tree.map(lambda leaf: leaf[i], (curves, variables))
            if keep_weights:
                mine = mine[0], masked.pack(child.arch, mine[1], largest)
            return ChildResult(seconds, *mine)

        seconds = watch.trained(len(children)) / len(children) + underway.uncounted(before)
        results = [outcome(i, child) for i, child in enumerate(children)]
        for child, result in zip(children, results, strict=True):
            own = underway.name(key, [child.id], [child.arch])
            underway.ended(own, functools.partial(kept_form, result))
        return results

    def train(key: Key, children: Sequence[Child], width: int) -> list[ChildResult]:
        known = (ended_before(key, child) for child in children)
        outcomes = [one for one in itertools.takewhile(lambda one: one is not None, known) if one is not None]
        size = -(-width // -(-width // (chunk or width)))  # chunks of equal size
        while len(outcomes) < len(children):
            part = children[len(outcomes) : len(outcomes) + size]
            began = time.monotonic()
            try:
                outcomes += attempt(key, part, size)
            except Exception as error:  # a child that cannot be trained is a result, not the end of the search
                if size == 1:
                    outcomes.append(ChildResult(time.monotonic() - began, error=one_line(error)))
                size = max(1, size // 2)
        return outcomes

    return train
