"""Random networks of every space as ONNX graphs: under ONNX Runtime against the network, batches of 1, 3 and 7.

    python benchmarks/export_onnx.py --count=50

Networks are tiny and untrained, with running statistics of random images and noise on them; images are pixels and are
whitened inside the graph. Prints a line per space: tried, exported with outputs equal to 1e-4 of the largest, the
largest such difference, seconds of an export, and the first failure. Networks with DARTS's operator noise draw random
bits, which ONNX Runtime cannot, and are left out. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from tools.exportable import CASES, network_of, quick
from tools.tiny_choice_chains import shaken

from nasjax import catalog
from nasjax.ops import onnx_graph
from nasjax.spaces.cell_tree.plan import RecurrentForm
from nasjax.spaces.cell_tree.space import CellTree
from nasjax.spaces.tabular_cell.plan import TabularForm
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.train.augment import whiten
from nasjax.types import Network, Signature, carries_state

BATCHES = (1, 3, 7)
GRAPHS = catalog.builder("resolution_graph").small[0]
# Spaces without a case of the other export checks: space, form, shape of a sample, outputs.
MORE = {
    "tabular_cell": (TabularCell(), TabularForm(channels=4, cells=1), (8, 8, 3), 3),
    "resolution_graph": (GRAPHS, None, (16, 16, 3), 1),
    "cell_tree": (CellTree(base=4), RecurrentForm(hidden=16), (6,), 11),
}


class Drawn(NamedTuple):
    """A random network, and the shape of its samples."""

    network: Network
    shape: tuple[int, ...]
    words: int  # of a language model; 0 = pixels


def networks(space: str) -> Iterator[tuple[int, Drawn]]:
    """Seeds and random networks of a space, in turn of each of its cases."""
    cases = [case for name, case in CASES.items() if name.split()[0] == space and not name.endswith("noise")]
    seed = 0
    while True:
        seed += 1
        for case in cases:
            if (network := network_of(case, seed)) is not None:
                yield seed, Drawn(network, case.image, 0)
        if not cases:
            own, form, shape, outputs = MORE[space]
            words = outputs * (len(shape) == 1)
            kind = jnp.int32 if words else jnp.float32
            arch = own.encode(np.asarray(own.sample(jax.random.key(seed))))
            signature = Signature(jax.ShapeDtypeStruct(shape, kind), outputs)
            built = catalog.builder(space).build(own, form, arch, signature)
            yield seed, Drawn(built.network(bn_eps=1e-5, dtype="float32"), shape, words)


def of_pixels(drawn: Drawn, seed: int) -> tuple[Callable[[Any, Any], Any], Any, Callable[[int], Any]]:
    """apply(variables, x), the variables, and n -> n samples x."""
    network, rng = drawn.network, np.random.default_rng(seed)
    if drawn.words:
        tokens = rng.integers(0, drawn.words, (max(BATCHES), *drawn.shape)).astype(np.int32)

        def some(n: int) -> Any:
            if not carries_state(network.carry):
                return tokens[:n]
            state = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), network.carry(n))
            return tokens[:n], state

        variables = network.init(jax.random.key(seed), None, some(1))
        return lambda variables, x: network.apply(variables, None, x)[0], variables, some
    pixels = rng.integers(0, 256, (max(BATCHES), *drawn.shape)).astype(np.uint8)
    mean, std = (jnp.asarray(rng.uniform(0.2, 0.5, drawn.shape[2]), jnp.float32) for _ in range(2))
    x = whiten(pixels, mean, std)
    fresh = shaken(network.init(jax.random.key(seed), None, x[:1]))
    after = quick(lambda v: network.apply(v, None, x, key=jax.random.key(seed), train=True, bn_momentum=0.0)[1])(fresh)

    def apply(variables: Any, x: Any) -> Any:
        return network.apply(variables, None, whiten(x, mean, std))[0]

    return apply, jax.tree.map(np.asarray, after), lambda n: pixels[:n]


def exported(drawn: Drawn, seed: int) -> tuple[float, float]:
    """The largest difference, in units of the largest output, and the seconds of the export."""
    apply, variables, some = of_pixels(drawn, seed)
    carry = drawn.network.carry

    def of_batch(size: Any) -> Any:
        kind = jnp.int32 if drawn.words else jnp.uint8
        x = jax.ShapeDtypeStruct((size, *drawn.shape), kind)
        if not carries_state(carry):
            return x
        two, three = carry(2), carry(3)
        free = jax.tree.map(
            lambda a, b: jax.ShapeDtypeStruct(
                tuple(m if m == n else size for m, n in zip(a.shape, b.shape, strict=True)), a.dtype
            ),
            two,
            three,
        )
        return x, free

    outputs = jax.tree.leaves(jax.eval_shape(apply, variables, some(1)))
    began = time.monotonic()
    model = onnx_graph.graph(apply, variables, of_batch, [f"y{i}" for i, _ in enumerate(outputs)])
    seconds = time.monotonic() - began
    run, inputs = quick(apply), [some(n) for n in BATCHES]
    if drawn.words:
        return onnx_graph.difference(model, lambda x: run(variables, x), inputs), seconds
    whole = run(variables, inputs[-1])  # samples do not depend on each other, so one size is compiled
    return onnx_graph.difference(model, lambda x: jax.tree.map(lambda leaf: leaf[: len(x)], whole), inputs), seconds


def row_of(space: str, count: int) -> dict[str, Any]:
    """A row of the table."""
    row: dict[str, Any] = {"space": space, "tried": 0, "ok": 0, "largest": 0.0, "seconds": 0.0, "failure": ""}
    for seed, drawn in networks(space):
        row["tried"] += 1
        try:
            found, seconds = exported(drawn, seed)
        except ValueError as error:
            row["failure"] = row["failure"] or f"seed {seed}: {error}"[:300]
        else:
            row["largest"], row["seconds"] = max(row["largest"], found), row["seconds"] + seconds / count
            row["ok"] += found <= onnx_graph.CLOSE
        if row["tried"] % 10 == 0:
            jax.clear_caches()  # nothing comes again
        if row["tried"] == count:
            return row
    raise AssertionError("networks() does not end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="architectures of every space")
    parser.add_argument("--only", default="", help="the spaces whose names begin so")
    given = parser.parse_args()
    names = ("jax", "jax2onnx", "onnx", "onnxruntime")
    print(", ".join(f"{name} {version(name)}" for name in names), f"opset {onnx_graph.OPSET}")
    print(f"{'space':20}{'tried':>6}{'ok':>6}{'largest difference':>20}{'seconds':>9}")
    rows = []
    for space in dict.fromkeys([*(name.split()[0] for name in CASES), *MORE]):
        if space.startswith(given.only):
            row = row_of(space, given.count)
            rows.append(row)
            numbers = f"{row['tried']:6}{row['ok']:6}{row['largest']:20.1e}{row['seconds']:9.2f}"
            print(f"{space:20}{numbers} {row['failure']}", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
