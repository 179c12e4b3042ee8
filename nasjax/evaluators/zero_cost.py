"""Evaluator `naswot`: a score without training, from which ReLUs of an untrained network are on for which images.

Mellor et al. 2021, "Neural Architecture Search without Training" (NASWOT, arXiv:2006.04647), section 3, and its code.
A network whose ReLUs distinguish the images of a batch well scores high.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from nasjax.ops.parts import part_of, through, whole
from nasjax.types import Array, Evaluation, Evaluator, Key, Network, Part, Proposal, PyTree, Status, one_line

_EXACT = 2**23  # codes per product: sums of this many ones are exact in float32
_INLINED = {  # primitives that call a function once, and which of their parameters is that function
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}


def agreement(inputs: jax.Array) -> jax.Array:
    """How many ReLUs treat two samples alike: i32[N, N] from the inputs [N, ...] of ReLUs; traceable.

    With codes c = (input > 0) it is c c^T + (1 - c)(1 - c)^T, the number of codes less their Hamming distance.
    """
    codes = jnp.where(inputs.reshape(len(inputs), -1) > 0, 1.0, -1.0).astype(jnp.float32)
    total = jnp.zeros((len(codes), len(codes)), jnp.int32)
    for start in range(0, codes.shape[1], _EXACT):
        piece = codes[:, start : start + _EXACT]
        alike = jnp.matmul(piece, piece.T, precision="highest")  # the codes that agree minus those that do not
        total = total + (alike.astype(jnp.int32) + piece.shape[1]) // 2
    return total


def score(kernel: Array) -> np.ndarray:
    """log |det K| in nats, f64[...] from K [..., N, N]; -inf where K is singular: two images have equal codes."""
    sign, logarithm = np.linalg.slogdet(np.asarray(kernel, np.float64))
    return np.where(sign == 0, -np.inf, logarithm)


def relu_inputs(function: Callable[..., PyTree], *arguments: PyTree) -> tuple[PyTree, list[jax.Array]]:
    """What a function returns, and the inputs of all its ReLUs in the order of its program; traceable.

    A ReLU is a maximum of an array and the constant 0. So ReLU6, a maximum and a minimum, is one. (The released code
    sees modules called ReLU only.)

    Raises:
      ValueError: a ReLU inside control flow, whose inputs cannot leave it.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    found: list[jax.Array] = []
    values = _run(closed.jaxpr, closed.consts, jax.tree.leaves(arguments), {}, found)
    return jax.tree.unflatten(jax.tree.structure(shapes), values), found


def relu_kernel(network: Network, variables: PyTree, choice: Any, x: jax.Array) -> jax.Array:
    """K of a network in training mode, the sum of `agreement` over its ReLUs: i32[N, N] for x [N, H, W, C].

    Traceable. On the host a network of parts runs part by part: equal parts are compiled once, and so a network never
    seen before may need no compilation.

    Raises:
      ValueError: the network has no ReLU, or has one inside control flow.
    """
    total: jax.Array | None = None

    def run(i: int, part: Part, inputs: PyTree) -> PyTree:
        nonlocal total
        outputs, kernel = _program(part.apply)(part_of(variables, part), part.pick(choice), inputs)
        if kernel is not None:
            total = kernel if total is None else total + kernel
        return outputs

    through(network.parts or (whole(network),), run, x)
    if total is None:
        raise ValueError("the network has no ReLU: this score cannot tell its like apart")
    return total


def naswot(build: Callable[[np.ndarray], tuple[Network, Any]], images: Array) -> Evaluator:
    """Fitness = `score` of an untrained network on one batch.

    Scores grow with the number of ReLUs: compare networks of like size only. In a masked network masked ReLUs count as
    off for all images, so its scores are comparable only with each other. The weights of trial i are drawn with
    fold_in(key, i).

    Args:
      build: Arch -> its network, and the choice for it (None where the network is that of one architecture).
      images: [N, H, W, C] as the network receives them, no two equal; the paper has N = 128.

    Returns:
      `evaluate(key, Proposal, inherited)`. A network that cannot be built or that scores -inf is FAILED.

    Raises:
      ValueError: fewer than two images.

    Example:
      >>> evaluator = naswot(lambda arch: (resolution_graph(GraphPlan(space.graph(arch))), None), x)  # doctest: +SKIP
    """
    if len(images) < 2:
        raise ValueError(f"a score needs two images or more, better 128; got {len(images)}")

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, None]:
        ids, archs, x = np.asarray(proposal.id), np.asarray(proposal.arch), jnp.asarray(images)
        fitness, cost = np.full(len(ids), np.nan, np.float32), np.zeros(len(ids), np.float32)
        errors = [""] * len(ids)
        for n in np.flatnonzero(ids >= 0).tolist():
            began = time.monotonic()
            try:
                network, choice = build(archs[n])
                variables = network.init(jax.random.fold_in(key, int(ids[n])), choice, x)
                value = float(score(relu_kernel(network, variables, choice, x)))
                fitness[n] = value if np.isfinite(value) else np.nan
                errors[n] = "" if np.isfinite(value) else "two images have equal codes: the score is -inf"
            except Exception as error:  # a candidate that fails is a result
                errors[n] = one_line(error)
            cost[n] = time.monotonic() - began
        status = np.where(np.isfinite(fitness) | (ids < 0), Status.OK, Status.FAILED).astype(np.int8)
        return Evaluation(fitness, cost, status, {"error": errors}), None

    return Evaluator(evaluate)


@functools.lru_cache(maxsize=256)
def _program(apply: Callable[..., Any]) -> Callable[..., tuple[PyTree, jax.Array | None]]:
    """(variables, choice, inputs) -> outputs, K or None where there is no ReLU."""

    @jax.jit  # also inside a user's program
    def program(variables: PyTree, choice: Any, inputs: PyTree) -> tuple[PyTree, jax.Array | None]:
        def run(variables: PyTree, choice: Any, inputs: PyTree) -> PyTree:
            return apply(variables, choice, inputs, train=True)[0]

        outputs, found = relu_inputs(run, variables, choice, inputs)
        kernels = [agreement(x) for x in found]
        return outputs, sum(kernels[1:], kernels[0]) if kernels else None

    return program


def _run(
    jaxpr: Any, consts: list[Any], arguments: list[Any], constants: dict[int, Any], found: list[jax.Array]
) -> list[Any]:
    """Runs a program equation by equation, into the functions it calls, and collects the inputs of ReLUs.

    `constants` are the arguments, by position, that are numbers known beforehand.
    """
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)
    known = {jaxpr.invars[i]: number for i, number in constants.items()}

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    def number(atom: Any) -> Any:
        constant: Any = atom.val if isinstance(atom, core.Literal) else known.get(atom)
        return constant if np.ndim(constant) == 0 else None

    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, [value(atom) for atom in equation.invars]
        numbers = [number(atom) for atom in equation.invars]
        if _has_relu(equation):
            if name not in _INLINED:
                raise ValueError(
                    f"a ReLU inside {name} cannot be seen; score the architecture's own network, without control flow"
                )
            inner = equation.params[_INLINED[name]]
            inner, closed = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, [])
            passed = {i: n for i, n in enumerate(numbers) if n is not None}
            outputs = _run(inner, closed, inputs, passed, found)
        else:
            reads = list(dict.fromkeys(atom for atom in equation.invars if not isinstance(atom, core.Literal)))
            alone = jaxpr.replace(constvars=[], invars=reads, outvars=equation.outvars, eqns=[equation])
            outputs = jax.core.eval_jaxpr(alone, [], *(values[atom] for atom in reads))
        if name == "convert_element_type" and numbers[0] is not None:
            known[equation.outvars[0]] = numbers[0]
        if name == "max":
            for operand, other in zip(inputs, reversed(numbers), strict=True):
                if other is not None and other == 0 and np.ndim(operand) > 1:
                    found.append(operand)
        values |= zip(equation.outvars, outputs, strict=True)
    return [value(atom) for atom in jaxpr.outvars]


def _has_relu(equation: Any) -> bool:
    """Whether a function that the equation calls may have a ReLU: a maximum with a scalar that is or may be 0."""
    return any(
        _has_relu(inner) or (inner.primitive.name == "max" and any(_scalar(atom) for atom in inner.invars))
        for jaxpr in _functions(equation)
        for inner in jaxpr.eqns
    )


def _scalar(atom: Any) -> bool:
    may_be_zero = not isinstance(atom, core.Literal) or np.ndim(atom.val) != 0 or atom.val == 0
    return atom.aval.ndim == 0 and may_be_zero


def _functions(equation: Any) -> Iterator[Any]:
    for parameter in equation.params.values():
        for candidate in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
            inner = getattr(candidate, "jaxpr", candidate)
            if hasattr(inner, "eqns"):
                yield inner
