"""The faults of benchmarks/mutation are put into the sources as these are today."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_text_that_a_fault_replaces_stands_in_its_file_once(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks/mutation"), *sys.path])
    import faults

    lists = [value for value in vars(faults).values() if isinstance(value, list)]
    found = [fault for one in lists for fault in one]
    assert len(found) >= 100
    counts = {(one.file, one.what): (ROOT / "nasjax" / one.file).read_text().count(one.old) for one in found}
    assert {name: count for name, count in counts.items() if count != 1} == {}
    assert all(one.old != one.new for one in found)
