"""A retrained network for somebody else's program: load it, call it, export it."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.building.built import build
from nasjax.experiments.families.gradients import EvalConfig
from nasjax.settings import as_json, from_json
from nasjax.spaces.choice_chain import ChoiceChain
from nasjax.spaces.conv_chain import ConvChain
from nasjax.spaces.darts_cell import DartsCell
from nasjax.store import checkpoint
from nasjax.train.augment import whiten
from nasjax.types import PyTree

_SPACES = {space.name: space for space in (ConvChain(), DartsCell(), ChoiceChain())}


class Model(NamedTuple):
    """A trained classifier.

    apply(variables, x) -> logits f32[B, K], x [B, H, W, C] in the units of the data set (uint8, or float as given)
    """

    apply: Callable[[PyTree, jax.Array], jax.Array]
    variables: PyTree
    image: tuple[int, int, int]  # height, width, channels
    dtype: str  # of x
    class_names: tuple[str, ...]
    arch: dict[str, Any]  # JSON form


def save(path: Path, variables: PyTree, description: dict[str, Any]) -> None:
    """Writes weights and what rebuilds the network into `path/model`, from where `load` takes them."""
    (path / "model" / "model.json").unlink(missing_ok=True)  # killed here, there is no model rather than a mixed one
    checkpoint.save(path / "model", "weights", variables)
    checkpoint.write_json(path / "model" / "model.json", description)


def describe(
    config: Any,
    arch: dict[str, Any],
    image: tuple[int, int, int],
    dtype: str,
    names: Any,
    mean: Any,
    std: Any,
    eps: float,
) -> dict[str, Any]:
    """The JSON that `load` rebuilds a network from."""
    return {
        "space": as_json(config.space),
        "eval": as_json(getattr(config, "eval", None)),
        "arch": arch,
        "image": list(image),
        "dtype": dtype,
        "class_names": [str(name) for name in names],
        "mean": np.asarray(mean, float).tolist(),
        "std": np.asarray(std, float).tolist(),
        "bn_eps": eps,
    }


def load(path: str | Path) -> Model:
    """The network that `--mode=retrain` left in a workdir.

    Args:
      path: the workdir.

    Raises:
      ValueError: it holds no retrained network, or a damaged one.

    Example:
      >>> model = nasjax.load("runs/reinforce-conv_chain-digits-s0")
      >>> model.apply(model.variables, images).argmax(-1)
    """
    path = Path(path)
    file = path / "model" / "model.json"
    if not file.is_file():
        raise ValueError(f"{path} holds no trained network; run --mode=retrain --workdir={path} first")
    try:
        tree = json.loads(file.read_text())
        space = from_json(_SPACES[tree["space"]["name"]], tree["space"])
        form = from_json(EvalConfig(), tree["eval"]) if isinstance(space, DartsCell) else None
        image = tuple(tree["image"])
        names = tuple(tree["class_names"])
        built = build(types.SimpleNamespace(space=space, eval=form), tree["arch"], image, len(names))
        network = built.network(bn_eps=tree["bn_eps"], dtype="float32")
        mean, std = (jnp.asarray(tree[name], jnp.float32) for name in ("mean", "std"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    template = network.init(jax.random.key(0), None, jnp.zeros((1, *image)))
    variables = checkpoint.restore(path / "model", "weights", template)

    def apply(variables: PyTree, x: jax.Array) -> jax.Array:
        logits, _ = network.apply(variables, None, whiten(x, mean, std))
        return logits

    return Model(apply, variables, image, tree["dtype"], names, tree["arch"])


def export(path: str | Path) -> list[Path]:
    """Writes the retrained network of a workdir for use without this library.

    Args:
      path: a workdir with a retrained network.

    Returns:
      `export/weights.npz` (arrays named by their path, "params/layer0/kernel"), `export/arch.json`,
      `export/model.jax`, a `jax.export` artifact for CPUs, GPUs and TPUs: deserialise it and call it on
      x [B, H, W, C], any B; and `export/model.json`: what that takes and gives, and which versions of JAX read it
      (`ops.portable.facts`).
    """
    from nasjax.ops import portable

    path = Path(path)
    model = load(path)
    out = path / "export"
    out.mkdir(exist_ok=True)
    leaves = jax.tree_util.tree_flatten_with_path(model.variables)[0]
    named = {"/".join(str(part.key) for part in where): np.asarray(leaf) for where, leaf in leaves}
    np.savez(out / "weights.npz", **named)  # type: ignore[arg-type]
    checkpoint.write_json(out / "arch.json", model.arch)
    exported = portable.batched(model.apply, model.variables, jax.ShapeDtypeStruct(model.image, jnp.dtype(model.dtype)))
    (out / "model.jax").write_bytes(exported.serialize())
    checkpoint.write_json(out / "model.json", portable.facts(exported) | {"class_names": list(model.class_names)})
    return [out / name for name in ("weights.npz", "arch.json", "model.jax", "model.json")]
