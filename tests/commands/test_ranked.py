"""What retraining tells of how well a supernet's scores rank."""

import json

import pytest

from nasjax.commands.retraining import _ranked


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [([0.1, 0.3, 0.2], "3 paths trained alone: 0.333"), ([0.1, None, 0.2], "2 paths trained alone: 1.000")],
)
def test_kendalls_tau_of_the_paths_that_were_trained_alone(tmp_path, accuracies, told):
    rows = [{"score": n, "accuracy": accuracy} for n, accuracy in enumerate(accuracies)]
    (tmp_path / "standalone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    assert told in _ranked(tmp_path, 3)
    assert "needs two paths" in _ranked(tmp_path, 1)
