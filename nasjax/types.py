"""The nouns of the library: what a search, a network, an evaluator and a runtime look like.

Everything here is a plain record or a protocol; no algorithm lives in this file.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

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


def no_carry(batch_size: int) -> PyTree:
    """The state of a network that has none between steps."""
    return ()


def carries_state(carry: Callable[[int], PyTree]) -> bool:
    """Whether a network with this `carry` hands a state from one step to the next."""
    return bool(jax.tree.leaves(carry(1)))


class Network(NamedTuple):
    """How the choices of a space compute. `variables` = {"params": ...}, and other collections such as "batch_stats".

    init(key, choice, x) -> variables
    apply(variables, choice, x, *, key=None, train=False, drop_rate=0., bn_momentum=0.9) -> (outputs, variables)
    parts: the same part by part; empty where there is only the whole
    carry(batch_size) -> the state that a recurrent network hands from one step to the next, () for none. With a state,
      x is (inputs, state) and outputs is (outputs, state), in a form that the network defines.
    """

    init: Callable[..., PyTree]
    apply: Callable[..., tuple[PyTree, PyTree]]
    parts: tuple[Part, ...] = ()
    carry: Callable[[int], PyTree] = no_carry


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
    epoch(key, state, val_batches) -> (state, done)     at the end of every epoch; val_batches: (x, y, weight)s
    """

    init: Callable[[Key, PyTree], PyTree]
    step: Callable[[Key, PyTree, PyTree], tuple[PyTree, dict[str, Any]]]
    epoch: Callable[[Key, PyTree, Any], tuple[PyTree, bool]]


class Stages(NamedTuple):
    """A sequence of learners with different shapes. `facts` is JSON, so that a checkpoint can rebuild a stage.

    facts(i, previous_facts, previous_state) -> facts of stage i | None after the last; both None for i = 0
    learner(i, facts) -> Learner
    carry(i, facts, previous_state, state) -> what stage i > 0 begins with, `state` being what its learner's `init` gave
    """

    facts: Callable[[int, Any, PyTree], Any]
    learner: Callable[[int, Any], Learner]
    carry: Callable[[int, Any, PyTree, PyTree], PyTree] = lambda i, facts, previous, state: state


class Evaluator(NamedTuple):
    """evaluate(key, Proposal, inherited) -> (Evaluation, artifacts); stateless, order of proposals irrelevant."""

    evaluate: Callable[[Key, Proposal, Any], tuple[Evaluation, Any]]


class Metric(NamedTuple):
    """The result as shown to people. A search maximises fitness = sign * metric."""

    name: str  # "accuracy", "iou", "perplexity"
    unit: Literal["fraction", "plain"] = "fraction"  # a fraction is shown in percent
    sign: int = 1  # -1 where smaller is better

    def value(self, fitness: float) -> float:
        """The metric that belongs to a fitness, or the fitness that belongs to a metric."""
        return self.sign * fitness

    def text(self, fitness: float | None) -> str:
        """A fitness as a person reads it: the metric in its unit."""
        if fitness is None or not math.isfinite(fitness):
            return "none"
        return f"{self.value(fitness):.2%}" if self.unit == "fraction" else f"{self.value(fitness):.4f}"

    def shown(self, value: float | None) -> str:
        """The metric itself as a person reads it; None = it was not finite."""
        return self.text(None if value is None else self.sign * value)


class Signature(NamedTuple):
    """The inputs and outputs of a network, known before any data are read."""

    inputs: Any  # jax.ShapeDtypeStruct of one sample as the network receives it (no batch axis), or a pytree of them
    outputs: int  # classes, channels of a mask, or words of the vocabulary


class Task(NamedTuple):
    """What the networks are for: loss, metric, samples, presentation. All but `signature` and `predict` is traceable.

    signature(dataset) -> Signature
    inputs(x, mean, std) -> x as the network receives it: whitened images, or tokens as they are
    augment(key, x, targets, cfg) -> (x, targets), changed together; cfg is the recipe's `Augment`
    loss(outputs, targets, recipe) -> f32[], to minimise; its attribute `unit`, if it has one, is for the report: "nats"
    score(outputs, targets) -> arrays [B, ...], a row per sample, in a tuple, a dict or any pytree: what is to be summed
      over samples, with a NaN in the rows of a sample whose outputs are not finite
    finish(sums) -> f32[], the metric; it is given the sums in the form of the scores, a tuple's entries one by one
    predict(model, source, out) -> the files written into the folder `out` for the file or folder `source`
    pictures(outputs, images, targets) -> {"image", "truth", "prediction"}: arrays for the report; None = nothing to see
    sample(model) -> a text that a trained network makes by itself, for the report; None = it makes none
    answers(outputs, names) -> an array with a row per sample, in the user's words, of the outputs of `Model.apply` and
      their names; None = nothing but the outputs
    contiguous: samples are windows of one long sequence and keep their order; a batch is that many streams side by side
    further(outputs, targets) -> {name: f32[B]}, of which a test tells the means beside the metric; None = none
    imitate(outputs, teachers) -> f32[], to minimise: how far outputs are from a larger network's; None = not known
    like: the task whose networks serve this one as well, and whose form its samples and targets have; "" = none
    """

    name: str
    metric: Metric
    signature: Callable[[Any], Signature]
    inputs: Callable[..., Any]
    augment: Callable[..., tuple[Any, Any]]
    loss: Callable[..., jax.Array]
    score: Callable[..., PyTree]
    finish: Callable[..., jax.Array]
    predict: Callable[[Any, Path, Path], list[Path]]
    contiguous: bool = False
    pictures: Callable[..., dict[str, np.ndarray]] | None = None
    sample: Callable[[Any], str] | None = None
    answers: Callable[..., np.ndarray] | None = None
    further: Callable[..., dict[str, jax.Array]] | None = None
    imitate: Callable[..., jax.Array] | None = None
    like: str = ""


class Built(NamedTuple):
    """An architecture with everything about its network that is known before training."""

    arch: dict[str, Any]  # JSON form
    params: int
    macs: int  # multiply-adds of one sample
    plan: Any  # hashable; equal plans are equal networks
    network: Callable[..., Network]  # network(bn_eps=, dtype=)
    learning_rate: float | None = None  # that the architecture brings
    layers: int = 1  # that follow each other; the estimate of seconds counts them
    bytes: Callable[[int], int] | None = None  # memory of one child's training, of the batch size; None = not known
    indicators: Mapping[str, float] = {}  # what else is logged of every candidate: numbers of its graph, by name


# (child, parent, the child's initial variables, the parent's) -> variables, the part of them that is the parent's
Inherit = Callable[[Built, Built, PyTree, PyTree], tuple[PyTree, float]]


class Masked(NamedTuple):
    """One network for every architecture of a space: its `choice` is an Arch, which may be traced and vmapped.

    network(size, bn_eps=, dtype=) -> Network
    size(arch) -> int, how large a network the Arch needs; one program serves all up to a size
    pack(arch, variables, size) -> the variables of the architecture's own network
    cost(batch) -> MaskedCost, where it is known
    branching: whether it computes only what its choice names, as long as it is not vmapped; its sizes are all equal
    """

    network: Callable[..., Network]
    size: Callable[[np.ndarray], int]
    pack: Callable[[np.ndarray, PyTree, int], PyTree]
    cost: Callable[[int], MaskedCost] | None = None
    branching: bool = False


class MaskedCost(NamedTuple):
    """The cost of training one child of a masked network."""

    macs: int  # multiply-adds of the forward pass, per sample
    bytes: int
    layers: int
    slow: bool  # sizes or types are traced, so that a layer takes many times as long to compile


class Builder(NamedTuple):
    """How the architectures of a space become networks; one per space.

    build(space, form, tree, signature) -> Built    tree is an architecture as JSON. Raises ValueError.
    widen(space, tree) -> the space, made to hold the architecture where that only means another size
    masked(space, form, signature) -> Masked, where there is such a network
    parse(space, text) -> the JSON form of an architecture in the field's own notation, None where it is in another.
      Raises ValueError.
    """

    default: Space
    build: Callable[[Any, Any, dict[str, Any], Signature], Built]
    tasks: tuple[str, ...]  # that its networks serve
    # (space, form) -> parameters i64[R] of the networks whose results a table may hold, one per architecture; None = no
    # table holds them
    tabled: Callable[[Any, Any], np.ndarray] | None = None
    # path of a table -> (the space of its architectures, settings of `table` that it says of itself), where the space
    # is what a table holds
    of_table: Callable[[str], tuple[Any, dict[str, Any]]] | None = None
    form: Any = None  # settings of the network beside the space: a frozen dataclass
    widen: Callable[[Any, dict[str, Any]], Any] = lambda space, tree: space
    named: Mapping[str, dict[str, Any]] = {}  # architectures known by name, as JSON
    masked: Callable[[Any, Any, Signature], Masked] | None = None
    small: tuple[Any, Any] | None = None  # space and form for a demo, where the default is too large for one
    large: Any = None  # the form for images as large as ImageNet's, where the default is for small ones
    inherit: Inherit | None = None  # where children can begin with weights of their parents
    parse: Callable[[Any, str], dict[str, Any] | None] = lambda space, text: None
    # (space, form, signature) -> `nets.supernet.Shared`, where one network of shared weights holds all architectures
    shared: Callable[[Any, Any, Signature], Any] | None = None
    # (space, form, a method's settings, signature, partial=1, operators=None) -> `learners.mixture.Mixture`: a search
    # network, in which one channel in `partial` goes through the operators; those of its edges, None = the space's
    mixed: Callable[..., Any] | None = None
    example: Callable[[Any], dict[str, Any]] | None = None  # an architecture as JSON, where the space samples none
    datasets: tuple[str, str] = ("digits", "cifar10")  # that a demo and a published setting are for
    variant: Callable[[str], Any] | None = None  # name -> the space of a published method, where there are several
    presets: Mapping[str, Any] = {}  # published variants of the space by preset; what is not named has the default
    # augmentation that suits the data -> `train.recipe.Recipes`, None = those of image classifiers
    recipes: Callable[[Any], Any] | None = None
    published: Callable[[Any], dict[str, Any] | None] = lambda config: None  # settings -> the result to put beside ours


class Watch(NamedTuple):
    """Receivers of a run's progress. Nothing here changes its result."""

    say: Callable[[str], None] = lambda line: None  # progress, a line at a time
    record: Callable[[dict[str, Any]], None] = lambda row: None  # every line of trials.jsonl and metrics.jsonl
    bar: bool = False  # whether a progress bar may take the place of lines
    verbose: bool = False  # whether the architecture of every epoch or trial is wanted, too
    began: float | None = None  # when the command began, time.monotonic(), which "in all" counts from; None = unknown


class Outcome(NamedTuple):
    """The result of a search."""

    best: dict[str, Any] | None  # the row of trials.jsonl with the largest fitness, of the longest trained ones
    metric: Metric
    trials: int
    failed: int
    wall_s: float
    lines: tuple[str, ...] = ()  # lines for the user

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        best = self.best
        rows = {"trials": f"{self.trials} ({self.failed} failed), {self.wall_s:.0f} s"}
        if best is not None:
            fitness = best["fitness"][0] if isinstance(best["fitness"], list) else best["fitness"]
            after = f", epochs {best['fidelity']}" if "fidelity" in best else ""
            rows |= {"best": f"trial {best['id']}, {self.metric.name} {self.metric.text(fitness)}{after}"}
            rows |= {name: f"{best[name]:,}" for name in ("params", "macs") if best.get(name) is not None}
            rows |= {"architecture": best["arch"]}
        return html_table("search", rows, self.lines)


def html_table(title: str, rows: Mapping[str, Any], lines: Sequence[str] = ()) -> str:
    """A small table for a notebook, with lines of text below."""
    body = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    below = f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
    return f"<table><caption>{escape(title)}</caption>{body}</table>{below}"


class Failure(NamedTuple):
    """A task that did not return."""

    status: Status
    error: str  # one line
    blameless: bool = False  # the task was not the cause: its worker never began it, or its machine was preempted
    seconds: float = 0.0  # that it took


def one_line(error: BaseException) -> str:
    """An exception as one line of at most 300 characters."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:300]


@contextmanager
def afterwards(clean: Callable[[], object]) -> Iterator[None]:
    """Runs `clean` at the end of the block. If the block raises, its exception is raised, even if `clean` fails too."""
    try:
        yield
    except BaseException as error:
        try:
            clean()
        except Exception as second:
            error.add_note(f"afterwards: {one_line(second)}")
        raise
    clean()


class Runtime(NamedTuple):
    """Where tasks run, at most `workers` at a time; the runtime was made with the function that tasks run.

    submit(task, timeout_s=None) -> ticket, a number     for a worker that is free
    wait(seconds=None) -> [(ticket, result | Failure)], at least one unless none runs or the seconds pass before; a late
      result of a ticket that was already answered may follow
    cancel(ticket);  close()
    worker(ticket) -> the number of its worker, from 0
    clock() -> seconds
    """

    submit: Callable[..., int]
    wait: Callable[..., list[tuple[int, Any]]]
    cancel: Callable[[int], None]
    close: Callable[[], None]
    worker: Callable[[int], int]
    workers: int
    clock: Callable[[], float]


class Experiment(NamedTuple):
    """A method on its data. Its functions load data and build evaluators when they are called, not before.

    facts() -> for config.json: data, metric, strategy, estimates. Raises ValueError or FileNotFoundError.
    run(path, watch, runtime) -> Outcome      runs or resumes in an opened workdir; with a runtime the candidates are
      evaluated there, by the `evaluator` of its workers, else in this process
    evaluator() -> the Evaluator of candidates, where the method has any that do not depend on its other phases
    describe() -> (Arch -> what a worker finds of its network before training), where there are networks
    refuse(of that) -> why not to train it, or None
    before_retrain(path, watch)      what the method does with a finished search before its best is retrained
    inherited(path, rows, watch) -> for each of these rows of trials.jsonl the variables of its own network with what
      the search has trained, and its metric on the test part; where networks need no training of their own
    searcher      what proposes its candidates, where nothing but that decides what is tried
    """

    config: Any
    facts: Callable[[], dict[str, Any]]
    run: Callable[[Path, Watch, Runtime | None], Outcome]
    evaluator: Callable[[], Evaluator] | None = None
    describe: Callable[[], Callable[[np.ndarray], dict[str, Any]] | None] = lambda: None
    refuse: Callable[[dict[str, Any]], str | None] = lambda row: None
    before_retrain: Callable[[Path, Watch], None] | None = None
    inherited: Callable[[Path, Sequence[dict[str, Any]], Watch], Iterator[tuple[PyTree, float]]] | None = None
    searcher: Searcher | None = None


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
