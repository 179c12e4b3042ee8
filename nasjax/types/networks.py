"""A network, in one piece and in parts, and how the architectures of a space become networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax.types.arrays import PyTree
from nasjax.types.searching import Space


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


class Signature(NamedTuple):
    """The inputs and outputs of a network, known before any data are read."""

    inputs: Any  # jax.ShapeDtypeStruct of one sample as the network receives it (no batch axis), or a pytree of them
    outputs: int  # classes, channels of a mask, or words of the vocabulary


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
