"""Memory of the host: a training step asks for the same arrays again and again."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's `mallopt`
_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX")


@functools.cache
def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for the next array of that size.

    By default glibc gives arrays above some size back to the system, which clears each page before it is used again. A
    step of a DARTS search network (4 cells, 16 channels, 32x32, batch 16) had 110,000 page faults, a tenth of its CPU
    time; for segmentation graphs it was a sixth. All threads share one arena: a further one has room for 64 MB at most,
    so XLA's threads would ask the system for each larger array (a child of six layers at 32x32: 105,000 page faults a
    step, a quarter of its time). The process keeps its peak memory until it ends. Call it before other threads begin.

    Returns:
      Whether it was done: on Linux with glibc, unless the environment sets one of these options.
    """
    chosen = any(name in os.environ for name in _SET_BY_USER) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or chosen:
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    return set_option is not None and all(
        set_option(option, size) == 1
        for option, size in [(_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**30), (_ARENA_MAX, 1)]
    )
