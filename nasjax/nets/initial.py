"""Initial weights that depend only on the key and on the weight's name.

The masked and the specialised form of a network hold the same weights in arrays of different shapes. So a weight is
drawn by its name and not by its place in an array: both forms start from the same values, and an architecture draws
only what it needs. A name has three parts: the link (reading layer, source layer), the number of the input channel
among those of its source, and the word (tap, output channel).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Key

HEAD = 0xFFFF  # the dense layer, as a reading layer
_CHUNK = 2**16


def link(reader: int, source: int) -> int:
    """The reader (0-based layer or HEAD) and its source (-1 = the image)."""
    return reader << 16 | source + 1


def words(kernel: tuple[int, int], filters: int) -> np.ndarray:
    """u32[kh, kw, filters]: the tap's offset from the centre, and the output channel."""
    dy, dx, out = np.indices((*kernel, filters)).astype(np.uint32)
    return (dy + 128 - kernel[0] // 2) << 24 | (dx + 128 - kernel[1] // 2) << 16 | out


def rows(key: Key, links: np.ndarray, channels: jax.Array, words: np.ndarray) -> jax.Array:
    """Standard normal draws, traceable: f32[R, W] for the names (links[r], channels[r], words[w])."""

    def row(link: jax.Array, channel: jax.Array) -> jax.Array:
        row_key = jax.random.fold_in(jax.random.fold_in(key, link), channel)
        return jax.vmap(lambda word: _normal(row_key, word))(jnp.asarray(words))

    return jax.vmap(row)(jnp.asarray(links), channels.astype(jnp.uint32))


def kernels(key: Key, names: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """The same draws on the host unless `key` is traced, by one small program for all architectures.

    Args:
      names: per layer links u32[C], channels u32[C], words u32[kh, kw, filters].

    Returns:
      Per layer f32[kh, kw, C, filters].
    """
    shapes = [(*w.shape[:2], len(links), w.shape[2]) for links, _, w in names]
    flat = np.concatenate(
        [
            np.stack(np.broadcast_arrays(links[:, None], channels[:, None], w[:, :, None, :]), -1).reshape(-1, 3)
            for links, channels, w in names
        ]
    ).astype(np.uint32)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    padded = np.pad(flat, [(0, -len(flat) % _CHUNK), (0, 0)])
    xp: Any = jnp if isinstance(key, jax.core.Tracer) else np
    found = xp.concatenate([_chunk(key, part) for part in padded.reshape(-1, _CHUNK, 3)])
    return [part.reshape(shape) for part, shape in zip(xp.split(found[: len(flat)], ends[:-1]), shapes, strict=True)]


def draws(draw: Callable[..., jax.Array], key: Key, size: int, dtype: Any, *limits: float) -> Any:
    """`size` numbers of draw(key, shape, dtype, *limits), e.g. `jax.random.normal`; on the host unless `key` is traced.

    A power of two is drawn, and the rest dropped: networks of a size never seen before compile nothing. JAX's generator
    draws the same first numbers for any size.
    """
    if isinstance(key, jax.core.Tracer):
        return draw(key, (size,), dtype, *limits)
    return np.asarray(draw(key, (1 << max(size - 1, 0).bit_length(),), dtype, *limits))[:size]


@jax.jit
def _chunk(key: Key, names: jax.Array) -> jax.Array:
    def one(name: jax.Array) -> jax.Array:
        return _normal(jax.random.fold_in(jax.random.fold_in(key, name[0]), name[1]), name[2])

    return jax.vmap(one)(names)


def _normal(key: Key, word: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, word), (), jnp.float32)
