"""What a preset is made for, looked up once: the builder of a space, and a data set with its augmentation."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from nasjax import catalog
from nasjax.data.image_side import side_of
from nasjax.data.sources import DataSource
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe, Recipes, image_recipes
from nasjax.types import Builder

LARGE = "large"  # names the presets for images as large as ImageNet's, whatever their data set
LARGE_SIDE = 128  # pixels of the shorter side from which on images are; ours: between CIFAR's 32 and ImageNet's 224


class Data(NamedTuple):
    """A data set that has not been opened."""

    name: str
    source: DataSource
    augment: Augment  # that suits it
    large: bool = False  # whether its images are LARGE


class Given(NamedTuple):
    """What the user asks of a method.

    Attributes:
      preset: "demo", "paper" or another published one.
      builder: of the space.
      dataset: of the catalog, or the path of an .npz or .csv; None = the preset's.
      data_dir, resize: of the data's settings, as far as they are known; they tell how large images are.
      side: the shorter side of the images before they are resized, where the data are at hand.
    """

    preset: str
    builder: Builder
    dataset: str | None = None
    data_dir: str = ""
    resize: int | None = None
    side: int | None = None

    @property
    def published(self) -> bool:
        """Whether a published setting is asked for."""
        return self.preset != "demo"

    @property
    def space(self) -> str:
        """The space's name."""
        name: str = self.builder.default.name
        return name

    def known(self, *presets: str) -> None:
        """Raises ValueError unless the preset is one of these."""
        if self.preset not in presets:
            choice = f"{', '.join(presets[:-1])} or {presets[-1]}"
            raise ValueError(f"unknown preset {self.preset!r} for --space={self.space}; choose {choice}")

    def data(self, published: str | None = None) -> Data:
        """The data set; without one the space's own for a demo, and for a published setting `published`, if given."""
        name = self.dataset or (published if self.published and published else self._own())
        source: DataSource = catalog.source(name)
        found = side_of(name, source, self.data_dir, self.resize)
        side = self.side if self.side is not None and self.resize is None else found
        return Data(name, source, augmentation(source), side is not None and side >= LARGE_SIDE)

    def fit(self, data: Data) -> Literal["crop"] | None:
        """`DataConfig.fit`: large files that get one side are judged by their middle, as ImageNet's methods are."""
        by_files = data.source.files and data.source.shape is None and self.resize is not None
        return "crop" if self.published and data.large and by_files else None

    def _own(self) -> str:
        """The space's data set, or the first that its networks are for. Raises ValueError where there is none."""
        own, tasks = self.builder.datasets[self.published], self.builder.tasks
        if catalog.source(own).task in tasks:
            return own
        fitting = [name for name in catalog.DATA if catalog.source(name).task in tasks]
        if not fitting:
            raise ValueError(f"no known data set is for {' or '.join(tasks)}; give --dataset")
        return next((name for name in fitting if catalog.source(name).folder == self.published), fitting[0])

    def spaces(self, slot: str) -> list[str]:
        """The known spaces whose Builder has this."""
        return [name for name in catalog.SPACES if getattr(catalog.builder(name), slot) is not None]

    def recipes(self, augment: Augment) -> Recipes:
        """How the networks of the space are trained, on data that `augment` suits."""
        found: Recipes = (self.builder.recipes or image_recipes)(augment)
        return found

    def last_recipe(self, chosen: Recipe | None, augment: Augment) -> Recipe:
        """How what a method found is trained in the end, on data that `augment` suits.

        A published setting trains by the method's own `chosen`, or as the space says where that is None. A demo trains
        as long as the method's; by the space's own recipe for demos where its networks need another than plain image
        classifiers do, as transformers do, which stay at chance under SGD with a rate of 0.1.
        """
        space = self.recipes(augment)
        if self.published:
            return chosen or space.last
        plain = space.demo == image_recipes(augment).demo
        if chosen is None:
            return space.demo
        return chosen if plain else dataclasses.replace(space.demo, epochs=chosen.epochs)


def augmentation(source: DataSource) -> Augment:
    """What suits a data set: mirrored digits are other digits, and small sides want small shifts."""
    if source.directionless:
        return Augment(crop="none", rotate=True, colour=0.2)
    return Augment() if source.photographs else Augment(crop="pad", flip=False)
