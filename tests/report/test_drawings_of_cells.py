"""Drawings of cells."""

import xml.etree.ElementTree as ET

import pytest

from nasjax.report import networks
from nasjax.report.drawings import darts_cell as cells

NORMAL = [
    ["sep_conv_3x3", 0], ["sep_conv_3x3", 1], ["sep_conv_5x5", 0], ["skip_connect", 2],
    ["dil_conv_3x3", 3], ["max_pool_3x3", 1], ["skip_connect", 0], ["avg_pool_3x3", 4],
]  # fmt: skip
REDUCE = [["max_pool_3x3", 0], ["max_pool_3x3", 1]] * 4
ARCH = {"space": "darts_cell", "normal": NORMAL, "reduce": REDUCE}


@pytest.fixture(scope="module")
def drawings():
    html, caption = networks.draw(ARCH, {})
    assert "halved" in caption
    return ET.fromstring(f"<div>{html}</div>")


def test_both_cells_are_drawn_with_every_operator(drawings):
    normal, reduce = drawings
    for svg, pairs, title in ((normal, NORMAL, "Normal cell"), (reduce, REDUCE, "Reduction cell")):
        texts = [text.text for text in svg.iter("text")]
        assert [text.text for text in svg.iter("text") if text.get("class") == "op"] == [op for op, _ in pairs]
        assert title in texts and {"2", "3", "4", "5", "0: cell k−2", "1: cell k−1"} <= set(texts)
    label = normal.get("aria-label")
    assert label.startswith("Normal cell: node 2: sep_conv_3x3 of 0 and sep_conv_3x3 of 1; node 3: sep_conv_5x5 of 0")


def arrows(svg):
    """(class, x of the source's column, x of the tip), from top to bottom."""
    found = []
    for group in svg.iter("g"):
        dots = list(group.iter("circle"))
        if dots:
            tip = next(p for p in group.iter("path") if p.get("class") == "head")
            x, y = tip.get("d")[1:].split("l")[0].split()
            found.append((group.get("class"), float(dots[0].get("cx")), float(x), float(y)))
    return found


def test_arrows_go_from_their_source_to_their_node(drawings):
    svg = drawings[0]
    nodes = {t.text: float(t.get("x")) for t in svg.iter("text") if t.text in "2345"}
    columns = {int(t.text[0]): float(t.get("x")) for t in svg.iter("text") if ": cell" in t.text}
    columns |= {int(name): x for name, x in nodes.items()}
    found = arrows(svg)
    assert len(found) == 8 and [y for *_, y in found] == sorted(y for *_, y in found)
    for i, ((operator, source), (css, start, tip, _)) in enumerate(zip(NORMAL, found, strict=True)):
        assert css == ("skip" if operator == "skip_connect" else "wire")
        assert start == columns[source]
        assert columns[2 + i // 2] - 20 < tip < columns[2 + i // 2]
    width = float(svg.get("viewBox").split()[2])
    assert columns[0] > 0 and columns[5] < width


def test_summary():
    assert cells.summary(ARCH) == (
        "sep3 0 sep3 1 | sep5 0 skip 2 | dil3 3 max 1 | skip 0 avg 4 // "
        "max 0 max 1 | max 0 max 1 | max 0 max 1 | max 0 max 1"
    )
    assert networks.summary(ARCH) == cells.summary(ARCH)


def test_names_are_escaped():
    pairs = [["<b>", 0], *NORMAL[1:]]
    html, _ = networks.draw({**ARCH, "normal": pairs}, {})
    assert "<b>" not in html and "&lt;b&gt;" in html


@pytest.mark.parametrize(
    "damaged",
    [NORMAL[:7], [["sep_conv_3x3", 2], *NORMAL[1:]], [["sep_conv_3x3", -1], *NORMAL[1:]], [7] * 8, None, "text"],
)
def test_a_damaged_cell_is_shown_as_it_is(damaged):
    arch = {**ARCH, "normal": damaged}
    assert "site by site" in networks.draw(arch, {})[1]
    assert len(networks.summary(arch)) <= 160
