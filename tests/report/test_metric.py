"""Numbers in their unit, and the way that is better."""

import pytest
from tools.report_pages import report, trial, workdir

from nasjax.report import metric

PERPLEXITY = {"name": "perplexity", "unit": "plain", "sign": -1}
IOU = {"name": "iou", "unit": "fraction", "sign": 1}


@pytest.mark.parametrize(
    ("config", "title", "axis", "text", "value"),
    [
        ({}, "validation accuracy", "validation accuracy (%)", "25.00 %", 25.0),
        ({"metric": PERPLEXITY}, "validation perplexity", "validation perplexity", "-0.25", -0.25),
        ({"metric": IOU}, "validation IoU", "validation IoU (%)", "25.00 %", 25.0),
        ({"metric": {"name": "a_b", "unit": "?", "sign": "?"}}, "validation a b", "validation a b", "0.25", 0.25),
        ({"config": {"search": {"score": "indicator"}}}, "batch norm score", "batch norm score", "0.25", 0.25),
        ({"metric": 3, "config": 4}, "validation accuracy", "validation accuracy (%)", "25.00 %", 25.0),
    ],
)
def test_a_fitness_in_words_and_on_an_axis(config, title, axis, text, value):
    found = metric.of(config)
    assert (found.title, found.axis, found.text(0.25), found.value(0.25)) == (title, axis, text, value)
    assert found.text(None) == "–"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("test_iou", "50.00 %"), ("valid_iou", "50.00 %"), ("iou", "50.00 %"), ("test_accuracy", "50.00 %"),
        ("top1_error", "50.00 %"), ("train_loss", None), ("test_error_percent", None), ("params", None),
    ],
)  # fmt: skip
def test_which_numbers_of_a_file_are_shares(key, text):
    found = metric.of_key(key, metric.of({"metric": IOU}))
    assert (found and found.plain(0.5)) == text


def test_where_smaller_is_better_the_best_is_the_smallest(tmp_path):
    trials = [trial(i, -perplexity) for i, perplexity in enumerate((80.5, 60.25, 70.0))]
    config = {"method": "random", "metric": PERPLEXITY}
    result = {"test_perplexity": 58.5, "history": {"train_loss": [3.0, 2.0], "valid_perplexity": [70.0, 61.0]}}
    page = report(workdir(tmp_path / "run", trials, config, result=result))
    assert "best validation perplexity60.25trial 1" in page.text
    assert [row[1] for row in page.rows["Trials"]] == ["validation perplexity", "60.25", "70", "80.5"]
    title = "Validation perplexity over the search"
    assert [row["y"] for row in page.marks(title, "circle")] == [80.5, 60.25, 70.0]
    best = [row["y"] for row in page.marks(title, "line") if row["kind"] == "best so far"]
    assert best == [80.5, 60.25, 60.25] and "smaller is better" in page.text
    assert ["test perplexity", "58.5"] in page.rows["Retrained from scratch"]
    assert [row["y"] for row in page.marks("Validation perplexity", "line")] == [70.0, 61.0]
    assert [row["y"] for row in page.marks("Training loss", "line")] == [3.0, 2.0]


def test_an_unbounded_accuracy_is_a_matter_of_the_config_not_of_its_values(tmp_path):
    plain = {"name": "score", "unit": "plain", "sign": 1}
    page = report(workdir(tmp_path / "run", [trial(0, 0.5), trial(1, 0.25)], {"metric": plain}))
    assert "bestscore" not in page.text and "best score0.5trial 0" in page.text
    assert page.axis("Score over the search", "y") == "score"
