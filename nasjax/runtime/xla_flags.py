"""Flags of the environment variable XLA_FLAGS that this version of XLA does not know."""

from __future__ import annotations

import os
import re
import subprocess
import sys

_TRIED = "NASJAX_XLA_FLAGS_TRIED"
_REFUSED = re.compile(r"Unknown flags? in XLA_FLAGS: (.*)")


def unknown(flags: str) -> list[str]:
    """Which of `flags` (the text of XLA_FLAGS) XLA refuses, as they are written.

    XLA ends a process with an unknown flag, without an exception, as soon as its backend starts. Another process
    therefore tries them (0.3 s of a core), only where there are any.
    """
    if not flags.strip():
        return []
    tried = subprocess.run(
        [sys.executable, "-c", "from jaxlib import xla_client; xla_client.make_cpu_client()"],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    found = _REFUSED.search(tried.stderr)
    return found[1].split() if found and tried.returncode else []


def check() -> None:
    """Raises ValueError, in one line, where XLA_FLAGS has some that XLA refuses. Processes started later do not ask."""
    flags = os.environ.get("XLA_FLAGS", "")
    if os.environ.get(_TRIED, "") == flags:
        return
    if refused := unknown(flags):
        raise ValueError(f"this version of XLA does not know {' '.join(refused)}; take it out of XLA_FLAGS")
    os.environ[_TRIED] = flags
