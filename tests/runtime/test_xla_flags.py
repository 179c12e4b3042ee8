"""Compiler options and flags that a version of XLA does not know: told or left out, never the end of a process."""

import os

import pytest
from tools.commands import start

from nasjax.runtime import xla_flags
from nasjax.train import compiling

KNOWN = "--xla_backend_optimization_level=0"


def test_flags_that_xla_refuses_are_found():
    assert xla_flags.unknown(f"{KNOWN} --xla_no_such_flag=1 --xla_nor_this") == [
        "--xla_no_such_flag=1",
        "--xla_nor_this",
    ]
    assert xla_flags.unknown(KNOWN) == []


def test_a_command_with_an_unknown_flag_ends_with_one_line(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{KNOWN} --xla_no_such_flag=1")
    ended = start("--method=random", "--mode=inspect")
    out, err = ended.communicate(timeout=60)
    assert ended.returncode == 2
    assert (out + err).splitlines() == [
        "error: this version of XLA does not know --xla_no_such_flag=1; take it out of XLA_FLAGS"
    ]


def test_these_tests_compile_with_all_of_their_flags_that_xla_knows():
    assert KNOWN in os.environ["XLA_FLAGS"]


@pytest.mark.parametrize("known", [{"xla_backend_optimization_level": 1}, {}])
def test_an_unknown_compiler_option_costs_the_others_nothing(monkeypatch, known):
    monkeypatch.setattr(compiling, "_QUICK", {**known, "xla_no_such_option": True})
    compiling.options.cache_clear()
    try:
        assert compiling.options() == (known or None)
    finally:
        compiling.options.cache_clear()
