"""Data sets as arrays in memory: what to load, how it is split, and the numbers that whitening needs.

`load` gives the training and validation parts; `load_test` gives the test part and is for retraining only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as setting
from typing import Any, Literal, NamedTuple

import numpy as np

from nasjax.data.area import resize
from nasjax.data.sources import DataSource, Source, Split
from nasjax.data.stream import Images, some_of
from nasjax.data.units import names, other_form, other_units, range_of


@dataclass(frozen=True)
class DataConfig:
    """Which samples, and how many.

    Attributes:
      name: of the catalog, e.g. "digits" (embedded, 8x8) or "cifar10"; or the path of an .npz with x and y, or of a
        .csv with file and label.
      data_dir: folder of the data (cifar10: the original python format, or a TFDS folder; "" = the TFDS default;
        nuclei_folder: a folder with images/ and masks/; image_folder: one with a folder per class), and what a
        relative path of an .npz or .csv, and those in a .csv, are relative to.
      valid_size: validation samples; None = 300 of digits, 5,000 of cifar10 (as published), a fifth of images with
        masks, else a tenth or a sixth.
      train_limit, valid_limit: use at most this many samples of the part; None = all.
      resize: area-averaged to resize x resize; None = as they are (a folder of images and masks: 96).
      aspect: what becomes of images with masks that are not square: "pad", around the whole image, in its mean colour;
        "crop", to the middle square; "squash", as the public UNet++ code does. None = pad. A network predicts alike.
      channels: of a user's arrays [N, ...]: "last", [N, H, W, C]; "first", [N, C, H, W]; "ask" takes them for "last"
        and refuses what looks like "first".
      same_units: a user's x_valid and x_test are in the units of x, even if their range suggests otherwise.
      target: of a user's numbers y: "class", "value" (to be predicted as such), or "ask": integers are classes, floats
        are values, and what may be either is refused.
      split_seed: draws the split. It also draws the test part, where the source has none of its own.
      window: of texts: T, tokens of a sample, over which gradients are propagated.
      level: of texts: "word", what white space separates, and every line, a blank one too, ends in <eos>; "char",
        characters, all of them, and a newline where a line ends.
      min_count: of texts: words that are rarer in the training text become <unk>; None = 2 of pydoc, 1 (all are kept)
        elsewhere.
      max_words: of texts: the most frequent words to keep, <eos> and <unk> included; None = all.
      fit: how a file's image becomes resize x resize: "squash" averages by area, whatever its ratio of sides; "crop"
        brings its shorter side to resize / crop_part and keeps the middle; None = crop of imagenet, else squash.
      crop_part: part of the shorter side that "crop" keeps; 0.875 is 224 of 256.
      stream: whether images of files stay there and are read at every step: "auto" = where all of them would take more
        than 4 GiB as arrays.
      readers: processes that read a stream's files; None = one for each core, but one. No figure depends on it.
      skip_corrupt: of a stream: another file takes the place of one that cannot be read, and a line tells how many.
      seed_protocol: validate and test on the same samples, both parts together, so that a search sees its test part.
        The blog article that first evolved segmentation graphs did; figures found so are too good.
    """

    name: str = "digits"
    data_dir: str = ""
    valid_size: int | None = None
    train_limit: int | None = None
    valid_limit: int | None = None
    resize: int | None = None
    aspect: Literal["pad", "crop", "squash"] | None = None
    channels: Literal["ask", "last", "first"] = "ask"
    same_units: bool = False
    target: Literal["ask", "class", "value"] = "ask"
    split_seed: int = 0
    window: int = 35
    level: Literal["word", "char"] = "word"
    min_count: int | None = None
    max_words: int | None = None
    fit: Literal["squash", "crop"] | None = None
    crop_part: float = 0.875
    stream: Literal["auto", "true", "false"] = "auto"
    readers: int | None = setting(default=None, metadata={"resumable": True})
    skip_corrupt: bool = False
    seed_protocol: bool = False

    def __post_init__(self) -> None:
        least = dict.fromkeys(("valid_size", "train_limit", "valid_limit", "resize", "window", "min_count"), 1)
        for field, smallest in {**least, "max_words": 4}.items():  # <eos>, <unk> and two words
            value = getattr(self, field)
            if value is not None and value < smallest:
                raise ValueError(f"{field} must be at least {smallest}, got {value}; leave it out for the default")
        for field, choices in (
            ("channels", ("ask", "last", "first")),
            ("target", ("ask", "class", "value")),
            ("level", ("word", "char")),
            ("aspect", (None, "pad", "crop", "squash")),
            ("fit", (None, "squash", "crop")),
            ("stream", ("auto", "true", "false")),
        ):
            if (given := getattr(self, field)) not in choices:
                raise ValueError(f"{field} must be one of {', '.join(filter(None, choices))}; got {given!r}")
        if not 0 < self.crop_part <= 1:
            raise ValueError(f"crop_part is a part of a side, above 0 and at most 1; got {self.crop_part}")
        if self.crop_part != 0.875 and self.fit == "squash":
            raise ValueError("crop_part has no effect with fit=squash; leave it out")
        if self.readers is not None and self.readers < 0:
            raise ValueError(f"readers is a number of processes, 0 or more; got {self.readers}")
        if self.split_seed < 0:
            raise ValueError(f"split_seed must not be negative, got {self.split_seed}")


class Dataset(NamedTuple):
    """What a search may see."""

    name: str
    classes: int
    class_names: tuple[str, ...]
    train: Split
    valid: Split
    mean: np.ndarray  # f32[C] over the images train.x, as fractions where x is uint8 or uint16; f32[0] of others
    std: np.ndarray  # f32[C], 1 where a channel is constant
    sha256: str  # of the arrays as loaded
    channels: str = "last"  # where the user's own arrays have them; here they are always last
    # Mean and deviation of the training part's values, by which all y are standardised, f32; None where y are no values
    scale: tuple[float, float] | None = None


def load(config: DataConfig, by_name: DataSource, told: Callable[[str], None] | None = None) -> Dataset:
    """Reads the training and validation parts; a test set kept apart by its source is not opened.

    Args:
      config: which samples.
      by_name: the data set that `config.name` names.
      told: is given what a user should know of what was read, a line each.

    Raises:
      ValueError, FileNotFoundError: in one line, what is wrong and what to do.
    """
    source = _open(config, by_name)
    pool = source.pool()
    _refuse_idle(config, pool.x.ndim == 4, source, by_name)
    if not source.test:
        _require_test(config, pool, source.test_size)
    order = _order(config, len(pool.y))
    rest = order[source.test_size :]
    if config.seed_protocol:
        train = _take(config, pool, order[source.test_size + source.valid_size :][: config.train_limit])
        valid = _take(config, pool, order[: source.test_size + source.valid_size][: config.valid_limit])
    elif source.valid is not None:
        own = source.valid()
        if by_name.arrays:
            _require_alike(config, pool, own, "x_valid")
        mine = np.arange(len(pool.y)) if source.test else rest  # without the samples for testing
        train = _take(config, pool, mine[: config.train_limit])
        valid = _take(config, own, np.arange(len(own.y))[: config.valid_limit])
    else:
        valid_size = source.valid_size if config.valid_size is None else config.valid_size
        if not 0 < valid_size < len(rest):
            most = f"give --set data.valid_size=N, at most {len(rest) - 1}" if len(rest) > 1 else "give more"
            raise ValueError(
                f"valid_size={valid_size} of {len(rest)} samples leaves none to train or to validate on; {most}"
            )
        train = _take(config, pool, rest[valid_size:][: config.train_limit])
        valid = _take(config, pool, rest[:valid_size][: config.valid_limit])
    for part, what in ((train, "train"), (valid, "validate")):
        if not len(part.y):
            raise ValueError(f"{config.name}: {len(pool.y)} samples leave none to {what} on; give more")
    if isinstance(train.x, Images) and told is not None:
        train.x.readers.told = told
    _tell(source, told)
    _tell_of_masks("training", train, told)
    _tell_of_masks("validation", valid, told)
    digest = hashlib.sha256(repr(source.class_names).encode())
    for array in (*train, *valid):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.digest() if isinstance(array, Images) else np.ascontiguousarray(array))
    outputs = names(source.class_names, f"{config.name}: class_names")
    none = np.zeros(0, np.float32)
    mean, std = _moments(train.x) if train.x.ndim == 4 else (none, none)
    layout = "first" if config.channels == "first" else "last"
    data = Dataset(config.name, len(outputs), outputs, train, valid, mean, std, digest.hexdigest(), layout)
    return _scaled(data) if source.values else data


def _scaled(data: Dataset) -> Dataset:
    """The same with standardised values. Errors as of `standardised`."""
    data = data._replace(scale=(float(data.train.y.mean()), float(data.train.y.std())))
    return data._replace(
        train=standardised(data, data.train, "training"), valid=standardised(data, data.valid, "validation")
    )


def standardised(data: Dataset, part: Split, what: str) -> Split:
    """A part with its values less the mean and over the deviation `data.scale`, f32; as it is where that is None.

    Raises ValueError where its values are all equal: how much of their variance is explained is then no question.
    """
    if data.scale is None:
        return part
    if part.y.min() == part.y.max():
        raise ValueError(
            f"{data.name}: all {len(part.y)} values of the {what} part are {part.y[0]:g}; give more samples"
        )
    return part._replace(y=((part.y - data.scale[0]) / data.scale[1]).astype(np.float32))


def in_files(data: Dataset) -> bool:
    """Whether the images stay in their files."""
    return isinstance(data.train.x, Images)


def joined(data: Dataset) -> Dataset:
    """The same with the validation part added to the training part, as papers train their networks."""
    y = np.concatenate([data.train.y, data.valid.y])
    if isinstance(data.train.x, Images):
        x = data.train.x.joined(data.valid.x)
        return data._replace(train=Split(x, y), mean=data.mean, std=data.std)  # estimates, and of the same set
    x = np.concatenate([data.train.x, data.valid.x])
    mean, std = _moments(x) if x.ndim == 4 else (data.mean, data.std)
    return data._replace(train=Split(x, y), mean=mean, std=std)


def known_form(config: DataConfig, source: DataSource) -> tuple[tuple[int, ...], int] | None:
    """The shape of a sample and the number of outputs, where they are known without reading the data."""
    plain = DataConfig()
    other = any(getattr(config, field) != getattr(plain, field) for field in ("min_count", "max_words"))
    outputs = source.characters if config.level == "char" else source.outputs
    if source.shape is None or outputs is None or (len(source.shape) == 1 and other):
        return None
    if len(source.shape) == 1:
        return (config.window,), outputs
    size = config.resize
    return (size, size, source.shape[2]) if size else source.shape, outputs


def _refuse_idle(config: DataConfig, images: bool, source: Source, by_name: DataSource) -> None:
    """Raises ValueError for a setting that would do nothing with these data."""
    plain = DataConfig()
    of_texts, of_images = ("window", "level", "min_count", "max_words"), ("resize",)
    idle = [*(of_texts if images else of_images)]
    if source.valid is not None:
        idle += ["valid_size", *(["split_seed"] if source.test else [])]
    if not by_name.arrays:
        idle += ["channels", "same_units"]
    if not by_name.files:
        idle += ["fit", "crop_part", "stream", "readers", "skip_corrupt"]
    elif config.resize is None and known_form(config, by_name) is None:
        idle += ["fit", "crop_part"]
    if by_name.task_of is None or not images:
        idle.append("target")
    if not by_name.aspect:
        idle.append("aspect")
    for name in idle:
        if getattr(config, name) != getattr(plain, name):
            raise ValueError(f"data.{name} has no effect on {config.name}; leave it out")


def load_test(config: DataConfig, by_name: DataSource, told: Callable[[str], None] | None = None) -> Split:
    """Reads the test part: the same images whatever valid_size and the limits are. For retraining, once.

    Arguments and errors as of `load`.
    """
    source = _open(config, by_name)
    if source.test:
        before = len(source.notes)
        part = source.test()
        _tell(source, told, before)
        if not len(part.y):
            raise ValueError(f"{config.name}: its test part is empty; give x_test and y_test, or neither")
        if by_name.arrays:
            _require_alike(config, source.pool(), part, "x_test")
        return _take(config, part, np.arange(len(part.y)))
    pool, size = source.pool(), source.test_size + (source.valid_size if config.seed_protocol else 0)
    _require_test(config, pool, size)
    part = _take(config, pool, _order(config, len(pool.y))[:size])
    _tell_of_masks("test", part, told)
    return part


def _require_test(config: DataConfig, pool: Split, size: int) -> None:
    """Raises ValueError where a test part that is drawn from `pool` would be empty."""
    if not size:
        raise ValueError(
            f"{config.name}: a set of {len(pool.y)} samples leaves none to test on; give more, or x_test and y_test"
        )


def _require_alike(config: DataConfig, pool: Split, part: Split, name: str) -> None:
    """Raises ValueError for a part whose form or values differ in meaning from the training part's."""
    x, y = pool.x, part.x
    shape: tuple[int, ...] = x.shape[1:]
    if config.resize and x.ndim == y.ndim == 4 and shape[0] * y.shape[2] == shape[1] * y.shape[1]:
        shape = (*y.shape[1:3], shape[2])  # `resize` was asked for, and brings both to one size
    dtype = y.dtype if x.ndim < 4 and x.dtype.kind in "iu" and y.dtype.kind in "iu" else x.dtype  # tokens have no units
    if reason := other_form(y, dtype, shape):
        raise ValueError(f"{config.name}: {name} {reason} as x; save both in one form and the same units")
    images = x.ndim == 4 and not config.same_units
    if images and (reason := other_units(y, *range_of(x))):
        raise ValueError(
            f"{config.name}: {name} {reason}; save both in the same units, or say that they are: "
            "--set data.same_units=true"
        )


def _tell(source: Source, told: Callable[[str], None] | None, before: int = 0) -> None:
    if told is not None:
        for note in source.notes[before:]:
            told(note)


def _tell_of_masks(name: str, part: Split, told: Callable[[str], None] | None) -> None:
    """Warns where a part's masks are constant: a constant prediction would then be right."""
    if told is not None and part.y.ndim == 4 and part.y.min() == part.y.max():
        told(f"{name} part: all its masks are {'foreground' if part.y.any() else 'background'}")


def _open(config: DataConfig, by_name: DataSource) -> Source:
    source = by_name.open(config)
    if config.seed_protocol and (source.test or source.valid or config.valid_size is not None):
        raise ValueError(
            "seed_protocol draws a test part that validates, too: leave out valid_size, and use data without parts of "
            "their own"
        )
    return source


def _order(config: DataConfig, n: int) -> np.ndarray:
    """A random order of n images: test, then validation, then training. Raw Philox output is stable across NumPys."""
    return np.argsort(np.random.Philox(config.split_seed).random_raw(n), kind="stable")


def _take(config: DataConfig, part: Split, index: np.ndarray) -> Split:
    x, y = part.x[index], part.y[index]
    if config.resize is None or x.ndim != 4 or x.shape[1:3] == (config.resize, config.resize):
        return Split(x, y)  # images in files are resized when they are read
    size = config.resize
    return Split(resize(x, size, size), nearest(y, size, size) if y.ndim == 4 else y)


def nearest(y: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every new pixel is the old one at its centre: [N, H, W, C] -> [N, height, width, C], for masks."""
    rows = ((np.arange(height) + 0.5) * y.shape[1] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * y.shape[2] / width).astype(int)
    return y[:, rows][:, :, columns]


def _moments(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, f32[C] each, summed in float64; of images in files by some of them."""
    if isinstance(x, Images):
        x = some_of(x)
    scale = float(np.iinfo(x.dtype).max) if x.dtype.kind == "u" else 1.0
    mean = x.mean((0, 1, 2), dtype=np.float64)
    pieces = (x[i : i + 1000] for i in range(0, len(x), 1000))
    variance = sum(((piece - mean) ** 2).sum((0, 1, 2)) for piece in pieces) / (x.size // x.shape[-1])
    std = np.sqrt(variance) / scale
    return (mean / scale).astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)
