"""A function of a batch as an ONNX graph, made by jax2onnx and compared with the function under ONNX Runtime."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nasjax.ops import backend
from nasjax.types import PyTree

OPSET = 21  # ONNX Runtime 1.20 (2024) and later read it
CLOSE = 1e-4  # of the largest output
_NEEDED = ("jax2onnx", "onnx", "onnxruntime")


def graph(
    apply: Callable[[PyTree, Any], PyTree],
    variables: PyTree,
    of_batch: Callable[[Any], PyTree],
    outputs: Sequence[str],
) -> Any:
    """`x -> apply(variables, x)` as an ONNX model with a batch of any size.

    What is traced is the form of the operators for GPUs: a convolution is one node of the graph, where the form for
    CPUs spells it out as XLA likes it.

    Args:
      apply: (variables, x) -> outputs; takes any batch size.
      variables: become constants of the model.
      of_batch: size of a batch -> shapes and dtypes of x, a pytree of ShapeDtypeStruct; the size is a name, "batch".
        The model's inputs are the leaves of x by their paths: "x", or "x_0", "x_1_h".
      outputs: names of the leaves of the outputs, in order.

    Returns:
      An `onnx.ModelProto`.

    Raises:
      ValueError: a library is missing, or jax2onnx cannot translate the function.
    """
    _require()
    from jax2onnx import to_onnx

    x = of_batch("batch")
    leaves, tree = jax.tree.flatten(x, is_leaf=_is_shape)

    def call(*leaves: Any) -> tuple[Any, ...]:
        with backend.forced("gpu"):
            return tuple(jax.tree.leaves(apply(variables, jax.tree.unflatten(tree, leaves))))

    try:
        return to_onnx(
            call,
            leaves,
            model_name="nasjax",
            opset=OPSET,
            input_names=input_names(x),
            output_names=list(outputs),
        )
    except Exception as error:
        logging.getLogger(__name__).debug("jax2onnx", exc_info=error)
        raise ValueError(
            f"jax2onnx does not translate this network ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
            "write --format=jax for a file that JAX reads"
        ) from error


def described(model: Any, meaning: Mapping[str, Any]) -> bytes:
    """The model as a file's content, with metadata: texts as they are, all else as JSON."""
    for name, value in {"opset": OPSET, **meaning}.items():
        model.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
    content: bytes = model.SerializeToString()
    return content


def session(model: bytes | str, threads: int | None = None) -> Any:
    """An ONNX Runtime session on CPU; `threads` of one operator, None = as many as there are cores."""
    _require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def difference(model: Any, expected: Callable[[PyTree], PyTree], inputs: Sequence[PyTree]) -> float:
    """The largest difference between outputs of the model and `expected`, in units of the largest output.

    Args:
      model: what `graph` made.
      expected: x -> outputs.
      inputs: batches x to compare on.
    """
    runs, worst = session(model.SerializeToString()), 0.0
    for x in inputs:
        wanted = [np.asarray(leaf) for leaf in jax.tree.leaves(expected(x))]
        given = dict(zip(input_names(x), map(np.asarray, jax.tree.leaves(x)), strict=True))
        for got, want in zip(runs.run(None, given), wanted, strict=True):
            if got.shape != want.shape or not np.isfinite(got).all():
                return float("inf")
            worst = max(worst, float(np.abs(got - want).max() / max(np.abs(want).max(), np.finfo(np.float32).tiny)))
    return worst


def input_names(x: PyTree) -> list[str]:
    """The names of the inputs: x, or the paths of its leaves."""

    def name(part: Any) -> str:
        return str(getattr(part, "key", getattr(part, "idx", part)))

    leaves = jax.tree_util.tree_flatten_with_path(x, is_leaf=_is_shape)[0]
    return ["_".join(["x", *map(name, path)]) for path, _ in leaves]


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _require(*names: str) -> None:
    from importlib.util import find_spec

    if missing := [name for name in names or _NEEDED if find_spec(name) is None]:
        raise ValueError(f"--format=onnx needs {' and '.join(missing)}; pip install 'nasjax[onnx]'")
