"""Does every architecture export? Random ones of every space, tiny: artifact against network, batches of 1, 3 and 7.

    python benchmarks/export_all.py --count=50

Prints a line per space: tried, exported with logits equal to 1e-4 of the largest, the largest such difference, and the
first failure; an architecture whose images are too small for it is drawn anew. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from tools.exportable import CASES, difference, network_of

CLOSE = 1e-4


def export_some(name: str, count: int) -> dict[str, Any]:
    """A row of the table."""
    row: dict[str, Any] = {"space": name, "tried": 0, "ok": 0, "largest": 0.0, "failure": ""}
    began, seed = time.monotonic(), 0
    while row["tried"] < count:
        seed += 1
        network = network_of(CASES[name], seed)
        if network is None:
            continue
        row["tried"] += 1
        try:
            found = difference(CASES[name], network, seed)
        except Exception as error:
            row["failure"] = row["failure"] or f"seed {seed}: {type(error).__name__}: {error}"[:200]
            continue
        row["largest"] = max(row["largest"], found)
        row["ok"] += found < CLOSE
        if seed % 10 == 0:
            jax.clear_caches()  # nothing comes again
    return row | {"seconds": round(time.monotonic() - began)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="architectures of every space")
    parser.add_argument("--only", default="", help="the spaces whose names begin so")
    given = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    print(f"{'space':24}{'tried':>6}{'ok':>6}{'largest difference':>20}{'seconds':>9}")
    rows = []
    for name in CASES:
        if name.startswith(given.only):
            row = export_some(name, given.count)
            rows.append(row)
            print(f"{name:24}{row['tried']:6}{row['ok']:6}{row['largest']:20.1e}{row['seconds']:9}", row["failure"])
            sys.stdout.flush()
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
