"""Two figures of a graph's shape: how many bottlenecks it has, and how elongated it is when drawn.

Janik & Nowak 2020 (arXiv:2002.08104) and its code: among random graphs that classify images, many of the best have many
bottlenecks and a high elongation. For segmentation that is a hypothesis.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nasjax.spaces.resolution_graph.form import Graph

Pair = tuple[int, int]  # ranks of an edge's source and destination


def pairs(graph: Graph) -> list[Pair]:
    """The edges by the ranks of their nodes."""
    rank = graph.ranks()
    return [(rank[edge.src], rank[edge.dst]) for edge in graph.edges]


def widths(nodes: int, edges: Iterable[Pair]) -> np.ndarray:
    """i64[nodes]: how many edges (i, k) pass or reach node j, i < j <= k."""
    steps = np.zeros(nodes + 1, np.int64)
    for i, k in edges:
        steps[i + 1] += 1
        steps[k + 1] -= 1
    return np.cumsum(steps)[:nodes]


def bottlenecks(nodes: int, edges: Iterable[Pair]) -> int:
    """The number of nodes that a single edge passes or reaches."""
    return int((widths(nodes, edges) == 1).sum())


def elongation(points: np.ndarray) -> float:
    """0 for an isotropic cloud of points f64[N, 2], 1 for points on a line.

    2 (a / (a + b) - 1/2), with a the larger and b the smaller variance along the principal axes.
    """
    b, a = np.linalg.eigvalsh(np.cov(np.asarray(points, np.float64).T))
    return float(2 * (a / (a + b) - 0.5)) if a + b > 0 else 0.0


def drawing(nodes: int, edges: Iterable[Pair], rounds: int = 100) -> np.ndarray:
    """Positions f64[nodes, 2] whose distances are close to the numbers of edges between the nodes.

    The energy of Kamada & Kawai 1989, sum over pairs of (|p - q| / d - 1)^2 with d the shortest path, ignoring
    directions; minimised by majorisation (Gansner et al. 2004), each step of twice the length, from classical scaling,
    so that the same graph gives the same drawing. (The paper's is a force-directed one from a random start.)
    """
    far = _distances(nodes, edges)
    weight = np.divide(1.0, far**2, out=np.zeros_like(far), where=far > 0)
    laplacian = np.diag(weight.sum(1)) - weight
    inverse = np.linalg.pinv(laplacian)
    centre = np.eye(nodes) - 1 / nodes
    values, vectors = np.linalg.eigh(-0.5 * centre @ far**2 @ centre)
    angle = 2 * np.pi * np.arange(nodes) / nodes
    apart = 1e-6 * np.stack([np.cos(angle), np.sin(angle)], 1)  # no two nodes at the same place
    points = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0)) + apart
    place = points[:, 0] + 1j * points[:, 1]
    wanted = weight * far
    for _ in range(rounds):
        gaps = np.abs(place[:, None] - place)
        pull = np.divide(wanted, gaps, out=np.zeros_like(far), where=gaps > 1e-12)
        place = 2 * (inverse @ (pull.sum(1) * place - pull @ place)) - place
    return np.stack([place.real, place.imag], 1)


def indicators(graph: Graph) -> dict[str, float]:
    """{"n_bottlenecks", "elongation"} of a graph."""
    nodes, edges = len(graph.nodes), pairs(graph)
    return {
        "n_bottlenecks": float(bottlenecks(nodes, edges)),
        "elongation": elongation(drawing(nodes, edges)),
    }


def _distances(nodes: int, edges: Iterable[Pair]) -> np.ndarray:
    """Edges on the shortest way between any two nodes, f64[nodes, nodes]; Floyd & Warshall."""
    far = np.where(np.eye(nodes, dtype=bool), 0.0, float(nodes))
    for i, k in edges:
        far[i, k] = far[k, i] = 1.0
    for via in range(nodes):
        far = np.minimum(far, far[:, via, None] + far[via][None])
    return far
