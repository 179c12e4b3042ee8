"""The predictor of latencies, on times that are known: sums over choices, and what a layer's shape decides."""

from types import SimpleNamespace

import numpy as np
import pytest

from nasjax.latency.predictor import Predictor, fit
from nasjax.types import Site

OPERATORS = ("k3", "k5", "k7", "pool")
SITES = [Site(f"layer{i}/operator", OPERATORS, "operator", i) for i in range(12)]
WIDTHS = np.repeat([1, 2, 4], 4)  # of the layers
MACS = np.outer(WIDTHS, [9, 25, 49, 1]) * 1e5  # [layers, operators]
MS = 0.2 + MACS * np.array([3, 2, 1, 9]) * 1e-7  # an operator has a rate of its own


def drawn(count, seed):
    """Archs, their counts (as many parameters as multiply-adds) and their milliseconds."""
    archs = np.random.default_rng(seed).integers(0, 4, (count, 12)).astype(np.int32)
    macs, ms = (table[np.arange(12), archs].sum(1) for table in (MACS, MS))
    return archs, np.stack([macs, macs], 1), 1.0 + ms


def counted(arch):
    macs = MACS[np.arange(12), arch].sum()
    return macs, macs


def test_thirty_measurements_tell_the_time_of_networks_that_were_not_measured():
    """There are 48 choices; how an operator's time grows with its multiply-adds is common to all layers."""
    archs, counts, ms = drawn(30, 0)
    found = fit(archs, counts, ms, SITES, counted)
    others, theirs, truth = drawn(200, 1)
    errors = np.abs(found.predictor(others, theirs[:, 0], theirs[:, 1]) / truth - 1)
    assert errors.mean() < 0.01 and np.abs(found.errors).mean() < 0.02
    by_macs = np.polyval(np.polyfit(counts[:, 1], ms, 1), theirs[:, 1])
    assert np.abs(by_macs / truth - 1).mean() > 5 * errors.mean()


def test_the_error_of_what_is_left_out_is_that_of_measurements_without_any_order():
    archs, counts, ms = drawn(30, 0)
    noise = np.random.default_rng(2).permutation(ms)
    errors = np.abs(fit(archs, counts, noise, SITES, counted).errors)
    assert errors.mean() > 0.8 * np.abs(noise / noise.mean() - 1).mean()


def test_networks_that_cannot_be_counted_are_left_out_of_the_features():
    archs, counts, ms = drawn(30, 0)
    found = fit(archs, counts, ms, SITES, lambda arch: counted(arch) if arch[0] == archs[0, 0] else None)
    assert np.abs(found.errors).mean() < 0.05


def test_an_inactive_site_has_a_time_of_its_own():
    """Layer 0 may be missing, which takes 3 ms less than any operator there."""
    archs, counts, ms = drawn(40, 0)
    archs[::2, 0] = -1
    ms = ms - 3.0 * (archs[:, 0] < 0) + 3.0
    found = fit(archs, counts, ms, SITES, counted).predictor
    there, missing = archs[1].copy(), archs[1].copy()
    missing[0] = -1
    assert found(there, *counts[1]) - found(missing, *counts[1]) == pytest.approx(3.0, abs=0.6)


def test_a_predictor_reads_the_sites_of_an_arch_and_leaves_what_follows():
    predictor = Predictor(1.0, np.array([[0.0, 2.0, 3.0], [5.0, 7.0, 11.0]]), 1e-3, 1e-6)
    assert predictor(np.array([1, 0, 99]), 10, 1000) == pytest.approx(1 + 3 + 7 + 0.01 + 0.001)
    assert predictor(np.array([[-1, 1], [0, -1]]), 0, 0).tolist() == [12.0, 8.0]


def test_three_measurements_are_too_few():
    archs, counts, ms = drawn(3, 0)
    with pytest.raises(ValueError, match="needs 4 measured networks at least, got 3"):
        fit(archs, counts, ms, SITES, counted)


def test_the_fastest_is_found_site_by_site():
    from nasjax.latency.fastest import fastest

    def validate(arch):
        if arch[3] == 3:
            raise ValueError("no pool there")

    space = SimpleNamespace(sites=SITES, validate=validate)
    ms = MS[np.arange(12)[:, None], np.arange(4)]
    arch, least = fastest(space, np.full(12, 2), lambda arch: float(ms[np.arange(12), arch].sum()))
    best = ms.argmin(1)
    best[3] = ms[3, :3].argmin()
    assert arch.tolist() == best.tolist() and least == pytest.approx(ms[np.arange(12), best].sum())
