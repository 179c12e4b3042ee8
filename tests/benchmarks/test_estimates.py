"""benchmarks/estimates.py: which lines are estimates, and what they are compared with."""

import importlib.util
from pathlib import Path

import pytest

from nasjax.drive.pace import first_line

FILE = Path(__file__).parents[2] / "benchmarks" / "estimates.py"
SPEC = importlib.util.spec_from_file_location("estimates", FILE)
estimates = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(estimates)


def test_estimates_are_put_beside_the_end_of_what_they_are_of():
    supernet = "for the supernet; its search is measured once it begins"
    lines = [
        *((0.0, ""), (3.0, "spos on digits, in runs/a: one supernet on 1 device")),
        *(
            (20.0, "supernet epoch 1/2: training loss 2.3, 17 s"),
            (20.1, first_line("first epoch", 17, 9, 50, supernet)),
        ),
        (55.0, "supernet epoch 2/2: training loss 2.3, 17 s"),
        (60.0, first_line("first 8 candidates", 5.0, None, 180.0)),
        *((61.0, "trial 8/320: best 90.00%, about 2.0 min left"), (150.0, "")),
    ]
    lines = [estimates.Line(*line) for line in lines]
    first, second = estimates.estimates(lines)
    assert (first.estimate_s, first.said_s, first.truth_s) == (50, 20.1, 55)
    assert (second.estimate_s, second.said_s, second.truth_s) == (180, 60, 150) and second.ratio == 1.2
    assert second.of == "in all, by the first 8 candidates"
    assert estimates.silence(lines) == pytest.approx(89.0)
