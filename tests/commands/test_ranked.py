"""What retraining tells of how well a supernet's scores rank."""

import json

import pytest

from nasjax.commands.retraining import _ranked
from nasjax.types import Metric


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [([0.1, 0.3, 0.2], "3 paths trained alone: 0.333"), ([0.1, None, 0.2], "2 paths trained alone: 1.000")],
)
def test_kendalls_tau_of_the_paths_that_were_trained_alone(tmp_path, accuracies, told):
    rows = [{"score": n, "accuracy": accuracy} for n, accuracy in enumerate(accuracies)]
    (tmp_path / "standalone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    assert told in _ranked(tmp_path, 3, Metric("accuracy"))
    assert "needs two paths" in _ranked(tmp_path, 1, Metric("accuracy"))


@pytest.mark.parametrize(("metric", "tau"), [(Metric("r2", "plain"), 1), (Metric("perplexity", "plain", -1), -1)])
def test_paths_of_other_tasks_are_ranked_by_their_own_metric(tmp_path, metric, tau):
    """The scores rise; where less is better, rising values are the opposite order."""
    rows = [{"score": n, metric.name: value} for n, value in enumerate((-0.4, 0.1, 0.3))]
    (tmp_path / "standalone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert f"3 paths trained alone: {tau}.000" in _ranked(tmp_path, 3, metric)
    old = [{"score": n, "accuracy": value} for n, value in enumerate((-90.0, -80.0))]  # the fitness
    (tmp_path / "standalone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert "2 paths trained alone: 1.000" in _ranked(tmp_path, 2, metric)
