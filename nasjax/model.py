"""A retrained network for use in other programs: load it, call it, export it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import catalog
from nasjax.data.units import names as names_of
from nasjax.data.units import other_form, other_units
from nasjax.problem.saved import answered, network_of, space_and_form, updated, whitening
from nasjax.store import checkpoint, plugin, workdir
from nasjax.types import Metric, PyTree, carries_state, html_table

FORMATS = ("jax", "onnx")  # of an exported network


class Model(NamedTuple):
    """A trained network.

    apply(variables, x) -> outputs [B, ...] of x [B, *shape] in the units of the data set.
      A network that carries state takes (x, state) and returns (outputs, state). Raises ValueError for images of
      another type or shape than those it was trained on, and warns of images that seem to be in other units.
    """

    apply: Callable[[PyTree, Any], Any]
    variables: PyTree
    shape: tuple[int, ...]  # of one sample; of images height, width, channels
    dtype: str  # of x
    names: tuple[str, ...]  # of the outputs: classes, channels, words
    arch: dict[str, Any]  # JSON form
    task: str
    carry: Callable[[int], PyTree]  # batch size -> the initial state; () for most
    channels: str = "last"  # where the arrays of the training had them; `predict` reads such
    range: tuple[float, float] | None = None  # smallest and largest value of the images trained on; None = not known
    aspect: str = ""  # how images with masks became squares (`data.aspect`); "" = by their sides alone
    metric: str = ""  # in words: its name, and what the test part gave where the network was tested
    answers: Callable[..., np.ndarray] | None = None  # of the task: (outputs, names) -> what `predict` returns
    crop_part: float | None = None  # files are cut to their middle, see `DataConfig.fit`; None = averaged to the size
    told: Callable[[str], None] = lambda line: None  # hears what is done to inputs that are not as those trained on

    def __repr__(self) -> str:
        told = self._told()
        return "\n".join([f"nasjax model for {self.task}", *(f"  {name:<13}{told[name]}" for name in told)])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(f"nasjax model for {self.task}", self._told())

    def _told(self) -> dict[str, str]:
        """What it is, in a line each."""
        arrays = [np.shape(leaf) for leaf in jax.tree.leaves(self.variables["params"])]
        sizes = ", ".join(map(str, ("B", *self.shape)))
        span = "" if self.range is None else f", {self.range[0]:g} to {self.range[1]:g} in the training data"
        state = " and a state, model.carry(B)" if carries_state(self.carry) else ""
        return {
            "space": str(self.arch.get("space")),
            "architecture": f"{_short(json.dumps(self.arch))} (model.arch)",
            "parameters": f"{sum(map(math.prod, arrays)):,} in {len(arrays)} arrays (model.variables)",
            "metric": self.metric,
            "inputs": f"x {self.dtype}[{sizes}]{state}, in the units of the data{span}",
            "outputs": f"{len(self.names)}: {_short(', '.join(self.names))} (model.names)",
            "call": "model.apply(model.variables, x)",
        }

    def predict(self, x: Any) -> np.ndarray:
        """The class names, the values or the masks (0 and 1, [N, H, W]) of images: a row per sample of x.

        Args:
          x: images in the form and the units of the training data, [N, H, W] or [N, H, W, C] ([N, C, H, W] where those
            were); nothing is resized.

        Raises:
          ValueError: x is not of that form or seems to be in other units, or the network's task has no such answers.
        """
        return answered(self, x)


def _short(text: str, most: int = 72) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def save(path: Path, variables: PyTree, description: dict[str, Any]) -> None:
    """Writes the weights and the network's description into `path/model`, where `load` reads them."""
    (path / "model" / "model.json").unlink(missing_ok=True)  # a kill here leaves no model rather than a mixed one
    checkpoint.save(path / "model", "weights", variables)
    checkpoint.write_json(path / "model" / "model.json", description)


def adopt(
    path: str | Path,
    variables: PyTree,
    arch: dict[str, Any],
    *,
    shape: tuple[int, ...],
    names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    form: dict[str, Any] | None = None,
    dtype: str = "uint8",
    task: str = "classification",
    bn_eps: float = 1e-5,
) -> None:
    """Puts weights that were trained elsewhere into `path`, where `load`, `export` and `predict` find them.

    Args:
      path: a folder, made if need be.
      variables: of the network that `arch` builds (for DARTS's releases: `darts_from_release`).
      arch: an architecture as JSON, `{"space": ..., ...}`.
      shape, dtype: of one sample in the units of the data set; pixels uint8 are divided by 255, uint16 by 65535.
      names: of the outputs.
      mean, std: of the data by channel, after the division: what samples are whitened with.
      form: settings of the network beside its architecture, as `form` in a workdir's config.json; None = the space's.
      bn_eps: epsilon of batch norm.

    Raises:
      ValueError: the architecture, the form or the variables do not fit each other.
    """
    path = Path(path)
    description = {
        **space_and_form(arch, form),
        "arch": arch,
        "task": task,
        "shape": list(shape),
        "dtype": dtype,
        "names": list(names_of(names, "names")),
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
        "bn_eps": bn_eps,
        "plugin": "",
    }
    template = network_of(description)[-1]
    needed, given = (
        {"/".join(str(part.key) for part in where): list(leaf.shape) for where, leaf in leaves}
        for leaves in map(jax.tree.leaves_with_path, (template, variables))
    )
    for name in (*needed, *given):
        if needed.get(name) != given.get(name):
            raise ValueError(
                f"{name} is {given.get(name, 'missing')}, the architecture with this form needs "
                f"{needed.get(name, 'no such array')}"
            )
    path.mkdir(parents=True, exist_ok=True)
    save(path, variables, description)


def load(path: str | Path, *, point: int | str | None = None, run_plugin: bool = False) -> Model:
    """The network that `--mode=retrain` left in a workdir, or with `point` one that `--mode=export --point` did.

    Args:
      path: the workdir.
      point: the number of the trial whose network, with the weights of the search, is wanted; "NUMBER-finetuned" for
        the one that was trained on.
      run_plugin: run the workdir's plugin.py (and plugin_2.py ...) where the network needs it; look at it first.

    Raises:
      ValueError: it holds no retrained network, or a damaged one, or it needs a plugin.

    Example:
      >>> model = nasjax.load("runs/reinforce-conv_chain-digits-s0")
      >>> model.apply(model.variables, images).argmax(-1)
    """
    path = Path(path)
    folder = path if point is None else workdir.point(path, point)
    file = folder / "model" / "model.json"
    if not file.is_file():
        what, mode = ("trained network", "retrain") if point is None else (f"network of trial {point}", "export")
        number, _, tuned = str(point).partition("-")
        flag = "" if point is None else f" --point={number}{' --finetune_epochs=N' if tuned else ''}"
        raise ValueError(f"{path} holds no {what}; run {plugin.command(path, '', mode)}{flag} first")
    try:
        tree = updated(json.loads(file.read_text()))
        wanted = tree["plugin"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    copies = plugin.copies(path, wanted)
    if wanted and run_plugin and plugin.use(*copies) != wanted:
        raise ValueError(f"{_listed(copies)} is another file than the network was trained with; retrain it")
    named = (("space", tree["space"]["name"], catalog.SPACES), ("task", tree.get("task"), catalog.TASKS))
    if unknown := [f"the {kind} {name!r}" for kind, name, known in named if name is not None and name not in known]:
        if not wanted:
            raise ValueError(f"{' and '.join(unknown)} of {path} was registered in a program: register it again first")
        raise ValueError(
            f"{path} needs its plugin: nasjax.load({str(path)!r}, run_plugin=True) runs {_listed(copies)}, so look at "
            f"it first (the command: {plugin.flags(path, wanted)})"
        )
    try:
        network, task, template = network_of(tree)
        mean, std = whitening(tree)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    stateful = carries_state(network.carry)
    shape, names = tuple(tree["shape"]), tuple(tree["names"])
    seen = tuple(tree["range"]) if tree.get("range") else None
    scale = tree.get("scale")
    variables = checkpoint.restore(folder / "model", "weights", template)

    def apply(variables: PyTree, x: Any) -> Any:
        x, *state = x if stateful else (x,)
        x = _required(x, tree["dtype"], shape, seen)
        x = task.inputs(x, mean, std)
        outputs = network.apply(variables, None, (x, *state) if stateful else x)[0]
        return outputs if scale is None else outputs * scale[1] + scale[0]

    of_arrays = {
        "channels": tree.get("channels", "last"),
        "range": seen,
        "aspect": tree.get("aspect", ""),
        "metric": _tested(folder, task.metric),
        "answers": task.answers,
        "crop_part": tree.get("crop_part"),
    }
    return Model(apply, variables, shape, tree["dtype"], names, tree["arch"], tree["task"], network.carry, **of_arrays)


def _listed(files: Sequence[Path]) -> str:
    return " and ".join(map(str, files))


def _tested(path: Path, metric: Metric) -> str:
    """The metric's name, and what the workdir's test came to where there was one."""
    file = path / "result.json"
    if not file.is_file():
        return metric.name
    found = json.loads(file.read_text())
    value, samples = found.get(f"test_{metric.name}"), found.get("test_samples")
    return metric.name if value is None else f"{metric.name} {metric.shown(value)} on {samples} test samples"


def _required(x: Any, dtype: str, shape: tuple[int, ...], seen: tuple[float, float] | None) -> Any:
    """x, where it has the form of the samples that a network was trained on; tokens may be of any integer type.

    Raises ValueError where it has not; warns where images seem to be in other units.
    """
    x = x if hasattr(x, "dtype") else np.asarray(x)
    tokens = np.dtype(dtype).kind in "iu" and len(shape) < 3
    of = (x.dtype if tokens and x.dtype.kind in "iu" else dtype, shape if len(shape) == 3 else x.shape[1:])
    if reason := other_form(x, *of):
        raise ValueError(f"x {reason}: the network takes what it was trained on, the numbers as they were")
    if seen is not None and not isinstance(x, jax.core.Tracer) and (reason := other_units(np.asarray(x), *seen)):
        warnings.warn(f"x {reason}: is it in the same units?", stacklevel=3)
    return x


def _sized(two: jax.Array, three: jax.Array, size: Any) -> jax.ShapeDtypeStruct:
    """The form of an array for a batch of any size, from its forms for 2 and for 3."""
    axes = zip(two.shape, three.shape, strict=True)
    return jax.ShapeDtypeStruct(tuple(a if a == b else size for a, b in axes), two.dtype)


def _meaning(model: Model) -> dict[str, Any]:
    """The meaning of an exported network's inputs and outputs, as JSON."""
    whole = {"uint8": "pixels 0..255", "uint16": "pixels 0..65535"}.get(model.dtype, "numbers")
    units = f"{whole} as they are in the training data, not scaled; [B, H, W, C]" if len(model.shape) == 3 else "tokens"
    return {"names": list(model.names), "units": units, "trained_on": list(model.range) if model.range else None}


def require_format(format: str) -> None:
    """Raises ValueError for an unknown format of `export`, or where its libraries are missing."""
    if format not in FORMATS:
        raise ValueError(f"unknown --format={format}; choose {' or '.join(FORMATS)}")
    if format == "onnx":
        from nasjax.ops import onnx_graph

        onnx_graph.require()


def export(path: str | Path, format: str = "jax", *, point: int | str | None = None) -> list[Path]:
    """Writes the retrained network of a workdir for use without this library.

    Args:
      path: a workdir with a retrained network.
      format: "jax" or "onnx"; the latter needs the extra `onnx`.
      point: as of `load`; the files are then in points/NUMBER/export.

    Returns:
      For "jax" `export/weights.npz` (arrays named by their path, "params/layer0/kernel"), `export/arch.json`,
      `export/model.jax`, a `jax.export` artifact for CPUs, GPUs and TPUs: deserialise it and call it on x [B, ...], any
      B (a network that carries state: on (x, state)); and `export/model.json`: its inputs and outputs, and which
      versions of JAX read it (`ops.portable.facts`). For "onnx" `export/model.onnx`, which takes and gives the same and
      holds what model.json says as metadata.

    Raises:
      ValueError: an unknown format, or a network that ONNX cannot hold as it computes.
    """
    from nasjax.ops import portable

    require_format(format)
    path = Path(path)
    model = load(path, point=point)
    out = (path if point is None else workdir.point(path, point)) / "export"
    out.mkdir(exist_ok=True)

    def of_batch(size: Any) -> Any:
        x = jax.ShapeDtypeStruct((size, *model.shape), jnp.dtype(model.dtype))
        state = jax.tree.map(lambda two, three: _sized(two, three, size), model.carry(2), model.carry(3))
        return (x, state) if jax.tree.leaves(state) else x

    if format == "onnx":
        (out / "model.onnx").write_bytes(_as_onnx(model, of_batch))
        return [out / "model.onnx"]
    leaves = jax.tree_util.tree_flatten_with_path(model.variables)[0]
    named = {"/".join(str(part.key) for part in where): np.asarray(leaf) for where, leaf in leaves}
    np.savez(out / "weights.npz", **named)  # type: ignore[arg-type]
    checkpoint.write_json(out / "arch.json", model.arch)
    try:
        exported = portable.batched(model.apply, model.variables, of_batch)
    except Exception as error:
        if not catalog.is_own("space", model.arch["space"]):
            raise
        raise ValueError(
            f"the networks of your space {model.arch['space']!r} do not take a batch of any size "
            f"({' '.join(str(error).split())[:200]}); write x.shape[0] for the size of the batch, not len(x)"
        ) from error
    (out / "model.jax").write_bytes(exported.serialize())
    checkpoint.write_json(out / "model.json", portable.facts(exported) | _meaning(model))
    return [out / name for name in ("weights.npz", "arch.json", "model.jax", "model.json")]


def _as_onnx(model: Model, of_batch: Callable[[Any], Any]) -> bytes:
    """The network as an ONNX model that gives, on samples drawn at random, what it gives itself.

    Raises ValueError where it does not.
    """
    from nasjax.ops import onnx_graph

    outputs = ["outputs", *(f"state_{i}" for i in range(len(jax.tree.leaves(model.carry(1)))))]
    found = onnx_graph.graph(model.apply, model.variables, of_batch, outputs)
    apply, inputs = jax.jit(model.apply), [_drawn(model, size) for size in (1, 3)]
    off = onnx_graph.difference(found, lambda x: apply(model.variables, x), inputs)
    if off > onnx_graph.CLOSE:
        raise ValueError(
            f"ONNX Runtime gives other outputs than the network, by {off:.1e} of the largest one, so no model.onnx was "
            "written; write --format=jax"
        )
    meaning = {**_meaning(model), "task": model.task, "arch": model.arch, "difference": off}
    return onnx_graph.described(found, meaning)


def _drawn(model: Model, size: int) -> Any:
    """A batch of random inputs, of the kind and range of those trained on."""
    generator, shape = np.random.default_rng(size), (size, *model.shape)
    low, high = model.range or (0.0, 1.0)
    if len(model.shape) < 3 and np.dtype(model.dtype).kind in "iu":
        x = generator.integers(0, len(model.names), shape).astype(model.dtype)
    elif np.dtype(model.dtype).kind in "iu":
        x = generator.integers(int(low), int(high) + 1, shape).astype(model.dtype)
    else:
        x = generator.uniform(low, high, shape).astype(model.dtype)
    state = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(leaf.dtype), model.carry(size))
    return (x, state) if jax.tree.leaves(state) else x
