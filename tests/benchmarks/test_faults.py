"""The faults of benchmarks/mutation are put into the sources as these are today."""

import sys
from pathlib import Path


def test_the_text_that_a_fault_replaces_stands_in_its_file_once(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "benchmarks/mutation"), *sys.path])
    import run

    assert len(run.FAULTS) >= 100 and run.misplaced(run.FAULTS) == []
