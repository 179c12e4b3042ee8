"""Compiled programs that processes share: a killed worker's torn entry never reaches another."""

import os
import socket
import subprocess
import sys

import jax
import pytest

from nasjax.runtime.compile_cache import own_cache


def test_a_torn_entry_of_a_killed_worker_never_reaches_another(tmp_path, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    killed = tmp_path / f"worker-{gone.pid}-{socket.gethostname()}"
    elsewhere = tmp_path / f"worker-{gone.pid}-of-another-machine"
    killed.mkdir()
    elsewhere.mkdir()
    (killed / "torn-cache").write_bytes(b"half an ent")
    (tmp_path / "old-cache").write_bytes(b"whole")
    settings = {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    publish = own_cache(tmp_path)
    own = tmp_path / f"worker-{os.getpid()}-{socket.gethostname()}"
    assert settings == {"jax_compilation_cache_dir": str(own)} and not killed.exists() and elsewhere.exists()
    assert (own / "old-cache").read_bytes() == b"whole" and not list(tmp_path.rglob("torn-cache"))
    (own / "new-cache").write_bytes(b"whole, too")
    assert not (tmp_path / "new-cache").exists()
    publish()
    publish()
    assert (tmp_path / "new-cache").read_bytes() == b"whole, too"


@pytest.mark.slow
def test_a_torn_entry_that_was_left_is_compiled_again(tmp_path):
    """Of a process without workers, which writes into the shared folder itself and was killed there."""
    code = (
        "import jax, jax.numpy as jnp\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "print(float(jax.jit(lambda x: jnp.sin(x) @ x + 3)(jnp.ones((3, 3))).sum()))"
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}

    def run():
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout

    first = run()
    entries = list((tmp_path / "xla").glob("*-cache"))
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    assert run() == first
