"""An architecture of any trainable space as a network: what the command inspects, retrains, loads and exports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nasjax.nets.choice_chain import choice_chain
from nasjax.nets.conv_chain import conv_chain
from nasjax.nets.darts_eval import darts_eval
from nasjax.spaces.choice_chain import ChoiceChain
from nasjax.spaces.choice_plan import ChoicePlan
from nasjax.spaces.conv_chain import ConvChain
from nasjax.spaces.conv_plan import plan
from nasjax.spaces.darts_cell import DartsCell, genotype
from nasjax.spaces.darts_plan import DartsPlan
from nasjax.spaces.tabular_cell import TabularCell
from nasjax.types import Network

Image = tuple[int, int, int]  # height, width, channels


class Built(NamedTuple):
    """An architecture with everything about its network that is known before training."""

    arch: dict[str, Any]  # JSON form
    params: int
    macs: int
    plan: Any  # what decides the network; its repr tells two networks apart
    network: Callable[..., Network]  # network(bn_eps=, dtype=)
    learning_rate: float | None = None  # that the architecture brings


def build(config: Any, tree: dict[str, Any], image: Image, classes: int) -> Built:
    """The network of an architecture.

    Args:
      config: anything with `space`, and for cells `eval` (an `EvalConfig`); for paths the training's `retrain_dropout`,
        if there is one.
      tree: the architecture as JSON.
      image: of the inputs.
      classes: number of logits.

    Raises:
      ValueError: the architecture is not one of the space, its network does not fit the images, or the space has none.
    """
    space = config.space
    if isinstance(space, ConvChain):
        arch = space.decode(tree)
        chain = plan(space, arch, image, classes)
        return Built(
            space.encode(arch),
            chain.params,
            chain.macs,
            chain,
            lambda *, bn_eps, dtype: conv_chain(chain, bn_eps=bn_eps, dtype=dtype),
            chain.learning_rate,
        )
    if isinstance(space, DartsCell):
        shown = space.encode(space.decode(tree))
        form = config.eval
        cells = DartsPlan(
            genotype(shown), form.channels, form.layers, classes, form.stem, image, auxiliary=form.auxiliary
        )
        return Built(
            shown,
            cells.params,
            cells.macs,
            cells,
            lambda *, bn_eps, dtype: darts_eval(cells, bn_eps=bn_eps, dtype=dtype),
        )
    if isinstance(space, ChoiceChain):
        arch = space.decode(tree)
        blocks = ChoicePlan(space, image, classes)
        params, macs = blocks.count(arch)
        dropout = getattr(config, "retrain_dropout", 0.0)
        return Built(
            space.encode(arch),
            params,
            macs,
            (blocks, arch.tolist(), dropout),
            lambda *, bn_eps, dtype: choice_chain(blocks, arch, dropout=dropout, bn_eps=bn_eps, dtype=dtype),
        )
    assert isinstance(space, TabularCell)
    raise ValueError("tabular_cell has results but no networks of its own; give --space=conv_chain or darts_cell")
