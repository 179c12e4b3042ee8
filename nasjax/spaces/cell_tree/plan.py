"""The shapes and costs of a language model with one recurrent cell, as a static table.

Zoph & Le 2017, section 4.2: two recurrent layers between an embedding and a softmax, which may share their weights.
Exact integers, no arrays: the network and the counts read this one table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from nasjax.spaces.cell_tree.named import Program, matrices


@dataclass(frozen=True)
class RecurrentForm:
    """Settings of the network around the cell.

    A rate of None is `dropout`; if that is None too, the `drop_rate` given to `apply`, which a recipe's drop_path
    raises from 0 over the training.

    Attributes:
      hidden: H, units of every layer. 740 gives the published 32 million parameters, 538 the 20 million of the search.
      layers: recurrent layers.
      embedding: width of the word vectors; None = hidden.
      tied: the softmax uses the embedding's weights; its width must be `hidden`.
      bias: every cell has a bias, added to its recurrent products (the published counts have none).
      softmax_bias: the softmax has a bias, too.
      dropout: rate of every dropout that has none of its own.
      embedding_dropout: share of the *words* of a window whose vectors are zero (Gal & Ghahramani 2016, section 4.2).
      input_dropout: of each layer's input; one mask for all steps of a window, as in the following two.
      recurrent_dropout: of h_{t-1} where the cell multiplies it.
      output_dropout: of the softmax's input.
      init_scale: every weight starts uniform in (-init_scale, init_scale), every bias at 0.
    """

    hidden: int = 200
    layers: int = 2
    embedding: int | None = None
    tied: bool = False
    bias: bool = False
    softmax_bias: bool = False
    dropout: float | None = None
    embedding_dropout: float | None = None
    input_dropout: float | None = None
    recurrent_dropout: float | None = None
    output_dropout: float | None = None
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.layers < 1 or (self.embedding is not None and self.embedding < 1):
            raise ValueError("hidden, layers and embedding must be at least 1")
        if self.tied and self.embedding not in (None, self.hidden):
            raise ValueError(f"tied weights need embedding = hidden = {self.hidden}; leave embedding out")
        for field in ("dropout", "embedding_dropout", "input_dropout", "recurrent_dropout", "output_dropout"):
            rate = getattr(self, field)
            if rate is not None and not 0 <= rate < 1:
                raise ValueError(f"{field} must lie in [0, 1), got {rate}")
        if not self.init_scale > 0:
            raise ValueError(f"init_scale must be positive, got {self.init_scale}")

    @property
    def width(self) -> int:
        """Of the word vectors."""
        return self.hidden if self.embedding is None else self.embedding


class RecurrentPlan(NamedTuple):
    """A whole network; equal plans are equal networks."""

    cell: Program | None  # None = the cell is the network's `choice`: any with this number of matrices
    matrices: int  # P, of the input in every cell: the leaves of a tree, the gates of an LSTM
    form: RecurrentForm
    vocabulary: int
    layer_params: tuple[int, ...]
    params: int
    macs: int  # multiply-adds of the matrix products for one word; products of two vectors are not counted


def plan(cell: Program | int, form: RecurrentForm, vocabulary: int) -> RecurrentPlan:
    """The network of one cell, or, given a base number, that of all cells with it.

    Raises:
      ValueError: a vocabulary of fewer than two words.

    Example:
      >>> plan(8, RecurrentForm(hidden=740), 10_000).params  # "32M" of the paper
      32323200
    """
    if vocabulary < 2:
        raise ValueError(f"a language model needs a vocabulary of at least 2 words, got {vocabulary}")
    leaves = cell if isinstance(cell, int) else matrices(cell)
    hidden = form.hidden
    weights = [leaves * hidden * ((hidden if layer else form.width) + hidden) for layer in range(form.layers)]
    layers = tuple(count + (leaves * hidden if form.bias else 0) for count in weights)
    words = vocabulary * form.width + (0 if form.tied else vocabulary * hidden)
    return RecurrentPlan(
        cell=None if isinstance(cell, int) else cell,
        matrices=leaves,
        form=form,
        vocabulary=vocabulary,
        layer_params=layers,
        params=sum(layers) + words + (vocabulary if form.softmax_bias else 0),
        macs=sum(weights) + vocabulary * hidden,
    )


def hidden_for(params: int, *, matrices: int = 8, layers: int = 2, vocabulary: int = 10_000, tied: bool = False) -> int:
    """The width whose network, without biases, is nearest to `params` parameters.

    The paper gives every cell of its search the size of the "medium" model of 20 million; this makes the comparison of
    cells fair.

    Example:
      >>> hidden_for(20_000_000)
      538
    """
    square, linear = 2 * layers * matrices, vocabulary * (1 if tied else 2)
    hidden = round((math.sqrt(linear**2 + 4 * square * params) - linear) / (2 * square))
    if hidden < 1:
        raise ValueError(f"{params} parameters are too few for a vocabulary of {vocabulary} words")
    return hidden


def training_bytes(plan: RecurrentPlan, batch: int, steps: int, *, itemsize: int = 4) -> int:
    """Memory of one child in a training step of `batch` streams of `steps` words, an upper estimate.

    A layer keeps its input and recurrent products [T, B, P H] and both states for the backward pass; its gradient of
    the products is as large again; the softmax keeps logits, their probabilities and their gradient.
    """
    form = plan.form
    words = batch * steps
    layer = (3 * plan.matrices + 4) * form.hidden
    values = 3 * plan.params + words * (form.layers * layer + 3 * plan.vocabulary + 2 * form.width)
    return itemsize * values
