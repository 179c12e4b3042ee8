"""What a path of a supernet takes beside its score, traceable: for the limits of a search and for its objectives."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.latency.record import Latency
from nasjax.problem.problem import Problem

Cost = Callable[[jax.Array], jax.Array]  # archs i32[..., S] -> [...]
Counter = Callable[[str], Cost]  # "params" or "macs", as of a supernet
OBJECTIVES = ("macs", "params")  # of FairNAS, beside the accuracy
COSTS = {*OBJECTIVES, "latency", "memory"}


def memory_of(problem: Problem) -> Cost:
    """MB at inference, told on the host from each path's own network; infinite where it has none."""

    def one(arch: np.ndarray) -> float:
        try:
            return problem.memory_mb(arch)
        except ValueError:
            return np.inf

    def host(archs: Any) -> np.ndarray:
        rows = np.asarray(archs)
        found = [one(arch) for arch in rows.reshape(-1, rows.shape[-1])]
        return np.array(found, np.float32).reshape(rows.shape[:-1])

    def cost(archs: jax.Array) -> jax.Array:
        form = jax.ShapeDtypeStruct(archs.shape[:-1], jnp.float32)
        return jax.pure_callback(host, form, archs, vmap_method="expand_dims")

    return cost


def cost_of(name: str, counter: Counter, latency: Latency | None, memory: Cost | None = None) -> Cost:
    """One of `COSTS`: multiply-adds, parameters, predicted milliseconds, or MB at inference."""
    if name == "memory":
        assert memory is not None, "the problem tells it"
        return memory
    if name != "latency":
        return counter(name)
    assert latency is not None, "the settings name a file of latencies"
    predictor, params, macs = latency.predictor, counter("params"), counter("macs")
    return lambda archs: predictor(archs, params(archs), macs(archs), jnp)


def objectives(
    names: Sequence[str], counter: Counter, latency: Latency | None, memory: Cost | None = None, *, more_params: bool
) -> list[Cost]:
    """What a search minimises; with `more_params` parameters are counted negative."""

    def cost(name: str) -> Cost:
        found = cost_of(name, counter, latency, memory)
        return (lambda archs: -found(archs)) if name == "params" and more_params else found

    return [cost(name) for name in names]


def within(limits: Sequence[tuple[float, Cost]]) -> Callable[[Any], Any] | None:
    """arch -> bool[], whether it keeps to all limits; None where there are none."""
    if not limits:
        return None
    return lambda arch: functools.reduce(operator.and_, [cost(arch) <= limit for limit, cost in limits])
