"""Task `segmentation`: one binary mask per image. Loss: BCE / 2 + soft Dice; metric: intersection over union.

Loss and metric are those of the public UNet++ code (Zhou et al. 2018, "UNet++: A Nested U-Net Architecture for Medical
Image Segmentation"). Deviation: the metric pools the pixels of the whole part instead of a batch at a time, so that it
does not depend on the batch size.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.data.dataset import resize
from nasjax.data.units import range_of
from nasjax.tasks.images import open_images
from nasjax.train.augment import Augment, appearance, geometry, whiten
from nasjax.train.recipe import Recipe
from nasjax.types import Key, Metric, PyTree, Signature, Task

_SMOOTH = 1e-5  # pixels, in numerators and denominators: empty beside empty is 1
_PIXELS = 2**20  # that predict hands to the network at a time


def _signature(dataset: Any) -> Signature:
    return Signature(jax.ShapeDtypeStruct(dataset.train.x.shape[1:], jnp.float32), dataset.classes)


def augment(key: Key, x: jax.Array, y: jax.Array, cfg: Augment) -> tuple[jax.Array, jax.Array]:
    """Images [B, H, W, C] and masks [B, H, W, 1] cropped, flipped and turned together.

    Changes of colour and cutouts are the image's alone. An enlarged mask of integers is cut at 1/2; padding is
    background.
    """
    both = geometry(key, jnp.concatenate([x, y.astype(x.dtype)], -1), cfg)
    image, mask = both[..., : x.shape[-1]], both[..., x.shape[-1] :]
    mask = mask if jnp.issubdtype(y.dtype, jnp.floating) else mask > 0.5
    return appearance(key, image, cfg), mask.astype(y.dtype)


def loss(outputs: PyTree, y: jax.Array, recipe: Recipe) -> jax.Array:
    """BCE / 2 + 1 - Dice, BCE the mean over pixels, Dice = (2 sum p t + s) / (sum p + sum t + s) the mean over images.

    Args:
      outputs: logits [B, H, W, 1], p their sigmoid; or a tuple of such (deep supervision): the mean of their losses.
      y: masks t [B, H, W, 1], 0..1.
      recipe: its label_smoothing and auxiliary_weight must be 0.
    """
    if recipe.label_smoothing or recipe.auxiliary_weight:
        raise ValueError("label_smoothing and auxiliary_weight are for classification; set both to 0 for segmentation")
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    return jnp.stack([_one_loss(logits, y) for logits in heads]).mean()


def _one_loss(logits: jax.Array, y: jax.Array) -> jax.Array:
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    t, axes = y.astype(logits.dtype), tuple(range(1, logits.ndim))
    # log(1 + e^z) - z t, whatever the size of z
    cross_entropy = (jax.nn.softplus(logits) - logits * t).mean()
    p = jax.nn.sigmoid(logits)
    dice = (2 * (p * t).sum(axes) + _SMOOTH) / (p.sum(axes) + t.sum(axes) + _SMOOTH)
    return cross_entropy / 2 + 1 - dice.mean()


def prediction(outputs: PyTree) -> jax.Array:
    """The logits [B, H, W, 1] that count: of several heads their mean."""
    return jnp.stack(outputs).mean(0) if isinstance(outputs, tuple) else outputs


def _masks(outputs: PyTree, names: Sequence[str]) -> np.ndarray:
    """u8[N, H, W], 1 where the foreground has a probability above 1/2."""
    return (np.asarray(prediction(outputs))[..., 0] > 0).astype(np.uint8)


def overlap(outputs: PyTree, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pixels of intersection and union of every image, f32[B] each; NaN where a logit is not finite.

    Foreground is what has a probability above 1/2.
    """
    logits, axes = prediction(outputs), tuple(range(1, y.ndim))
    p, t = logits > 0, y > 0.5
    intersection, union = (z.sum(axes).astype(jnp.float32) for z in (p & t, p | t))
    finite = jnp.isfinite(logits).all(axes)
    return jnp.where(finite, intersection, jnp.nan), jnp.where(finite, union, jnp.nan)


def _image_score(outputs: PyTree, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    intersection, union = overlap(outputs, y)
    return (intersection + _SMOOTH) / (union + _SMOOTH), jnp.ones_like(union)


def pictures(outputs: PyTree, images: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """What the report shows of a few samples: the arrays of `pictures/*.npz`.

    Args:
      outputs: logits [N, H, W, 1], or several heads.
      images: [N, H, W, C] as the data set holds them; of other than 3 channels the first is shown. Other numbers than
        uint8 and fractions are shown between the smallest and the largest of them.
      targets: masks [N, H, W, 1], 0..1.

    Returns:
      image u8[N, H, W, 1 or 3], truth u8[N, H, W] (0 or 1), prediction f16[N, H, W], probabilities of foreground.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        low, high = (0.0, 1.0) if 0 <= images.min() <= images.max() <= 1 else range_of(images)
        images = np.rint(255 * (images.astype(np.float64) - low) / (high - low or 1)).astype(np.uint8)
    logits = np.asarray(prediction(outputs), np.float32)[..., 0]
    return {
        "image": images if images.shape[-1] == 3 else images[..., :1],
        "truth": (np.asarray(targets)[..., 0] > 0.5).astype(np.uint8),
        "prediction": (0.5 + 0.5 * np.tanh(logits / 2)).astype(np.float16),
    }


def predict(model: Any, source: Path, out: Path) -> list[Path]:
    """Writes a mask NAME.png (0 and 255) of the original size for every image, see `mask_names`.

    An image is resized by area to the size of the training images, as those were; the probabilities are resized
    bilinearly to the original size and cut at 1/2. A mask lies over its image as viewers show that: upright, where the
    image's EXIF data turn it.
    """
    height, width, _ = model.shape
    if out.resolve() in (source.resolve(), source.resolve().parent):
        raise ValueError(f"the masks would lie among the images in {out}; give another folder")
    names, images = open_images(source, model)
    apply = jax.jit(lambda variables, x: prediction(model.apply(variables, x)))
    files, batch = [out / name for name in mask_names(names)], max(1, _PIXELS // (height * width))
    for begin in range(0, len(names), batch):
        part = list(itertools.islice(images, batch))
        x = np.concatenate([resize(image[None], height, width) for image in part])
        found = np.asarray(apply(model.variables, x))
        for file, image, logits in zip(files[begin : begin + batch], part, found, strict=True):
            _write(file, logits[..., 0], *image.shape[:2])
    return files


def mask_names(names: Sequence[str]) -> list[str]:
    """The masks' file names for those of images, all different, in capitals and small letters too.

    NAME.png for NAME.jpg; images that would have the same mask keep their suffix, NAME.jpg.png.

    Example:
      >>> mask_names(["a.jpg", "a.png", "b.png"])
      ['a.jpg.png', 'a.png.png', 'b.png']
    """
    stems = [Path(name).stem for name in names]
    times = Counter(stem.casefold() for stem in stems)
    own = [stem if times[stem.casefold()] == 1 else name for stem, name in zip(stems, names, strict=True)]
    if len({name.casefold() for name in own}) < len(own):  # a.jpg.png has the stem that a.jpg keeps beside a.png
        own = list(names)
    seen, found = Counter[str](), []
    for name in own:
        seen[name.casefold()] += 1
        number = seen[name.casefold()]  # a.png beside A.png: the second is a.png.2
        found.append(f"{name}.png" if number == 1 else f"{name}.{number}.png")
    return found


def _write(file: Path, logits: np.ndarray, height: int, width: int) -> None:
    from PIL import Image

    if not np.isfinite(logits).all():
        raise ValueError(f"the network gives NaN for the image of {file.name}; train it again with a smaller rate")
    p = np.tanh(logits.astype(np.float32) / 2)  # twice the probability, less 1
    if p.shape != (height, width):
        p = np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BILINEAR))
    Image.fromarray(np.where(p > 0, 255, 0).astype(np.uint8)).save(file)


@functools.cache
def segmentation(*, per_image: bool = False) -> Task:
    """The task with pooled IoU, (sum of intersections + s) / (sum of unions + s), s = 1e-5 pixels.

    Args:
      per_image: the metric is the mean of the images' own IoU instead, which weights small nuclei's images alike.
        An empty prediction of an empty mask counts 1 either way.
    """

    def finish(total: jax.Array, weight: jax.Array) -> jax.Array:
        return total / weight if per_image else (total + _SMOOTH) / (weight + _SMOOTH)

    return Task(
        name="segmentation",
        metric=Metric("iou_per_image" if per_image else "iou"),
        signature=_signature,
        inputs=whiten,
        augment=augment,
        loss=loss,
        score=_image_score if per_image else overlap,
        finish=finish,
        predict=predict,
        pictures=pictures,
        answers=_masks,
    )


TASK = segmentation()
