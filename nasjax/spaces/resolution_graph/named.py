"""UNet and UNet++ as graphs over resolutions, in the JSON form of `--arch`.

Ronneberger et al. 2015, "U-Net"; Zhou et al. 2018, "UNet++: A Nested U-Net Architecture" (arXiv:1807.10165). Blocks and
widths are those of the public PyTorch code on nuclei: two 3x3 convolutions per node, 32 channels at the top.
"""

from __future__ import annotations

from typing import Any

from nasjax.spaces.resolution_graph.form import IDENTITY, MAXPOOL, UPSAMPLE, VGG, Edge, Graph, Node, ordered, to_tree

_LEVELS = 5
Place = tuple[int, int]  # level i and column j of the paper's X^{i,j}


def _tree(links: dict[Place, list[Place]], supervised: list[Place] | None = None) -> dict[str, Any]:
    """The graph whose nodes read `links`. Ids and ranks go by i + j, then by j, as the nodes can be computed."""
    places = sorted(links, key=lambda place: (sum(place), place[1]))
    number = {place: n for n, place in enumerate(places)}
    operator = {1: MAXPOOL, 0: IDENTITY, -1: UPSAMPLE}
    pairs = [(source, place) for place in places for source in links[place]]
    edges = [Edge(n, number[a], number[b], operator[b[0] - a[0]]) for n, (a, b) in enumerate(pairs)]
    nodes = tuple(Node(number[place], place[0], VGG) for place in places)
    heads = tuple(number[place] for place in supervised or [])
    return to_tree(ordered(Graph(nodes, tuple(edges), 32, supervised=heads)))


def _unet() -> dict[Place, list[Place]]:
    encoder: dict[Place, list[Place]] = {(i, 0): [(i - 1, 0)] if i else [] for i in range(_LEVELS)}
    decoder: dict[Place, list[Place]] = {(i, j): [(i, 0), (i + 1, j - 1)] for i, j in _diagonal()}
    return encoder | decoder


def _diagonal() -> list[Place]:
    return [(i, _LEVELS - 1 - i) for i in range(_LEVELS - 1)]


def _unetpp() -> dict[Place, list[Place]]:
    links: dict[Place, list[Place]] = {(i, 0): [(i - 1, 0)] if i else [] for i in range(_LEVELS)}
    for i in range(_LEVELS):
        for j in range(1, _LEVELS - i):
            links[i, j] = [*((i, k) for k in range(j)), (i + 1, j - 1)]
    return links


NAMED: dict[str, dict[str, Any]] = {
    "UNET": _tree(_unet()),
    "UNETPP": _tree(_unetpp()),
    "UNETPP_DS": _tree(_unetpp(), [(0, j) for j in range(1, _LEVELS - 1)]),
}
