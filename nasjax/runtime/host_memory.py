"""Memory of the host: a training step asks for the same arrays again and again."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_OPTIONS = (  # of glibc's `mallopt`: number, variable, values from the best on (older ones take 32 MB at most)
    (-1, "MALLOC_TRIM_THRESHOLD_", (2**31 - 1,)),
    (-3, "MALLOC_MMAP_THRESHOLD_", (2**30, 2**25)),
)


@functools.cache
def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for the next array of that size.

    By default glibc gives arrays above some size back to the system, which clears each page before it is used again. A
    step of a DARTS search network (4 cells, 16 channels, 32x32, batch 16) had 110,000 page faults, a tenth of its CPU
    time; for segmentation graphs it was a sixth.

    A thread's own arena has room for 64 MB at most, so XLA's threads ask the system for each larger array (a child of
    six layers at 32x32: 105,000 page faults a step, a quarter of its time). A single arena, MALLOC_ARENA_MAX=1 in the
    environment, mends that; it is not set here, since threads that compile side by side then take 1.4 times as long.

    The process keeps its peak memory until it ends.

    Returns:
      Whether all of it was done: on Linux with glibc. What the environment sets stays as it is.
    """
    if sys.platform != "linux" or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if set_option is None:
        return False
    done = [
        name not in os.environ and any(set_option(number, value) == 1 for value in values)
        for number, name, values in _OPTIONS
    ]
    return all(done)
