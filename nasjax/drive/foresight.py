"""Whether a training could begin, before a search that would end in it: by shapes, without compiling the network."""

from __future__ import annotations

from typing import Any

import jax

from nasjax.drive.retrain import AXES, RetrainConfig
from nasjax.settings import naming
from nasjax.train.augment import require_suited
from nasjax.train.photometric import prepared
from nasjax.train.recipe import Recipe, require_batch
from nasjax.train.step import example, trainer
from nasjax.types import Built, PyTree, Signature, Task, carries_state


def tried_forms(settings: RetrainConfig) -> dict[str, float]:
    """Settings of the network's form that the grid of a retraining tries, each with one of its values."""
    known = vars(Recipe())
    return {name: values[0] for of, name in AXES if name not in known and (values := getattr(settings, of))}


def require_samples(recipe: Recipe, data: Any, settings: RetrainConfig) -> None:
    """Raises ValueError where a batch of the retraining is more than the samples of its part of a `Dataset`."""
    samples = len(data.train.y) + (len(data.valid.y) if settings.part == "all" else 0)
    require_batch(recipe.batch_size, samples, "retrain_recipe.batch_size")


def require_trainable(built: Built, data: Any, task: Task, recipe: Recipe, where: str, *, own: bool = False) -> None:
    """Raises ValueError, with the setting to write, where this network cannot be trained by this recipe.

    Args:
      built: the network.
      data: a `Dataset`; one sample's shapes are used.
      task: of the data.
      recipe: of the training.
      where: its name among the settings, "retrain_recipe".
      own: a user's own network, whose own errors are not told here: they are those of single candidates.
    """
    require_suited(recipe.augment, data.train.x.shape[1:], f"{where}.augment")
    key = jax.random.key(0)
    x, y = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), tuple(data.train))

    def batch(x: PyTree, y: PyTree, mean: PyTree, std: PyTree) -> tuple[PyTree, PyTree]:
        return prepared(task, key, x, y, mean, std, recipe.augment)

    try:
        inputs, targets = jax.eval_shape(batch, x, y, data.mean, data.std)
        network = built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
        signature = Signature(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs), 0)
        stateful = carries_state(network.carry)

        def outputs_of(variables: PyTree, x: PyTree) -> PyTree:
            given = (x, network.carry(1)) if stateful else x
            outputs, _ = network.apply(variables, None, given, key=key, train=True, drop_rate=recipe.drop_path)
            return outputs[0] if stateful else outputs

        variables = network.init(key, None, example(network, signature))
        outputs = jax.eval_shape(outputs_of, variables, inputs)
    except Exception:
        if own:
            return
        raise
    with naming(recipe, f"{where}."):
        trainer(network, recipe, len(data.train.y), variables, task)
        jax.eval_shape(lambda outputs, y: task.loss(outputs, y, recipe), outputs, targets)
