"""When a search by gradients ends early: before its loss turns sharp, or before skip connections take over.

Zela et al. 2020 (arXiv:1909.09656), section 5.1, and its code; Liang et al. 2019, "DARTS+" (arXiv:1909.06035).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Stopping:
    """The rule, and whether the eigenvalue is measured without it.

    Attributes:
      rule: "none"; "eigenvalue": once an epoch's smoothed dominant eigenvalue exceeds `factor` times that of `delta`
        epochs before, the search ends with the cell of that earlier epoch; "skips": at the first epoch whose normal
        cell has `skips` skip connections or more, its cell is taken.
      window: epochs over which an eigenvalue is smoothed, half of them behind it, so that it is known so much later.
      delta, factor: of the eigenvalue's rule, as in the code of Zela et al.: 4 epochs and 1.3. The paper says 5 epochs
        and 1 / 0.75.
      start: epochs whose cells are never taken by that rule, 10 in the code.
      skips: 2 in DARTS+.
      measure: whether to measure the eigenvalue after every epoch in any case.
      lanczos_steps: products with the Hessian that a measurement takes, each about as long as two training steps.
    """

    rule: Literal["none", "eigenvalue", "skips"] = "none"
    window: int = 5
    delta: int = 4
    factor: float = 1.3
    start: int = 10
    skips: int = 2
    measure: bool = False
    lanczos_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("window", "delta", "skips", "lanczos_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.start < 0:
            raise ValueError(f"start must not be negative, got {self.start}")
        if self.factor <= 0:
            raise ValueError(f"factor must be positive, got {self.factor}")

    @property
    def measured(self) -> bool:
        """Whether the eigenvalue is needed."""
        return self.measure or self.rule == "eigenvalue"


def stopped(rule: Stopping, rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The index of the epoch whose cell is taken, where the search ends with the last of `rows`; else None.

    Args:
      rule: settings.
      rows: one per epoch, with "skips" and "eigenvalue" (None where it was not finite).
    """
    now = len(rows) - 1
    if rule.rule == "skips":
        return now if rows and rows[now]["skips"] >= rule.skips else None
    then = now - rule.window // 2 - rule.delta  # the middle of the earlier window
    if rule.rule == "none" or then < rule.start:
        return None

    def smoothed(end: int) -> float:
        values = [row["eigenvalue"] for row in rows[max(0, end - rule.window + 1) : end + 1]]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else float("nan")

    return then if smoothed(now) > rule.factor * smoothed(now - rule.delta) > 0 else None
