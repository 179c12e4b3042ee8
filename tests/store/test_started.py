"""What printed commands begin with: what started the program, as the shell finds it."""

import sys
import tomllib
from pathlib import Path

import pytest

import nasjax
from nasjax import launch
from nasjax.store import plugin, started

ROOT = Path(__file__).parents[2]


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def link(file, to):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.symlink_to(to)


@pytest.fixture
def places(tmp_path):
    """Two environments that share an interpreter, one under the current folder: `here/.venv` and `other`."""
    (tmp_path / "base").touch()
    here = tmp_path / "here"
    for venv in (here / ".venv", tmp_path / "other"):
        for name in ("python", "python3"):
            link(venv / "bin" / name, tmp_path / "base")
        (venv / "bin" / "nasjax").touch()
    return here, tmp_path / "other" / "bin"


def path_of(*folders):
    """The look-up of a PATH of these folders."""
    return lambda name: next((str(folder / name) for folder in folders if (folder / name).exists()), None)


def test_the_console_command_is_named_as_the_shell_finds_it(places):
    here, other = places
    mine = here / ".venv" / "bin"

    def printed(argv0, *path):
        return started.program(str(argv0), str(mine / "python3"), here, path_of(*path))

    assert printed(mine / "nasjax", mine, other) == "nasjax"  # its environment is activated
    assert printed(mine / "nasjax", other, mine) == ".venv/bin/nasjax"  # another one is
    assert printed(".venv/bin/nasjax") == ".venv/bin/nasjax"  # none is
    assert printed(other / "nasjax", mine) == str(other / "nasjax")
    assert printed("../other/bin/nasjax", mine) == "../other/bin/nasjax"


def test_the_module_is_run_by_the_interpreter_that_runs_it(places):
    here, other = places
    mine = here / ".venv" / "bin"

    def printed(python, *path, argv0="/code/nasjax/launch.py"):
        return started.program(argv0, str(python), here, path_of(*path))

    assert printed(mine / "python3", mine) == "python -m nasjax.launch"  # python and python3 of one folder are one
    assert printed(mine / "python", other) == ".venv/bin/python -m nasjax.launch"  # one interpreter, two environments
    assert printed(mine / "python") == ".venv/bin/python -m nasjax.launch"
    assert printed(other / "python", mine) == f"{other}/python -m nasjax.launch"
    for notebook in ("/x/ipykernel_launcher.py", "-c", ""):
        assert printed(mine / "python3", mine, argv0=notebook) == "python -m nasjax.launch"


def test_paths_are_quoted_and_never_looked_up_in_the_path(tmp_path):
    def printed(python):
        return started.program("launch.py", str(python), tmp_path, path_of())

    assert printed(tmp_path / "my env" / "bin" / "python") == "'my env/bin/python' -m nasjax.launch"
    assert printed(tmp_path / "python") == "./python -m nasjax.launch"


def test_the_next_command_begins_with_what_started_the_run(monkeypatch, tmp_path):
    monkeypatch.setattr(started, "own", lambda: "here/nasjax")
    assert plugin.command(Path("a b"), "", "retrain") == "here/nasjax --mode=retrain --workdir='a b'"
    several = "here/nasjax --plugin='a b/plugin.py' --plugin='a b/plugin_2.py' --mode=export --workdir='a b'"
    assert plugin.command(Path("a b"), "0123,4567", "export") == several


def test_the_console_command_is_declared_and_ends_as_the_module_does(monkeypatch):
    module, _, name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["nasjax"].partition(
        ":"
    )
    assert (module, getattr(launch, name)) == (launch.__name__, launch.console)
    ended = []
    monkeypatch.setattr(launch, "main", lambda argv: 2)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["nasjax"])
    monkeypatch.setattr(launch.os, "_exit", ended.append)
    monkeypatch.setattr(launch, "_left_behind", lambda: False)  # a candidate of another test may run
    assert launch.console() == 2 and ended == []
    monkeypatch.setattr(launch, "_left_behind", lambda: True)
    launch.console()
    assert ended == [2]


def test_the_package_says_that_it_has_types():
    assert (Path(nasjax.__file__).parent / "py.typed").is_file()
    packages = pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert packages == {"packages": ["nasjax"]}  # with every file in it that git does not ignore


def test_a_process_of_its_own_is_started_in_the_same_way(tmp_path):
    """So that what it prints to type next is what the user types."""
    script, compiled = tmp_path / "nasjax", tmp_path / "bin" / "nasjax"
    compiled.parent.mkdir()
    script.write_text("#!/usr/bin/python\n")
    compiled.write_bytes(b"\x7fELF")
    assert started.again(str(script), "py") == ["py", str(script)]
    for other in (compiled, tmp_path / "absent" / "nasjax", tmp_path / "launch.py"):
        assert started.again(str(other), "py") == ["py", "-m", "nasjax.launch"]
