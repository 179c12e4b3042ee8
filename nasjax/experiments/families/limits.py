"""The limits of a search (`settings.LIMITS`) as a part of where a method draws: no trial is beyond them."""

from __future__ import annotations

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.experiments.families.settings import LIMITS
from nasjax.problem.problem import Problem
from nasjax.runtime.inline import within
from nasjax.searchers.limits import Limited
from nasjax.train.compiling import jit
from nasjax.types import Space

_SAMPLES = 16  # random architectures of which one may be within at once


def limited(problem: Problem) -> Space:
    """The space of a problem; with limits, that of what keeps to them. What cannot be built counts as within."""
    config, space = problem.config, problem.space
    if problem.looked_up or not _limits(config):
        return space

    def host(arch: Any) -> np.ndarray:
        return np.asarray(_excess(problem, np.asarray(arch)), np.float32)

    def excess(arch: jax.Array) -> jax.Array:
        return jax.pure_callback(host, jax.ShapeDtypeStruct((), jnp.float32), arch, vmap_method="sequential")

    return Limited(space, excess)  # type: ignore[return-value]


def require_reachable(problem: Problem, space: Space) -> None:
    """Raises ValueError where draws from the `limited` space of a problem do not get to its limits."""
    if space is problem.space:
        return
    some = np.asarray(jit(jax.vmap(problem.space.sample))(jax.random.split(jax.random.key(0), _SAMPLES)))
    if any(_excess(problem, arch) <= 1 for arch in some):
        return
    arch = np.asarray(jit(space.sample)(jax.random.key(0)))
    if _excess(problem, arch) > 1:
        limits, built = _limits(problem.config), problem.build(arch)
        told = " and ".join(f"{name}={limit}" for name, limit in limits.items())
        costs = {name.removeprefix("max_"): _cost(problem, arch, built, name) for name in limits}
        nearest = " and ".join(
            f"{name} {cost if isinstance(cost, int) else f'{cost:g}'}" for name, cost in costs.items()
        )
        raise ValueError(
            f"no architecture of --space={problem.space.name} was found within {told}: the nearest has {nearest}; give "
            f"a larger limit. It is {json.dumps(built.arch)}"
        )


def longest(config: Any) -> float | None:
    """Seconds that what comes before the candidates may take where it can hang; None = there is no limit of time."""
    limits = [getattr(config, name, None) for name in ("trial_timeout", "wall_s", "cost_s")]
    return min((limit for limit in limits if limit is not None), default=None)


def _limits(config: Any) -> dict[str, float]:
    return {name: limit for name in LIMITS if (limit := getattr(config, name)) is not None}


def _cost(problem: Problem, arch: np.ndarray, built: Any, name: str) -> float:
    """What an Arch takes of the limit `name`."""
    if name in ("max_latency_ms", "max_memory_mb"):
        return problem.predicted(arch, built.params, built.macs)[name.removeprefix("max_")]
    return int(getattr(built, name.removeprefix("max_")))


def _excess(problem: Problem, arch: np.ndarray) -> float:
    """The largest of the shares of its limits that an Arch takes; 0 where that is not known."""
    try:
        built = within(longest(problem.config), functools.partial(problem.build, arch))
    except (ValueError, TimeoutError):  # a worker finds out the same, and the trial fails
        return 0.0
    return max(_cost(problem, arch, built, name) / limit for name, limit in _limits(problem.config).items())
