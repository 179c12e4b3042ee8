"""The report in a real browser: no script fails, every figure has marks, a point can be hovered over and clicked."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from tools.report_pages import trial, workdir

from nasjax.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,  # a second of a browser each
    pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is on PATH"),
]

FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --disable-dev-shm-usage --virtual-time-budget=8000 --dump-dom"
VOID = {"meta", "link", "br", "hr", "img", "input"}
CHAIN = {"name": "choice_chain", "operators": ["a<b", "c&d", "e'f"]}
CELL = {"space": "darts_cell", **{c: [["skip_connect", 0], ["sep_conv_3x3", 1]] * 4 for c in ("normal", "reduce")}}
OPERATORS = ["none", "skip_connect", "sep_conv_3x3"]
PROBE = """<script>
const wait = setInterval(() => {
  if (!document.documentElement.dataset.drawn) return;
  clearInterval(wait);
  const mark = document.querySelector(".chart .mark-symbol.role-mark path");
  const { x, y, width, height } = mark.getBoundingClientRect();
  const at = { bubbles: true, clientX: x + width / 2, clientY: y + height / 2 };
  for (const name of ["pointerover", "pointermove", "mousemove"]) mark.dispatchEvent(new PointerEvent(name, at));
  document.body.dataset.hover = document.getElementById("vg-tooltip-element")?.innerText ?? "no tooltip";
  mark.dispatchEvent(new PointerEvent("click", at));
  document.body.dataset.clicked = document.querySelector("tr.shown")?.id ?? "no row";
}, 20);
</script>"""


class Drawn(HTMLParser):
    """Counts the marks of every chart in the page as the browser has it."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.html: dict[str, str | None] = {}
        self.body: dict[str, str | None] = {}
        self.marks: list[int] = []  # per chart
        self.open: list[tuple[str, str]] = []
        self.feed(dom)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        css = found.get("class") or ""
        if tag in ("html", "body"):
            setattr(self, tag, found)
        if "chart" in css.split():
            self.marks.append(0)
        inside = any("role-mark" in name for _, name in self.open)
        if tag in ("path", "rect", "circle", "text") and inside and any("chart" in n.split() for _, n in self.open):
            self.marks[-1] += 1
        if tag not in VOID:
            self.open.append((tag, css))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass


def browse(tmp_path, folders, probe=""):
    """The page after its scripts ran."""
    page = write_report(folders, tmp_path / "page.html")
    before, end, after = page.read_text().rpartition("</body>")
    page.write_text(f"{before}{probe}{end}{after}")
    command = [BROWSER, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    drawn = Drawn(done.stdout)
    assert "data-errors" not in drawn.html, drawn.html["data-errors"]
    assert drawn.html.get("data-drawn") == str(len(drawn.marks)), done.stderr[-2000:]
    assert drawn.marks and all(drawn.marks), drawn.marks
    return drawn


def searched(folder, seed):
    settings = {"method": "reinforce", "seed": seed, "config": {"space": {"name": "conv_chain"}}}
    trials = [trial(i, None if i == 3 else 0.3 + 0.01 * ((7 * i + seed) % 11), error="</script>") for i in range(12)]
    metrics = [{"updates": u, "entropy": 9 - u, "reward": 0.1 * u, "baseline": 0.09 * u} for u in range(1, 6)]
    history = {"train_loss": [2.0, 1.0], "valid_accuracy": [0.3, 0.5]}
    return workdir(folder, trials, settings, metrics, result={"test_accuracy": 0.5, "history": history})


def by_gradients(folder, epochs):
    rows = [
        {"epoch": e, "stage": 0, "skips": e % 3, "arch": CELL}
        | {f"{split}_{what}": 1 / e for split in ("train", "val", "valid") for what in ("loss", "accuracy")}
        | {"weights": {c: [[0.1, 0.2 * e, None]] * 14 for c in ("normal", "reduce")}}
        for e in range(1, epochs + 1)
    ]
    row = {"id": 0, "arch": CELL, "fitness": 0.25, "search_accuracy": 0.9, "status": "ok", "params": 10, "cost_s": 1.0}
    stages = {"facts": [{c: [OPERATORS] * 14 for c in ("normal", "reduce")}]}
    config = {"method": "darts", "config": {"space": {"name": "darts_cell"}}}
    return workdir(folder, [row], config, rows, best=row, stages=stages)


def one_shot(folder, score):
    paths = [[i % 3, (i // 3) % 3, -1] for i in range(9)]
    trials = [
        {"id": i, "arch": {"space": "choice_chain", "path": path}, "fitness": [0.1 + 0.01 * i, -1000 - i, -50]}
        | {"cost_s": 0.1 * (i % 2 + 1), "params": 50 + i, "macs": 1000 + i}
        for i, path in enumerate(paths)
    ]
    config = {"method": "fairnas", "config": {"space": CHAIN, "supernet": {}, "search": {"score": score}, "trials": 9}}
    workdir(folder, trials, config, [{"trials": 9, "wall_s": 5.0}])
    (folder / "supernet").mkdir()
    epochs = [
        {
            "epoch": e,
            "train_loss": 2.0 / e,
            "train_accuracy": 0.2 * e,
            "wall_s": 10.0 * e,
            "done": e == 3,
            "tau": 0.3 * e,
        }
        | {"scores": [[1.0, 1.5, 0.5], [1.0, None, 1.0], [3.0, 2.0, 4.0 + e]]}
        for e in (1, 2, 3)
    ]
    alone = [{"arch": t["arch"], "score": 0.1 * t["id"], "accuracy": 0.5 + 0.01 * t["id"]} for t in trials[:4]]
    for name, rows in (("supernet/metrics", epochs), ("standalone", alone)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_search_can_be_hovered_over_and_clicked(tmp_path):
    drawn = browse(tmp_path, [searched(tmp_path / "run", 0)], PROBE)
    assert len(drawn.marks) == 7
    assert drawn.body["data-clicked"] == "trial-0-3"  # the first symbol is the cross of the failed trial
    assert re.search(r"trial.*3.*failed.*</script>.*architecture.*3×5·36", drawn.body["data-hover"], re.S)


def test_seeds_and_other_runs_overlaid(tmp_path):
    folders = [searched(tmp_path / f"reinforce-s{seed}", seed) for seed in (0, 1)]
    drawn = browse(tmp_path, [*folders, by_gradients(tmp_path / "darts", 3)])
    assert len(drawn.marks) > 12


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_search_by_gradients(tmp_path, epochs):
    drawn = browse(tmp_path, [by_gradients(tmp_path / "run", epochs)])
    assert len(drawn.marks) == (4 if epochs == 1 else 7)


@pytest.mark.parametrize("score", ["accuracy", "indicator"])
def test_one_shot_runs(tmp_path, score):
    drawn = browse(tmp_path, [one_shot(tmp_path / "run", score)])
    assert len(drawn.marks) == 11
