"""What rebuilds a trained network: the JSON beside its weights, and the network that it describes."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import catalog
from nasjax.data.dataset import Dataset
from nasjax.data.npz import images
from nasjax.data.units import names as names_of
from nasjax.data.units import other_form, other_units, range_of
from nasjax.problem.problem import Problem
from nasjax.settings import as_json, from_json
from nasjax.train.step import example
from nasjax.types import Network, PyTree, Signature, Task

_BATCH, _PIXELS = 256, 2**22  # images that are computed at a time, and pixels, of large ones


def described(problem: Problem, arch: dict[str, Any], data: Dataset, bn_eps: float) -> dict[str, Any]:
    """The JSON of a network.

    Args:
      problem: what it was trained for.
      arch: the architecture as JSON.
      data: what it was trained on.
      bn_eps: of its batch norms.
    """
    x = data.train.x
    return {
        "space": as_json(problem.builder.widen(problem.space, arch)),
        "form": as_json(problem.form),
        "arch": arch,
        "task": problem.task.name,
        "shape": list(x.shape[1:]),
        "dtype": str(x.dtype),
        "channels": data.channels,
        "aspect": problem.config.data.aspect or problem.source.aspect,
        "range": range_of(x) if x.ndim == 4 else None,
        "names": list(names_of(data.class_names, "class_names")),
        "mean": np.asarray(data.mean, float).tolist(),
        "std": np.asarray(data.std, float).tolist(),
        "scale": data.scale,
        **({"crop_part": problem.config.data.crop_part} if problem.cropped else {}),
        "bn_eps": bn_eps,
        "plugin": problem.config.plugin,
    }


def space_and_form(arch: dict[str, Any], form: dict[str, Any] | None) -> dict[str, Any]:
    """The JSON of the space that holds an architecture, and of a form of which some settings are given.

    Raises ValueError for settings that the space's networks do not have.
    """
    builder = catalog.builder(arch["space"])
    own = as_json(builder.form)
    return {
        "space": as_json(builder.widen(builder.default, arch)),
        "form": own if form is None else as_json(from_json(builder.form, {**own, **form})),
    }


def whitening(tree: dict[str, Any]) -> list[jax.Array]:
    """Mean and standard deviation of the data, f32[C] each."""
    return [jnp.asarray(tree[name], jnp.float32) for name in ("mean", "std")]


def network_of(tree: dict[str, Any]) -> tuple[Network, Task, PyTree]:
    """The network that such a JSON describes, its task, and variables of its form."""
    builder, task = catalog.builder(tree["space"]["name"]), catalog.task(tree["task"])
    space, form = from_json(builder.default, tree["space"]), from_json(builder.form, tree["form"])
    x = jax.ShapeDtypeStruct((1, *tree["shape"]), tree["dtype"])
    x = jax.eval_shape(task.inputs, x, *whitening(tree))
    sample = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    signature = Signature(sample, len(tree["names"]))
    network = builder.build(space, form, tree["arch"], signature).network(bn_eps=tree["bn_eps"], dtype="float32")
    return network, task, network.init(jax.random.key(0), None, example(network, signature))


def answered(model: Any, x: Any) -> np.ndarray:
    """What `Model.predict` returns; arguments and errors as there."""
    if model.answers is None:
        raise ValueError(f"a network for {model.task} has no answers of a row per sample; call its apply")
    x = images(np.asarray(x), "x", model.channels)
    if reason := other_form(x, model.dtype, model.shape):
        raise ValueError(f"x {reason}: give it as the training data were; nothing is resized")
    if model.range is not None and (reason := other_units(x, *model.range)):
        raise ValueError(f"x {reason}: give it in the same units, or call predict of model._replace(range=None)")
    apply = jax.jit(model.apply)
    size = min(_BATCH, max(1, _PIXELS // math.prod(model.shape[:2])))
    parts = [jax.device_get(apply(model.variables, x[i : i + size])) for i in range(0, max(len(x), 1), size)]
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    found: np.ndarray = model.answers(whole, model.names)
    return found


def updated(tree: dict[str, Any]) -> dict[str, Any]:
    """The JSON as this version writes it; before, images were all that there was."""
    if "image" not in tree:
        return tree
    own = catalog.builder(tree["space"]["name"]).form
    form = tree["eval"] if tree["eval"] is not None else as_json(own)
    new = {"task": "classification", "shape": tree["image"], "names": tree["class_names"], "form": form, "plugin": ""}
    return {**tree, **new}
