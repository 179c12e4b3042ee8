"""Plugins as files of a run: run in order, known by a digest, copied into the workdir, named in its commands."""

import hashlib
from pathlib import Path

import pytest

from nasjax.store import plugin

RUNS = []  # what the plugins below note


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two plugins that note when they are run."""
    monkeypatch.setattr(plugin, "_RUN", {})
    RUNS.clear()
    written = [tmp_path / "a.py", tmp_path / "b.py"]
    for file in written:
        file.write_text(f"from {__name__} import RUNS\nRUNS.append({file.stem!r})\n")
    return written


def digests(files):
    return ",".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def test_several_are_run_in_order_and_known_by_all(files):
    a, b = files
    assert plugin.use(a, b) == digests([a, b]) and RUNS == ["a", "b"]
    assert plugin.use(a, b) == digests([a, b]) and RUNS == ["a", "b"]  # they were the last
    assert plugin.use(b, a) == digests([b, a]) and RUNS == ["a", "b", "b", "a"]  # the last one to register counts
    assert plugin.use(a) == digests([a]) and len(RUNS) == 4
    assert plugin.files_of(digests(files)) == files and plugin.files_of("") == []


def test_a_workdir_has_copies_of_all_and_its_commands_name_them(files, tmp_path):
    run = tmp_path / "a run"
    run.mkdir()
    digest = plugin.use(*files)
    plugin.keep(run, digest)
    plugin.keep(run, "")
    assert sorted(path.name for path in run.iterdir()) == ["plugin.py", "plugin_2.py"]
    assert plugin.use(*plugin.copies(run, digest)) == digest
    assert plugin.flags(Path("a run"), digest) == "--plugin='a run/plugin.py' --plugin='a run/plugin_2.py'"
    assert plugin.flags(run, "") == ""
    files[1].write_text("# changed\n")
    (run / "plugin_2.py").unlink()
    plugin._RUN[digest.split(",")[1]] = files[1]
    with pytest.raises(ValueError, match="has changed since it was run"):
        plugin.keep(run, digest)


def test_a_workdir_needs_every_plugin_that_it_was_made_with(files):
    a, b = files
    digest = digests(files)
    both = r"--plugin=run/plugin\.py --plugin=run/plugin_2\.py"
    with pytest.raises(ValueError, match=f"made with a plugin; add {both}"):
        plugin.require(Path("run"), digest)
    plugin.use(a)
    with pytest.raises(ValueError, match=f"another plugin than the one given; give {both}, or --changed_plugin"):
        plugin.require(Path("run"), digest)
    plugin.require(Path("run"), digest, changed=True)
    plugin.use(b)
    plugin.require(Path("run"), digest)
    plugin.require(Path("run"), "")
