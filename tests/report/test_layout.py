"""Reports in a real browser, wide and narrow: no text is cut, no word is broken in the middle."""

import json
import subprocess

import pytest
from tools.report_pages import trial, workdir

from nasjax.report import write_report
from report.test_browser import BROWSER, FLAGS, Drawn, by_gradients, one_shot, searched

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is on PATH"),
]

WIDTHS = (1300, 400)
LONG = "a-search-of-recurrent-cells-with-a-long-name"
# Cut: text of a chart or drawing outside its picture or shortened to "…"; a box that is wider than its place and does
# not scroll; a column head beyond its own cell, or beyond a table that does not sort. Broken: the letters of a word on
# more than one line.
PROBE = """<script>
const done = setInterval(() => {
  if (!document.documentElement.dataset.drawn) return;
  clearInterval(done);
  const found = [], slack = 1.5;
  if (document.documentElement.dataset.errors) found.push(document.documentElement.dataset.errors);
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  for (const svg of document.querySelectorAll("svg")) {
    const box = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const own = text.getBoundingClientRect(), title = svg.closest("figure")?.querySelector("h3").textContent;
      if (!own.width) continue;
      if (own.left < box.left - slack || own.right > box.right + slack || own.top < box.top - slack
          || own.bottom > box.bottom + slack) found.push(`${title}, outside of the picture: ${text.textContent}`);
      if (text.closest(".chart") && text.textContent.endsWith("…")) found.push(`${title}: ${text.textContent}`);
    }
  }
  for (const head of document.querySelectorAll("th")) {
    const cut = head.getBoundingClientRect().right > head.closest(".scroll").getBoundingClientRect().right + slack;
    if (head.scrollWidth > head.clientWidth + slack || (cut && !head.closest(".sortable")))
      found.push(`head: ${head.textContent}`);
  }
  for (const box of document.querySelectorAll("body *")) {
    const look = getComputedStyle(box);
    if (box.closest("svg, script, style") || !box.clientWidth || look.display === "inline") continue;
    if (box.scrollWidth > box.clientWidth + slack && !["auto", "scroll"].includes(look.overflowX))
      found.push(`wider than its place: ${box.className} ${box.textContent.slice(0, 60)}`);
  }
  const walker = document.createTreeWalker(document.querySelector("body"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("script, style, svg, pre, noscript")) continue;
    for (const word of node.textContent.matchAll(/[\\p{L}\\p{N}]+/gu)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const tops = new Set([...range.getClientRects()].map((part) => Math.round(part.top)));
      if (tops.size > 1) found.push(`broken: ${word[0]} in ${node.textContent.slice(0, 60)}`);
    }
  }
  parent.postMessage([innerWidth, [...new Set(found)]], "*");
}, 20);
</script>"""
# A window without a screen has at least 500 pixels; a frame may be narrower.
FRAME = """<iframe src="page.html" style="border:0;width:{}px;height:900px"></iframe>"""
LISTEN = """<script>
const told = {};
addEventListener("message", (found) => {
  told[found.data[0]] = found.data[1];
  document.body.dataset.faults = JSON.stringify(told);
});
</script>"""


def faults(tmp_path, html):
    """What the probe finds in a page, by the width of its window."""
    before, end, after = html.rpartition("</body>")
    (tmp_path / "page.html").write_text(f"{before}{PROBE}{end}{after}")
    frame = tmp_path / "frame.html"
    frame.write_text(f"<body>{LISTEN}{''.join(map(FRAME.format, WIDTHS))}</body>")
    command = [BROWSER, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900"]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120)
    found = json.loads(Drawn(done.stdout).body["data-faults"])
    assert sorted(found) == sorted(map(str, WIDTHS)), done.stderr[-1000:]
    return found


def in_a_table(folder, seed):
    cell = {"space": "tabular_cell", "ops": ["nor_conv_3x3", "skip_connect", "none"] * 2}
    sizes = {"params": None, "macs": None, "cost_s": 100.5 + seed, "arch": cell}
    trials = [trial(i, 0.5 + 0.02 * i + 0.01 * seed, result=0.9 + 0.001 * i, hash="0" * 40, **sizes) for i in range(9)]
    settings = {"method": "random" if "random" in folder.name else "topk", "seed": seed, "strategy": "table"}
    settings |= {"device": "1 x cpu cpu", "config": {"space": {"name": "tabular_cell"}, "trials": 9}}
    told = [{"trials": 9, "wall_s": 1.5, "why": "cost_s=900 seconds of candidates are spent"}]
    return workdir(folder, trials, settings, told)


def with_workers(folder):
    """Three workers, named long, and a result beside published figures."""
    searched(folder, 0)
    events, row = [], {"id": 0, "fitness": 0.5}
    for n in range(9):
        events.append({"event": "asked", "task": n, "ids": [n], "at": n + 0.1})
        events.append({"event": "started", "task": n, "attempt": 1, "worker": n % 3, "at": n + 0.2})
        events.append({"event": "told", "task": n, "attempt": 1, "worker": n % 3, "rows": [row], "at": n + 0.9})
    (folder / "ledger.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    published = {"dataset": "cifar10", "train": 45000, "model": "v1, no stride or pooling, 15 layers"}
    published |= {"test_error": 0.055, "source": "Zoph & Le 2017, Table 1"}
    result = {"test_accuracy": 0.94, "test_samples": 297, "params": 4_201_630, "macs": 1_234_567_890}
    (folder / "result.json").write_text(json.dumps(result | {"published": published, "device": "1 x cpu cpu"}))
    return folder


REPORTS = {
    "a search": lambda at: [searched(at / "run", 0)],
    "workers": lambda at: [with_workers(at / LONG)],
    "gradients": lambda at: [by_gradients(at / "run", 4)],
    "one shot": lambda at: [one_shot(at / "run", "accuracy")],
    "a table, seeds": lambda at: [in_a_table(at / f"{m}-s{n}", n) for m in ("random", f"topk-{LONG}") for n in (0, 1)],
    "several": lambda at: [searched(at / LONG, 0), by_gradients(at / "darts", 3), one_shot(at / "spos", "accuracy")],
}


@pytest.mark.parametrize("name", REPORTS)
def test_no_text_is_cut_and_no_word_is_broken(tmp_path, name):
    html = write_report(REPORTS[name](tmp_path), tmp_path / "report.html").read_text()
    assert faults(tmp_path, html) == {str(width): [] for width in WIDTHS}


def test_the_probe_sees_what_is_cut_and_broken(tmp_path):
    html = write_report([searched(tmp_path / "run", 0)], tmp_path / "report.html").read_text()
    spoilt = ".meta { width: 4rem; word-break: break-all; } h1 { white-space: nowrap; width: 5rem; overflow: hidden; }"
    found = faults(tmp_path, html.replace("</style>", f"{spoilt} svg.net text {{ font-size: 90px; }}</style>"))
    for width in map(str, WIDTHS):
        kinds = "\n".join(found[width])
        assert "broken: " in kinds and "wider than its place" in kinds and "outside of the picture" in kinds, kinds
