"""The report of runs that go on: written again and again, in a page that a browser loads again by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nasjax.store import started
from nasjax.types import afterwards

EVERY_S = 10  # between two pages, and between two loads of a page


def watch(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    every_s: int = EVERY_S,
    say: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Writes the report until no run goes on any more; the last page no longer loads itself.

    Args:
      paths: workdirs, as of `report`.
      out: the file, as of `report`.
      every_s: seconds between two pages.
      say: is told that the file is there, while the runs go on.
      sleep: waits that long.

    Returns:
      The file written.

    Raises:
      ValueError: as `report`.
      KeyboardInterrupt: interrupted; the last page is written before.
    """
    from nasjax.report import write_report
    from nasjax.report.workdir import going_on

    def write(reload_s: int | None = None) -> Path:
        return write_report(paths, out, reload_s=reload_s, program=started.own())

    if not going_on(paths):
        return write()
    file = write(every_s)
    say(f"{file} is written again every {every_s} s until the run ends; Ctrl-C ends that earlier")
    with afterwards(write):
        while going_on(paths):
            sleep(every_s)
            write(every_s)
    return file
