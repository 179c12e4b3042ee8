"""Strategy `parts`: children train one after the other, part by part; a network of known parts compiles nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax

from nasjax.evaluators.children import Child, Curves, Outcome, Train, born, network_of, on_host
from nasjax.train.by_parts import by_parts
from nasjax.train.recipe import Recipe
from nasjax.train.step import Data
from nasjax.types import Key, Signature, Task, one_line


def parted(data: Data, signature: Signature, task: Task, recipe: Recipe, *, keep_weights: bool = False) -> Train:
    """Trains children whose networks have `parts`.

    Args:
      data: on the device.
      signature: what the networks read.
      task: what they are for.
      recipe: the training.
      keep_weights: leave the variables in the outcomes.

    Returns:
      train(key, children, width) -> outcomes. Child i depends on fold_in(key, i), its architecture and its parent's
      weights, not on its neighbours. Its seconds have in them the compilation of parts that no child had before.
    """

    def one(key: Key, child: Child) -> Outcome:
        began = time.monotonic()
        try:
            key_init, key_train = jax.random.split(jax.random.fold_in(key, child.id))
            network = network_of(child.built, recipe)
            train = by_parts(network, recipe, len(data.train_y), task)
            variables, inherited = born(key_init, network, child, signature)
            state = train.start(variables)
            rate = child.built.learning_rate or recipe.learning_rate
            for begin in range(0, train.steps, train.epoch_steps):
                state = train.run(key_train, state, None, rate, data, begin, begin + train.epoch_steps)
                if state.nan_epoch > 0:  # waits for the epoch's end
                    break
            curves = Curves(state.train_loss, state.valid_metric, state.nan_epoch)
            curves, kept = on_host((curves, train.variables(state) if keep_weights else None))
            return Outcome(time.monotonic() - began, curves, kept, inherited=inherited)
        except Exception as error:  # a child that cannot be trained is a result, not the end of the search
            return Outcome(time.monotonic() - began, error=one_line(error))

    def train(key: Key, children: Sequence[Child], width: int) -> list[Outcome]:
        return [one(key, child) for child in children]

    return train
