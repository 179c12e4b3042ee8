"""Which of a machine's devices a worker process has: one each, in turn where workers outnumber them.

A process of JAX takes memory on every GPU that it sees, so a worker sees its own only. Host devices (XLA's
`--xla_force_host_platform_device_count`) cannot be hidden: a worker computes on its own by default.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points

_HOST = re.compile(r"--xla_force_host_platform_device_count=(\d+)")
_GPUS = ("cuda", "rocm")  # kinds of which JAX can be told which to see
_LOOK = "import jax; d = jax.local_devices(); print('nasjax', d[0].platform, d[0].client.platform_version, len(d))"
_LOOK_S = 120.0


def found(environment: Mapping[str, str]) -> tuple[str, int]:
    """The kind ("cpu", "cuda", "rocm", ...) and number of the devices of a JAX process with these variables.

    GPUs are counted by a process that ends before the workers begin, and only where JAX has a plugin for accelerators.
    Raises ValueError where that process fails, with its last line.
    """
    if environment.get("JAX_PLATFORMS") == "cpu" or not _plugins():
        count = _HOST.findall(environment.get("XLA_FLAGS", ""))
        return "cpu", int(count[-1]) if count else 1
    looked = subprocess.run(
        [sys.executable, "-c", _LOOK], env=dict(environment), capture_output=True, text=True, timeout=_LOOK_S
    )
    return told(looked.stdout, looked.stderr)


def told(out: str, err: str) -> tuple[str, int]:
    """`found`, of what the process that looked has printed.

    Example:
      >>> told("nasjax gpu cuda 12090 8", "")
      ('cuda', 8)
    """
    line = next((line for line in out.splitlines() if line.startswith("nasjax ")), None)
    if line is None:
        last = err.strip().splitlines()[-1] if err.strip() else "no message"
        raise ValueError(f"JAX does not start here: {last[:300]}")
    _, platform, *version, count = line.split()
    return (version[0].lower() if platform == "gpu" and version else platform), int(count)


def own(number: int, kind: str, count: int) -> str:
    """The device of worker `number`, from 0, as `use` takes it; "" = JAX's own choice.

    Example:
      >>> own(5, "cuda", 4)
      'cuda:1'
    """
    return f"{kind}:{number % count}" if count > 1 and kind in ("cpu", *_GPUS) else ""


def sharing(workers: int, kind: str, count: int) -> int:
    """The most workers that one device has."""
    return -(-workers // count) if own(0, kind, count) else workers


def use(device: str) -> None:
    """Lets this process compute on a device of `own`; JAX must not have begun."""
    import jax

    kind, _, number = device.partition(":")
    if kind in _GPUS:
        jax.config.update(f"jax_{kind}_visible_devices", number)
    elif kind:
        jax.config.update("jax_default_device", jax.local_devices()[int(number)])


def _plugins() -> bool:
    """Whether JAX could find accelerators: its plugins, or libtpu."""
    return bool(entry_points(group="jax_plugins")) or any(
        importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu")
    )
