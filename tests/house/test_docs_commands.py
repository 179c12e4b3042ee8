"""Every command that the pages and the docstrings of methods show is one that the command line takes.

The flags go through the real parser to a configuration; nothing runs behind it but the inspection of a network, whose
figure is compared with the one that stands beside the command.
"""

import json
import os
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tools.commands import accepted, forget_own, idle
from tools.pages import BLOCKS, PAGES, ROOT
from tools.settings_known import settable

from nasjax import catalog, launch

from .test_launch_scripts import CASES

SHELL = [block for block in BLOCKS if block.language == "sh"]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
STANDS_FOR = {"METHOD": "random", "N": "2", "K": "2", "I": "1", "HOST:PORT": "host:1234", "[flags]": ""}
OWN = {name for b in BLOCKS for pair in re.findall(r'SiteSpace\("(\w+)"|data="(\w+)"', b.text) for name in pair}


@pytest.fixture
def taken(monkeypatch, tmp_path):
    """The command line in a folder of its own, with the pages' plugins in it."""
    monkeypatch.chdir(tmp_path)
    yield idle(monkeypatch)
    forget_own()


def words_of(command):
    """A command as words: what stands for something of the reader's is replaced, optional flags are given."""
    words = shlex.split(re.sub(r"\[(--[^]]*)\]", r"\1", command), comments=True)
    replaced = []
    for word in words:
        name, equals, value = word.partition("=")
        replaced.append(name + equals + STANDS_FOR.get(value, value) if equals else STANDS_FOR.get(word, word))
    return [word for word in replaced if word]


def checked(command, place):
    """Follows one command of a shell block; the output of ours."""
    words = words_of(command)
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "nasjax":
        return accepted(arguments)
    if program.startswith("python"):
        assert arguments[0] == "-m" or (ROOT / arguments[0]).is_file(), place
        if arguments[:2] == ["-m", "nasjax.launch"]:
            return accepted(arguments[2:])
        if arguments[0] != "-m":
            return benchmark(arguments, place)
        assert arguments[1] in ("pytest", "venv"), place
        if arguments[1] == "pytest":
            assert all((ROOT / word).exists() for word in arguments[2:] if "/" in word), place
    elif program == ".":
        assert arguments == [".venv/bin/activate"], place
    elif program == "pip":
        extras = re.search(r"\[(.*)\]", command)
        assert arguments[:2] == ["install", "-e"], place
        assert set(extras[1].split(",") if extras else []) <= set(EXTRAS), place
    elif program in ("launch/hosts.sh", "sbatch"):
        flags = [word for word in arguments if word.startswith("--") and not word.startswith("--nodes")]
        assert (ROOT / "launch" / ("slurm.sh" if program == "sbatch" else "hosts.sh")).is_file(), place
        return accepted(flags)
    elif program.startswith("launch/"):
        assert os.access(ROOT / program, os.X_OK), f"{place}: {program}"
        name = program.removeprefix("launch/").removesuffix(".sh")
        methods = {(script, args[0], len(args)) for script, args in CASES}
        first = arguments[0] if arguments[0] in catalog.METHODS else "DATA"
        assert (name, first, len(arguments)) in methods, f"{place}: {command}"  # those are run by their own tests
    else:
        assert program in ("ruff", "ray"), f"{place}: {program}"
    return ""


def benchmark(words, place):
    """The flags of a script of ours stand in it."""
    text = (ROOT / words[0]).read_text()
    for flag in [word.partition("=")[0] for word in words[1:] if word.startswith("--")]:
        assert f'"{flag}"' in text, f"{place}: {words[0]} has no {flag}"
    return ""


def plugins(page):
    """Writes the files that a page's commands read: mine.py, its first program that registers something; those with a
    name of their own; and tables, of which spaces are made.
    """
    for name in ("FILE.npz", "mine.npz", "small.npz"):
        names = {name: np.ones(2) for name in ("fitness", "cost", "valid", "test", "seconds")}
        np.savez(name, ops=np.array([[0], [1]]), op_names=np.array(["a", "b"]), **names)
    own = [b.text for b in BLOCKS if b.page == page and b.language == "python" and "nasjax.register(" in b.text]
    if own:
        Path("mine.py").write_text(own[0])
    for block in BLOCKS:
        if block.page == page and (named := re.fullmatch(r"<!-- plugin: (\w+) -->", block.above)):
            Path(f"{named[1]}.py").write_text(block.text)


@pytest.mark.parametrize("page", sorted({block.page for block in SHELL}))
def test_shell_blocks(page, taken):
    plugins(page)
    lines = [(b.line + n, line) for b in SHELL if b.page == page for n, line in enumerate(b.text.split("\n"))]
    for number, line in lines:
        command, _, comment = line.partition("  #")
        for part in command.split("&&"):
            out = checked(part, f"{page}:{number}")
        if figure := re.search(r"([\d,]+) parameters", comment):
            assert json.loads(out)["params"] == int(figure[1].replace(",", "")), f"{page}:{number}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_text(page, taken):
    """`python -m nasjax.launch ...`, `--flag=value`, `--set a.b=value`, `python benchmarks/...`."""
    plugins(page.name)
    known = launch.define()
    for line, text in page.spans:
        place = f"{page.name}:{line}: {text}"
        if text == "python -m nasjax.launch":  # its name
            continue
        if re.match(r"(\.venv/bin/)?(python3? |nasjax |launch/\w+\.sh )", text):
            checked(text, place)
        elif re.match(r"benchmarks/\S+\.py ", text):
            benchmark(text.split(), place)
        elif text.startswith("--"):
            flags_known(text, known, place)


def flags_known(text, known, place):
    """Each flag is there and takes its value; of several values divided by bars every one."""
    head, *others = re.split(r" \| ", text)
    name = head.partition("=")[0]
    for alternative in [head, *(f"{name}={value}" for value in others)]:
        words = words_of(alternative.replace("FILE|FOLDER", "FILE"))
        for flag in [word for word in words if word.startswith("--")]:
            assert flag[2:].partition("=")[0] in known, f"{place}: no such flag"
        if all("=" in word or not word.startswith("--") for word in words):
            values = launch.define()
            values(["nasjax", *words])
            assert values.mode in launch.MODES and values.preset in (
                None,
                "demo",
                "paper",
                "paper_v2",
                "paper_v3",
                "article",
                "characters",
            ), place
            for name, value in (("method", values.method), ("space", values.space), ("data", values.dataset)):
                listed = {"method": catalog.METHODS, "space": catalog.SPACES, "data": catalog.DATA}[name]
                assert value is None or value in listed or value.endswith(".npz") or value in OWN, place
            for assignment in values.set:
                field, _, value = assignment.partition("=")
                if field.endswith("FIELD") or field == "dotted.field":
                    continue
                assert settable(field, value), f"{place}: no such setting"


@pytest.mark.parametrize("path", sorted((ROOT / "nasjax" / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_commands_of_docstrings(path, taken):
    """The "Command:" of every method, with and without what stands in brackets."""
    found = re.findall(r"^Command: (.*)$", path.read_text(), re.M)
    assert len(found) == (path.stem in catalog.METHODS)
    for command in found:
        checked(command, path.name)
        checked(re.sub(r"\[.*\]", "", command), path.name)
