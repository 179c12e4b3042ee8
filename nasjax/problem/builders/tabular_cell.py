"""How the cells of NAS-Bench-201 become networks, where no table of results is given."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from nasjax.learners.mixture import Mixture, Scores
from nasjax.nets.supernet import Shared
from nasjax.nets.tabular_cell.mixed import tabular_mixed
from nasjax.nets.tabular_cell.network import own, tabular_cell
from nasjax.nets.tabular_cell.supernet import tabular_supernet
from nasjax.spaces.tabular_cell.plan import STAGES, TabularForm, TabularPlan
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe, Recipes, image_recipes
from nasjax.types import Builder, Built, Masked, Network, PyTree, Signature


def plan(space: TabularCell, form: TabularForm, signature: Signature) -> TabularPlan:
    """The networks of a space on the data. Raises ValueError where there are none."""
    return TabularPlan(space, form, signature.inputs.shape, signature.outputs)


def _build(space: TabularCell, form: TabularForm, tree: dict[str, Any], signature: Signature) -> Built:
    arch, cells = space.decode(tree), plan(space, form, signature)
    params, macs = cells.count(arch)
    return Built(
        arch=space.encode(arch),
        params=params,
        macs=macs,
        plan=(cells, tuple(arch.tolist())),
        network=lambda *, bn_eps, dtype: tabular_cell(cells, arch, bn_eps=bn_eps, dtype=dtype),
        layers=STAGES * form.cells * (space.nodes - 1),
    )


def _mixed(space: TabularCell, form: TabularForm, search: Any, signature: Signature, partial: int = 1) -> Mixture:
    """The cell keeps the likeliest operation of every edge; `none` may win, as in the benchmark's code."""
    cells = plan(space, form, signature)

    def derive(scores: Scores) -> dict[str, Any]:
        return space.encode(np.argmax(scores["cell"], axis=1).astype(np.int32))

    def discrete(tree: Mapping[str, Any], names: Mapping[str, Any], like: PyTree) -> PyTree:
        kept = {"cell": np.eye(len(space.ops), dtype=np.float32)[space.decode(tree)]}
        return kept | {name: np.ones_like(values) for name, values in like.items() if name != "cell"}

    params, macs = cells.mixed(partial)
    return Mixture(
        lambda dtype: tabular_mixed(cells, partial=partial, dtype=dtype),
        {"cell": cells.pairs},
        {"cell": [list(space.ops)] * space.edges},
        derive,
        discrete,
        lambda tree: space.format(space.decode(tree)),
        lambda tree: sum(op == "skip_connect" for op in tree["ops"]),
        params,
        macs,
    )


def _masked(space: TabularCell, form: TabularForm, signature: Signature) -> Masked:
    cells = plan(space, form, signature)

    def network(size: int, *, bn_eps: float, dtype: str) -> Network:
        supernet = tabular_supernet(cells, bn_eps=bn_eps, dtype=dtype)
        return Network(supernet.init, supernet.apply)

    def specialised(arch: np.ndarray, variables: PyTree, size: int) -> PyTree:
        return own(cells, arch, variables)

    return Masked(network, lambda arch: 0, specialised, branching=True)


def _shared(space: TabularCell, form: TabularForm, signature: Signature) -> Shared:
    cells = plan(space, form, signature)
    return Shared(
        functools.partial(tabular_supernet, cells),
        cells.count,
        cells.counter,
        cells.supernet_params,
        smallest=cells.smallest(),
        largest_macs=cells.largest_macs(),
        fixed_macs=cells.fixed.macs,
        macs=np.tile([*cells.table.macs, 0], (space.edges, 1)),
    )


def _tabled(space: TabularCell, form: TabularForm) -> np.ndarray:
    """On CIFAR-10, as the benchmark's tables have them."""
    return np.asarray(TabularPlan(space, form, (32, 32, 3), 10).count(space.enumerate())[0])


def _parsed(space: TabularCell, text: str) -> dict[str, Any] | None:
    """The benchmark's own string, |nor_conv_3x3~0|+|none~0|none~1|+..."""
    return space.encode(space.parse(text.strip())) if text.strip().startswith("|") else None


# Dong & Yang 2020, Table 2: Nesterov's momentum, 200 epochs of 256 images, cosine from 0.1 to 0, decay 5e-4, mirrored
# and shifted images.
BENCHMARK = Recipe(
    epochs=200,
    batch_size=256,
    learning_rate=0.1,
    weight_decay=5e-4,
    schedule="cosine",  # once an epoch, as in the benchmark's code
    augment=Augment(crop="pad"),  # by 4 of 32 pixels
)


def _recipes(augment: Augment) -> Recipes:
    """The benchmark's, with what suits the data beside its shifts; in the end on all images."""
    recipe = dataclasses.replace(BENCHMARK, augment=dataclasses.replace(augment, crop="pad"))
    return Recipes(search=recipe, last=recipe, demo=image_recipes(augment).demo, part="all")


BUILDER = Builder(
    TabularCell(),
    _build,
    ("classification",),
    tabled=_tabled,
    form=TabularForm(),
    masked=_masked,
    shared=_shared,
    small=(TabularCell(), TabularForm(channels=8, cells=1)),
    parse=_parsed,
    mixed=_mixed,
    recipes=_recipes,
)
