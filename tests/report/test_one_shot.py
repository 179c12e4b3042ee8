"""The report of one-shot runs: phases, supernet, ranking; finished, unfinished, damaged and overlaid."""

import json
import math
import xml.etree.ElementTree as ET

import pytest
from tools.report_pages import report

from nasjax.report import grouping, networks, one_shot, pareto, phases, ranking
from nasjax.report.runs import Trial
from nasjax.report.workdir import read

OPERATORS = ["mbconv_k3_e3", "mbconv_k5_e6", "mbconv_k7_e6"]
SPACE = {"name": "choice_chain", "family": "mobile", "stem": 8, "stem_stride": 1, "first": 8, "tail": 64}
SPACE |= {"channels": [8, 16], "depths": [2, 1], "strides": [1, 2], "operators": OPERATORS, "removed": [1]}
PATHS = [[0, -1, 1], [0, -1, 2], [1, -1, 2], [2, -1, 0]]


def arch(path, **more):
    return {"space": "choice_chain", "path": path, **more}


def lines(folder, name, rows):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def workdir(folder, fitness=(), score="accuracy", done=True, method="fairnas", scores=True):
    folder.mkdir()
    settings = {"space": SPACE, "supernet": {"epochs": 2}, "search": {"score": score}, "trials": 4, "max_macs": 9000}
    (folder / "config.json").write_text(json.dumps({"method": method, "config": settings}))
    table = {"scores": [[1.0, 1.5, 0.5], [1.0, 1.0, 1.0], [3.0, 2.0, 4.0]]} if scores else {}
    epochs = [
        {"epoch": e, "train_loss": 2.0 / e, "train_accuracy": 0.2 * e, "wall_s": 10.0 * e, "done": done and e == 3}
        | ({"tau": 0.3 * e if e > 1 else None} | table if scores else {})
        for e in (1, 2, 3)
    ]
    lines(folder, "supernet/metrics.jsonl", epochs)
    rows = [
        {"id": i, "arch": arch(PATHS[i]), "fitness": f, "cost_s": 1.0, "params": 50 + i, "macs": 8000 + 100 * i}
        for i, f in enumerate(fitness)
    ]
    lines(folder, "trials.jsonl", rows)
    lines(folder, "metrics.jsonl", [{"trials": len(rows), "wall_s": 5.0}] if rows else [])
    return folder


@pytest.fixture
def several(tmp_path):
    """Trial 2 is beaten by 1 in everything; 3 has the fewest parameters and multiply-adds, and the worst accuracy."""
    objectives = [[0.5, -8000, -50], [0.75, -9000, -60], [0.7, -9500, -60], [0.25, -7000, -40]]
    return workdir(tmp_path / "fairnas", objectives)


def cells(page, label):
    """The rows of the table of that label, without its head."""
    return page.rows[label][1:]


def test_the_cost_of_each_phase(several):
    assert cells(report(several), "Cost per phase") == [
        ["fairnas", "supernet", "30.0", "85.7", "finished"],
        ["fairnas", "search", "5.0", "14.3", "finished"],
        ["fairnas", "retraining", "–", "–", "not started"],
    ]
    (several / "retrain").mkdir()
    assert cells(report(several), "Cost per phase")[2][4] == "unfinished"
    (several / "result.json").write_text(json.dumps({"seconds": 15.0, "test_accuracy": 0.9}))
    page = report(several)
    assert [row[2:] for row in cells(page, "Cost per phase")] == [
        ["30.0", "60.0", "finished"],
        ["5.0", "10.0", "finished"],
        ["15.0", "30.0", "finished"],
    ]
    assert "total cost50.0 s" in page.text
    assert [row["s"] for row in page.marks("Cost per phase", "bar")] == [30.0, 5.0, 15.0]
    assert page.axis("Cost per phase", "x") == "wall-clock time (s)"


def test_curves_of_the_supernet(several):
    page = report(several)
    assert page.axis("Training loss", "y") == "training loss (nats)" and page.axis("Training loss", "x") == "epoch"
    assert [row["y"] for row in page.marks("Training accuracy", "line")] == pytest.approx([20, 40, 60])
    tau = [(row["x"], row["y"]) for row in page.marks("Order of operator scores", "line")]
    assert tau == [(2, 0.6), (3, pytest.approx(0.9))]  # the first epoch has none


def test_the_score_matrix(several):
    squares = report(several).marks("Scores of the operators", "rect")
    shade = {(row["row"], row["name"]): row["share"] for row in squares}
    assert len(shade) == 9
    assert shade["layer 0", "mbconv_k5_e6"] == shade["layer 2", "mbconv_k7_e6"] == 1.0  # within their layer
    assert shade["layer 0", "mbconv_k3_e3"] == pytest.approx(0.5)
    assert shade["layer 1", "mbconv_k3_e3"] is None  # a removed layer
    shown = {(row["row"], row["name"], row["shown"]) for row in squares}
    assert ("layer 0", "mbconv_k5_e6", "1.5") in shown and ("layer 1", "mbconv_k3_e3", "not a number") in shown
    chosen = {(row["row"], row["name"]) for row in squares if row.get("chosen")}
    assert chosen == {("layer 0", "mbconv_k3_e3"), ("layer 2", "mbconv_k7_e6")}  # of trial 1


def test_operators_of_the_best_beside_all(several):
    page = report(several)
    shares = {
        (row["layer"], row["operator"], row["group"]): row["share"] for row in page.marks("Operators chosen", "bar")
    }
    best, every = "best 1", "all 4"
    assert shares["layer 0", "mbconv_k3_e3", best] == 100 and shares["layer 0", "mbconv_k3_e3", every] == 50
    assert shares["layer 2", "mbconv_k3_e3", best] == 0 and shares["layer 2", "mbconv_k3_e3", every] == 25
    assert shares["layer 1", "identity", best] == shares["layer 1", "identity", every] == 100
    long = [row["x2"] - row["x"] for row in page.marks("Operators chosen", "bar")]
    assert max(long) == pytest.approx(0.9) and min(long) == 0


def test_the_front_is_that_of_all_objectives(several):
    page = report(several)
    assert "3 of 4 trials" in page.text
    assert [row[:4] for row in cells(page, "Pareto front")] == [
        ["1", "75.00 %", "8,100", "51"],
        ["0", "50.00 %", "8,000", "50"],
        ["3", "25.00 %", "8,300", "53"],
    ]
    assert "best validation accuracy75.00 %" in page.text
    assert len(page.marks("Pareto front", "circle")) == 4
    rings = [(row["macs"], row["y"], row["row"]) for row in page.marks("Pareto front", "point")]
    assert rings[0] == (8100, 75.0, "trial-0-1") and len(rings) == 3
    (several / "points/1").mkdir(parents=True)
    (several / "points/1/result.json").write_text(json.dumps({"trial": 1, "test_accuracy": 0.7}))
    tested = [row[:4] for row in cells(report(several), "Pareto front")]
    assert tested[:2] == [["1", "75.00 %", "70.00 %", "8,100"], ["0", "50.00 %", "–", "8,000"]]
    one = workdir(several.parent / "one", [0.5, 0.6])
    assert "Pareto" not in report(one).text


def trial(*objectives):
    return Trial(0, 1, None, objectives[0], objectives, None, None, None, None, "ok", "", "")


def test_front():
    a, b, tie, beaten = trial(1.0, 0.0), trial(0.0, 1.0), trial(1.0, 0.0), trial(0.5, 0.0)
    assert ranking.front([beaten, b, a, tie]) == [a, tie, b]
    assert ranking.front([]) == []


def test_kendall_tau():
    assert ranking.kendall_tau([(i, -i) for i in range(5)]) == -1.0
    # By hand, tau-b: pairs (1,1)(2,3)(3,2)(3,4): 4 agree, 1 differs, 1 tied on the left: 3 / sqrt(5 * 6).
    assert ranking.kendall_tau([(1, 1), (2, 3), (3, 2), (3, 4)]) == pytest.approx(3 / math.sqrt(30))
    for none in ([], [(1, 1)], [(1, 1), (1, 2)], [(1, 1), (2, 1)]):
        assert ranking.kendall_tau(none) is None
    assert ranking.tau_by_chance(2) == pytest.approx(1.0)  # of two things tau is 1 or -1


def test_kendall_tau_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    pairs = [(i * 7 % 5, i * 3 % 11 + i % 2) for i in range(20)]
    assert ranking.kendall_tau(pairs) == pytest.approx(stats.kendalltau(*zip(*pairs, strict=True)).statistic)


def test_score_against_paths_trained_alone(several):
    found = [(0.5, 0.9), (0.75, 0.95), (0.25, 0.92), (0.7, None)]
    lines(several, "standalone.jsonl", [
        {"arch": arch(PATHS[i]), "score": s, "accuracy": a, "seconds": 20.0} for i, (s, a) in enumerate(found)
    ])  # fmt: skip
    with (several / "standalone.jsonl").open("a") as file:
        file.write('{"arch": {"space": "choice')  # torn
    page = report(several)
    assert (
        "tau 0.333 (3 points: no interval), in brackets the 95 % interval (tau-b" in page.text
        and "3 paths; training them took 80 s" in page.text
    )
    assert "1 more failed." in page.text and "damaged" not in page.text
    assert "standard deviation around 0 would be 0.64" in page.text
    title = "Score and result of paths trained alone"
    dots = [(row["x"], row["y"], row["row"]) for row in page.marks(title, "circle")]
    assert dots == [(50, 90, "trial-0-0"), (75, 95, "trial-0-1"), (25, 92, "trial-0-2")]
    assert page.axis(title, "y") == "validation accuracy (%), trained alone"
    (several / "standalone.jsonl").write_text('{"score": 1}\n')
    page = report(several)
    assert "needs two paths that differ" in page.text and title not in page.charts  # nothing to draw


@pytest.mark.parametrize(("key", "sign"), [("accuracy", -1), ("rmse", 1)])
def test_paths_trained_alone_have_the_key_of_their_metric(several, key, sign):
    """Older files call any fitness, of whichever sign, accuracy."""
    config = json.loads((several / "config.json").read_text())
    config["metric"] = {"name": "rmse", "unit": "plain", "sign": -1}
    (several / "config.json").write_text(json.dumps(config))
    found = [(-3.0, 2.5), (-2.0, 1.5), (-1.0, 0.5)]
    rows = [
        {"arch": arch(PATHS[i]), "score": s, key: sign * value, "seconds": 1.0} for i, (s, value) in enumerate(found)
    ]
    lines(several, "standalone.jsonl", rows)
    page = report(several)
    dots = page.marks("Score and result of paths trained alone", "circle")
    assert [(row["x"], row["y"]) for row in dots] == [(-score, value) for score, value in found]
    assert "tau 1.000 (3 points: no interval)" in page.text and page.axis(
        "Score and result of paths trained alone", "y"
    ).startswith("validation RMSE")


@pytest.mark.parametrize(
    ("optimum", "told"),
    [
        ({"arch": arch(PATHS[1]), "fitness": 6.0}, "The search has found it (trial 1)."),
        ({"arch": arch([1, -1, 1]), "fitness": 5.00000001}, "another path of the same score (trial 1)."),
        ({"arch": arch([1, -1, 1]), "fitness": 6.0}, "The best trial (1) scores 5, 1 less."),
    ],
)
def test_the_optimum_beside_the_best(tmp_path, optimum, told):
    run = workdir(tmp_path / "bn", [4.0, 5.0, 0.5, 0.25], score="indicator")
    (run / "optimum.json").write_text(json.dumps(optimum | {"macs": 8500, "params": 7}))
    page = report(run)
    assert told in page.text and "of all paths within 9,000 multiply-adds, by exact search" in page.text
    assert "8,500 multiply-adds, 7 parameters" in page.text


def test_scores_are_never_percent(tmp_path):
    run = workdir(tmp_path / "bn", [0.9, 0.5, 0.25, 0.125], score="indicator")
    page = report(run)
    assert "best batch norm score0.9" in page.text and "It has no unit" in page.text
    titles = ["Batch norm score over the search", "Validation accuracy over the search"]
    assert page.axis(titles[0], "y") == "batch norm score" and titles[1] not in page.charts
    other = workdir(tmp_path / "spos", [0.5, 0.75, 0.25, 0.125], method="spos", scores=False)
    page = report(other, run, out=tmp_path / "both.html")
    assert [row[:5] for row in cells(page, "The runs")] == [
        [" spos", "finished", "4", "0", "75.00 % (validation accuracy)"],
        [" bn", "finished", "4", "0", "0.9 (batch norm score)"],
    ]
    for title, name, axis in zip(titles, ("bn", "spos"), ("batch norm score", "validation accuracy (%)"), strict=True):
        assert {row["line"] for row in page.marks(title, "circle")} == {name}  # no common axis
        assert page.axis(title, "y") == axis
    colours = [page.charts[title]["layer"][0]["encoding"]["color"]["scale"]["range"] for title in titles]
    assert colours[0] != colours[1]  # every run keeps its colour
    assert len(cells(page, "Cost per phase")) == 6
    assert cells(page, "Ranking and result") == [["spos", "0", "–", "–"], ["bn", "0", "–", "–"]]


def test_a_supernet_in_training(tmp_path):
    run = workdir(tmp_path / "run", done=False)
    with (run / "supernet" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_lo')
    page = report(run)
    assert [row[2:] for row in cells(page, "Cost per phase")] == [
        ["30.0", "100.0", "unfinished"],
        ["0.0", "0.0", "not started"],
        ["–", "–", "not started"],
    ]
    assert "Scores of the operators" in page.charts and "Operators chosen" not in page.charts
    assert "damaged" not in page.text and "No trial has finished" in page.text
    assert any("supernet 30.0 s (unfinished); " in alt for alt in page.alts())
    (run / "supernet" / "metrics.jsonl").unlink()  # before the first epoch
    assert cells(report(run), "Cost per phase")[0][2:] == ["0.0", "0.0", "unfinished"]


def test_only_a_supernet_was_asked_for(tmp_path):
    run = workdir(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["config"]["trials"] = 0
    (run / "config.json").write_text(json.dumps(config))
    assert read(run).state == "finished"
    lines(run, "supernet/metrics.jsonl", [{"epoch": 1, "wall_s": 1.0, "done": False}])
    assert read(run).state == "unfinished"


def test_an_unfinished_search_and_damaged_files_leave_the_page_whole(several):
    config = json.loads((several / "config.json").read_text())
    config["config"] |= {"trials": 100, "space": {"name": "choice_chain", "operators": 7, "removed": 5}}
    (several / "config.json").write_text(json.dumps(config))
    lines(several, "standalone.jsonl", [{}, {"score": "x", "accuracy": []}])
    odd = [{"epoch": 4, "scores": s} for s in ([1], [[]], "text", None, [["a", None], [1.0]])]
    with (several / "supernet" / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in odd)
    (several / "optimum.json").write_text('{"fitness": 3, "arch": 7, "macs": "many"}')
    with (several / "trials.jsonl").open("a") as file:
        for path in ([0], ["x"], [], None, [10**6, 0, 0], [True, 0, 0]):
            file.write(json.dumps({"id": 9, "arch": arch(path), "fitness": [0.1, 1.0], "macs": 5}) + "\n")
    page = report(several)
    assert cells(page, "Cost per phase")[1][4] == "unfinished" and "</html>" in page.html
    assert "Provable optimum" in page.text


def test_other_runs_have_no_such_section(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"method": "random"}))
    run = read(tmp_path)
    lines = grouping.lines([run], ["run"])
    assert phases.overview([run], ["run"], lines) == one_shot.section(run, lines[0]) == pareto.fronts(lines) == ""
    assert run.spent_s == run.cost_s


def test_a_path_is_drawn_stage_by_stage():
    html, caption = networks.draw(arch([0, -1, 2]), SPACE)
    drawing = ET.fromstring(html)
    assert [text.text for text in drawing.iter("text")] == [
        "image; 3×3, 8 channels; separable 3×3, 8 channels",
        "8 channels", "k3 e3", "identity", "16 channels", "first stride 2", "k7 e6",
        "1×1, 64 channels, average, classifier",
    ]  # fmt: skip
    boxes = {rect.get("class"): rect for rect in drawing.iter("rect")}
    assert "identity" in boxes and "Dashed" in caption
    label = "layer 0: mbconv_k3_e3; layer 1: identity; layer 2: mbconv_k7_e6"
    assert drawing.get("aria-label").endswith(label)


def test_long_stages_wrap_and_channels_are_told():
    space = {
        "operators": ["shuffle_k3"],
        "channels": [16],
        "depths": [8],
        "strides": [2],
        "channel_factors": [0.2, 0.4],
    }
    html, caption = networks.draw(arch([0] * 8, channels=[1] * 7 + [-1]), space)
    drawing = ET.fromstring(html)
    boxes = [(float(r.get("x")), float(r.get("y")), float(r.get("width"))) for r in drawing.iter("rect")][1:-1]
    assert len({y for _, y, _ in boxes}) == 2 and len({x for x, _, _ in boxes}) == 4
    assert all(x + wide < 521 for x, _, wide in boxes)
    assert [t.text for t in drawing.iter("text")].count("×0.4") == 7 and "multiplied" in caption
    assert networks.summary(arch([0, -1], channels=[3, -1])) == "0 – / 3 –"


def test_a_path_without_its_space():
    html, _ = networks.draw(arch([3, -1]), {})
    assert [text.text for text in ET.fromstring(html).iter("text")][1:] == [
        "operator 3", "identity", "average, classifier",
    ]  # fmt: skip


@pytest.mark.parametrize("path", [[0, 1], [0, 1, 3], [0, 1, -2], [0.5, 0, 0], [], "012", None])
def test_a_damaged_path_is_shown_as_it_is(path):
    assert "site by site" in networks.draw(arch(path), SPACE)[1]
    assert len(networks.summary(arch(path))) <= 160
