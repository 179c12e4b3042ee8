"""The nouns of the library: what a search, a network, an evaluator and a runtime look like.

Everything here is a plain record or a protocol; no algorithm lives in this file.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

PyTree = Any
Array = jax.Array | np.ndarray
Key = jax.Array  # a typed PRNG key, consumed by whoever receives it


class Site(NamedTuple):
    """One decision of a search space; `Space.sites[s]` describes column s of every Arch."""

    name: str  # unique within the space, e.g. "layer2/filter_height"
    choices: tuple[Any, ...]  # Arch[s] indexes this tuple
    group: str  # one policy head per group; "anchor" = Bernoulli with attention, "depth" = set by a schedule
    layer: int  # 0-based layer the decision belongs to; -1 = the whole architecture


class Status(enum.IntEnum):
    """How a trial ended. Only OK carries a finite fitness."""

    OK = 0
    FAILED = 1  # raised, or produced NaN
    TIMEOUT = 2
    LOST = 3  # its worker died
    REJECTED = 4  # refused before training (over a params or macs limit)


class Proposal(NamedTuple):
    """N architectures to evaluate."""

    id: jax.Array  # i32[N], trial numbers; -1 = nothing to ask now
    arch: jax.Array  # i32[N, S]; inactive sites hold -1
    parent: jax.Array  # i32[N], trial whose weights may be inherited; -1 = none


class Evaluation(NamedTuple):
    """What became of N proposals, in the order of the proposals."""

    fitness: Array  # f32[N] or f32[N, K]; each larger is better; NaN anywhere = failed
    cost: Array  # f32[N], seconds
    status: Array  # i8[N], values of Status
    info: dict[str, Any]  # {name: [N, ...]}; strings (key "error") only outside jit


class Budget(NamedTuple):
    """When a search ends; the first limit reached counts, None = no such limit."""

    trials: int | None = None
    wall_s: float | None = None  # wall-clock seconds, summed over resumed runs
    cost_s: float | None = None  # sum of Evaluation.cost


class Part(NamedTuple):
    """A line of a network that is a straight-line program: the values `writes` from the values `reads`.

    apply(variables, choice, inputs, *, key=None, train=False, drop_rate=0., bn_momentum=0.9) -> (outputs, variables)

    `inputs` and `outputs` are tuples; the images are the value "x", what the network returns is "y". Equal parts have
    the same `apply`, so that a host that runs the parts one by one compiles it once.
    """

    path: tuple[str, ...]  # of its variables in those of the network
    apply: Callable[..., tuple[PyTree, PyTree]]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    pick: Callable[[PyTree], PyTree]  # the network's choice -> the part's


class Network(NamedTuple):
    """A space's way of computing. `variables` = {"params": ..., "batch_stats": ...}.

    init(key, choice, x) -> variables
    apply(variables, choice, x, *, key=None, train=False, drop_rate=0., bn_momentum=0.9) -> (outputs, variables)
    parts: the same part by part; empty where there is but the whole
    """

    init: Callable[..., PyTree]
    apply: Callable[..., tuple[PyTree, PyTree]]
    parts: tuple[Part, ...] = ()


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


class Learner(NamedTuple):
    """Trains shared weights, and often the architecture with them, by gradients. `epoch` runs on the host.

    init(key, batch) -> state
    step(key, state, batch) -> (state, metrics)     metrics {name: f32[]}; batch = {"train": (x, y), "val": (x, y)}
    epoch(key, state, val_batches) -> (state, done)     at the end of every epoch; val_batches = iterable of (x, y)
    """

    init: Callable[[Key, PyTree], PyTree]
    step: Callable[[Key, PyTree, PyTree], tuple[PyTree, dict[str, Any]]]
    epoch: Callable[[Key, PyTree, Any], tuple[PyTree, bool]]


class Stages(NamedTuple):
    """Learners that follow each other with other shapes. `facts` is JSON, so that a checkpoint can rebuild a stage.

    facts(i, previous_facts, previous_state) -> facts of stage i | None after the last; both None for i = 0
    learner(i, facts) -> Learner
    """

    facts: Callable[[int, Any, PyTree], Any]
    learner: Callable[[int, Any], Learner]


class Evaluator(NamedTuple):
    """evaluate(key, Proposal, inherited) -> (Evaluation, artifacts); stateless, order of proposals irrelevant."""

    evaluate: Callable[[Key, Proposal, Any], tuple[Evaluation, Any]]


class Failure(NamedTuple):
    """A task that did not return."""

    status: Status
    error: str  # one line


def one_line(error: BaseException) -> str:
    """An exception as one line of at most 300 characters."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:300]


class Runtime(NamedTuple):
    """Where tasks run.

    submit(fn, *args, timeout_s=None) -> ticket
    wait(tickets, timeout_s=None) -> ([(ticket, result | Failure)], pending)
    cancel(ticket);  close()
    """

    submit: Callable[..., Any]
    wait: Callable[..., Any]
    cancel: Callable[[Any], None]
    close: Callable[[], None]


@runtime_checkable
class Space(Protocol):
    """What may be chosen: a frozen, hashable dataclass. Arch = int32[S], S = len(sites), -1 where inactive."""

    name: str

    @property
    def sites(self) -> tuple[Site, ...]: ...
    def active(self, arch: jax.Array) -> jax.Array: ...  # bool[S]; traceable
    def sample(self, key: Key) -> jax.Array: ...  # Arch; traceable
    def mutate(self, key: Key, arch: jax.Array) -> jax.Array: ...  # Arch; traceable
    def crossover(self, key: Key, a: jax.Array, b: jax.Array) -> jax.Array: ...  # Arch; traceable
    def encode(self, arch: np.ndarray) -> dict[str, Any]: ...  # JSON form
    def decode(self, tree: dict[str, Any]) -> np.ndarray: ...  # Raises ValueError
    def validate(self, arch: np.ndarray) -> None: ...  # Raises ValueError
    def size(self) -> int: ...  # exact number of architectures
