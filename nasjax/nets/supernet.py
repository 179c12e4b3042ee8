"""Common to supernets: the functions that learners need, and the branch into the operator that a path names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from nasjax.types import Part, PyTree, no_carry

LastNorms = Literal["main", "both"]  # of an operator that ends in two batch norms, which are counted


class Ways(NamedTuple):
    """The paths of a supernet as programs that the host runs one after the other.

    parts(arch i32[S], on the host) -> the parts of its path, x -> y through one value at a time. A part's choice comes
      from `pick(arch)`, and its variables, the supernet's at `part.path`, are as in the supernet: an operator that n
      layers of equal shape have has arrays [n, ...]
    every: archs i32[P, S] that together use every kind of part
    """

    parts: Callable[[np.ndarray], tuple[Part, ...]]
    every: np.ndarray


class Supernet(NamedTuple):
    """A Network whose `choice` is an Arch i32[S] of its space, with the functions of its weights that learners need.

    select(archs, new, old) -> for every parameter `new` if one of archs i32[P, S] uses it, else `old`, bit by bit
    scores(params) -> f32[L, m + 1], mean |gamma| of each operator's last batch norm; 0 for identity (the last column)
    last_norm(path) -> whether a parameter's path of names ends in a scale or shift of such a last batch norm
    own(variables, arch) -> the variables of the path's own network, arrays on the host; None = the two are not known to
      each other
    ways: its paths part by part; None = it is one program

    `scores` and `last_norm` are None where there are no batch norms ("batch_stats" of the variables is then empty, or
    missing), or where operators share them.
    """

    init: Callable[..., PyTree]
    apply: Callable[..., tuple[jax.Array, PyTree]]
    select: Callable[[jax.Array, PyTree, PyTree], PyTree]
    scores: Callable[[PyTree], jax.Array] | None = None
    last_norm: Callable[[tuple[str, ...]], bool] | None = None
    carry: Callable[[int], PyTree] = no_carry
    own: Callable[[PyTree, np.ndarray], PyTree] | None = None
    ways: Ways | None = None


class Shared(NamedTuple):
    """The supernet of a space on images of one size, and what its paths cost. L layers (or edges), m operators.

    network(affine=, dropout=, dtype=) -> Supernet; where `entangles`, also entangled=
    counts(arch) -> (parameters, multiply-adds) of a path's own network
    counter("params" | "macs") -> the same of archs i32[..., S], traceable. Raises ValueError beyond 32 bits
    params(affine) -> parameters of all operators together; where `entangles`, params(affine, entangled)
    """

    network: Callable[..., Supernet]
    counts: Callable[[np.ndarray], tuple[int, int]]
    counter: Callable[[str], Callable[[jax.Array], jax.Array]]
    params: Callable[..., int]
    smallest: tuple[int, int] | None  # the least parameters and the least multiply-adds that a path can have, if known
    largest_macs: int | None
    fixed_macs: int  # of the parts that all paths share
    macs: np.ndarray | None  # i64[L, m + 1] of every operator, identity last; None where they depend on more than these
    two_norms: bool = False  # whether some operators end in two batch norms: then network takes last_norms=
    ends: np.ndarray | None = None  # i32[2, S], the paths of most and of least multiply-adds; None = not known
    entangles: bool = False  # whether operators may be parts of the largest or have their own weights, by choice


def switch(branches: Sequence[Callable[..., tuple[jax.Array, PyTree]]]) -> Callable[..., tuple[jax.Array, PyTree]]:
    """switch(chosen, moving, *rest) -> branches[chosen](moving, *rest); in reverse mode with gradients by `moving`.

    The backward pass is a switch as well, whose branches recompute their operator. The derivative of `lax.switch`
    would make every branch write zeros in place of the residuals that each of the other operators keeps for its
    backward pass, which took up to half the time of a step. Gradients that nobody needs are not computed.
    """

    @jax.custom_vjp
    def chosen_branch(chosen: jax.Array, moving: PyTree, *rest: PyTree) -> tuple[jax.Array, PyTree]:
        return jax.lax.switch(chosen, branches, moving, *rest)

    def forward(*primals: PyTree) -> tuple[Any, Any]:
        chosen, moving, *rest = jax.tree.map(lambda leaf: leaf.value, primals)
        moves = jax.tree.map(lambda leaf: leaf.value if leaf.perturbed else None, primals[1])
        stays = jax.tree.map(lambda leaf: None if leaf.perturbed else leaf.value, primals[1])
        return chosen_branch(chosen, moving, *rest), (chosen, moves, stays, rest)

    def backward(kept: Any, slopes: Any) -> tuple[Any, ...]:
        chosen, moves, stays, rest = kept

        def back(f: Callable[..., Any], moves: PyTree, stays: PyTree, slope: jax.Array, *rest: PyTree) -> PyTree:
            def again(moves: PyTree) -> jax.Array:
                moving = jax.tree.map(lambda a, b: b if a is None else a, moves, stays, is_leaf=lambda a: a is None)
                return f(moving, *rest)[0]

            return jax.vjp(again, moves)[1](slope)[0]

        ways = [functools.partial(back, f) for f in branches]
        return None, jax.lax.switch(chosen, ways, moves, stays, slopes[0], *rest), *(None for _ in rest)

    chosen_branch.defvjp(forward, backward, symbolic_zeros=True)
    return chosen_branch
