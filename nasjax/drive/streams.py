"""Random streams of a run by name: no two phases share random numbers."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import jax

from nasjax.types import Key


class Streams(NamedTuple):
    """A key per phase of a run, made by folding a hash of its name into the key of the seed."""

    search: Key  # what is proposed, and how candidates or the search network are trained
    supernet: Key  # training of a supernet that is searched afterwards
    prefilter: Key  # architectures drawn before the search, and the networks that they are scored by
    standalone: Key  # paths of a supernet that are trained alone
    grid: Key  # every setting of a retraining's grid
    retrain: Key  # the retraining


def streams(seed: int) -> Streams:
    """The keys of a run with this seed.

    Example:
      >>> from nasjax.drive.streams import streams
      >>> streams(0).search != streams(0).retrain
      Array(True, dtype=bool)
    """
    key = jax.random.key(seed)
    return Streams(*(jax.random.fold_in(key, zlib.crc32(name.encode())) for name in Streams._fields))
