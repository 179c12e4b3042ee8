"""What holds for every test, and for the processes that tests start: strictness, and little time in the compiler.

Implicit rank promotion is an error (pyproject makes warnings errors). XLA takes most of the tests' time, so everything
is compiled in the quickest way, and each worker keeps what it compiled, for its own tests and for their processes,
until the session ends. Workers do not share: JAX writes an entry in place, and another could read half of it.
"""

import gc
import os
import shutil
import tempfile
from pathlib import Path

from nasjax.runtime import xla_flags

gc.set_threshold(50_000, 20, 10)  # tracing makes many objects and few cycles; to look as often as usual takes a tenth
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit it
    _QUICK = (
        *("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"),
        *("--xla_cpu_parallel_codegen_split_count=1", "--xla_llvm_disable_expensive_passes=true"),
    )
    if "XLA_FLAGS" not in os.environ:
        refused = xla_flags.unknown(" ".join(_QUICK))  # one that a version does not know would end every process
        os.environ["XLA_FLAGS"] = " ".join(flag for flag in _QUICK if flag not in refused)
    xla_flags.check()
_MADE = "NASJAX_TEST_PROGRAMS" not in os.environ
if _MADE:
    os.environ["NASJAX_TEST_PROGRAMS"] = tempfile.mkdtemp(prefix="nasjax-xla-")
_WORKER = Path(os.environ["NASJAX_TEST_PROGRAMS"]) / os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_WORKER)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax  # noqa: E402 - after its settings
from tools.progress import pytest_configure  # noqa: E402, F401 - a hook
from tools.ray_here import cluster  # noqa: E402, F401 - a fixture

from nasjax.train import compiling  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
compiling._QUICK["xla_backend_optimization_level"] = 0  # the library's own programs as well
compiling._THOROUGH |= compiling._QUICK

_MAPS, _MANY = Path("/proc/self/maps"), 20_000  # Linux ends a process that asks for more than 65,530


def pytest_collection_finish():
    gc.freeze()  # modules and tests stay


def pytest_runtest_teardown(item, nextitem):
    """Programs of earlier files go before their mappings of memory are too many (jax 0.12 makes most of them)."""
    if (nextitem is None or nextitem.path != item.path) and _MAPS.exists():
        with _MAPS.open() as lines:
            if sum(1 for _ in lines) > _MANY:
                jax.clear_caches()
                gc.collect()


def pytest_unconfigure():
    if _MADE:
        shutil.rmtree(os.environ["NASJAX_TEST_PROGRAMS"], ignore_errors=True)
