"""A disk that is full from some write on, until there is room again."""

import contextlib
import errno
import os
from unittest import mock

from nasjax.store import checkpoint


@contextlib.contextmanager
def full_disk(after):
    """The `after`-th write of lines, JSON or a checkpoint begins and does not end, and nor does any later one."""
    left = [after]

    def failing(real, half=None):
        def write(*args, **kwargs):
            left[0] -= 1
            if left[0] > 0:
                return real(*args, **kwargs)
            if half is not None:
                half(*args)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return write

    def torn(path, rows):
        with path.open("a") as file:
            file.write('{"id": 8, "par')

    with (
        mock.patch.object(checkpoint, "append_lines", failing(checkpoint.append_lines, torn)),
        mock.patch.object(checkpoint, "write_json", failing(checkpoint.write_json)),
        mock.patch.object(checkpoint, "_reserve", failing(checkpoint._reserve)),
    ):
        yield
