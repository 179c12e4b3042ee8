"""Real data that lie beside the checkout or where NASJAX_DATA says; tests skip where they are not."""

import os
from pathlib import Path

import numpy as np
import pytest

DATA = Path(os.environ.get("NASJAX_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
TABLE = DATA / "nas_tables" / "nas_bench_201.npz"


def nas_bench_201():
    """The arrays of the table of NAS-Bench-201."""
    if not TABLE.exists():
        pytest.skip("no NAS-Bench-201 table; set NASJAX_DATA")
    with np.load(TABLE) as file:
        return dict(file)
