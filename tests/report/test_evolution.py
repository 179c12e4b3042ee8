"""What the report says of a search whose trials have parents and a ledger, by numbers that can be checked by hand."""

import json
import shutil
from html import escape
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from nasjax.problem.builders.resolution_graph import BUILDER, SMALL
from nasjax.problem.problem import builds, counts
from nasjax.report import correlation, ledger, lineage, random_phase, timeline, top_k, write_report
from nasjax.report.drawings.resolution_graph import REFERENCES
from nasjax.report.inheritance import gains
from nasjax.report.workdir import read
from nasjax.spaces.resolution_graph.named import NAMED
from nasjax.types import Signature

EVENTS = [
    {"event": "asked", "task": 0, "ids": [0], "parents": [-1], "archs": [[1]], "at": 0.0},
    {"event": "started", "task": 0, "attempt": 1, "worker": 0, "at": 0.0},
    {"event": "started", "task": 1, "attempt": 1, "worker": 1, "at": 1.0},
    {"event": "died", "task": 1, "attempt": 1, "worker": 1, "error": "its worker died (SIGKILL)", "at": 3.0},
    {"event": "started", "task": 1, "attempt": 2, "worker": 1, "at": 4.0},
    {"event": "told", "task": 0, "attempt": 1, "worker": 0, "rows": [{"id": 0}], "at": 5.0},
    {"event": "started", "task": 2, "attempt": 1, "worker": 0, "at": 6.0},
    {"event": "told", "task": 1, "attempt": 2, "worker": 1, "rows": [{"id": 1}], "at": 8.0},
    {"event": "resumed", "at": 8.0},
    {"event": "started", "task": 2, "attempt": 2, "worker": 0, "at": 9.0},
    {"event": "told", "task": 2, "attempt": 2, "worker": 0, "rows": [{"id": 2}], "at": 11.0},
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Six random graphs, then a line of six mutants, each a little better; trial 4 failed."""
    folder = tmp_path_factory.mktemp("evolution")
    build = builds(BUILDER, SMALL, None, Signature(jax.ShapeDtypeStruct((16, 16, 1), np.float32), 1))

    def describe(arch):
        built = build(arch)
        return {"arch": built.arch, "hash": SMALL.identity(arch), **counts(built)}

    arch, trials = None, []
    for n in range(12):
        arch = SMALL.sample(jax.random.key(n)) if n < 6 else SMALL.mutate(jax.random.key(n), arch)
        row = {"id": n, "parent": -1 if n < 6 else n - 1, **describe(np.asarray(arch)), "fitness": 0.5 + n / 100}
        row |= {"cost_s": 2.0, "status": "ok", "error": None, "inherited": 0.0 if n < 6 else 0.9}
        trials.append(row | ({"fitness": None, "status": "failed", "error": "NaN"} if n == 4 else {}))
    metric = {"name": "iou", "unit": "fraction", "sign": 1}
    config = {"method": "evolution", "metric": metric, "config": {"space": {"name": SMALL.name}, "trials": 12}}
    (folder / "config.json").write_text(json.dumps(config))
    for name, lines in (("trials", trials), ("ledger", EVENTS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (2, 16, 16)).astype(np.uint8)
    image = rng.integers(0, 256, (2, 16, 16, 1)).astype(np.uint8)
    pictures = {
        "image": image,
        "truth": truth,
        "prediction": truth.astype(np.float32),
        "title": np.array("Best so far"),
    }
    np.savez(folder / "pictures/best.npz", **pictures)
    return folder


def test_moving_average_of_the_source():
    assert random_phase.ema([0.80, 0.84, 0.82])[-1] == pytest.approx(0.801184)


def test_correlations_by_hand():
    pairs = [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 10.0)]
    xs, ys = np.array(pairs).T
    assert correlation.pearson(pairs) == pytest.approx(np.corrcoef(xs, ys)[0, 1])
    assert correlation.spearman(pairs) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert correlation.spearman([(1.0, 2.0), (1.0, 2.0)]) is None


def test_attempts_and_utilisation():
    found = ledger.attempts(EVENTS)
    assert [(a.worker, a.start, a.stop) for a in found] == [
        ("0", 0, 5),
        ("1", 1, 3),
        ("1", 4, 8),
        ("0", 6, 8),
        ("0", 9, 11),
    ]
    shares = ledger.utilisation(found, ledger.end(EVENTS))
    assert shares["0"] == pytest.approx(9 / 11) and shares["1"] == pytest.approx(6 / 10)
    assert ledger.finished(EVENTS) == [(5.0, 0), (8.0, 1), (11.0, 2)]


def test_queue_staleness_and_retries():
    events = [{"event": "asked", "task": n, "ids": [n], "at": 0.0} for n in (1, 2)]
    events = [EVENTS[0], *events, *EVENTS[1:]]
    load = {at: (work, waiting) for at, work, waiting in ledger.load(events)}  # the last at each second
    assert load == {0: (1, 2), 1: (2, 1), 3: (1, 2), 4: (2, 1), 5: (1, 1), 6: (2, 0), 8: (0, 1), 9: (1, 0), 11: (0, 0)}
    assert ledger.staleness(events) == [
        0,
        1,
        2,
    ]  # the second began before the first was told, the third waited for both
    assert ledger.staleness(EVENTS) == [0]  # what is not known to have been asked has none


def test_the_page_counts_what_was_tried_again(workdir):
    page = write_report([workdir]).read_text()
    table = page[page.index('aria-label="Queue, retries and staleness"') :].split("</table>")[0]
    for what, value in (
        ("attempts: failed", "3"),  # the rows of these results have no fitness
        ("attempts: worker died", "1"),
        ("attempts: interrupted", "1"),
        ("attempts beyond a task's first", "2"),
        ("trials: timed out, lost", "0, 0"),
        ("tasks at the ledger's end: at work, waiting", "0, 0"),
        ("staleness: mean, most", "0.00, 0 results"),
    ):
        assert f"<td>{escape(what)}</td><td class=n>{value}</td>" in table, what


def test_results_that_came_too_late_are_counted():
    late = [*EVENTS, {"event": "stale", "ticket": 3, "worker": 0, "at": 12.0}]
    told = ("results after their task was told", "1")
    assert told in timeline.counts(SimpleNamespace(ledger=late, trials=[], inline=False))
    assert told[0] not in dict(timeline.counts(SimpleNamespace(ledger=EVENTS, trials=[], inline=False)))


@pytest.mark.parametrize("cut", [1, 40, 200, 500, 900])
def test_a_ledger_is_reported_wherever_it_ends(workdir, tmp_path, cut):
    """As a search leaves it while it writes: a torn last line, and files that are not there yet."""
    for name in ("config.json", "ledger.jsonl"):
        (tmp_path / name).write_bytes((workdir / name).read_bytes()[: cut if name == "ledger.jsonl" else None])
    assert "</html>" in write_report([tmp_path]).read_text()


def test_lineage_and_gains(workdir):
    run = read(workdir)
    assert sorted(t.id for t in lineage.ancestors(run, run.best)) == [5, 6, 7, 8, 9, 10, 11]
    assert [t.id for t in random_phase.initial(run)] == [0, 1, 2, 3, 5]  # the failed one has no metric
    found = gains(run)
    assert len(found) == 6 and all(share == 0.9 and gain == pytest.approx(1.0) for _, share, gain in found)


def test_the_mean_of_the_best_k(workdir):
    means = top_k.means(read(workdir), 5)
    assert means[-1][1] == pytest.approx(np.mean([61, 60, 59, 58, 57]))  # percent


def test_the_page_has_every_analysis_and_a_run_without_them_has_none(workdir, tmp_path):
    page = write_report([workdir]).read_text()
    for said in ("Workers over time", "Spearman", "data:image/png", "Best 5", "Worst 5", "UNet++"):
        assert said in page, said
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((workdir / "config.json").read_bytes())
    keys = ("id", "arch", "fitness", "cost_s", "status", "error", "params", "macs")
    rows = [json.loads(line) for line in (workdir / "trials.jsonl").read_text().splitlines()]
    (bare / "trials.jsonl").write_text("".join(json.dumps({k: row[k] for k in keys}) + "\n" for row in rows))
    page = write_report([bare]).read_text()
    for said in ("Workers over time", "Spearman", "data:image/png"):
        assert said not in page, said


def test_published_figures_are_lines_in_the_curve_of_a_search(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    rows = [
        {"model": "UNet++", "test_iou": 0.843, "source": "an article", "unlike": "other data"},
        {"model": "no figure"},
    ]
    (tmp_path / "run/config.json").write_text(json.dumps(config | {"compared": rows}))
    (tmp_path / "run/retrain/a").mkdir(parents=True)
    result = {"name": "UNETPP", "test_iou": 0.81, "params": 9_163_329, "seconds": 7.5}
    (tmp_path / "run/retrain/a/result.json").write_text(json.dumps(result))
    (tmp_path / "run/result.json").write_text(json.dumps({"test_iou": 0.82, "params": 5000, "seconds": 7.0}))
    page = write_report([tmp_path / "run"]).read_text()
    assert '{"y":81,"model":"UNETPP"}' in page.replace("81.0", "81") and "trained and tested in this workdir" in page
    row = "<tr><td>test iou</td><td class=n>82.00%</td><td class=n>81.00%</td></tr>"
    assert row.replace(" ", "").lower() in page.replace(" ", "").lower()
    assert "Dotted: published figures of UNet++: 84.30 % (an article; other data)." in page.replace("84.30%", "84.30 %")
    assert '{"y":84.3,"model":"UNet++"}' in page
    assert "Dotted" not in write_report([workdir]).read_text()


def test_known_graphs_have_every_indicator_that_is_logged():
    for name, tree in (("UNet", "UNET"), ("UNet++", "UNETPP")):
        built = BUILDER.build(SMALL, None, NAMED[tree], Signature(jax.ShapeDtypeStruct((16, 16, 3), np.float32), 1))
        assert dict(REFERENCES[name]) == dict(built.indicators)


@pytest.mark.parametrize("kind", ["pearson", "spearman", "kendall"])
def test_the_interval_of_a_correlation_narrows_with_the_points(kind):
    few, many = (correlation.interval(kind, 0.5, n) for n in (6, 600))
    assert few[0] < 0 < few[1] < 1 and 0.4 < many[0] < 0.5 < many[1] < 0.6
    assert correlation.interval(kind, 0.5, 3) is None and correlation.interval(kind, 1.0, 50) is None


def test_a_correlation_of_few_points_is_told_with_its_interval():
    pairs = [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 10.0)]
    r = correlation.pearson(pairs)
    far = 1.96  # of Fisher's z of four points: 1 / sqrt(4 - 3)
    low, high = np.tanh(np.arctanh(r) - far), np.tanh(np.arctanh(r) + far)
    assert f"Pearson's r {r:.3f} ({low:.2f} to {high:.2f})".replace("-", "−") in correlation.told(pairs)
    assert correlation.with_interval("kendall", 1 / 3, 3) == "0.333 (3 points: no interval)"
