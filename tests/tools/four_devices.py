"""Runs a test file as a program that has four devices, because a process has the devices that it started with."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

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


def compare_steps(name, make, batch):
    """In such a program: state and metrics after a step of the learner `make(devices=n)`, on one device and on four."""
    results = []
    for devices in (1, 4):
        learner = make(devices=devices)
        state = learner.init(jax.random.key(0), batch)
        results.append(jax.tree.map(np.asarray, learner.step(jax.random.key(1), state, batch)))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9, err_msg=name)
    print(name)
