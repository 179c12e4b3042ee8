"""What the tests of the report share: workdirs by hand, and a page taken apart."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from nasjax.report import write_report
from nasjax.report.page import place

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Fails on a tag that is closed out of order; collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.html = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""  # visible text
        self.rows: dict[str, list[list[str]]] = {}  # by the label of the table
        self.charts: dict[str, dict] = {}  # specifications by the figure's title, the newest of those that share one
        self.table = self.title = self.script = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "div" and "scroll" in (dict(attrs).get("class") or ""):
            self.table = dict(attrs).get("aria-label", "")
        if tag == "tr":
            self.rows.setdefault(self.table, []).append([])
        if tag in ("td", "th"):
            self.rows[self.table][-1].append("")
        if tag == "h3":
            self.title = ""
        self.script = ""

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        if tag == "script" and self.tags[-1][1].get("type") == "application/json" and "figure" in self.open:
            self.charts[self.title] = json.loads(self.script)
        self.open.pop()

    def handle_data(self, data):
        if "script" in self.open:
            self.script += data
        elif "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[self.table][-1][-1] += data
        if "h3" in self.open:
            self.title += data

    def marks(self, title: str, mark: str) -> list[dict]:
        """The data of all marks of that kind in a figure."""
        layers = [layer for layer in self.charts[title]["layer"] if layer["mark"]["type"] == mark]
        return [row for layer in layers for row in layer["data"]["values"]]

    def axis(self, title: str, which: str) -> str:
        """The title of the "x" or "y" axis of a figure."""
        return self.charts[title]["layer"][0]["encoding"][which]["axis"]["title"]

    def alts(self) -> list[str]:
        """What a reader who cannot see a chart or a drawing is told."""
        return [attrs["aria-label"] for _, attrs in self.tags if attrs.get("role") == "img"]


def report(*folders: Path, out: Path | None = None) -> Page:
    """Writes the report of the workdirs and takes it apart."""
    written = write_report(list(folders), out)
    alone = folders[0] / "report.html"
    assert written == (out or (alone if len(folders) == 1 else place(folders)))
    return Page(written.read_text(encoding="utf-8"))


def without_library(html: str) -> str:
    """A page without the script that the library brings."""
    return re.sub(r"<script>(?:(?!</script>).)*window\.vegaEmbed ?=.*?</script>", "", html, flags=re.S)


def trial(i, fitness, **fields):
    """A line of trials.jsonl."""
    layers = [
        {"filter_height": 3, "filter_width": 5, "num_filters": 36, "inputs": []},
        {"filter_height": 7, "filter_width": 1, "num_filters": 24 + i % 7, "inputs": [0]},
    ]
    row = {"id": i, "arch": {"space": "conv_chain", "layers": layers}, "parent": -1, "fitness": fitness}
    row |= {"cost_s": 1.5 + 0.25 * (i % 3), "params": 1000 + 7 * i, "macs": 50_000 + i}
    return row | {"status": "failed" if fitness is None else "ok", "error": None} | fields


def workdir(folder: Path, trials=(), config=None, metrics=(), tail="", **files) -> Path:
    """A folder as a search leaves it; `files` are JSON files by name."""
    folder.mkdir(exist_ok=True)
    if config is None:
        config = {
            "versions": {"nasjax": "0.1.0", "jax": "0.10.2"},
            "method": "reinforce",
            "preset": "demo",
            "seed": 7,
            "dataset": {"name": "digits"},
        }
        config |= {"device": "cpu x 2", "budget": {"trials": 4}, "config": {"space": {"name": "conv_chain"}}}
    (folder / "config.json").write_text(json.dumps(config))
    if trials is not None:
        (folder / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in trials) + tail)
    if metrics:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    for name, tree in files.items():
        (folder / f"{name}.json").write_text(json.dumps(tree))
    return folder
