"""Latency from the architecture: linear in its choices, its multiply-adds and its parameters, fitted to few networks.

Fifty measurements are fewer than there are choices, so what a choice takes is told from several sides at once, and a
ridge shares it among them: so many milliseconds per multiply-add and per parameter; so many for an operator wherever it
is, and per multiply-add of it; so many for it in layers of one shape; and so many in this layer alone. The ridge's
strength, and how much each side is trusted, are those with the smallest error on a measurement that is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nasjax.types import Site

_RIDGES = tuple(10.0**power for power in np.arange(-4, 2.5, 0.5))
_TRUST = tuple(itertools.product((0.0, 0.3, 1.0), (0.0, 0.1, 0.3)))  # of a shape's layers, and of a layer alone
Counts = tuple[float, float]  # parameters, multiply-adds


class Predictor(NamedTuple):
    """milliseconds = base + what the choices take + params_ms * parameters + macs_ms * multiply-adds.

    choices: f64[S, C + 1], of value v of site s in column v + 1; column 0 is that of inactive sites.
    """

    base: float
    choices: np.ndarray
    params_ms: float
    macs_ms: float

    def __call__(self, arch: Any, params: Any, macs: Any, xp: Any = np) -> Any:
        """Milliseconds f[...] of archs i32[..., S] with such counts [...]; traceable with xp = jax.numpy."""
        sites = len(self.choices)
        index = xp.clip(xp.asarray(arch)[..., :sites] + 1, 0, self.choices.shape[1] - 1)
        taken = xp.asarray(self.choices)[xp.arange(sites), index].sum(-1)
        return self.base + taken + self.params_ms * params + self.macs_ms * macs


class Fitted(NamedTuple):
    """A predictor, and its relative errors on the measurements, each left out in turn: f64[N]."""

    predictor: Predictor
    errors: np.ndarray


def fit(
    archs: np.ndarray,
    counts: np.ndarray,
    ms: np.ndarray,
    sites: Sequence[Site],
    count: Callable[[np.ndarray], Counts | None],
) -> Fitted:
    """Fits a predictor.

    Args:
      archs: i32[N, A], the measured ones.
      counts: f64[N, 2], their parameters and multiply-adds.
      ms: f64[N], the measurements.
      sites: of the space; the first columns of an Arch.
      count: Arch -> its counts, None where it has no network; asked for neighbours of the first arch.

    Raises:
      ValueError: fewer than four measurements.
    """
    if len(ms) < 4:
        raise ValueError(f"a predictor needs 4 measured networks at least, got {len(ms)}")
    size = max(len(site.choices) for site in sites) + 1
    hot = _one_hot(archs, len(sites), size)
    levels = _levels(sites, size, _changes(archs[0], sites, size, count))
    blocks = [np.asarray(counts, float), *(hot @ level for level in levels)]
    scaled = [_scaled(block) for block in blocks]
    best: tuple[float, Any] | None = None
    for trust in _TRUST:
        weights = (1.0, 1.0, *trust)
        columns = np.concatenate([weight * block for weight, (block, _, _) in zip(weights, scaled, strict=True)], 1)
        for ridge in _RIDGES:
            coefficients, left_out = _ridge(columns, ms, ridge)
            errors = left_out / ms
            error = float(np.abs(errors).mean())
            if best is None or error < best[0]:
                best = error, (weights, coefficients, errors)
    assert best is not None
    weights, coefficients, errors = best[1]
    base, choices, of_counts, at = float(ms.mean()), np.zeros(len(sites) * size), np.zeros(2), 0
    for level, weight, (block, mean, spread) in zip((None, *levels), weights, scaled, strict=True):
        own = weight * coefficients[at : at + block.shape[1]] / spread
        at += block.shape[1]
        base -= float(own @ mean)
        if level is None:
            of_counts = own
        else:
            choices += level @ own
    predictor = Predictor(base, choices.reshape(len(sites), size), float(of_counts[0]), float(of_counts[1]))
    return Fitted(predictor, errors)


def _one_hot(archs: np.ndarray, sites: int, size: int) -> np.ndarray:
    """f64[N, S * size]."""
    values = np.asarray(archs)[:, :sites, None] + 1
    return (values == np.arange(size)).reshape(len(archs), -1).astype(float)


def _changes(arch: np.ndarray, sites: Sequence[Site], size: int, count: Callable[..., Counts | None]) -> np.ndarray:
    """f64[S, size, 2]: how the counts change with each value of each site, the other sites being those of `arch`."""
    changes, base = np.zeros((len(sites), size, 2)), count(arch)
    for s, site in enumerate(sites):
        if base is None or arch[s] < 0:
            continue
        for value in range(len(site.choices)):
            other = arch.copy()
            other[s] = value
            found = count(other) if value != arch[s] else base
            if found is not None:
                changes[s, value + 1] = np.subtract(found, base)
        changes[s, 1:] -= changes[s, 1]  # beside the first choice, so that sites of one shape agree
    return changes


def _levels(sites: Sequence[Site], size: int, changes: np.ndarray) -> list[np.ndarray]:
    """[S * size, F] each: from a one-hot architecture to the features of operators, of shapes and of layers."""
    operators: dict[Any, list[tuple[int, int]]] = {}
    shapes: dict[Any, list[tuple[int, int]]] = {}
    for s, site in enumerate(sites):
        kind = site.name.rpartition("/")[2]
        shape = (kind, tuple(site.choices), changes[s].tobytes())
        for column in range(size):
            choice = "inactive" if column == 0 else site.choices[column - 1] if column <= len(site.choices) else None
            if choice is not None:
                operators.setdefault((kind, choice), []).append((s, column))
                shapes.setdefault((shape, choice), []).append((s, column))
    wide = []
    for places in operators.values():
        ones, more = np.zeros((len(sites), size)), np.zeros((2, len(sites), size))
        for s, column in places:
            ones[s, column] = 1
            more[:, s, column] = changes[s, column]
        wide += [ones, *more]
    narrow = []
    for places in shapes.values():
        ones = np.zeros((len(sites), size))
        ones[tuple(np.transpose(places))] = 1
        narrow.append(ones)
    flat = [np.stack([feature.reshape(-1) for feature in features], 1) for features in (wide, narrow)]
    return [*flat, np.eye(len(sites) * size)]


def _scaled(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns with mean 0 and deviation 1 (0 where they do not vary), and what makes them so."""
    mean, spread = block.mean(0), block.std(0)
    spread = np.where(spread > 1e-9 * np.abs(block).max(0, initial=1.0), spread, np.inf)
    return (block - mean) / spread, mean, spread


def _ridge(columns: np.ndarray, ms: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients f[F] for centred columns, and each measurement's error when it is left out, f[N]."""
    n = len(ms)
    gram = columns @ columns.T + ridge * n * np.eye(n)
    solved = np.linalg.solve(gram, np.concatenate([(ms - ms.mean())[:, None], columns @ columns.T], 1))
    weights, hat = solved[:, 0], solved[:, 1:].T + 1 / n
    residual = ms - ms.mean() - columns @ (columns.T @ weights)
    return columns.T @ weights, residual / np.maximum(1 - np.diag(hat), 1e-6)
