"""The report of runs that go on: written again and again, in a page that a browser loads again by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nasjax.store import started
from nasjax.types import afterwards

EVERY_S = 10  # between two pages, and between two loads of a page
PATIENCE_S = 30  # until a run begins, the next seed follows, or a retraining its search


def watch(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    every_s: int = EVERY_S,
    patience_s: int = PATIENCE_S,
    say: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Writes the report until no run has gone on for a while; the last page no longer loads itself.

    Args:
      paths: workdirs, as of `report`; some may not be there yet.
      out: the file, as of `report`.
      every_s: seconds between two pages.
      patience_s: seconds for which no run must go on.
      say: is told what is waited for, and that the file is there.
      sleep: waits that long.

    Returns:
      The file written.

    Raises:
      ValueError: as `report`; no run has begun all the while.
      KeyboardInterrupt: interrupted; the last page is written before.
    """
    from nasjax.report.page import place, write_report
    from nasjax.report.workdir import begun, going_on

    out, idle_s, told = place(paths) if out is None else out, 0, ""

    def write(reload_s: int | None = None) -> Path:
        return write_report(
            [path for path in paths if begun(path)] or paths, out, reload_s=reload_s, program=started.own()
        )

    with afterwards(write):
        while going_on(paths) or idle_s < patience_s:
            if any(map(begun, paths)):
                line = f"{write(every_s)} is written again every {every_s} s until no run goes on for {patience_s} s"
            else:
                line = f"no run has begun in {' or '.join(map(str, paths))}; waiting {patience_s} s for one"
            if line != told:
                say(f"{line}; Ctrl-C ends that earlier")
                told = line
            sleep(every_s)
            idle_s = 0 if going_on(paths) else idle_s + every_s
    return out
