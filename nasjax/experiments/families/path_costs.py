"""What a path of a supernet takes beside its score, traceable: for the limits of a search and for its objectives."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nasjax.latency.record import Latency

Cost = Callable[[jax.Array], jax.Array]  # archs i32[..., S] -> [...]
Counter = Callable[[str], Cost]  # "params" or "macs", as of a supernet
OBJECTIVES = ("macs", "params")  # of FairNAS, beside the accuracy
COSTS = {*OBJECTIVES, "latency"}


def cost_of(name: str, counter: Counter, latency: Latency | None) -> Cost:
    """One of `COSTS`: multiply-adds, parameters, or predicted milliseconds."""
    if name != "latency":
        return counter(name)
    assert latency is not None, "the settings name a file of latencies"
    predictor, params, macs = latency.predictor, counter("params"), counter("macs")
    return lambda archs: predictor(archs, params(archs), macs(archs), jnp)


def objectives(names: Sequence[str], counter: Counter, latency: Latency | None, *, more_params: bool) -> list[Cost]:
    """What a search minimises; with `more_params` parameters are counted negative."""

    def cost(name: str) -> Cost:
        found = cost_of(name, counter, latency)
        return (lambda archs: -found(archs)) if name == "params" and more_params else found

    return [cost(name) for name in names]


def within(limits: Sequence[tuple[float, Cost]]) -> Callable[[Any], Any] | None:
    """arch -> bool[], whether it keeps to all limits; None where there are none."""
    if not limits:
        return None
    return lambda arch: functools.reduce(operator.and_, [cost(arch) <= limit for limit, cost in limits])
