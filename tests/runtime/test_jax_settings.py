"""JAX's own settings: workers have them, config.json says them, and those under which nothing runs are one line."""

import json
import os

import jax
import pytest
from tools.commands import here

from nasjax import commands
from nasjax.runtime import jax_settings, ray
from nasjax.runtime.worker import begun
from nasjax.settings import override
from nasjax.store import workdir
from nasjax.types import afterwards


@pytest.fixture
def settings():
    """update(name, value) of `jax.config`, undone afterwards."""
    before = {}

    def update(name, value):
        before.setdefault(name, getattr(jax.config, name))
        jax.config.update(name, value)

    yield update
    for name, value in before.items():
        jax.config.update(name, value)


def test_workers_have_what_the_program_set(settings, monkeypatch):
    settings("jax_default_prng_impl", "rbg")
    settings("jax_default_matmul_precision", "high")
    settings("jax_debug_nans", True)
    monkeypatch.setattr(jax_settings, "_platforms", [])
    given = {
        "JAX_DEFAULT_PRNG_IMPL": "unsafe_rbg",
        "JAX_DEFAULT_DEVICE": "tpu",
        "XLA_FLAGS": "--xla_cpu_x",
        "HOME": "/",
    }
    found = jax_settings.handed_on(given)
    assert found["JAX_DEFAULT_PRNG_IMPL"] == "rbg" and found["JAX_DEFAULT_MATMUL_PRECISION"] == "high"
    assert found["JAX_DEBUG_NANS"] == "True" and found["JAX_ENABLE_X64"] == "False"
    assert found["JAX_PLATFORMS"] == "cpu" and found["XLA_FLAGS"] == "--xla_cpu_x" and found["HOME"] == "/"
    assert "JAX_DEFAULT_DEVICE" not in found  # it is None here
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    there = ray.environment(0)
    assert there["JAX_DEFAULT_PRNG_IMPL"] == "rbg" and there["NVIDIA_TF32_OVERRIDE"] == "0" and "HOME" not in there


@pytest.mark.slow
def test_workers_train_under_another_generator_of_random_numbers(settings, tmp_path):
    """Keys of another form reach a worker process, and its candidates do not fail."""
    settings("jax_default_prng_impl", "rbg")
    tiny = ("space.min_layers=2", "space.max_layers=2", "recipe.epochs=1", "last_epochs=1", "data.train_limit=64")
    config = override(commands.configure("random"), *tiny, "data.valid_limit=32", "trials=2", "workers=1")
    found = commands.search(config, tmp_path / "run", progress=False)
    assert (found.trials, found.failed) == (2, 0)
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["jax"]["numbers"]["jax_default_prng_impl"] == "rbg"
    )


def test_workers_have_the_accelerator_that_their_driver_leaves_to_them(settings, monkeypatch):
    monkeypatch.setattr(jax_settings, "_platforms", [])
    settings("jax_platforms", None)
    jax_settings.stay_off_accelerators()
    jax_settings.stay_off_accelerators()
    assert jax.config.jax_platforms == "cpu" and "JAX_PLATFORMS" not in jax_settings.handed_on(os.environ)


def test_a_run_continues_only_under_the_settings_that_it_was_begun_under(settings, tmp_path, capsys):
    def opened(**changes):
        record = {"config": {}, "jax": jax_settings.recorded(), **changes}
        with workdir.opened(tmp_path / "run", json.loads(json.dumps(record)), defaults={}):
            pass

    opened()
    assert json.loads((tmp_path / "run/config.json").read_text())["jax"] == jax_settings.recorded()
    assert jax_settings.unusual() == {}
    settings("jax_default_prng_impl", "rbg")
    assert jax_settings.unusual() == {"jax_default_prng_impl": "rbg"}
    with pytest.raises(ValueError, match=r"other settings of JAX .jax_default_prng_impl: threefry2x32 -> rbg"):
        opened()
    settings("jax_default_prng_impl", "threefry2x32")
    assert not capsys.readouterr().err
    settings("jax_default_matmul_precision", "high")
    opened()
    assert "warning" in (said := capsys.readouterr().err) and "jax_default_matmul_precision: None -> high" in said
    record = json.loads((tmp_path / "run/config.json").read_text())
    del record["jax"]  # as versions before wrote it
    (tmp_path / "run/config.json").write_text(json.dumps(record))
    opened()


@pytest.mark.parametrize("mode", ["search", "retrain", "inspect", "predict", "export"])
def test_settings_under_which_nothing_runs_are_refused_first(settings, mode, tmp_path):
    settings("jax_enable_x64", True)
    more = ["--input=x"] if mode == "predict" else []
    code, out, err = here("--method=random", f"--mode={mode}", f"--workdir={tmp_path / 'w'}", *more)
    assert code == 2 and not out and not (tmp_path / "w").exists()
    assert len(err.splitlines()) == 1 and 'write jax.config.update("jax_enable_x64", False), or JAX_ENABLE_X64=0' in err


def test_other_settings_that_are_refused(settings):
    jax_settings.check()
    with jax.default_prng_impl("rbg"), pytest.raises(ValueError, match="and not by a context"):
        jax_settings.check()
    settings("jax_numpy_dtype_promotion", "strict")
    with pytest.raises(ValueError, match="jax_numpy_dtype_promotion is 'strict', but networks mix types"):
        jax_settings.check()
    settings("jax_numpy_dtype_promotion", "standard")
    settings("jax_disable_jit", True)
    with pytest.raises(ValueError, match="jax_disable_jit is True"):
        jax_settings.check()


def test_a_platform_that_is_not_there_is_wrong_usage_in_a_worker_too():
    def begin():
        raise RuntimeError("Unable to initialize backend 'foo'")

    (what, kind, text), work = begun(begin, ())
    assert (what, kind, work) == ("refused", "ValueError", None) and "'foo'" in text


def test_the_first_error_is_the_one_told():
    def fails():
        raise OSError("the second")

    with pytest.raises(KeyError, match="the first") as told, afterwards(fails):
        raise KeyError("the first")
    assert told.value.__notes__ == ["afterwards: OSError: the second"]
    with pytest.raises(OSError, match="the second"), afterwards(fails):
        pass
