"""The metric of a search as shown to people: its name, its unit and which direction is better.

`fitness` in trials.jsonl is sign * metric, so that larger is better for every searcher. A person is shown the metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

BATCH_NORM_SCORE = "batch norm score"
_SHARES = ("accuracy", "error", "iou", "dice")  # what files hold as fractions, whatever the search's metric


_WRITTEN = {"iou": "IoU", "f1": "F1", "mse": "MSE", "mae": "MAE", "rmse": "RMSE", "auc": "AUC", "r2": "R²"}
_WRITTEN |= {"params": "parameters", "macs": "multiply-adds", "arch": "architecture"}
_WRITTEN |= {"train": "training", "val": "validation", "valid": "validation"}


def words(key: str) -> str:
    """A key of a file as people write it.

    Example:
      >>> words("test_iou_per_image")
      'test IoU per image'
    """
    return " ".join(_WRITTEN.get(word, word) for word in key.split("_"))


class Metric(NamedTuple):
    """What config.json says under "metric"."""

    name: str = "accuracy"
    unit: str = "fraction"  # shown in percent; or "plain"
    sign: int = 1  # -1: smaller is better

    @property
    def title(self) -> str:
        """In words, without the unit: "validation accuracy"."""
        name = words(self.name)
        return name if name.endswith("score") else f"validation {name}"

    @property
    def axis(self) -> str:
        """Of an axis: "validation accuracy (%)"."""
        return f"{self.title} (%)" if self.unit == "fraction" else self.title

    @property
    def better(self) -> str:
        """Which direction is better, in words."""
        return "smaller is better" if self.sign < 0 else "larger is better"

    @property
    def format(self) -> str:
        """Of an axis value in a tooltip, in d3's notation."""
        return ".2f" if self.unit == "fraction" else ".6~g"

    def value(self, fitness: float) -> float:
        """The place of a fitness on an axis."""
        return self.sign * fitness * (100 if self.unit == "fraction" else 1)

    def text(self, fitness: float | None) -> str:
        """A fitness in words: "85.00 %", "78.4"."""
        if fitness is None:
            return "–"
        return f"{self.value(fitness):.2f} %" if self.unit == "fraction" else f"{self.value(fitness):.6g}"

    def plain(self, value: float | None) -> str:
        """A value of the metric itself (result.json, metrics.jsonl) in words."""
        return self.text(None if value is None else self.sign * value)


def of(config: Mapping[str, Any]) -> Metric:
    """The metric of a run from its config.json; accuracy where an older one has none."""
    told = config.get("metric")
    if isinstance(told, Mapping):
        unit = "fraction" if told.get("unit") == "fraction" else "plain"
        return Metric(str(told.get("name") or "metric"), unit, -1 if told.get("sign") == -1 else 1)
    inner = config.get("config")
    search = inner.get("search") if isinstance(inner, Mapping) else None
    if isinstance(search, Mapping) and search.get("score") == "indicator":
        return Metric(BATCH_NORM_SCORE, "plain")
    return Metric()


def of_table(metric: Metric, looked_up: bool = False) -> Metric:
    """The metric of a table's final figures: accuracies, whatever the search goes by; the search's own where it looks
    its results up there.
    """
    return metric if looked_up or (metric.unit == "fraction" and metric.name in _SHARES) else Metric()


def of_key(key: str, metric: Metric) -> Metric | None:
    """How the number under `key` of a file is shown: test_accuracy and test_error in percent; None = as it is."""
    bare = key.split("_", 1)[-1] if key.startswith(("test_", "train_", "val_", "valid_", "search_")) else key
    if bare == metric.name:
        return metric
    if bare in _SHARES or any(key.endswith(f"_{share}") for share in _SHARES):
        return Metric(bare)
    return None
