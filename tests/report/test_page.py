"""The report of synthetic workdirs: well-formed, complete, true to the data, safe, small."""

import errno
import fcntl
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from tools.report_pages import Page, report, trial, without_library, workdir

from nasjax.launch import main
from nasjax.report import write_report
from nasjax.report.page import place
from nasjax.report.searching import ema

HOSTILE = "</script></style><script>alert(1)</script><img src=x onerror=alert(1)>'\"&\ud800"
PROGRESS, SIZE, COST = "Validation accuracy over the search", "Size and validation accuracy", "Cost of a trial"

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
        "CPU x 2",
        "A demo shows",
        "nasjax 0.1.0 · jax 0.10.2",
    ):
        assert shown in page.text
    tiles = "its budget is far too small.test accuracy96.12 %retrained from scratch"  # the tested network comes first
    tiles += "best validation accuracy81.25 %trial 1parameters (retrained)4,201,630"
    tiles += "trials4all that were asked forfailed125.0 % of the trialstotal cost6.8 s"
    assert tiles in page.text, page.text[:600]
    assert page.rows["Trials"] == [
        ["id", "validation accuracy", "parameters", "multiply-adds", "cost (s)", "status", "architecture"],
        ["1", "81.25 %", "1,007", "50,001", "1.75", "ok", "3×5·36  7×1·25←0"],
        ["0", "50.00 %", "1,000", "50,000", "1.50", "ok", "3×5·36  7×1·24←0"],
        ["3", "25.00 %", "1,021", "50,003", "1.50", "ok", "3×5·36  7×1·27←0"],
        ["2", "–", "1,014", "50,002", "2.00", "failed", "3×5·36  7×1·26←0"],
    ]
    assert page.rows["Failures"][1:] == [["1", "failed", "loss is NaN at step 17", "2"]]
    assert page.rows["Retrained from scratch"] == [
        ["what", "this run", "published"],
        ["test accuracy", "96.12 %", "94.50 %"],  # accuracy beside accuracy, although an error was published
        ["parameters", "4,201,630", "–"],
        ["system", "–", "NAS-RL v1"],
    ]
    for mode, told in (("export", True), ("predict", True), ("retrain", False)):
        assert (f"--mode={mode}" in page.text) == told
    assert "resume the search" not in page.text


def test_every_figure_is_there_and_told_in_words(tmp_path):
    page = report(workdir(tmp_path / "run", TRIALS, metrics=METRICS))
    assert list(page.charts) == [PROGRESS, SIZE, "Reward and baseline", "Entropy of the policy", COST]
    assert "Best: trial 1" in page.text and "Worst: trial 3" in page.text
    assert "--mode=retrain" in page.text and "--mode=export" not in page.text
    assert "Staleness" not in page.text  # constant: nothing to see
    drawings = page.alts()
    assert len(drawings) == 7 == [tag for tag, _ in page.tags].count("figcaption")
    told = ["3 trials with a result, 1 failed, best 81.25 %" in alt for alt in drawings[:5]]
    assert told == [True, True, False, False, True]
    assert "layer 1: 7×1, 25 filters, reads 0" in drawings[5] and "layer 1: 7×1, 27 filters" in drawings[6]
    axes = [page.axis(title, "y") for title in page.charts]
    percent = "validation accuracy (%)"
    assert axes == [percent, percent, "reward", "entropy (nats per architecture)", "trials"]
    across = ["trials completed", "parameters (logarithmic)", *["updates of the policy"] * 2, "cost of a trial (s)"]
    assert [page.axis(title, "x") for title in page.charts] == across
    bars = page.marks(COST, "rect")
    assert [row["y"] for row in bars] == [2, 1, 1] and bars[0]["shown"].startswith("1.5 to ")


def test_curves_go_through_the_data(tmp_path):
    page = report(workdir(tmp_path / "run", TRIALS))
    dots = [(row["x"], row["y"]) for row in page.marks(PROGRESS, "circle")]
    assert dots == [(1, 50.0), (2, 81.25), (4, 25.0)]  # trial 2 failed, but takes its place
    lines = page.marks(PROGRESS, "line")
    best = [(row["x"], row["y"]) for row in lines if row["kind"] == "best so far"]
    assert best == [(1, 50.0), (2, 81.25), (4, 81.25)]  # where it rises, and to the end
    mean = [row["y"] for row in lines if row["kind"].startswith("moving")]
    assert mean[:2] == pytest.approx([50.0, 100 * (0.5 * 0.95 + 0.8125) / 1.95]) and len(mean) == 3
    (failed,) = page.marks(PROGRESS, "point")
    assert failed["x"] == 3 and failed["y"] < 25 and failed["shown"] == "failed loss is NaN at step 17"
    sizes = [(row["params"], row["y"]) for row in page.marks(SIZE, "circle")]
    assert sizes == [(1000, 50.0), (1007, 81.25), (1021, 25.0)]
    assert [row["trial"] for row in page.marks(SIZE, "point")] == ["1"]  # the ring


def test_a_point_tells_of_its_trial_and_leads_to_its_row(tmp_path):
    page = report(workdir(tmp_path / "run", TRIALS))
    rows = {attrs["id"] for tag, attrs in page.tags if tag == "tr" and "id" in attrs}
    assert rows == {f"trial-0-{i}" for i in range(4)}
    dot = page.marks(PROGRESS, "circle")[1]
    assert dot["row"] == "trial-0-1" and dot["shown"] == "81.25 %" and dot["arch"] == "3×5·36  7×1·25←0"
    tooltip = page.charts[PROGRESS]["layer"][-1]["encoding"]["tooltip"]
    assert [field["title"] for field in tooltip] == [
        "trial", "validation accuracy", "architecture", "parameters", "cost (s)",
    ]  # fmt: skip


def test_ids_that_repeat_are_no_links(tmp_path):
    page = report(workdir(tmp_path / "run", [trial(0, 0.5), trial(0, 0.6)]))
    assert not any("id" in attrs for tag, attrs in page.tags if tag == "tr") and len(page.rows["Trials"]) == 3


def test_the_page_needs_nothing_from_outside(tmp_path):
    text = write_report([workdir(tmp_path / "run", TRIALS, metrics=METRICS)]).read_text()
    own = without_library(text)
    assert len(text) - len(own) > 500_000 and text.count("vegaEmbed(") > 0
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\ssrc=|<link", own)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', own).group(1)
    assert policy.startswith("default-src 'none'") and "eval" not in policy and ":" not in policy.replace("data:", "")
    assert text.count("<style>") == 1 and "width=device-width" in text


@pytest.mark.parametrize("trials", [None, [], [trial(0, None), trial(1, None, status="timeout", error="took 61 s")]])
def test_runs_without_a_fitness(tmp_path, trials):
    page = report(workdir(tmp_path / "run", trials))
    assert "No trial has finished with a result yet." in page.text
    assert set(page.charts) <= {COST}  # no figure without anything to see
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
    a, b = workdir(tmp_path / "a", TRIALS, metrics=METRICS), workdir(tmp_path / "b", [trial(0, 0.9)], {"method": "x"})
    page = report(a, b, out=tmp_path / "both.html")
    assert "2 runs compared" in page.text
    rows = page.rows["The runs"]
    assert rows[1][:6] == [" a", "finished", "4", "1", "81.25 %", "1,007"]
    assert rows[2][:6] == [" b", "unfinished", "1", "0", "90.00 %", "1,000"]
    assert {row["line"] for row in page.marks(PROGRESS, "line")} == {"a", "b"}
    dots = page.marks(PROGRESS, "circle")
    assert [(row["line"], row["row"]) for row in dots if row["line"] == "b"] == [("b", "trial-1-0")]
    assert page.charts[PROGRESS]["layer"][0]["encoding"]["color"]["scale"]["domain"] == ["a", "b"]
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
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    assert sum("type" not in attrs for attrs in scripts) == 2 and "img" not in tags  # the library's and the page's
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.text.count("alert(1)") > 10  # shown, not run
    assert "trials6failed350.0 % of the trials" in page.text  # inf and text are no fitness


@pytest.mark.slow
def test_many_trials_stay_small(tmp_path):
    page_path = write_report([workdir(tmp_path / "run", [trial(i, 0.2 + i / 4000) for i in range(1000)])])
    assert page_path.stat().st_size < 2_500_000
    assert len(Page(page_path.read_text()).rows["Trials"]) == 1001
    page = report(workdir(tmp_path / "more", [trial(i, 0.2 + i / 40_000) for i in range(5000)]))
    assert len(page.rows["Trials"]) == 1001 and "The best 1,000 of 5,000 trials" in page.text
    assert page.rows["Trials"][1][0] == "4999"
    assert (tmp_path / "more" / "report.html").stat().st_size < 2_500_000
    assert len(page.marks(PROGRESS, "circle")) == 1001 and page.marks(PROGRESS, "circle")[-1]["trial"] == "4999"


def test_several_objectives_and_one_that_is_nan(tmp_path):
    page = report(workdir(tmp_path / "run", [trial(0, 0.125), trial(1, [0.25, -9.0]), trial(2, [1.0, float("nan")])]))
    assert [row[1] for row in page.rows["Trials"][1:]] == ["25.00 %", "12.50 %", "–"]


def test_best_json_stands_in_where_no_trial_does(tmp_path):
    best = {"id": 12, "arch": {"space": "darts_cell", "normal": [["sep_conv_3x3", 0]]}, "fitness": 0.75, "params": 99}
    page = report(workdir(tmp_path / "run", None, best=best))
    assert "best validation accuracy75.00 %trial 12" in page.text and '"sep_conv_3x3"' in page.text


def test_a_table_shows_results_and_no_sizes(tmp_path):
    cell = {"space": "tabular_cell", "ops": ["none"] * 6}
    trials = [
        trial(i, f, arch=cell, params=None, macs=None, result=r) for i, (f, r) in enumerate([(0.8, 0.93), (0.7, 0.94)])
    ]
    page = report(
        workdir(tmp_path / "run", trials, {"method": "random", "config": {"space": {"name": "tabular_cell"}}})
    )
    assert "accuracy in the table93.00 %of trial 0" in page.text and SIZE not in page.charts
    assert [row[:4] for row in page.rows["Trials"]] == [
        ["id", "validation accuracy", "accuracy in the table", "cost (s)"],
        ["0", "80.00 %", "93.00 %", "1.50"],
        ["1", "70.00 %", "94.00 %", "1.75"],
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
    """Neither JAX nor numpy; the library of charts only once a report is written."""
    folder = workdir(tmp_path / "run", TRIALS)
    code = (
        "import sys, pathlib, nasjax.report as r, nasjax.report.page; assert 'vl_convert' not in sys.modules; "
        f"r.write_report([pathlib.Path({str(folder)!r})]); "
        "print([m for m in ('jax', 'matplotlib', 'numpy', 'flax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_page_of_several_runs_is_a_file_of_its_own(tmp_path):
    a, b = (workdir(tmp_path / name, TRIALS) for name in "ab")
    (tmp_path / "far").mkdir()
    c = workdir(tmp_path / "far" / "c", TRIALS)
    alone = write_report([a])
    before = alone.read_bytes()
    assert write_report([a, b]) == tmp_path / "report-a-b.html" and alone.read_bytes() == before
    assert place([a, c]) == Path("report-a-c.html")  # no folder is that of both
    with pytest.raises(ValueError, match=r"report\.html is the report of one of the runs; name another file"):
        write_report([a, b], tmp_path / "b" / "report.html")
    with pytest.raises(ValueError, match="cannot write"):
        write_report([a], tmp_path / "nowhere" / "page.html")
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch("os.replace", side_effect=full), pytest.raises(OSError, match=r"cannot write .*No space left"):
        write_report([a])
    assert alone.read_bytes() == before
    assert [file.name for file in a.iterdir() if file.suffix == ".tmp"] == []


def test_the_name_of_many_is_short_and_of_its_own(tmp_path):
    runs = [tmp_path / f"a-search-with-a-name-{n}" for n in range(9)]
    names = {place(runs).name, place(runs[:8]).name, place(runs[:7]).name}
    assert len(names) == 3 and all(len(name) < 120 and "a-search-with-a-name-0-and-" in name for name in names)


def test_the_command_says_which_file_it_wrote(tmp_path, capsys):
    a, b = (workdir(tmp_path / name, TRIALS) for name in "ab")
    assert main(["nasjax", "--mode=report", f"--workdir={a},{b}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report-a-b.html'}\n"
    assert main(["nasjax", "--mode=report", f"--workdir={a},{b}", f"--out={tmp_path / 'own.html'}"]) == 0
    assert "2 runs compared" in (tmp_path / "own.html").read_text()
    for flag in ("--out=x.html", "--watch"):
        assert main(["nasjax", "--method=random", flag]) == 2
        assert f"{flag.partition('=')[0]} has no effect with --mode=search; leave it out" in capsys.readouterr().err
