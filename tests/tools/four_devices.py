"""Runs a test file as a program that has four devices, because a process has the devices that it started with."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
RUN = "import conftest, runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"  # compiled as the tests are


def on_four_devices(file, float64=False):
    """What `python FILE` prints; it must end well."""
    env = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
        "JAX_ENABLE_X64": str(int(float64)),
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    out = subprocess.run([sys.executable, "-W", "error", "-c", RUN, file], env=env, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-3000:]
    return out.stdout.split()
