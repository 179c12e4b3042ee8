"""JAX's own settings: how they reach workers and config.json, and which of them no run can have.

They are those of `jax.config`, in whichever way the user gave them: a variable, `jax.config.update`, a context.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# They decide which numbers are drawn and how they are rounded: a run resumes only under the same ones.
_NUMBERS: dict[str, Any] = {  # and their defaults
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
}
# They change last digits, or where things run: a run resumed under others warns.
_OTHERS = ("jax_default_matmul_precision", "jax_platforms", "jax_default_device")
# Passed on to workers, but not recorded.
_HELPS = ("jax_debug_nans", "jax_debug_infs", "jax_numpy_rank_promotion", "jax_log_compiles", "jax_traceback_filtering")
# Without these nothing runs: the setting, its value, why.
_NEEDED = (
    ("jax_enable_x64", False, "networks and searchers compute in 32 bits (see --dtype)"),
    ("jax_disable_jit", False, "a training without it takes hours"),
    ("jax_numpy_dtype_promotion", "standard", "networks mix types"),
)
_FLAGS = "XLA_FLAGS"

_platforms: list[str | None] = []  # that the user asked for, where this process leaves them to the workers


def check() -> None:
    """Raises ValueError for settings under which a run would fail, or would not mean what they say."""
    names = (*_NUMBERS, *_OTHERS, "jax_disable_jit", "jax_numpy_dtype_promotion")
    here = {name: _plain(name) for name in names}
    with ThreadPoolExecutor(1) as other:
        there = other.submit(lambda: {name: _plain(name) for name in names}).result()
    for name in names:
        if here[name] != there[name]:
            raise ValueError(
                f"{name} is {here[name]!r} in this thread and {there[name]!r} in those that compile; set it for all by "
                f'jax.config.update("{name}", ...) and not by a context'
            )
    for name, needed, why in _NEEDED:
        if here[name] != needed:
            raise ValueError(
                f'{name} is {here[name]!r}, but {why}; write jax.config.update("{name}", {needed!r}), or '
                f"{name.upper()}={int(needed) if isinstance(needed, bool) else needed} before the command"
            )


def no_backend(error: BaseException) -> bool:
    """Whether this error of JAX means that it has none of the platforms in jax_platforms."""
    return isinstance(error, RuntimeError) and "Unable to initialize backend" in str(error)


def recorded() -> dict[str, Any]:
    """What config.json and result.json say of this process: "numbers", which must stay the same, and "others"."""
    others = {name: _plain(name) for name in _OTHERS} | {_FLAGS: os.environ.get(_FLAGS) or None}
    return {"numbers": {name: _plain(name) for name in _NUMBERS}, "others": others}


def unusual() -> dict[str, Any]:
    """Those of the "numbers" that are not JAX's defaults."""
    return {name: value for name, usual in _NUMBERS.items() if (value := _plain(name)) != usual}


def handed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """A worker's variables: `environment` with the settings of this process."""
    values = {name: _plain(name) for name in (*_NUMBERS, *_OTHERS, *_HELPS)}
    if _platforms:
        values["jax_platforms"] = _platforms[0]
    kept = {name: value for name, value in environment.items() if name.lower() not in values}
    return kept | {name.upper(): str(value) for name, value in values.items() if value is not None}


def stay_off_accelerators() -> None:
    """Leaves accelerators to the workers: this process, which must not have used JAX yet, computes on the CPU."""
    import jax

    if not _platforms:
        _platforms.append(_plain("jax_platforms"))
    jax.config.update("jax_platforms", "cpu")


def leave_memory() -> None:
    """Takes of an accelerator what is needed and no more, beside workers; this process must not have used JAX yet."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _plain(name: str) -> Any:
    """A setting as JSON has it: of an enumeration its value, of a device its platform."""
    import jax

    value = getattr(jax.config, name, None)
    value = getattr(value, "value", getattr(value, "platform", value))
    return value if isinstance(value, (bool, int, str, type(None))) else str(value)
