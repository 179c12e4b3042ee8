"""The figures of the controller's distributed scheme, from what its benchmark leaves in a workdir."""

import json

import pytest

from nasjax.report import write_report

FOUND = {
    "title": "S, K, m, g = 20, 100, 8, 1: 800 workers",
    "window": 800,
    "ways": ["asynchronous", "rounds"],
    "children": [{"x": 0.5, "y": 68.0, "line": "asynchronous"}, {"x": 1.0, "y": 77.4, "line": "rounds"}],
    "staleness": [{"x": -0.5, "x2": 4.5, "y": 25.0}, {"x": 4.5, "x2": 9.5, "y": 75.0}],
}


def page(folder, found):
    (folder / "config.json").write_text(json.dumps({"method": "reinforce"}))
    (folder / "simulation.json").write_text(found if isinstance(found, str) else json.dumps(found))
    return write_report([folder]).read_text()


def test_both_figures_are_drawn(tmp_path):
    text = page(tmp_path, FOUND)
    assert "<h2>The distributed scheme, simulated</h2>" in text
    assert FOUND["title"] in text and "Mean accuracy of 800 children" in text
    assert '{"x":4.5,"x2":9.5,"y":75.0}' in text and '{"x":1.0,"y":77.4,"line":"rounds"}' in text


@pytest.mark.parametrize(
    "damaged",
    [
        '{"title": "S, K',
        "[]",
        {**FOUND, "staleness": []},
        {**FOUND, "children": [{"x": None, "y": 1.0}]},
        {**FOUND, "ways": [1]},
        {name: value for name, value in FOUND.items() if name != "window"},
    ],
)
def test_a_damaged_file_draws_nothing(tmp_path, damaged):
    text = page(tmp_path, damaged)
    assert "simulated</h2>" not in text and "</html>" in text
