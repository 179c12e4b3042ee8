"""What `--mode=export` prints: the files, Python that runs the network without nasjax, and who will read it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

NEAR = 60  # days before the end of the window from which on it is warned of
_NAMED = 20  # outputs that are named in a line
_MEANINGS = {
    "weights.npz": "the weights, by name",
    "arch.json": "the architecture",
    "model.jax": "the network with its weights, for jax.export",
    "model.json": "what it takes and gives, and who reads it",
    "model.onnx": "the network with its weights, for ONNX Runtime",
}


def exported(files: list[Path], today: datetime.date | None = None) -> tuple[list[str], str | None]:
    """What to tell of the files that `export` wrote, and the warning that goes with them, if any.

    The lines from "import" to "print" are a program; it needs jax, NumPy and flatbuffers, or onnxruntime and NumPy.
    `today` is the day of the warning, None = that of the clock.
    """
    import jax
    from jax import export

    named = {file.name: file for file in files}
    if "model.onnx" in named:
        return _of_onnx(named["model.onnx"]), None
    network = export.deserialize(bytearray(named["model.jax"].read_bytes()))
    facts = json.loads(named["model.json"].read_text())
    (x,), _ = jax.tree.unflatten(network.in_tree, network.in_avals)
    lines = _written(files)
    lines += ["In a program that has jax and flatbuffers, without nasjax:", *_program(named["model.jax"], x)]
    lines += _named(facts["names"])
    units = "" if facts["units"] == "tokens" else f", {facts['units'].partition(';')[0]}"
    lines.append(f"Any number of samples at a time, on {', '.join(facts['platforms'])}{units}.")
    until = facts["read_by_versions_built_until"]
    return [*lines, _window(facts, until)], _warning(facts, until, today or datetime.date.today())


def _of_onnx(file: Path) -> list[str]:
    """What to tell of an ONNX model."""
    import onnxruntime

    network = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    facts = network.get_modelmeta().custom_metadata_map
    zeros = ", ".join(f"{x.name!r}: {_zeros_of(x)}" for x in network.get_inputs())
    units = "" if facts["units"] == "tokens" else f", {facts['units'].partition(';')[0]}"
    return [
        *_written([file]),
        "In a program that has onnxruntime and NumPy, without nasjax:",
        "import numpy, onnxruntime",
        f"network = onnxruntime.InferenceSession({str(file)!r})",
        f"print(network.run(None, {{{zeros}}})[0])",
        *_named(json.loads(facts["names"])),
        f"Any number of samples at a time{units}.",
        f"Opset {facts['opset']}. On random samples ONNX Runtime {onnxruntime.__version__} gives the outputs of the "
        f"network to {float(facts['difference']):.1e} of the largest one.",
    ]


def _zeros_of(x: Any) -> str:
    """An expression for zeros for an input of an ONNX Runtime session, with a batch of one."""
    kind, shape = (
        x.type.removeprefix("tensor(").removesuffix(")"),
        tuple(n if isinstance(n, int) else 1 for n in x.shape),
    )
    return f"numpy.zeros({shape}, {('float32' if kind == 'float' else kind)!r})"


def _written(files: list[Path]) -> list[str]:
    """The files, their sizes and meanings."""
    sizes = {file: f"{file.stat().st_size:,} bytes" for file in files}
    widths = [max(map(len, map(str, column))) for column in (sizes, sizes.values())]
    found = [f"  {file!s:<{widths[0]}}  {size:>{widths[1]}}  {_MEANINGS[file.name]}" for file, size in sizes.items()]
    return ["Written:", *found]


def _named(names: list[str]) -> list[str]:
    """Which outputs there are, where they are few."""
    return [f"Outputs are those of {', '.join(names)}, in this order."] if 1 < len(names) <= _NAMED else []


def _program(file: Path, x: Any) -> list[str]:
    """Python that loads the network and runs it on zeros."""
    return [
        "import jax.export, numpy, pathlib",
        f"network = jax.export.deserialize(bytearray(pathlib.Path({str(file)!r}).read_bytes()))",
        f"print(network.call({_zeros(x)}))",
    ]


def _zeros(x: Any) -> str:
    """An expression for zeros of these shapes, with a batch of one."""
    if isinstance(x, dict):
        return "{" + ", ".join(f"{name!r}: {_zeros(value)}" for name, value in x.items()) + "}"
    if isinstance(x, (tuple, list)):
        inside = ", ".join(map(_zeros, x))
        return f"[{inside}]" if isinstance(x, list) else f"({inside}{',' * (len(x) == 1)})"
    shape = tuple(n if isinstance(n, int) else 1 for n in x.shape)
    return f"numpy.zeros({shape}, {str(x.dtype)!r})"


def _window(facts: dict[str, Any], until: str | None) -> str:
    """Which versions of JAX read the network."""
    by = f"model.jax is always read by jax {facts['jax']}, which wrote it, and by newer versions that were built"
    if until is None:
        return f"{by} up to six months after its jaxlib, on a day not known here."
    return f"{by} until {until}{' or later' * facts['or_later']} (JAX promises six months)."


def _warning(facts: dict[str, Any], until: str | None, today: datetime.date) -> str | None:
    """What to do where the window ends soon, or has ended; None where it does not, or is not known to."""
    if until is None or facts["or_later"] or (left := (datetime.date.fromisoformat(until) - today).days) > NEAR:
        return None
    days = f"{left} day{'s' * (left != 1)} from now" if left >= 0 else "before today"
    return (
        f"versions of JAX that are built after {until}, {days}, refuse model.jax; where it is used install "
        f"jax=={facts['jax']}, or upgrade jax here and give this command again"
    )
