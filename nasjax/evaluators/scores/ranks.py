"""Several scores as one: the sum of their ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from nasjax.types import Array


def ranks(scores: Array) -> np.ndarray:
    """The rank of every score among N, as a part of them, f64[N] in (0, 1]: 1 is the largest; ties share their mean.

    What has no score (NaN) is the worst, together with -inf.
    """
    values = np.asarray(scores, np.float64)
    return np.asarray(rankdata(np.where(np.isnan(values), -np.inf, values))) / max(len(values), 1)


def rank_sum(scores: Sequence[Array]) -> np.ndarray:
    """The sum of the ranks of K scores [K, N] of N architectures, each larger where better: f64[N] in (0, K].

    It depends on which architectures are compared. Ranks by several training-free scores: Cavagnero et al. 2023,
    "FreeREA" (arXiv:2207.05135), section 3.

    Example:
      >>> rank_sum([[1.0, 3.0, 2.0, 0.0], [10.0, 1e9, 1e66, float("nan")]]).tolist()
      [1.0, 1.75, 1.75, 0.5]
    """
    return np.sum([ranks(one) for one in scores], axis=0)
