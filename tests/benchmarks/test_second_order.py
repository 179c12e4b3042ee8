"""The exact mixed product on the real search network, in float64, against central differences of two steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/truth/second_order.py"


@pytest.mark.slow
def test_a_tiny_step_agrees_with_the_exact_product_and_the_papers_does_not():
    """4 channels, both strides: a step that crosses no kink of ReLU and max-pooling is right, the paper's is not.

    So that the distance at the paper's step is the step's fault, not the product's.
    """
    command = [sys.executable, str(SCRIPT), "causes", "--factors", "1", "1e-4", "--rows", "as it is", "--cells", "1"]
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    papers, tiny = row["errors"]
    assert tiny < 1e-7 and papers > 1
