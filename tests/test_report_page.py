"""The report of synthetic workdirs: well-formed, complete, true to the data, safe, small."""

import fcntl
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nasjax.report import write_report
from nasjax.report.figures import ema

VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = "</script></style><script>alert(1)</script><img src=x onerror=alert(1)>'\"&\ud800"
FIGURES = ["Fitness over the search", "Size and fitness", "Cost"]


class Page(HTMLParser):
    """Fails on a tag that is closed out of order; collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""  # visible text
        self.rows: dict[str, list[list[str]]] = {}  # by the label of the table
        self.table = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "div" and "scroll" in (dict(attrs).get("class") or ""):
            self.table = dict(attrs)["aria-label"]
        if tag == "tr":
            self.rows.setdefault(self.table, []).append([])
        if tag in ("td", "th"):
            self.rows[self.table][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[self.table][-1][-1] += data

    def titles(self) -> list[str]:
        return [alt["aria-label"] for tag, alt in self.tags if tag == "svg"]


def trial(i, fitness, **fields):
    layers = [
        {"filter_height": 3, "filter_width": 5, "num_filters": 36, "inputs": []},
        {"filter_height": 7, "filter_width": 1, "num_filters": 24 + i % 7, "inputs": [0]},
    ]
    row = {"id": i, "arch": {"space": "conv_chain", "layers": layers}, "parent": -1, "fitness": fitness}
    row |= {"cost_s": 1.5, "params": 1000 + 7 * i, "macs": 50_000 + i}
    return row | {"status": "failed" if fitness is None else "ok", "error": None} | fields


def workdir(folder: Path, trials=(), config=None, metrics=(), tail="", **files) -> Path:
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


def report(*folders: Path, out: Path | None = None) -> Page:
    written = write_report(list(folders), out)
    assert written == (out or folders[0] / "report.html")
    return Page(written.read_text(encoding="utf-8"))


TRIALS = [trial(0, 0.5), trial(1, 0.8125), trial(2, None, error="loss is NaN at step 17"), trial(3, 0.25)]
METRICS = [
    {"trials": 1, "wall_s": 1.0, "updates": 0, "entropy": 0.0, "reward": 0.0, "baseline": 0.0, "staleness": 5},
    {"trials": 2, "wall_s": 3.0, "updates": 1, "entropy": 9.5, "reward": 0.2, "baseline": 0.1, "staleness": 0},
    {"trials": 4, "wall_s": 6.0, "updates": 2, "entropy": 8.5, "reward": 0.4, "baseline": 0.15, "staleness": 0},
]


def test_a_finished_run_shows_its_numbers(tmp_path):
    published = {"system": "NAS-RL v1", "test_error_percent": 5.5}
    result = {
        "arch": {},
        "history": {"train_loss": [1.0]},
        "test_accuracy": 0.9612,
        "params": 4201630,
        "published": published,
    }
    page = report(workdir(tmp_path / "run", TRIALS, metrics=METRICS, result=result))
    for shown in (
        "reinforce · conv_chain · digits",
        "finished",
        "seed 7",
        "cpu x 2",
        "A demo shows",
        "nasjax 0.1.0 · jax 0.10.2",
    ):
        assert shown in page.text
    tiles = re.search(r"trials4of 4failed125\.0 % of the trialsbest fitness81\.25 %trial 1", page.text)
    assert tiles, page.text[:600]
    assert "parameters (best)1,00750,001 macstotal cost6.0 s" in page.text
    assert page.rows["Trials"] == [
        ["id", "fitness", "parameters", "macs", "cost (s)", "status", "architecture"],
        ["1", "81.25 %", "1,007", "50,001", "1.50", "ok", "3×5·36  7×1·25←0"],
        ["0", "50.00 %", "1,000", "50,000", "1.50", "ok", "3×5·36  7×1·24←0"],
        ["3", "25.00 %", "1,021", "50,003", "1.50", "ok", "3×5·36  7×1·27←0"],
        ["2", "–", "1,014", "50,002", "1.50", "failed", "3×5·36  7×1·26←0"],
    ]
    assert page.rows["Failures"][1:] == [["1", "failed", "loss is NaN at step 17", "2"]]
    assert page.rows["Retrained from scratch"][1:] == [["test accuracy", "96.12 %"], ["params", "4,201,630"]]
    assert ["test error percent", "5.5"] in page.rows["Published, to compare with"]
    assert "--mode=retrain" in page.text and "go on with the search" not in page.text


def test_every_figure_is_there_and_told_in_words(tmp_path):
    page = report(workdir(tmp_path / "run", TRIALS, metrics=METRICS))
    for title in [*FIGURES, "Reward and baseline", "Entropy", "Best: trial 1", "Worst: trial 3"]:
        assert title in page.text
    assert "Staleness" not in page.text  # constant: nothing to see
    drawings = page.titles()
    assert len(drawings) == 7 == [tag for tag, _ in page.tags].count("figcaption")
    assert all("3 trials with a fitness, 1 failed, best 81.25 %" in alt for alt in drawings[:5])
    assert "layer 1: 7×1, 25 filters, reads 0" in drawings[5] and "layer 1: 7×1, 27 filters" in drawings[6]
    assert all(attrs.get("role") == "img" for tag, attrs in page.tags if tag == "svg")
    for point in ("trial 1: 81.25 %, 1,007 parameters", "trial 3: 25.00 %"):
        assert point in page.text
    assert re.search(r"1\.\d+ to 1\.\d+ s: 4 trials", page.text)


def test_curves_go_through_the_data(tmp_path):
    page = report(workdir(tmp_path / "run", TRIALS))
    first = [attrs for tag, attrs in page.tags if tag in ("circle", "path", "svg")]
    first = first[: [i for i, attrs in enumerate(first) if attrs.get("role") == "img"][1]]  # of the first figure
    dots = [(float(a["cx"]), float(a["cy"])) for a in first if "cx" in a]
    best = next(a["d"] for a in first if a.get("class") == "line best c0")
    mean = next(a["d"] for a in first if a.get("class") == "line c0")
    failed = next(a["d"] for a in first if a.get("class") == "line failed")
    (x0, y0), (x1, y1), (x3, y3) = dots  # fitness 0.5, 0.8125, 0.25
    assert y1 < y0 < y3 and x1 - x0 == pytest.approx((x3 - x0) / 3, abs=0.2)  # trial 2 failed, but takes its place
    assert best == f"M{x0} {y0}H{x1}V{y1}H{x3}V{y1}"
    points = [tuple(map(float, p.split())) for p in mean[1:-2].split("L")]
    scale = (y3 - y0) / (0.25 - 0.5)  # pixels per unit of fitness
    assert points[1] == pytest.approx((x1, y0 + scale * (0.5 * 0.95 + 0.8125) / 1.95 - scale * 0.5), abs=0.2)
    assert failed.count("M") == 1 and x1 < float(failed[1:].split()[0]) < x3


def test_the_page_needs_nothing_from_outside(tmp_path):
    text = write_report([workdir(tmp_path / "run", TRIALS, metrics=METRICS)]).read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\ssrc=|<link", text)
    assert text.count("<style>") == text.count("<script>") == 1
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


@pytest.mark.parametrize("trials", [None, [], [trial(0, None), trial(1, None, status="timeout", error="took 61 s")]])
def test_runs_without_a_fitness(tmp_path, trials):
    page = report(workdir(tmp_path / "run", trials))
    assert "No trial has finished with a fitness yet." in page.text
    assert all(title in page.text for title in FIGURES) and "no data" in page.text
    assert "--mode=retrain" not in page.text and "Networks" not in page.text
    if trials:
        assert ["1", "timeout", "took 61 s", "1"] in page.rows["Failures"]
        assert ["1", "failed", "no reason recorded", "0"] in page.rows["Failures"]


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    folder = workdir(tmp_path / "it's here", TRIALS[:2], tail='{"id": 2, "fitness": 0.99')
    page = report(folder)
    assert "unfinished" in page.text and "trials2of 4" in page.text and "99.00" not in page.text
    assert "damaged" not in page.text  # a torn last line is normal
    assert "--method=reinforce --preset=demo --seed=7 --workdir='" in page.text
    with (folder / ".lock").open("w") as lock:  # as a search holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "running" in report(folder).text
    assert "unfinished" in report(folder).text


def test_without_config_and_with_damaged_lines(tmp_path):
    folder = workdir(tmp_path / "run", TRIALS, tail="not json\n[1]\n")
    (folder / "config.json").unlink()
    page = report(folder)
    assert "2 damaged lines" in page.text and "conv_chain" in page.text and "not recorded" in page.text
    assert len(page.rows["Trials"]) == 5


def test_two_runs_are_overlaid(tmp_path):
    a, b = workdir(tmp_path / "a", TRIALS, metrics=METRICS), workdir(tmp_path / "b", [trial(0, 0.9)])
    page = report(a, b, out=tmp_path / "both.html")
    assert "2 runs compared" in page.text
    rows = page.rows["The runs"]
    assert rows[1][:6] == [" a", "finished", "4", "1", "81.25 %", "1,007"]
    assert rows[2][:6] == [" b", "unfinished", "1", "0", "90.00 %", "1,000"]
    classes = [attrs.get("class") for tag, attrs in page.tags if tag == "path"]
    assert {"line c0", "line best c0", "line c1", "line best c1"} <= set(classes)
    assert page.text.count("Best: trial") == 2 and not (a / "report.html").exists()


def test_hostile_text_is_only_text(tmp_path):
    config = {"method": HOSTILE, "seed": HOSTILE, "device": {HOSTILE: HOSTILE}, "dataset": {"name": HOSTILE}}
    config["versions"] = {"nasjax": HOSTILE}
    layer = {"filter_height": HOSTILE, "filter_width": 1, "num_filters": HOSTILE, "inputs": [HOSTILE]}
    trials = [
        trial(0, 0.5, arch={"space": "conv_chain", "layers": [layer]}, status=HOSTILE),
        trial(1, 0.4, arch={"space": "tabular_cell", "ops": [HOSTILE] * 6}, hash=HOSTILE),
        trial(2, 0.3, arch=HOSTILE, params=HOSTILE, macs=[], cost_s={}, id=HOSTILE),
        trial(3, None, error=HOSTILE, status="failed"),
        trial(4, float("inf"), arch={"space": HOSTILE}, params=10**400),
        trial(5, HOSTILE, arch={"space": "conv_chain", "layers": HOSTILE}),
    ]
    metrics = [{HOSTILE: 1.0}, {HOSTILE: 2.0}, {"entropy": "x"}]
    page = report(
        workdir(tmp_path / "run", trials, config, metrics, result={HOSTILE: HOSTILE, "published": {HOSTILE: 1}})
    )
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1 and "img" not in tags
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.text.count("alert(1)") > 10  # shown, not run
    assert "trials6failed350.0 % of the trials" in page.text  # inf and text are no fitness


def test_many_trials_stay_small(tmp_path):
    page_path = write_report([workdir(tmp_path / "run", [trial(i, 0.2 + i / 4000) for i in range(1000)])])
    assert page_path.stat().st_size < 1_500_000
    assert len(Page(page_path.read_text()).rows["Trials"]) == 1001
    page = report(workdir(tmp_path / "more", [trial(i, 0.2 + i / 40_000) for i in range(5000)]))
    assert len(page.rows["Trials"]) == 1001 and "The best 1,000 of 5,000 trials" in page.text
    assert page.rows["Trials"][1][0] == "4999"
    assert (tmp_path / "more" / "report.html").stat().st_size < 1_500_000


def test_scores_that_are_no_fractions_are_shown_as_they_are(tmp_path):
    page = report(workdir(tmp_path / "run", [trial(0, -120.5), trial(1, [3.25, -9.0]), trial(2, [1.0, float("nan")])]))
    assert [row[1] for row in page.rows["Trials"][1:]] == ["3.25", "-120.5", "–"]
    assert "fitness (%)" not in page.text


def test_best_json_stands_in_where_no_trial_does(tmp_path):
    best = {"id": 12, "arch": {"space": "darts_cell", "normal": [["sep_conv_3x3", 0]]}, "fitness": 0.75, "params": 99}
    page = report(workdir(tmp_path / "run", None, best=best))
    assert "best fitness75.00 %trial 12" in page.text and '"sep_conv_3x3"' in page.text


def test_a_table_shows_results_and_no_sizes(tmp_path):
    cell = {"space": "tabular_cell", "ops": ["none"] * 6}
    trials = [
        trial(i, f, arch=cell, params=None, macs=None, result=r) for i, (f, r) in enumerate([(0.8, 0.93), (0.7, 0.94)])
    ]
    page = report(
        workdir(tmp_path / "run", trials, {"method": "random", "config": {"space": {"name": "tabular_cell"}}})
    )
    assert "trial 0, result 93.00 %" in page.text and "Size and fitness" not in page.text
    assert [row[:4] for row in page.rows["Trials"]] == [
        ["id", "fitness", "result", "parameters"],
        ["0", "80.00 %", "93.00 %", "–"],
        ["1", "70.00 %", "94.00 %", "–"],
    ]
    assert "--mode=retrain" not in page.text  # nothing to train


def test_wrong_folders(tmp_path):
    with pytest.raises(ValueError, match=r"no trials.jsonl or config.json in .*; give a workdir of `--mode=search`"):
        write_report([tmp_path])
    with pytest.raises(ValueError, match="at least one workdir"):
        write_report([])
    folder = workdir(tmp_path / "run", TRIALS)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        write_report([folder])
    assert not (folder / "report.html").exists()


def test_moving_average():
    assert ema([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    assert ema([1.0, 0.0], 0.95)[1] == pytest.approx(0.95 / 1.95)  # weights 0.95 and 1, by hand


def test_the_report_is_light(tmp_path):
    folder = workdir(tmp_path / "run", TRIALS)
    code = (
        "import sys, pathlib, nasjax.report as r; assert 'nasjax.report.page' not in sys.modules; "
        f"r.write_report([pathlib.Path({str(folder)!r})]); "
        "print([m for m in ('jax', 'matplotlib', 'numpy', 'flax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
