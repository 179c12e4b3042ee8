"""Whitening, random crops, flips, turns, colours and cutout of an image batch, inside jit.

Zoph & Le 2017, section 4.1: whiten, upsample, crop 32x32 at random, flip at random. Whitening comes first, so that the
zeros of padding are the mean colour. All randomness of image i is a function of (key, index[i]) alone: any batch size
and any number of devices augment an image alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Key

CROPS = ("upsample", "pad", "resized", "none")
_TURN, _COLOUR, _PART = 0x7475726E, 0x636F6C72, 0x70617274  # what a key is folded with, for randomness of their own


@dataclass(frozen=True)
class Augment:
    """What to do to training images.

    Attributes:
      crop: "upsample" (the paper's), "pad" (with zeros), "resized" (a random part, resized) or "none"; the crop has the
        original size. Of images that stay in their files "resized" cuts the file's own pixels.
      crop_size: height after upsampling (the width grows by as much), or padding on every side, in pixels; None = 5/4
        of height and of width (40 of 32: our choice, the paper gives no size), or 1/8 of each (4 of 32, 0 of 1).
      flip: mirror half of the images left to right; switch it off for digits.
      cutout: side of a square that is set to 0, in pixels; 0 = none (DeVries & Taylor 2017; 16 of 32 in DARTS).
      rotate: turn by 0, 90, 180 or 270 degrees, each as likely; images that are not square by 0 or 180.
      colour: strength c of a change of one of hue and saturation, brightness, contrast (each as likely; the first
        for three channels only); 0 = none. Hue turns by up to 180 c degrees about the gray axis and saturation is
        times 1 - c .. 1 + c; brightness adds up to c standard deviations; contrast is times 1 - c .. 1 + c. All act on
        the whitened image.
      crop_scale, crop_ratio: of "resized": the part of the image's area, and the part's width over its height, which is
        uniform in its logarithm (Szegedy et al. 2015, "Going deeper with convolutions", section 6).
      jitter: strengths of torchvision's ColorJitter: brightness, contrast, saturation, hue; (0.4, 0.4, 0.4, 0.2) in the
        releases of the DARTS family for ImageNet, (0.4, 0.4, 0.4, 0) in SPOS's. Before whitening.
      lighting: deviation of the weights of ImageNet's principal colours that are added; 0.1 where releases have it.
    """

    crop: str = "upsample"
    crop_size: int | None = None
    flip: bool = True
    cutout: int = 0
    rotate: bool = False
    colour: float = 0.0
    crop_scale: tuple[float, ...] = (0.08, 1.0)
    crop_ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    jitter: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    lighting: float = 0.0

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise ValueError(f"unknown crop {self.crop!r}; choose {', '.join(CROPS)}")
        if self.crop_size is not None and self.crop_size < 0:
            raise ValueError(f"crop_size is in pixels and must not be negative, got {self.crop_size}")
        if self.cutout < 0:
            raise ValueError(f"cutout is in pixels and must not be negative, got {self.cutout}")
        if not 0 <= self.colour <= 1:
            raise ValueError(f"colour is a strength in [0, 1], got {self.colour}")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is two parts of an area such as (0.08, 1), got {self.crop_scale}")
        if len(self.crop_ratio) != 2 or not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio is two ratios of sides such as (0.75, 1.33), got {self.crop_ratio}")
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(f"jitter is four strengths from 0, the last one, of hue, at most 0.5; got {self.jitter}")
        if self.lighting < 0:
            raise ValueError(f"lighting is a deviation and must not be negative, got {self.lighting}")


def require_suited(cfg: Augment, shape: tuple[int, ...], where: str) -> None:
    """Raises ValueError for a crop or cutout, the setting `where`, that leaves little of images [H, W, C].

    A crop must hold half of each side at least, and a cutout leave half of the pixels; jitter and lighting are of RGB.
    Other samples are not augmented.
    """
    if len(shape) != 3:
        return
    height, width, channels = shape
    if channels != 3 and (any(cfg.jitter) or cfg.lighting):
        raise ValueError(
            f"{where}.jitter and {where}.lighting change colours, and images have {channels} channel(s); write --set "
            f"{where}.jitter=0,0,0,0 --set {where}.lighting=0"
        )
    if cfg.crop == "pad" and cfg.crop_size and 2 * cfg.crop_size > min(height, width):
        raise ValueError(
            f"{where}.crop_size={cfg.crop_size} pads images of {height}x{width} pixels by more than half of a side, so "
            f"that crops may be empty; write --set {where}.crop_size=none for 1/8 of each side, or {where}.crop=none"
        )
    if 2 * min(cfg.cutout, height) * min(cfg.cutout, width) > height * width:
        most = next(c for c in range(cfg.cutout, -1, -1) if 2 * min(c, height) * min(c, width) <= height * width)
        raise ValueError(
            f"{where}.cutout={cfg.cutout} blanks more than half of images of {height}x{width} pixels; write "
            f"--set {where}.cutout={most} or less"
        )


def whiten(x: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """(x - mean) / std per channel.

    Args:
      x: [..., H, W, C]; uint8 counts as fractions of 255, uint16 of 65535, as in `Dataset.mean`.
      mean, std: f32[C].

    Returns:
      f32[..., H, W, C].
    """
    channels = (1,) * (x.ndim - 1) + (-1,)
    scale = 1 / int(jnp.iinfo(x.dtype).max) if jnp.issubdtype(x.dtype, jnp.unsignedinteger) else 1.0
    return (x.astype(jnp.float32) * scale - jnp.reshape(mean, channels)) / jnp.reshape(std, channels)


def augment(key: Key, x: jax.Array, cfg: Augment, index: jax.Array | None = None) -> jax.Array:
    """A random crop, flip, turn, change of colour and cutout of every image, as far as `cfg` has them.

    Equals `appearance(key, geometry(key, x, cfg), cfg)`. A mask beside the image takes part in the first of them.

    Args:
      key: consumed; fold the step in.
      x: [B, H, W, C], whitened.
      cfg: static.
      index: i32[B], each image's number in the whole batch (where x is one device's part of it); None = 0..B-1.

    Returns:
      [B, H, W, C].

    Example:
      >>> x = whiten(jnp.zeros((2, 8, 8, 1), jnp.uint8), jnp.array([0.3]), jnp.array([0.4]))
      >>> augment(jax.random.key(0), x, Augment(crop="pad", flip=False)).shape
      (2, 8, 8, 1)
    """
    return appearance(key, geometry(key, x, cfg, index), cfg, index)


def geometry(key: Key, x: jax.Array, cfg: Augment, index: jax.Array | None = None) -> jax.Array:
    """The changes that move pixels: crop and flip in one pass, then the turn. x may have any number of channels."""
    if cfg.crop == "resized":
        x = random_resized_crop(key, x, cfg, index)
        x = random_flip(key, x, index) if cfg.flip else x
    elif cfg.crop != "none":
        bits = _words(key, x, index)[:, -1]
        x = _crop(bits, x, cfg.crop, cfg.crop_size, bits % 2 == 1 if cfg.flip else None)
    elif cfg.flip:
        x = random_flip(key, x, index)
    return random_turn(key, x, index) if cfg.rotate else x


def appearance(key: Key, x: jax.Array, cfg: Augment, index: jax.Array | None = None) -> jax.Array:
    """The changes that keep pixels in place: colour, then the cutout."""
    if cfg.colour:
        x = random_colour(key, x, cfg.colour, index)
    return cutout(key, x, cfg.cutout, index) if cfg.cutout else x


def random_crop(
    key: Key, x: jax.Array, mode: str = "upsample", size: int | None = None, index: jax.Array | None = None
) -> jax.Array:
    """Enlarges [B, H, W, C] as `Augment.crop` says and cuts [B, H, W, C] out, at a random place in every image."""
    Augment(mode, size)
    return x if mode == "none" else _crop(_words(key, x, index)[:, -1], x, mode, size, None)


def random_resized_crop(key: Key, x: jax.Array, cfg: Augment, index: jax.Array | None = None) -> jax.Array:
    """A random part of every image of [B, H, W, C], resized bilinearly to all of it; see `Augment.crop_scale`.

    A part that would be wider or higher than the image is as wide or high as it. (torchvision draws again, and so does
    `data.view` for files; ten draws in a program would be ten times the work for few images.)
    """
    height, width = x.shape[1:3]
    count = jnp.arange(x.shape[0]) if index is None else index
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, _PART), count)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (4,)))(keys)
    low, high = np.log(cfg.crop_ratio)
    area = height * width * (cfg.crop_scale[0] + (cfg.crop_scale[1] - cfg.crop_scale[0]) * draws[:, 0])
    ratio = jnp.exp(low + (high - low) * draws[:, 1])
    across = jnp.clip(jnp.round(jnp.sqrt(area * ratio)), 1, width)
    down = jnp.clip(jnp.round(jnp.sqrt(area / ratio)), 1, height)
    left, top = jnp.floor(draws[:, 2] * (width - across + 1)), jnp.floor(draws[:, 3] * (height - down + 1))

    def one(x: jax.Array, left: jax.Array, top: jax.Array, across: jax.Array, down: jax.Array) -> jax.Array:
        scale = jnp.stack([height / down, width / across])
        offset = -jnp.stack([top, left]) * scale
        return jax.image.scale_and_translate(x, x.shape, (0, 1), scale, offset, "linear", antialias=True)

    return jax.vmap(one)(x, left, top, across, down)


def random_flip(key: Key, x: jax.Array, index: jax.Array | None = None) -> jax.Array:
    """Mirrors every image of [B, H, W, C] left to right with probability 1/2."""
    flip = _words(key, x, index)[:, -1] % 2 == 1
    return jnp.where(flip[:, None, None, None], x[:, :, ::-1], x)


def random_turn(key: Key, x: jax.Array, index: jax.Array | None = None) -> jax.Array:
    """Turns every image of [B, H, W, C] by a random number of quarter turns; by half turns where H is not W."""
    word = _words(jax.random.fold_in(key, _TURN), x, index)[:, -1]
    turns = (word % 4 if x.shape[1] == x.shape[2] else word % 2 * 2)[:, None, None, None]
    if x.shape[1] == x.shape[2]:
        x = jnp.where(turns % 2 == 1, x.swapaxes(1, 2), x)
    x = jnp.where((turns == 1) | (turns == 2), x[:, ::-1], x)
    return jnp.where(turns >= 2, x[:, :, ::-1], x)


def random_colour(key: Key, x: jax.Array, strength: float, index: jax.Array | None = None) -> jax.Array:
    """Changes one of hue and saturation, brightness, contrast in every image of [B, H, W, C]; see `Augment.colour`."""
    words = _words(jax.random.fold_in(key, _COLOUR), x, index)
    amounts = strength * ((words >> 8).astype(x.dtype) / 2**23 - 1)  # in [-strength, strength)
    first, second = (amounts[:, i, None, None, None] for i in (0, -1))
    coloured = x.shape[-1] == 3
    # The low bits choose, the high ones are the amounts.
    kind = (words[:, -1] % 255 % 3 if coloured else 1 + words[:, -1] % 2)[:, None, None, None]
    middle = x.mean((1, 2, 3), keepdims=True)
    changed = jnp.where(kind == 1, x + first, middle + (x - middle) * (1 + first))
    if not coloured:
        return changed
    gray = x.mean(-1, keepdims=True)
    off, angle = x - gray, jnp.pi * second  # Rodrigues' formula for a turn about (1, 1, 1)
    across = (jnp.roll(off, 1, -1) - jnp.roll(off, -1, -1)) / np.sqrt(3).astype(x.dtype)
    tinted = gray + (1 + first) * (off * jnp.cos(angle) + across * jnp.sin(angle))
    return jnp.where(kind == 0, tinted, changed)


def cutout(key: Key, x: jax.Array, size: int, index: jax.Array | None = None) -> jax.Array:
    """Sets a square of every image of [B, H, W, C] to 0: its centre is uniform, the border clips it.

    The centre is a pixel; a square of even `size` reaches one pixel further up and left than down and right.
    """
    word, (height, width) = _words(key, x, index)[:, 0], x.shape[1:3]

    def inside(centre: jax.Array, n: int) -> jax.Array:  # bool[B, n]
        offset = jnp.arange(n)[None] - centre.astype(jnp.int32)[:, None]
        return (offset >= -(size // 2)) & (offset < size - size // 2)

    rows, columns = inside(word % height, height), inside(word // height % width, width)
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0, x)


def _words(key: Key, x: jax.Array, index: jax.Array | None) -> jax.Array:
    """u32[B, 2] random words (or more). The last one's lowest bit flips and its others crop; the first one cuts out.

    A folded key is itself a hash of (key, index), and nobody else uses it: drawing from it as well would add a
    third to the compile time of this file.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim != 4:
        raise ValueError(f"augmentation needs whitened float images [B, H, W, C], got {x.dtype} {list(x.shape)}")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(x.shape[0]) if index is None else index)
    return jax.random.key_data(keys)


def _crop(bits: jax.Array, x: jax.Array, mode: str, size: int | None, flip: jax.Array | None) -> jax.Array:
    """Every output row is a weighted sum of one or two input rows, and so is every column: two gathers.

    Inside a scan on CPU that is six times faster than resizing, slicing and flipping (batch 64, 32x32: 0.6 ms).
    """
    height, width = x.shape[1:3]
    if size is None:
        down, across = ((n // 4 if mode == "upsample" else 2 * (n // 8)) for n in (height, width))
    else:
        down = across = size - height if mode == "upsample" else 2 * size
    if down < 0:
        raise ValueError(f"crop_size={size} would shrink images of height {height}; give at least {height}")
    bits = bits // 2
    top, left = bits % (down + 1), bits // (down + 1) % (across + 1)
    columns = jnp.arange(width, dtype=bits.dtype)
    columns = columns[None] if flip is None else jnp.where(flip[:, None], columns[::-1], columns)
    x = _combine(x, 1, top[:, None] + jnp.arange(height, dtype=bits.dtype)[None], _taps(mode, height, down))
    return _combine(x, 2, left[:, None] + columns, _taps(mode, width, across))


def _taps(mode: str, old: int, extra: int) -> tuple[np.ndarray, np.ndarray]:
    """Which old rows make each row of the enlarged image: i32[taps, old + extra], and their weights."""
    row = np.arange(old + extra)
    if mode == "pad":
        source = row - extra // 2
        return source.clip(0, old - 1)[None], ((source >= 0) & (source < old))[None]
    position = (row + 0.5) * old / (old + extra) - 0.5  # bilinear, pixel centres, as jax.image.resize
    below = np.floor(position).astype(int)
    weight = position - below
    return np.stack([below, below + 1]).clip(0, old - 1), np.stack([1 - weight, weight])


def _combine(x: jax.Array, axis: int, rows: jax.Array, taps: tuple[np.ndarray, np.ndarray]) -> jax.Array:
    """Rows (axis 1) or columns (axis 2) number `rows` [B, n] of the enlarged image."""
    others = (3 - axis, 3)
    total = jnp.zeros((), x.dtype)
    for source, weight in zip(*taps, strict=True):
        pick = jnp.expand_dims(jnp.asarray(source, jnp.int32)[rows], others)
        part = jnp.take_along_axis(x, pick, axis, mode="promise_in_bounds")
        total = total + part * jnp.expand_dims(jnp.asarray(weight, x.dtype)[rows], others)
    return total
