"""A network as the program that will serve it: compiled by XLA, or as an ONNX graph under ONNX Runtime.

Times do not depend on what the weights are, as long as no number is denormal, so networks are timed untrained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.data.stream import usable_cores
from nasjax.ops import onnx_graph
from nasjax.train.step import example
from nasjax.types import Built, PyTree, Signature, carries_state

RUNTIMES = ("xla", "onnx")


class Program(NamedTuple):
    """A network for a batch of fixed size.

    opened() -> call; call() -> runs it once on the same inputs, and returns when it is done. Under ONNX Runtime each
      call that is opened has a session of its own: one that waits while others are made becomes slower by up to 15 %.
    temporary_bytes: what a run needs beside weights, inputs and outputs; None = the runtime does not tell
    """

    opened: Callable[[], Callable[[], Any]]
    temporary_bytes: int | None


def threads() -> int:
    """Threads of a network's program: as many as there are cores that this process may use."""
    return usable_cores()


def program(built: Built, signature: Signature, runtime: str, batch: int = 1) -> Program:
    """The network of an architecture, with initial weights as constants, on samples drawn at random.

    Args:
      built: the architecture.
      signature: of its network; samples come as the network receives them.
      runtime: one of `RUNTIMES`.
      batch: samples of a call.

    Raises:
      ValueError: unknown runtime, a library is missing, or the network has no such form.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"unknown runtime {runtime!r}; choose {' or '.join(RUNTIMES)}")
    network = built.network(bn_eps=1e-5, dtype="float32")
    inputs, carry = signature.inputs, network.carry

    def sample(size: Any) -> PyTree:
        x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), inputs)
        if not carries_state(carry):
            return x
        return x, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), carry(size))

    variables = jax.tree.map(np.asarray, network.init(jax.random.key(0), None, example(network, signature)))
    x = jax.tree.map(lambda leaf: _numbers(leaf, signature.outputs), sample(batch))

    def apply(variables: PyTree, x: PyTree) -> PyTree:
        return network.apply(variables, None, x)[0]

    if runtime == "xla":
        compiled = jax.jit(lambda x: apply(variables, x)).lower(x).compile()
        there = jax.device_put(x)
        memory = compiled.memory_analysis()
        temporary = None if memory is None else int(memory.temp_size_in_bytes)
        return Program(lambda: lambda: jax.block_until_ready(compiled(there)), temporary)
    if carries_state(carry):
        raise ValueError("networks that carry a state are timed under XLA only; write --target=xla")
    outputs = [f"y{i}" for i, _ in enumerate(jax.tree.leaves(jax.eval_shape(apply, variables, x)))]
    model = onnx_graph.graph(apply, variables, lambda size: sample(batch), outputs)
    content = model.SerializeToString()
    given = dict(zip(onnx_graph.input_names(x), jax.tree.leaves(x), strict=True))

    def opened() -> Callable[[], Any]:
        session = onnx_graph.session(content, threads())
        return lambda: session.run(None, given)

    opened()()  # what ONNX Runtime refuses is told before anything is timed
    return Program(opened, None)


def _numbers(leaf: Any, outputs: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    if np.dtype(leaf.dtype).kind in "iu":
        return generator.integers(0, outputs, leaf.shape).astype(leaf.dtype)
    return generator.standard_normal(leaf.shape).astype(leaf.dtype)
