"""Compiler settings for training programs: on a CPU, compiling is a large part of a user's waiting time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

# Half the compile time of the defaults, with equally fast steps (measured on convolutional networks at 8x8 and 32x32).
# The whole width of AVX-512, where a CPU has it, takes 0.6 of the time in depthwise convolutions of 5x5 and 7x7.
_WIDE: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}
_QUICK: dict[str, Any] = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False, **_WIDE}
# Else XLA's defaults. A population of recurrent cells is elementwise code in a loop over time: it takes 0.7 of the time
# so, and 0.95 of that at the whole width.
_THOROUGH: dict[str, Any] = _WIDE


@functools.cache
def options(*, thorough: bool = False) -> dict[str, Any] | None:
    """`compiler_options` for `jax.jit` on this backend: those that its version of XLA knows; None where none are."""
    if jax.default_backend() != "cpu":
        return None
    wanted = _THOROUGH if thorough else _QUICK
    if _known(wanted):
        return wanted
    return {name: value for name, value in wanted.items() if _known({name: value})} or None


def _known(wanted: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda x: x + 1).lower(0.0).compile(compiler_options=wanted)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def jit(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """`jax.jit` with `options`, of a program that the host calls: JAX allows none inside another one."""
    return jax.jit(function, compiler_options=options(), **settings)


def compile_lowered(lowered: jax.stages.Lowered, *, thorough: bool = False) -> jax.stages.Compiled:
    """A training program compiled with `options`: quickly, or `thorough`ly for long loops of elementwise code."""
    return lowered.compile(compiler_options=options(thorough=thorough))
