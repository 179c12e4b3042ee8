"""Memory of a network at inference: its weights, and its activations where most of them are needed at once.

The activations are told from the network's program as JAX traces it, so that every space has them without a formula of
its own. The program is walked in its order, as an interpreter on a small device would run it (working sets: Liberis &
Lane 2019, arXiv:1910.05110, section 3), and nothing is compiled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.ops import backend
from nasjax.types import Built, PyTree, Signature, carries_state

MB = 10**6
_CALLS = {"pjit": "jaxpr", "jit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"}
_CALLS |= {"remat": "jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr", "custom_jvp_call": "call_jaxpr"}
_CALLS |= {"custom_vjp_call": "call_jaxpr", "custom_vjp_call_jaxpr": "fun_jaxpr", "custom_lin": "call_jaxpr"}
# The same values in the same place, or read where they are.
_VIEWS = {"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "slice", "copy", "stop_gradient"}
_VIEWS |= {"optimization_barrier"}
_REDUCTIONS = {"argmax", "argmin"}  # and what begins with reduce_
_ELEMENTWISE = {
    *("add", "sub", "mul", "div", "rem", "neg", "sign", "abs", "max", "min", "pow", "integer_pow", "square", "sqrt"),
    *("rsqrt", "cbrt", "exp", "exp2", "expm1", "log", "log1p", "logistic", "tanh", "sin", "cos", "erf", "erfc"),
    *("erf_inv", "floor", "ceil", "round", "clamp", "select_n", "convert_element_type", "is_finite", "not", "and"),
    *("or", "xor", "eq", "ne", "lt", "le", "gt", "ge", "add_any", "nextafter", "atan2", "reduce_precision"),
}


class Memory(NamedTuple):
    """Bytes that a network needs at inference.

    weights: of its parameters, 4 each; the statistics of batch norms are a part of the convolutions' when it is served
    activations: the largest sum, over the steps of its program, of what the step reads, what it writes, and what later
      steps still need
    """

    weights: int
    activations: int

    @property
    def total_mb(self) -> float:
        """Of both, in MB of 10^6 bytes."""
        return (self.weights + self.activations) / MB


def memory(built: Built, signature: Signature, batch: int = 1) -> Memory:
    """The memory of a network in float32; nothing is computed or compiled.

    What depends on weights alone counts as weights. An elementwise operation writes over an operand of its size that
    nothing else needs; where there is none, it is computed within the elementwise operations and reductions that read
    it, if only such do, and else takes space of its own. Reshapes, slices and broadcasts are read where they are.

    Args:
      built: the architecture.
      signature: of its network; samples come as the network receives them.
      batch: samples of a call.
    """
    network = built.network(bn_eps=1e-5, dtype="float32")

    def sample(size: int) -> PyTree:
        x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), signature.inputs)
        return (x, jax.eval_shape(lambda: network.carry(size))) if carries_state(network.carry) else x

    with backend.forced("gpu"):  # whose convolutions are single operations, on every machine
        key = jax.eval_shape(lambda: jax.random.key(0))
        variables = jax.eval_shape(lambda key, x: network.init(key, None, x), key, sample(1))
        program = jax.make_jaxpr(lambda variables, x: network.apply(variables, None, x)[0])(variables, sample(batch))
    weights = len(jax.tree.leaves(variables))
    given = program.jaxpr.invars
    return Memory(4 * built.params, _peak(program.jaxpr, [n >= weights for n in range(len(given))]))


class _Step(NamedTuple):
    """A line of a flat program; values are numbers, and only those that depend on the sample are there."""

    kind: str  # "view", "elementwise", "reduction" or "" for others
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    within: int  # bytes that it needs beside what it reads and writes


def _peak(jaxpr: Any, of_sample: Sequence[bool]) -> int:
    """Bytes of the fullest step of a program whose inputs depend on the sample or not."""
    sizes, steps = list[int](), list[_Step]()
    known = {var: _value(var, sizes) for var, depends in zip(jaxpr.invars, of_sample, strict=True) if depends}
    _flatten(jaxpr, known, sizes, steps)
    outputs = {known[var] for var in jaxpr.outvars if _is_var(var) and var in known}
    return _walk(steps, sizes, [known[var] for var in jaxpr.invars if var in known], outputs)


def _value(var: Any, sizes: list[int]) -> int:
    """A new value of the size of a variable."""
    sizes.append(_bytes(var))
    return len(sizes) - 1


def _bytes(var: Any) -> int:
    dtype = var.aval.dtype
    each = 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else np.dtype(dtype).itemsize
    return math.prod(var.aval.shape) * each


def _is_var(var: Any) -> bool:
    return not hasattr(var, "val")  # a literal has


def _inner(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _flatten(jaxpr: Any, known: dict[Any, int], sizes: list[int], steps: list[_Step]) -> None:
    """Appends the lines of a program, those of the functions that it calls in their place."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        reads = tuple(dict.fromkeys(known[var] for var in eqn.invars if _is_var(var) and var in known))
        if not reads:
            continue  # of weights alone
        if name in _CALLS and _CALLS[name] in eqn.params:
            body = _inner(eqn.params[_CALLS[name]])
            inside = {
                own: known[var]
                for own, var in zip(body.invars, eqn.invars, strict=True)
                if _is_var(var) and var in known
            }
            _flatten(body, inside, sizes, steps)
            for own, var in zip(body.outvars, eqn.outvars, strict=True):
                if _is_var(own) and own in inside:
                    known[var] = inside[own]
            continue
        for var in eqn.outvars:
            known[var] = _value(var, sizes)
        kind = "view" if name in _VIEWS else "elementwise" if name in _ELEMENTWISE else ""
        if not kind and (name.startswith("reduce_") or name in _REDUCTIONS):
            kind = "reduction"
        depends = [_is_var(var) and var in known for var in eqn.invars]
        steps.append(_Step(kind, reads, tuple(known[var] for var in eqn.outvars), _within(eqn, depends)))


def _within(eqn: Any, depends: Sequence[bool]) -> int:
    """Bytes that the bodies of a loop or of a choice need at most."""
    bodies = [body for value in eqn.params.values() for body in (value if isinstance(value, tuple) else (value,))]
    found = [_inner(body) for body in bodies if hasattr(_inner(body), "eqns")]
    # Which inputs of a body depend on the sample is told by the last ones of the equation: a choice has its index, a
    # `while` the constants of its condition, in front.
    return max((_peak(body, _last(depends, len(body.invars))) for body in found), default=0)


def _last(depends: Sequence[bool], count: int) -> list[bool]:
    return [*([True] * (count - len(depends))), *depends[max(0, len(depends) - count) :]]


def _walk(steps: Sequence[_Step], sizes: Sequence[int], inputs: Iterable[int], outputs: set[int]) -> int:
    """Bytes of the fullest step. A value lies in places: one of its own, or those of the values it is computed from."""
    last: dict[int, int] = dict.fromkeys(outputs, len(steps))
    fused_only: dict[int, bool] = dict.fromkeys(outputs, False)
    for n, step in enumerate(steps):
        for value in step.reads:
            last[value] = max(last.get(value, -1), n)
            # What is behind a view reads it too, and views are followed by any step.
            fused_only[value] = fused_only.get(value, True) and step.kind in ("elementwise", "reduction")
    place_bytes: dict[int, int] = {}
    places: dict[int, frozenset[int]] = {}
    users = Counter[int]()
    total = peak = 0

    def put(value: int, where: frozenset[int]) -> None:
        places[value] = where
        users.update(where)

    def new(value: int) -> None:
        nonlocal total
        place_bytes[value] = sizes[value]
        total += sizes[value]
        put(value, frozenset((value,)))

    def drop(values: Iterable[int]) -> None:
        nonlocal total
        for value in values:
            for place in places.pop(value, frozenset()):
                users[place] -= 1
                if not users[place]:
                    total -= place_bytes.pop(place)

    for value in inputs:
        new(value)
    peak = total
    for n, step in enumerate(steps):
        dying = [value for value in step.reads if last[value] == n]
        sources = frozenset[int]().union(*(places[value] for value in step.reads))
        if step.kind == "view" and len(step.writes) == len(step.reads) == 1:
            put(step.writes[0], sources)
        elif step.kind == "elementwise":
            (value,) = step.writes
            dead = Counter(place for one in dying for place in places[one])
            free = [place for place in sources if users[place] == dead[place] and place_bytes[place] >= sizes[value]]
            if free:
                put(value, frozenset((min(free, key=lambda place: (place_bytes[place], place)),)))
            elif fused_only.get(value, True):
                put(value, sources)
            else:
                new(value)
        else:
            for value in step.writes:
                new(value)
        peak = max(peak, total + step.within)
        drop([*dying, *(value for value in step.writes if value not in last)])
        peak = max(peak, total)
    return peak
