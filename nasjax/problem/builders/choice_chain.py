"""How the paths of `choice_chain` become networks of their own, and the published paths by name."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from nasjax.nets.choice_chain.network import choice_chain
from nasjax.nets.choice_chain.supernet import choice_supernet
from nasjax.nets.supernet import Shared
from nasjax.settings import ALONE
from nasjax.spaces.choice_chain.plan import ChoicePlan, counter
from nasjax.spaces.choice_chain.space import ChoiceChain, variant
from nasjax.types import Builder, Built, Signature

_PATHS = {
    "SPOS_RELEASED": (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3),
    "FAIRNAS_A": (4, 0, 4, 1, 5, 0, 0, 5, 5, 2, 1, 2, 2, 1, 1, 5, 1, 5, 3),
    "FAIRNAS_B": (2, 0, 2, 0, 1, 2, 4, 0, 1, 2, 0, 1, 4, 0, 5, 3, 5, 1, 3),
    "FAIRNAS_C": (2, 0, 4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 5, 5, 1, 1, 3),
    "BN_NAS_RELEASED": (3, -1, 0, 4, 0, -1, -1, 0, 4, -1, 4, 4, 1, 4, 2, 0, 0, 4, 0, 2, 2),
    "SPOS_IN_BN_NAS": (0, -1, 0, 0, 4, -1, -1, 2, 0, -1, 4, 4, 3, 0, 2, 1, 0, 4, 2, 5, 2),
}


@dataclass(frozen=True)
class PathConfig:
    """What a path's own network has beside its operators.

    Attributes:
      dropout: before the classifier.
    """

    dropout: float = field(default=0.0, metadata=ALONE)

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


def _build(space: ChoiceChain, form: PathConfig, tree: dict[str, Any], signature: Signature) -> Built:
    arch = space.decode(tree)
    blocks = ChoicePlan(space, signature.inputs.shape, signature.outputs)
    params, macs = blocks.count(arch)
    return Built(
        arch=space.encode(arch),
        params=params,
        macs=macs,
        plan=(blocks, tuple(arch.tolist()), form.dropout),
        network=lambda *, bn_eps, dtype: choice_chain(blocks, arch, dropout=form.dropout, bn_eps=bn_eps, dtype=dtype),
        layers=3 * space.layers,
    )


def _shared(space: ChoiceChain, form: PathConfig, signature: Signature) -> Shared:
    plan = ChoicePlan(space, signature.inputs.shape, signature.outputs)
    return Shared(
        functools.partial(choice_supernet, plan, dropout=form.dropout),
        plan.count,
        functools.partial(counter, plan),
        plan.supernet_params,
        smallest=plan.smallest(),
        largest_macs=int(plan.table.macs.max((1, 2)).sum()) + plan.fixed.macs,
        fixed_macs=plan.fixed.macs,
        macs=None if space.channel_factors else plan.table.macs[:, :, 0],
        two_norms=space.family == "shuffle",
        ends=plan.ends(),
        entangles=space.family == "mobile",
    )


NAMED = {name: {"space": "choice_chain", "path": list(path)} for name, path in _PATHS.items()}
BUILDER = Builder(
    ChoiceChain(),
    _build,
    ("classification",),
    form=PathConfig(),
    named=NAMED,
    variant=variant,
    shared=_shared,
    small=(variant("spos_digits"), PathConfig()),
)
