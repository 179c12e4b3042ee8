"""How the architectures of `vit_chain` become networks, and the published ones by name."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from nasjax.nets.supernet import Shared
from nasjax.nets.vit_chain.network import inherit, vit_chain
from nasjax.nets.vit_chain.supernet import vit_supernet
from nasjax.spaces.vit_chain.plan import VitPlan, counter
from nasjax.spaces.vit_chain.space import VitChain, variant, widened
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe, Recipes
from nasjax.types import Builder, Built, PyTree, Signature

# experiments/subnet of AutoFormer's release: width, heads and MLP ratio of every layer.
_RELEASED = {
    "AUTOFORMER_T": (
        192,
        (3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3),
        (3.5, 3.5, 3.0, 3.5, 3.0, 3.0, 4.0, 4.0, 3.5, 4.0, 3.5, 4.0, 3.5),
    ),
    "AUTOFORMER_S": (
        384,
        (6, 6, 5, 7, 5, 5, 5, 6, 6, 7, 7, 6, 7),
        (3.0, 3.5, 3.0, 3.5, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.5, 4.0),
    ),
    "AUTOFORMER_B": (
        576,
        (9, 9, 9, 9, 9, 10, 9, 9, 10, 9, 10, 9, 9, 10),
        (3.5, 3.5, 4.0, 3.5, 4.0, 3.5, 3.5, 3.0, 4.0, 4.0, 3.0, 4.0, 3.0, 3.5),
    ),
}


@dataclass(frozen=True)
class VitConfig:
    """What a network has beside its sizes.

    Attributes:
      deviation: of the initial weights, the release's. It is for hundreds of features; a demo's few need more, about
        1 / sqrt(features).
    """

    deviation: float = 0.02

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ValueError(f"deviation must be positive, got {self.deviation}")


def _build(space: VitChain, form: VitConfig, tree: dict[str, Any], signature: Signature) -> Built:
    arch = space.decode(tree)
    sizes = VitPlan(space, signature.inputs.shape, signature.outputs)
    params, macs = sizes.count(arch)
    return Built(
        arch=space.encode(arch),
        params=params,
        macs=macs,
        plan=(sizes, tuple(arch.tolist()), form),
        network=lambda *, bn_eps, dtype: vit_chain(sizes, arch, deviation=form.deviation, bn_eps=bn_eps, dtype=dtype),
        layers=4 * space.depths[arch[0]],
    )


def _shared(space: VitChain, form: VitConfig, signature: Signature) -> Shared:
    sizes = VitPlan(space, signature.inputs.shape, signature.outputs)
    return Shared(
        functools.partial(vit_supernet, sizes, deviation=form.deviation),
        sizes.count,
        functools.partial(counter, sizes),
        lambda affine: sizes.largest[0],
        smallest=sizes.smallest,
        largest_macs=sizes.largest[1],
        fixed_macs=int(sizes.fixed.macs[0]),
        macs=None,
        ends=sizes.ends(),
    )


def _inherit(child: Built, parent: Built, fresh: PyTree, old: PyTree) -> tuple[PyTree, float]:
    return inherit(fresh, old)


NAMED = {
    name: {"space": "vit_chain", "embed_dim": width, "num_heads": list(heads), "mlp_ratio": list(ratios)}
    for name, (width, heads, ratios) in _RELEASED.items()
}
# AutoFormer, section 4.1, of its supernet; RandAugment, mixup and erasing are not built.
RECIPE = Recipe(
    epochs=500,
    batch_size=1024,
    learning_rate=1e-3,
    optimizer="adamw",
    weight_decay=0.05,
    decay_on="kernels",
    schedule="cosine",
    final_rate=1e-5,
    warmup_epochs=20,
    drop_path=0.1,
    label_smoothing=0.1,
)


def _recipes(augment: Augment) -> Recipes:
    """The supernet's recipe for networks that are trained alone (ours); in a demo small batches and no warm-up."""
    recipe = dataclasses.replace(RECIPE, augment=augment)
    return Recipes(search=recipe, last=recipe, demo=dataclasses.replace(recipe, batch_size=64, warmup_epochs=0))


BUILDER = Builder(
    VitChain(),
    _build,
    ("classification",),
    form=VitConfig(),
    widen=widened,
    named=NAMED,
    small=(variant("digits"), VitConfig(deviation=0.18)),
    inherit=_inherit,
    shared=_shared,
    recipes=_recipes,
)
