"""How the cells of `cell_tree` become language models, and the known cells by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nasjax.nets.cell_tree.model import recurrent_model
from nasjax.spaces.cell_tree.named import NAMED, OUTSIDE, program
from nasjax.spaces.cell_tree.plan import RecurrentForm, plan, training_bytes
from nasjax.spaces.cell_tree.space import CellTree, widen
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe, Recipes
from nasjax.types import Builder, Built, Masked, MaskedCost, Network, PyTree, Signature


def _build(space: CellTree, form: RecurrentForm, tree: dict[str, Any], signature: Signature) -> Built:
    """A cell of the space, or {"space": "cell_tree", "reference": "lstm"} and its like, which are not of it."""
    cell = program(tree)
    if not isinstance(cell, str):
        tree = space.encode(space.decode(tree))
    model, (window,) = plan(cell, form, signature.outputs), signature.inputs.shape
    return Built(
        arch=tree,
        params=model.params,
        macs=model.macs * window,  # a sample is a window of words
        plan=model,
        network=lambda *, bn_eps, dtype: recurrent_model(model, dtype=dtype),
        layers=form.layers,
        bytes=lambda batch: training_bytes(model, batch, window),
    )


def _masked(space: CellTree, form: RecurrentForm, signature: Signature) -> Masked:
    model, (window,) = plan(space.base, form, signature.outputs), signature.inputs.shape

    def network(size: int, *, bn_eps: float, dtype: str) -> Network:
        return recurrent_model(model, space, dtype=dtype)

    def own(arch: np.ndarray, variables: PyTree, size: int) -> PyTree:
        return variables  # all cells of a base number have the same arrays

    def cost(batch: int) -> MaskedCost:
        return MaskedCost(model.macs * window, training_bytes(model, batch, window), form.layers, False)

    return Masked(network, lambda arch: 0, own, cost)


def _notation(space: CellTree, text: str) -> None:
    """The field has none; a published cell that no tree holds says why."""
    if text in OUTSIDE:
        raise ValueError(f"{text} {OUTSIDE[text]}")


def _widen(space: CellTree, tree: dict[str, Any]) -> CellTree:
    return space if "reference" in tree else widen(space, tree)


# The plain recipe of Zaremba et al. 2014 for small models: SGD, its rate halved each epoch late in the training. Their
# loss is the sum over the 20 steps of a window, with rate 1 and clip 5; ours is the mean, so that these are 20 and 1/4.
# At 20 a quarter of random cells diverges, at 5 none (ours).
RECIPE = Recipe(
    epochs=35,
    batch_size=20,
    learning_rate=5.0,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    clip=0.25,
    drops=(0.5, 0.65, 0.8, 0.9),
    drop_factor=0.5,
    augment=Augment(crop="none", flip=False),
)
# That of their "medium" models, of 35 steps, in 35 epochs instead of 39; Zoph & Le 2017 give their cells such a size.
MEDIUM = dataclasses.replace(
    RECIPE, learning_rate=35.0, clip=1 / 7, drops=tuple(epoch / 35 for epoch in range(6, 35)), drop_factor=1 / 1.2
)
# Zoph & Le 2017, Table 2: parameters and test perplexity of the found cell, base 8, over 10,000 words.
_SEPARATE, _SHARED = (32_000_000, 67.9), ((25_000_000, 64.0), (54_000_000, 62.4))
# Table 3: parameters and test bits per character.
_CHARACTERS = (6_570_000, 1.228), (16_280_000, 1.214)


def _published(config: Any) -> dict[str, Any] | None:
    """The result of the found cell, by the tokens and our network's size and embeddings; None for other tokens."""
    data, form = config.data, config.form
    if data.level == "char" and data.max_words is None and data.min_count in (None, 1):
        params, bits = _CHARACTERS[form.hidden > 650]  # half way from some 500 units, which give the smaller, to 800
        return {
            "dataset": "ptb",
            "model": "found cell, base 8",
            "params": params,
            "test_bits_per_character": bits,
            "train": 5_017_481 // data.window,  # windows
            "source": "Zoph & Le 2017, Table 3",
        }
    if data.level != "word" or data.max_words is not None or data.min_count not in (None, 1):
        return None
    params, perplexity = _SHARED[form.hidden > 946] if form.tied else _SEPARATE  # half way from 740 to 1,152 units
    return {
        "dataset": "ptb",
        "model": f"found cell, base 8, {'shared' if form.tied else 'separate'} embeddings",
        "params": params,
        "test_perplexity": perplexity,
        "train": 929_588 // data.window,  # windows
        "source": "Zoph & Le 2017, Table 2",
    }


BUILDER = Builder(
    CellTree(),
    _build,
    ("language",),
    # Initial weights and dropout of the medium models; the rates of words and of recurrent products are ours.
    form=RecurrentForm(hidden=538, init_scale=0.05, dropout=0.5, embedding_dropout=0.2, recurrent_dropout=0.2),
    widen=_widen,
    named=NAMED,
    masked=_masked,
    parse=_notation,
    small=(CellTree(base=4), RecurrentForm(hidden=32)),
    datasets=("pydoc", "ptb"),
    recipes=lambda augment: Recipes(search=MEDIUM, last=MEDIUM, demo=RECIPE),
    published=_published,
)
