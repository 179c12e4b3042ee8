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

# Cut: text of a chart or drawing outside its picture or shortened to "…"; a box that is wider than its place and does
# not scroll; a column head beyond its own cell. Broken: the letters of a word on more than one line.
PROBE = """<script>
const done = setInterval(() => {
  if (!document.documentElement.dataset.drawn) return;
  clearInterval(done);
  const found = [], slack = 1.5;
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  for (const svg of document.querySelectorAll("svg")) {
    const box = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const own = text.getBoundingClientRect();
      if (!own.width || +text.getAttribute("opacity") === 0) continue; // Vega hides labels that would overlap
      if (own.left < box.left - slack || own.right > box.right + slack || own.top < box.top - slack
          || own.bottom > box.bottom + slack) found.push(`outside its picture: ${text.textContent} (${svg.closest("figure")?.querySelector("h3").textContent})`);
      if (text.closest(".chart") && text.textContent.endsWith("…")) found.push(`shortened: ${text.textContent}`);
    }
  }
  for (const head of document.querySelectorAll("th"))
    if (head.scrollWidth > head.clientWidth + slack) found.push(`head: ${head.textContent}`);
  for (const box of document.querySelectorAll("body *")) {
    if (box.closest("svg, script, style") || !box.clientWidth || getComputedStyle(box).display === "inline") continue;
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
    if (box.scrollWidth > box.clientWidth + slack && !scrolls) found.push(`wider than its place: ${box.className} ${box.textContent.slice(0, 60)}`);
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
  if (document.documentElement.dataset.errors) found.push(document.documentElement.dataset.errors);
  parent.postMessage(JSON.stringify([...new Set(found)]), "*");
}, 20);
</script>"""


# A window without a screen has at least 500 pixels; a frame may be narrower.
FRAME = """<body style="margin:0"><iframe src="page.html" style="border:0;width:{width}px;height:900px"></iframe>
<script>addEventListener("message", (told) => {{ document.body.dataset.faults = told.data; }});</script></body>"""


def faults(tmp_path, folders, width):
    """What the probe finds in the report of these workdirs, as wide as that."""
    return probed(write_report(folders, tmp_path / "page.html").read_text(), width, tmp_path)


def probed(html, width, tmp_path):
    before, end, after = html.rpartition("</body>")
    (tmp_path / "page.html").write_text(f"{before}{PROBE}{end}{after}")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width))
    command = [BROWSER, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900"]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120)
    return json.loads(Drawn(done.stdout).body["data-faults"])
