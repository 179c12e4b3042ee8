"""Worker processes have a device each: by what JAX says of a machine, and in real processes on forced host devices."""

import os
import subprocess
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from nasjax.runtime import devices
from nasjax.runtime.process import process

FORCED = "--xla_force_host_platform_device_count=3"


def test_host_devices_are_those_that_the_flag_forces():
    assert devices.found({"JAX_PLATFORMS": "cpu"}) == ("cpu", 1)
    assert devices.found({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_a=1 {FORCED}"}) == ("cpu", 3)


def test_accelerators_are_counted_by_a_process_that_ends(monkeypatch):
    asked = []

    def run(words, **options):
        asked.append((words, options["env"]))
        return SimpleNamespace(stdout="a line of a library\nnasjax gpu cuda 12090 4\n", stderr="")

    monkeypatch.setattr(devices, "_plugins", lambda: True)
    monkeypatch.setattr(subprocess, "run", run)
    assert devices.found({"CUDA_VISIBLE_DEVICES": "2,3,5,7"}) == ("cuda", 4)
    assert devices.found({"JAX_PLATFORMS": "cpu"}) == ("cpu", 1)  # asked for, whatever there is
    assert [env for _, env in asked] == [{"CUDA_VISIBLE_DEVICES": "2,3,5,7"}]


def test_what_jax_prints_of_devices():
    assert devices.told("nasjax tpu libtpu 1 Built on x 8", "") == ("tpu", 8)
    assert devices.told("nasjax gpu ROCM 6 2", "") == ("rocm", 2)
    with pytest.raises(ValueError, match="JAX does not start here: RuntimeError: no such driver"):
        devices.told("", "a warning\nRuntimeError: no such driver\n")


def test_each_worker_has_its_own_and_more_workers_share():
    assert [devices.own(n, "cuda", 2) for n in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert devices.own(3, "cpu", 1) == devices.own(3, "tpu", 4) == ""  # no choice; a TPU is one process's
    assert [devices.sharing(n, "cuda", 4) for n in (1, 4, 5)] == [1, 1, 2]
    assert devices.sharing(5, "tpu", 4) == devices.sharing(5, "cpu", 1) == 5


def begin():
    """Of `runtime.process`: the device on which a task computes, once three processes have a task in the folder."""

    def work(folder):
        (folder / str(os.getpid())).touch()
        while len(list(folder.iterdir())) < 3:
            time.sleep(0.02)
        (device,) = jnp.ones(()).devices()
        return device.id, len(jax.local_devices())

    return {}, work


@pytest.mark.slow
def test_three_workers_compute_on_three_devices(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", FORCED)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    runtime, _ = process(begin, (), workers=3, logs=tmp_path / "logs")
    (met := tmp_path / "met").mkdir()
    try:
        tickets, found = [runtime.submit(met, timeout_s=60) for _ in range(3)], {}
        while len(found) < 3:
            found |= dict(runtime.wait())
        assert sorted(found[ticket] for ticket in tickets) == [(0, 3), (1, 3), (2, 3)]
    finally:
        runtime.close()
