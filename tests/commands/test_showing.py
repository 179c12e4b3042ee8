"""What a notebook shows of a search, a retraining, a model and a report."""

import html
import shutil
import subprocess

import numpy as np
import pytest

import nasjax
from nasjax.commands import Retrained
from nasjax.model import Model, _tested
from nasjax.types import Metric, Outcome, no_carry

ARCH = {"space": "conv_chain", "layers": [{"filter_height": 3, "filter_width": 3, "num_filters": 24, "inputs": []}] * 9}
ACCURACY = Metric("accuracy")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
CLICKED = """<!doctype html><html><head></head><body>
<a href="#t">row</a><p style="height:3000px"></p><p id="t"></p><script>
document.querySelector("a").click();
setTimeout(() => parent.document.getElementById("told").textContent = location.href + " " + (scrollY > 1000), 300);
</script></body></html>"""


def model(**changes):
    variables = {"params": {"a": np.zeros((2, 3)), "b": {"c": np.zeros(4)}}, "batch_stats": {"d": np.zeros(9)}}
    names = tuple(f"<class {n}>" for n in range(30))
    one = Model(None, variables, (8, 8, 1), "uint8", names, ARCH, "classification", no_carry, range=(0, 16))
    return one._replace(metric="accuracy 95.29% on 297 test samples", **changes)


def test_a_model_says_in_ten_lines_what_it_is():
    lines = repr(model()).splitlines()
    assert len(lines) <= 10 and max(map(len, lines)) <= 120
    text = "\n".join(lines)
    for told in ("for classification", "conv_chain", "10 in 2 arrays", "95.29% on 297", "uint8[B, 8, 8, 1]", "0 to 16"):
        assert told in text
    assert "30: <class 0>" in text and "model.apply(model.variables, x)" in text
    shown = model()._repr_html_()
    assert "&lt;class 0&gt;" in shown and "<class" not in shown


def test_a_model_that_carries_state_says_so():
    assert "and a state, model.carry(B)" in repr(model(carry=lambda size: np.zeros((size, 3))))


def test_a_model_knows_what_its_test_came_to(tmp_path):
    assert _tested(tmp_path, ACCURACY) == "accuracy"
    (tmp_path / "result.json").write_text('{"test_accuracy": 0.9529, "test_samples": 297}')
    assert _tested(tmp_path, ACCURACY) == "accuracy 95.29% on 297 test samples"
    assert _tested(tmp_path, Metric("iou")) == "iou"


def test_a_search_and_a_retraining_show_a_table():
    best = {"id": 7, "fitness": [0.5, -3.0], "arch": ARCH, "params": 1234, "macs": None}
    shown = Outcome(best, ACCURACY, 9, 2, 3.0, ("a <b>", "c"))._repr_html_()
    for told in ("9 (2 failed), 3 s", "trial 7, accuracy 50.00%", "1,234", "num_filters", "a &lt;b&gt;\nc"):
        assert told in shown
    assert "macs" not in shown
    assert "<caption>search" in Outcome(None, ACCURACY, 0, 0, 0.0)._repr_html_()
    shown = Retrained(ACCURACY, 0.25, 0.5, 1234, ARCH, {}, ("done",))._repr_html_()
    assert "test accuracy</th>" in shown and "25.00%" in shown and "1,234" in shown and "done" in shown


def test_a_report_is_shown_in_a_frame_of_its_own(tmp_path):
    with pytest.raises(ValueError, match=r"has no report.html yet; search first"):
        nasjax.show(tmp_path)
    page = '<html><head><meta charset="utf-8"></head><a href="#t1">&amp;</a></html>'
    (tmp_path / "report.html").write_text(page)
    frame = nasjax.show(tmp_path, height=300)._repr_html_()
    assert frame.startswith("<iframe srcdoc=") and 'height="300"' in frame
    inside = html.unescape(frame.split('"')[1])
    assert inside == page.replace("<head>", '<head><base href="about:srcdoc">')


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is on PATH")
def test_a_link_of_a_shown_report_stays_in_its_frame(tmp_path):
    (tmp_path / "report.html").write_text(CLICKED)
    outer = tmp_path / "notebook.html"
    outer.write_text(f'<html><body><p id="told"></p>{nasjax.show(tmp_path)._repr_html_()}</body></html>')
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    found = subprocess.run([BROWSER, *flags, outer.as_uri()], capture_output=True, text=True, timeout=60).stdout
    assert '<p id="told">about:srcdoc#t true</p>' in found
