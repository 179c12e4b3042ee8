"""Axes, ticks and network drawings."""

import re
import xml.etree.ElementTree as ET

import pytest

from nasjax.report import networks, svg


def conv(height, width, filters, inputs):
    return {"filter_height": height, "filter_width": width, "num_filters": filters, "inputs": inputs}


def drawn(arch, **space):
    drawing, caption = networks.draw(arch, space)
    return ET.fromstring(drawing), caption


def texts(tree):
    return [node.text for node in tree.iter("text")]


def count(tree, css, tag="path"):
    """Elements of one tag inside the groups of class `css`, arrow heads apart."""
    return sum(n.get("class") != "head" for g in tree.iter("g") if g.get("class") == css for n in g.iter(tag))


def test_conv_chain_shows_every_layer_and_every_wire():
    # Layer 2 reads the image, nothing reads 1 and 3: arcs image-2 and 1-classifier, skip 0-3, straight wires the rest.
    layers = [conv(3, 5, 24, []), conv(7, 1, 36, [0]), conv(1, 1, 48, []), conv(5, 5, 64, [0, 2])]
    tree, caption = drawn({"space": "conv_chain", "layers": layers, "learning_rate": 0.05})
    assert texts(tree) == [
        "image", "3×5", "24 filters", "7×1", "36 filters", "1×1", "48 filters", "5×5", "64 filters",
        "average, classifier",
    ]  # fmt: skip
    assert count(tree, "skip") == 1
    assert count(tree, "wire") == 6  # image-0, 0-1, image-2 (arc), 2-3, 1-classifier (arc), 3-classifier
    assert "4 layers" in caption and "Learning rate 0.05" in caption and "max-pool" not in caption
    kernels = [(float(k.get("height")), float(k.get("width"))) for k in tree.iter("rect") if k.get("class") == "kernel"]
    assert [h / w for h, w in kernels] == pytest.approx([3 / 5, 7, 1, 1], rel=0.02)


def test_blocks_pools_strides_and_types():
    layers = [
        conv(3, 3, 24, []) | {"stride_height": 2, "stride_width": 1},
        {"type": "max_pool", "filter_height": 3, "filter_width": 3, "inputs": [0]},
        {"type": "local_contrast_norm", "inputs": [1]},
    ]
    tree, caption = drawn({"space": "conv_chain", "layers": layers, "block_layers": 3}, pool_after=[0])
    assert texts(tree) == [
        "image", "3×3 /2×1", "3 × 24 filters", "2×2 max-pool", "max pool 3×3", None, "local contrast norm", None,
        "average, classifier",
    ]  # fmt: skip
    assert "3 blocks of 3 layers" in caption and "What passes a max-pool is pooled" in caption
    _, caption = drawn({"space": "conv_chain", "layers": layers}, pool_after=[0], pool_skips=False)
    assert "What passes" not in caption


def test_tabular_cell_labels_its_edges_in_the_benchmark_s_order():
    ops = ["nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "none", "nor_conv_1x1"]
    tree, _ = drawn({"space": "tabular_cell", "ops": ops})
    assert texts(tree) == ["in", "1", "2", "out", *ops]
    assert tree.get("aria-label").startswith("Cell: edge 0 to 1: nor_conv_3x3; edge 0 to 2: none; edge 1 to 2: skip")
    assert count(tree, "none") == 2
    middles = [float(t.get("x")) for t in tree.iter("text")][4:]
    nodes = [float(t.get("x")) for t in tree.iter("text")][:4]
    pairs = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert middles == [(nodes[a] + nodes[b]) / 2 for a, b in pairs]


@pytest.mark.parametrize(
    "arch",
    [
        None,
        "text",
        {"space": "darts_cell", "normal": [["sep_conv_3x3", 0]]},
        {"space": "conv_chain"},
        {"space": "conv_chain", "layers": []},
        {"space": "conv_chain", "layers": [conv(3, 3, 24, [0])]},  # reads itself
        {"space": "conv_chain", "layers": [conv(3, 3, float("inf"), [])]},
        {"space": "tabular_cell", "ops": ["none"] * 5},  # no complete cell has 5 edges
    ],
)
def test_what_has_no_drawing_is_shown_as_json(arch):
    drawing, caption = networks.draw(arch, {})
    assert drawing.startswith("<pre>") and caption == "The architecture as JSON."
    assert len(networks.summary(arch)) <= 160


def test_summary_is_short():
    layers = [conv(3, 3, 24, list(range(i))) for i in range(40)]
    assert networks.summary({"space": "conv_chain", "layers": layers[:2]}) == "3×3·24  3×3·24←0"
    assert len(networks.summary({"space": "conv_chain", "layers": layers})) == 160


RANGES = [(0, 1, 0), (0.31, 0.98, 0), (5, 5, 0), (0.43061, 0.430610001, 0), (1, 1.0004, 0), (-3, 900, 0)]
RANGES += [(900, 2e7, 1), (1e4, 1.1e4, 1), (7, 7, 1), (1, 1e9, 1)]


@pytest.mark.parametrize(("low", "high", "log"), RANGES)
def test_axes_have_a_few_round_ticks_inside(low, high, log):
    axis = svg.axis("x", [low, high], log=bool(log))
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 10
    assert all(axis.low * 0.999 - 1e-9 <= t <= axis.high * 1.001 for t in ticks)
    assert 0 <= axis.place(low) <= axis.place(high) <= 1
    assert len({axis.text(t) for t in ticks}) == len(ticks)  # no label twice


def test_counts_have_whole_ticks():
    assert svg.axis("trials", [0.0, 1.0], text=svg.count).ticks() == [0.0, 1.0]


def test_points_are_where_the_axes_say():
    x, y = svg.axis("x", [1.0, 100.0], log=True), svg.axis("y", [0.0, 1.0])
    marks = svg.dots(x, y, [(1.0, 0.0), (10.0, 0.5), (100.0, 1.0)], ["a", "b", "<c>"], "dots")
    tree = ET.fromstring(svg.chart(x, y, [marks], 'told "aloud"'))
    (ax, ay), (bx, by), (cx, cy) = [(float(c.get("cx")), float(c.get("cy"))) for c in tree.iter("circle")]
    assert bx == pytest.approx((ax + cx) / 2, abs=0.11) and by == pytest.approx((ay + cy) / 2, abs=0.11)
    assert svg.LEFT < ax < cx < svg.WIDTH - svg.RIGHT and svg.TOP < cy < ay < svg.HEIGHT - svg.BOTTOM
    assert tree.get("aria-label") == 'told "aloud"'
    ten = next(t for t in tree.iter("text") if t.text == "10")
    assert float(ten.get("x")) == pytest.approx(bx)


def test_steps_rise_where_the_best_rises():
    x, y = svg.axis("x", [0.0, 10.0]), svg.axis("y", [0.0, 1.0])
    path = re.search(r'd="([^"]+)"', svg.steps(x, y, [(0, 0.2), (4, 0.6), (10, 0.6)], "c0")).group(1)
    assert re.fullmatch(r"M[\d.]+ [\d.]+H[\d.]+V[\d.]+H[\d.]+V[\d.]+", path)


@pytest.mark.parametrize(("value", "text"), [(4_201_630, "4.202M"), (36_500, "36.5k"), (0.25, "0.25"), (999_999, "1M")])
def test_short_numbers(value, text):
    assert svg.short(value) == text
