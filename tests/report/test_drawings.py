"""Drawings of architectures."""

import importlib
import inspect
import xml.etree.ElementTree as ET
from importlib import resources

import pytest

from nasjax.report import networks
from nasjax.spaces.cell_tree import named as cell_tree_named
from nasjax.spaces.resolution_graph import named as resolution_graph_named


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
    assert "3 blocks of 3 layers" in caption and "An arc past a max-pool is pooled, too" in caption
    _, caption = drawn({"space": "conv_chain", "layers": layers}, pool_after=[0], pool_skips=False)
    assert "past a max-pool" not in caption


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
def test_what_has_no_drawing_is_shown_as_it_is(arch):
    drawing, caption = networks.draw(arch, {})
    if isinstance(arch, dict) and len(arch) > 1:
        assert drawing.count("<tr>") == len(arch) and caption == "The architecture, site by site."
    else:
        assert drawing.startswith("<pre>") and caption == "The architecture as JSON."
    assert len(networks.summary(arch)) <= 160


@pytest.mark.parametrize(
    ("name", "nodes", "ways"), [("UNET", 9, (4, 4, 4)), ("UNETPP", 15, (4, 20, 10)), ("UNETPP_DS", 15, (4, 20, 10))]
)
def test_a_graph_shows_every_node_and_every_edge_in_its_way(name, nodes, ways):
    arch = resolution_graph_named.NAMED[name]
    tree, caption = drawn(arch)
    keys = [g for g in tree.iter("g") if g.get("class") == "key"]  # of the legend
    shown = [n for n in tree.iter() if (n.get("class") or "").startswith("node")]
    of_keys = [n for key in keys for n in key.iter() if (n.get("class") or "").startswith("node")]
    assert len(shown) - len(of_keys) == nodes
    assert sum(n.get("class") == "node first" for n in shown) == sum(n.get("class") == "node last" for n in shown) == 1
    for way, number in zip(("down", "same", "up"), ways, strict=True):
        inside = sum(g.get("class") == way for key in keys for g in key.iter("g"))
        assert count(tree, way) - inside == number
    rings = sum(n.get("class") == "ring" for n in tree.iter("circle"))
    assert rings == (4 if name == "UNETPP_DS" else 0)  # three beside the output's own head, and the legend's
    assert f"{nodes} nodes and {sum(ways)} edges ({ways[0]} down" in caption
    assert [text for text in texts(tree) if text and "channels" in text] == [f"{32 << i} channels" for i in range(5)]


@pytest.mark.parametrize(("name", "leaves"), [("NASCELL", 8), ("BASE2", 2), ("RNN_TREE", 2)])
def test_a_cell_shows_every_node_and_where_its_state_enters(name, leaves):
    tree, caption = drawn(cell_tree_named.NAMED[name])
    rects = [n.get("class") for n in tree.iter("rect")]
    assert rects.count("box") == 2 * leaves - 2 and rects.count("read") == 1 and rects.count("inject") == 1
    assert rects.count("state") == 2  # c of the last step, and the new one
    assert rects.count("pill") == 2 * leaves + 1  # x and h at each leaf, h at the top
    assert count(tree, "wire") == 4 * leaves - 1 + 2  # 2 a leaf, 1 a node, 2 of the cell state
    assert f"A tree of {leaves} leaves" in caption


def test_summary_is_short():
    layers = [conv(3, 3, 24, list(range(i))) for i in range(40)]
    assert networks.summary({"space": "conv_chain", "layers": layers[:2]}) == "3×3·24  3×3·24←0"
    assert len(networks.summary({"space": "conv_chain", "layers": layers})) == 160


def test_a_user_s_own_space_is_a_table_of_sites():
    arch = {"space": "my_space", "choices": {"width of <b>": 32, "act": "relu", "rates": [0.1, 0.2], "skip": True}}
    drawing, caption = networks.draw(arch, {})
    tree = ET.fromstring(drawing)
    cells = [[cell.text for cell in row] for row in tree.iter("tr")]
    assert cells == [
        ["site", "choice"],
        ["width of <b>", "32"],
        ["act", "relu"],
        ["rates", "[0.1, 0.2]"],
        ["skip", "true"],
    ]
    assert caption == "The architecture, site by site."
    assert networks.summary(arch) == "width of <b>=32  act=relu  rates=[0.1, 0.2]  skip=true"
    assert networks.summary(arch, 20) == "width of <b>=32  ac…"


@pytest.mark.parametrize("space", ["os", "..os", "", 7, None, "generic", "__init__", "darts_cell.x"])
def test_the_name_of_a_space_finds_its_drawing_and_nothing_else(space):
    drawing, _ = networks.draw({"space": space, "choices": {"depth": 3}}, {})
    assert "depth" in drawing and "<td>3</td>" in drawing


def test_transformers_show_heads_and_mlps_to_scale():
    """Boxes of heads are equal; that of an MLP of half the largest ratio is half as wide."""
    arch = {"space": "vit_chain", "embed_dim": 24, "num_heads": [1, 3], "mlp_ratio": [2.0, 1.0]}
    tree, caption = drawn(arch, patch=2, head_width=8, heads=[1, 3, 4], mlp_ratios=[1.0, 2.0])
    assert texts(tree) == [
        "patches of 2×2, 24 features", "0", "1 head", "MLP ×2", "1", "3 heads", "MLP ×1",
        "average over patches, classifier",
    ]  # fmt: skip
    wide = [float(box.get("width")) for box in tree.iter("rect") if box.get("class") == "box"]
    assert len(wide) == 6 and wide[0] == wide[2] == wide[3] == wide[4]
    assert wide[5] == pytest.approx(wide[1] / 2) and wide[0] == pytest.approx(wide[1] / 4 - 2, abs=0.1)
    assert "2 layers of 24 features" in caption and "of 8 features each" in caption
    assert networks.summary(arch) == "24: 1·2 3·1"
    bare, _ = drawn(arch)
    assert texts(bare)[0] == "24 features"
    assert networks.difference(arch, arch | {"num_heads": [1, 4]}) == ["num_heads [1, 3] → [1, 4]"]
    cell = {"space": "tabular_cell", "ops": ["none", "skip_connect"] * 3}  # of a long list only what differs
    other = cell | {"ops": [*cell["ops"][:5], "nor_conv_3x3"]}
    assert networks.difference(cell, other) == ["ops 5 skip_connect → nor_conv_3x3"]
    for damaged in ({"num_heads": [1]}, {"num_heads": [0, 1]}, {"embed_dim": "wide"}, {"mlp_ratio": [1.0, -1.0]}):
        drawing, _ = networks.draw(arch | damaged, {})
        assert drawing.startswith("<div") or "<table" in drawing


def test_every_drawing_has_the_same_functions():
    folder = resources.files("nasjax.report.drawings")
    names = [file.name.removesuffix(".py") for file in folder.iterdir() if file.name.endswith(".py")]
    assert {"conv_chain", "tabular_cell", "darts_cell", "choice_chain", "generic"} <= set(names)
    for name in set(names) - {"__init__"}:
        module = importlib.import_module(f"nasjax.report.drawings.{name}")
        assert list(inspect.signature(module.draw).parameters) == ["arch", "space"]
        assert list(inspect.signature(module.summary).parameters) == ["arch"]
