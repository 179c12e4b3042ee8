"""One objective of several: a candidate's metric, weighed by what its network costs.

Tan et al. 2019, "MnasNet", arXiv:1807.11626, section 3: accuracy * (latency / target)^w, with one w up to the target
and another beyond it. A searcher is told this instead of the metric, so every one of them can go by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nasjax.types import Evaluation, Evaluator, Key, Metric, Proposal

COSTS = {"params": "params", "macs": "macs", "latency": "latency_ms", "memory": "memory_mb"}  # and in a trial's row
_SOFT = -0.07


@dataclass(frozen=True)
class TradeoffConfig:
    """What the metric of a candidate is weighed by.

    Attributes:
      costs: latency (predicted milliseconds), memory (MB at inference), params or macs; () = none.
      targets: of each, the cost at which the metric counts as it is.
      within, beyond: exponents of cost / target up to the target, and beyond it; 0 or less. The paper's soft
        constraint has -0.07 for both: twice the latency for 5 % more accuracy is even. Its hard one is 0 and -1.
    """

    costs: tuple[str, ...] = ()
    targets: tuple[float, ...] = ()
    within: float = _SOFT
    beyond: float = _SOFT

    def __post_init__(self) -> None:
        if len(set(self.costs)) < len(self.costs) or set(self.costs) - set(COSTS):
            raise ValueError(f"tradeoff.costs are distinct ones of {', '.join(COSTS)}; got {self.costs}")
        if len(self.targets) != len(self.costs):
            raise ValueError(
                f"tradeoff.costs and tradeoff.targets have {len(self.costs)} and {len(self.targets)} values; write a "
                "target for each cost: --set tradeoff.targets=4,1.5 --set tradeoff.costs=latency,memory"
            )
        if any(not 0 < target < math.inf for target in self.targets):
            raise ValueError(f"tradeoff.targets must be positive, got {self.targets}")
        if not (-math.inf < self.within <= 0 and -math.inf < self.beyond <= 0):
            raise ValueError(
                f"tradeoff.within and tradeoff.beyond must be 0 or less, got {self.within:g} and {self.beyond:g}"
            )
        if not self.costs and (self.within, self.beyond) != (_SOFT, _SOFT):
            raise ValueError("tradeoff.within and tradeoff.beyond have no effect without tradeoff.costs")


def weighed(fitness: float, costs: Mapping[str, float], config: TradeoffConfig) -> float:
    """fitness * product of (cost / target)^w; where it is negative (an error, a loss) divided by the product instead.

    So less cost is better whatever the fitness is.

    Args:
      fitness: larger is better.
      costs: by the names that a row has for `COSTS`.
      config: what weighs.
    """
    factor = 1.0
    for name, target in zip(config.costs, config.targets, strict=True):
        share = max(costs[COSTS[name]] / target, 1e-12)  # a network without weights has no parameters
        factor *= share ** (config.within if share <= 1 else config.beyond)
    return fitness * factor if fitness >= 0 else fitness / factor


def traded(
    evaluator: Evaluator,
    config: TradeoffConfig,
    costs: Callable[[np.ndarray], Mapping[str, float]],
    metric: Metric,
) -> Evaluator:
    """An evaluator whose fitness is `weighed`; the metric itself is in `info`, as "valid_" and its name.

    Args:
      evaluator: of one objective.
      config: what weighs.
      costs: Arch -> what its network costs, by the names of a row.
      metric: of the evaluator.
    """

    def evaluate(key: Key, proposal: Proposal, inherited: Any = None) -> tuple[Evaluation, Any]:
        evaluation, artifacts = evaluator.evaluate(key, proposal, inherited)
        plain, archs = np.asarray(evaluation.fitness, np.float32), np.asarray(proposal.arch)
        fitness = plain.copy()
        for n in np.flatnonzero((np.asarray(proposal.id) >= 0) & np.isfinite(plain)).tolist():
            fitness[n] = weighed(float(plain[n]), costs(archs[n]), config)
        info = {**evaluation.info, f"valid_{metric.name}": metric.sign * plain}
        return evaluation._replace(fitness=fitness, info=info), artifacts

    return Evaluator(evaluate) if config.costs else evaluator
