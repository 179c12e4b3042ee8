"""What may be chosen, who proposes it, and what becomes of a proposal."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from nasjax.types.arrays import Array, Key, PyTree


class Site(NamedTuple):
    """One decision of a search space; `Space.sites[s]` describes column s of every Arch."""

    name: str  # unique within the space, e.g. "layer2/filter_height"
    choices: tuple[Any, ...]  # Arch[s] indexes this tuple
    group: str  # one policy head per group; "anchor" = Bernoulli with attention, "depth" = set by a schedule
    layer: int  # 0-based layer the decision belongs to; -1 = the whole architecture


@runtime_checkable
class Space(Protocol):
    """What may be chosen: a frozen, hashable dataclass. Arch = int32[A], -1 where inactive.

    The first S = len(sites) entries of an Arch are its sites. A space may have further columns (identifiers of nodes
    and edges, say): then it has `arch_size`, A. A space may have `crossover(key, a, b) -> Arch` (traceable), and
    `canonical(arch) -> Arch` (traceable), the same for equal architectures; without it an Arch is its own canonical
    form. A space may have `groups`, blocks of groups of sites (their columns) by which a surrogate compares, and
    `neighbours(key, arch) -> (i32[N, A], bool[N])` (traceable), what differs in one decision and which of it there is.
    """

    name: str

    @property
    def sites(self) -> tuple[Site, ...]: ...
    def active(self, arch: jax.Array) -> jax.Array: ...  # bool[A]; traceable
    def sample(self, key: Key) -> jax.Array: ...  # Arch; traceable
    def mutate(self, key: Key, arch: jax.Array) -> jax.Array: ...  # Arch; traceable
    def encode(self, arch: np.ndarray) -> dict[str, Any]: ...  # JSON form
    def decode(self, tree: dict[str, Any]) -> np.ndarray: ...  # Raises ValueError
    def validate(self, arch: np.ndarray) -> None: ...  # Raises ValueError
    def identity(self, arch: np.ndarray) -> str: ...  # equal exactly for equal architectures
    def size(self) -> int | None: ...  # exact number of architectures; None = not known


def arch_size(space: Space) -> int:
    """A, the number of entries of an Arch."""
    return getattr(space, "arch_size", len(space.sites))


def crossover(space: Space) -> Callable[[Key, jax.Array, jax.Array], jax.Array] | None:
    """The space's crossover, where it has one."""
    return getattr(space, "crossover", None)


def canonical(space: Space, arch: jax.Array) -> jax.Array:
    """The canonical Arch of all that are equal to it; traceable."""
    return space.canonical(arch) if hasattr(space, "canonical") else arch


def digest(arch: np.ndarray) -> str:
    """16 hex digits of a canonical Arch. Inactive sites are -1, so equal architectures have equal bytes."""
    return hashlib.sha256(np.ascontiguousarray(arch, "<i4").tobytes()).hexdigest()[:16]


class Status(enum.IntEnum):
    """How a trial ended. Only OK carries a finite fitness."""

    OK = 0
    FAILED = 1  # raised, or produced NaN
    TIMEOUT = 2
    LOST = 3  # its worker died
    REJECTED = 4  # refused before training (over a params or macs limit)


class Proposal(NamedTuple):
    """N architectures to evaluate."""

    id: jax.Array  # i32[N], trial numbers; -1 = nothing to propose now
    arch: jax.Array  # i32[N, S]; inactive sites hold -1
    parent: jax.Array  # i32[N], trial whose weights may be inherited; -1 = none
    fidelity: jax.Array | None = None  # i32[N], epochs to which each is trained in all; None = all the recipe's


class Evaluation(NamedTuple):
    """The results of N proposals, in their order."""

    fitness: Array  # f32[N] or f32[N, K]; each larger is better; NaN anywhere = failed
    cost: Array  # f32[N], seconds
    status: Array  # i8[N], values of Status
    info: dict[str, Any]  # {name: [N, ...]}; strings (key "error") only outside jit


class Budget(NamedTuple):
    """When a search ends; the first limit reached counts, None = no such limit."""

    trials: int | None = None
    wall_s: float | None = None  # wall-clock seconds, summed over resumed runs
    cost_s: float | None = None  # sum of Evaluation.cost


class Searcher(NamedTuple):
    """Proposes architectures without gradients through them. Every function is jit- and vmap-able.

    init(key) -> state
    ask(key, state, n) -> (state, Proposal)          n is static; `key` is the run's key, ids are folded in
    tell(state, Proposal, Evaluation) -> state       results in any order
    live(state) -> i32[...] ids whose weights may still be inherited (-1 = empty slot)
    """

    init: Callable[[Key], PyTree]
    ask: Callable[[Key, PyTree, int], tuple[PyTree, Proposal]]
    tell: Callable[[PyTree, Proposal, Evaluation], PyTree]
    live: Callable[[PyTree], jax.Array]


class Evaluator(NamedTuple):
    """evaluate(key, Proposal, inherited) -> (Evaluation, artifacts); stateless, order of proposals irrelevant."""

    evaluate: Callable[[Key, Proposal, Any], tuple[Evaluation, Any]]
