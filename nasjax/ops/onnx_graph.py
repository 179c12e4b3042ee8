"""A function of a batch as an ONNX graph, made by jax2onnx and compared with the function under ONNX Runtime."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core
import numpy as np
from jax import export, lax

from nasjax.ops import backend
from nasjax.types import PyTree

OPSET = 21  # ONNX Runtime 1.20 (2024) and later read it
CLOSE = 1e-4  # of the largest output
# Primitives that call a program, and which of their parameters it is.
_CALLS = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint"), ("jaxpr", "call_jaxpr")),
    **dict.fromkeys(("custom_vjp_call", "custom_jvp_call", "custom_vjp_call_jaxpr"), ("call_jaxpr", "fun_jaxpr")),
}
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
      of_batch: size of a batch -> shapes and dtypes of x, a pytree of ShapeDtypeStruct; the size is a symbol.
        The model's inputs are the leaves of x by their paths: "x", or "x_0", "x_1_h".
      outputs: names of the leaves of the outputs, in order.

    Returns:
      An `onnx.ModelProto`.

    Raises:
      ValueError: a library is missing, or jax2onnx cannot translate the function.
    """
    require()
    from jax2onnx import to_onnx

    (batch,) = export.symbolic_shape("batch")
    x = of_batch(batch)
    leaves, tree = jax.tree.flatten(x)

    def call(*leaves: Any) -> tuple[Any, ...]:
        with backend.forced("gpu"):
            return tuple(jax.tree.leaves(apply(variables, jax.tree.unflatten(tree, leaves))))

    # Traced here, since jax2onnx traces with its own forms of jax.numpy's functions, of which (0.17.1) `maximum` of
    # float32 and 0 is float64.
    program = jax.make_jaxpr(call)(*leaves)
    told = logging.getLogger("onnx_ir")
    level = told.level
    told.setLevel(logging.ERROR)  # it warns of shapes that have no use here
    try:
        return to_onnx(
            lambda *leaves: tuple(_plain(program.jaxpr, program.consts, leaves)),
            leaves,
            model_name="nasjax",
            opset=OPSET,
            input_names=input_names(x),
            output_names=list(outputs),
        )
    except Exception as error:
        raise ValueError(
            f"jax2onnx does not translate this network ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
            "write --format=jax for a file that JAX reads"
        ) from error
    finally:
        told.setLevel(level)


def _plain(program: Any, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Runs a program without calls, custom gradients and paddings, which are spelt out.

    The graph has a node less for each call, and jax2onnx does not translate `lax.pad` where the batch has any size.
    """
    known = dict(zip((*program.constvars, *program.invars), (*consts, *inputs), strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, jax.extend.core.Literal) else known[variable]

    for step in program.eqns:
        given = [value(variable) for variable in step.invars]
        inner = next((step.params[name] for name in _CALLS.get(step.primitive.name, ()) if name in step.params), None)
        if inner is not None:
            found = _plain(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given)
        elif step.primitive.name == "pad":
            found = [_padded(given[0], given[1], step.params["padding_config"])]
        else:
            found = step.primitive.bind(*given, **step.params)
            found = found if step.primitive.multiple_results else [found]
        known.update(zip(step.outvars, found, strict=True))
    return [value(variable) for variable in program.outvars]


def _padded(x: jax.Array, fill: jax.Array, sizes: Sequence[tuple[int, int, int]]) -> jax.Array:
    """`lax.pad` as concatenations."""
    if any(low < 0 or high < 0 or inside for low, high, inside in sizes):
        return lax.pad(x, fill, sizes)
    for axis, (low, high, _) in enumerate(sizes):
        ends = [lax.broadcast(fill, (*x.shape[:axis], n, *x.shape[axis + 1 :])) if n else None for n in (low, high)]
        parts = [part for part in (ends[0], x, ends[1]) if part is not None]
        x = lax.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def described(model: Any, meaning: Mapping[str, Any]) -> bytes:
    """The model as a file's content, with metadata: texts as they are, all else as JSON."""
    for name, value in {"opset": OPSET, **meaning}.items():
        model.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
    content: bytes = model.SerializeToString()
    return content


def session(model: bytes | str, threads: int | None = None) -> Any:
    """An ONNX Runtime session on CPU; `threads` of one operator, None = as many as there are cores.

    Raises ValueError where ONNX Runtime is missing or refuses the model.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # an operator that this opset or runtime does not have
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"ONNX Runtime does not take this network ({reason}); write --format=jax") from error


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

    leaves = jax.tree_util.tree_flatten_with_path(x)[0]
    return ["_".join(["x", *map(name, path)]) for path, _ in leaves]


def require(*names: str) -> None:
    """Raises ValueError where these libraries, or those of an export, are missing."""
    from importlib.util import find_spec

    if missing := [name for name in names or _NEEDED if find_spec(name) is None]:
        raise ValueError(f"--format=onnx needs {' and '.join(missing)}; pip install 'nasjax[onnx]'")
