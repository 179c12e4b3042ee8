"""How the cells of `darts_cell` become evaluation networks, and the published cells by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nasjax.learners.mixture import Mixture, Scores
from nasjax.nets.darts_cell.mixed import darts_search
from nasjax.nets.darts_cell.network import darts_eval
from nasjax.spaces.darts_cell.derivation import DARTS_EDGES, Names, architecture, discrete_choice, kept_pairs
from nasjax.spaces.darts_cell.notation import parsed, written
from nasjax.spaces.darts_cell.plan import DartsPlan, SearchPlan
from nasjax.spaces.darts_cell.space import CELLS, NODES, DartsCell, cells_of, genotype
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe, Recipes, image_recipes
from nasjax.types import Builder, Built, Network, Signature

# Normal and reduction cell, as listed in the authors' code: operator and source, two per node.
_DARTS_CELLS = {
    "DARTS_V1": ("s3 1 s3 0 sk 0 s3 1 sk 0 s3 1 s3 0 sk 2", "mp 0 mp 1 sk 2 mp 0 mp 0 sk 2 sk 2 ap 0"),
    "DARTS_V2": ("s3 0 s3 1 s3 0 s3 1 s3 1 sk 0 sk 0 d3 2", "mp 0 mp 1 sk 2 mp 1 mp 0 sk 2 sk 2 mp 1"),
    "PDARTS": ("sk 0 d3 1 sk 0 s3 1 s3 1 s3 3 s3 0 d5 4", "ap 0 s5 1 s3 0 d5 2 mp 0 d3 1 d3 1 d5 3"),
    "PC_DARTS_cifar": ("s3 1 sk 0 s3 0 d3 1 s5 0 s3 1 ap 0 d3 1", "s5 1 mp 0 s5 1 s5 2 s3 0 s3 3 s3 1 s3 2"),
    "PC_DARTS_image": ("sk 1 s3 0 s3 0 sk 1 s3 1 s3 3 s3 1 d5 4", "s3 0 sk 1 d5 2 mp 1 s3 2 s3 1 s5 0 s3 3"),
    "MSRDARTS": ("s3 1 s3 0 s3 2 d5 1 d3 3 d3 0 s5 1 d5 2", "s3 0 d3 1 d3 1 s5 0 s3 0 d3 1 s3 0 s5 1"),
    "DrNAS_cifar10": ("s3 0 s5 1 s3 1 s3 2 sk 0 s3 1 s3 2 d5 3", "mp 0 s5 1 d5 2 s5 1 s5 1 d5 3 sk 4 s5 1"),
    "DrNAS_imagenet": ("s3 1 s3 0 s3 0 s3 1 s3 0 d3 3 sk 0 s3 1", "mp 0 s3 1 s3 0 sk 2 s3 0 s3 2 s3 3 s3 1"),
}
_OPERATORS = {
    "mp": "max_pool_3x3",
    "ap": "avg_pool_3x3",
    "sk": "skip_connect",
    "s3": "sep_conv_3x3",
    "s5": "sep_conv_5x5",
    "d3": "dil_conv_3x3",
    "d5": "dil_conv_5x5",
}


@dataclass(frozen=True)
class EvalConfig:
    """The evaluation network (Liu et al. 2019, section 3); `--mode=inspect` counts it, `--mode=retrain` trains it.

    Attributes:
      channels, layers: C, and the number of cells.
      auxiliary: whether training has an auxiliary head at two thirds of the depth.
      stem: what images enter by: one convolution, or three that halve the sides.
    """

    channels: int = 36
    layers: int = 20
    auxiliary: bool = True
    stem: Literal["cifar", "imagenet"] = "cifar"


# How a CIFAR network of cells is trained from scratch (Liu et al. 2019, appendix A.2).
EVALUATION = Recipe(
    epochs=600,
    batch_size=96,
    learning_rate=0.025,
    nesterov=False,
    weight_decay=3e-4,
    schedule="cosine",
    clip=5.0,
    drop_path=0.2,
    auxiliary_weight=0.4,
    augment=Augment(crop="pad", cutout=16),
)


def _recipes(augment: Augment) -> Recipes:
    """Candidates for 100 epochs, as the authors' random search (Table 1), the best for 600 on all images."""
    last = dataclasses.replace(EVALUATION, augment=dataclasses.replace(augment, crop="pad", cutout=16))
    return Recipes(dataclasses.replace(last, epochs=100), last, image_recipes(augment).demo, "all")


def _build(space: DartsCell, form: EvalConfig, tree: dict[str, Any], signature: Signature) -> Built:
    shown = space.encode(space.decode(tree))
    cells = DartsPlan(
        genotype(shown),
        form.channels,
        form.layers,
        signature.outputs,
        form.stem,
        signature.inputs.shape,
        auxiliary=form.auxiliary,
    )
    return Built(
        arch=shown,
        params=cells.params,
        macs=cells.macs,
        plan=cells,
        network=lambda *, bn_eps, dtype: darts_eval(cells, bn_eps=bn_eps, dtype=dtype),
        layers=4 * form.layers,
    )


def skips(tree: Mapping[str, Any]) -> int:
    """Skip connections in the normal cell of a `darts_cell`, or in all cells where they differ."""
    cells = tree["cells"] if "cells" in tree else [tree["normal"]]
    return sum(operator == "skip_connect" for cell in cells for operator, _ in cell)


def _widen(space: DartsCell, tree: dict[str, Any]) -> DartsCell:
    """With as many cells of their own as the architecture has."""
    return dataclasses.replace(space, cells=cells_of(tree))


def _mixed(
    space: DartsCell,
    form: EvalConfig,
    search: Any,
    signature: Signature,
    partial: int = 1,
    operators: Mapping[str, Names] | None = None,
) -> Mixture:
    """With the channels, layers and stem of `search`. Raises ValueError where the space has another number of cells."""
    names = operators or space.searched
    if space.cells and space.cells != search.layers:
        raise ValueError(f"space.cells={space.cells} needs as many in the search: write search.layers={space.cells}")

    def network(dtype: str) -> Network:
        return darts_search(
            channels=search.channels,
            layers=search.layers,
            classes=signature.outputs,
            operators=names,
            partial=partial,
            stem=search.stem,
            dtype=dtype,
        )

    def derive(scores: Scores) -> dict[str, Any]:
        return architecture({cell: kept_pairs(values, names[cell]) for cell, values in scores.items()}, names)

    plan = SearchPlan(
        search.channels,
        search.layers,
        signature.outputs,
        names,
        partial=partial,
        image=signature.inputs.shape,
        stem=search.stem,
    )
    return Mixture(network, DARTS_EDGES, names, derive, discrete_choice, written, skips, plan.params, plan.macs, plan)


def _example(space: DartsCell) -> dict[str, Any]:
    """RobustDARTS's S1 draws none, so it is the first operator everywhere."""
    pairs = [[space.choices[0], i % 2] for i in range(2 * len(NODES))]
    return {"space": space.name, **({"cells": [pairs] * space.cells} if space.cells else dict.fromkeys(CELLS, pairs))}


def _pairs(text: str) -> list[list[Any]]:
    words = text.split()
    return [[_OPERATORS[operator], int(source)] for operator, source in zip(words[::2], words[1::2], strict=True)]


NAMED = {
    name: {"space": "darts_cell", "normal": _pairs(normal), "reduce": _pairs(reduce)}
    for name, (normal, reduce) in _DARTS_CELLS.items()
}  # DARTS_V2 has 3,349,342 parameters with 36 channels and 20 cells
SMALL = EvalConfig(channels=8, layers=5, auxiliary=False)
BUILDER = Builder(
    DartsCell(),
    _build,
    ("classification",),
    form=EvalConfig(),
    widen=_widen,
    named=NAMED,
    small=(DartsCell(), SMALL),
    large=EvalConfig(channels=48, layers=14, stem="imagenet"),
    parse=parsed,
    mixed=_mixed,
    example=_example,
    recipes=_recipes,
)
