"""What the papers and releases say, read a second time and by itself: golden/preset_readings.json.

The values there were taken from the sources and not from `golden/paper_presets.json`, which pins the presets. "by"
tells what was read: the "text" of a paper or article, the "code" of a release, or "notes" of a paper by someone else,
where the text was not at hand. "differs" has what a source says otherwise, and why the preset does not follow it.
"""

import json
from pathlib import Path

import pytest

from experiments.test_paper_values import PINNED, flat, pinned

READ = json.loads((Path(__file__).parents[1] / "golden/preset_readings.json").read_text())
# Of values that no source says: what is ours, what is off or idle, what PyTorch does when nobody says otherwise.
SILENT = ("ours", "off", "not used", "PyTorch's defaults", "half of the images, as on CIFAR")


@pytest.fixture(scope="module")
def presets():
    return {case: flat(case) for case in READ}


@pytest.mark.parametrize("case", READ)
def test_a_preset_has_what_its_sources_say(case, presets):
    for one in READ[case]:
        found = {name: presets[case].get(name, "gone") for name in one["values"]}
        assert found == one["values"], one["source"]
        for name, (theirs, why) in one.get("differs", {}).items():
            assert presets[case].get(name, theirs) != theirs and why, (one["source"], name)


@pytest.mark.parametrize("case", PINNED)
def test_every_value_that_has_a_source_was_read_there(case):
    """With this value: by a case itself, or by the one that it is like."""
    read, like = [], case
    while like is not None:
        read += [item for one in READ.get(like, ()) for item in one["values"].items()]
        like = PINNED.get(like, {}).get("as")
    sources = [source for source in PINNED[case] if source != "as" and not source.startswith(SILENT)]
    assert [item for source in sources for item in PINNED[case][source].items() if item not in read] == []


def test_readings_are_of_a_text_a_code_or_notes():
    assert {one["by"] for readings in READ.values() for one in readings} == {"text", "code", "notes"}
    assert set(READ) - set(PINNED) == {"drnas:imagenet"}  # the search alone is the release's own
    assert all(pinned(case).keys() >= set(one["values"]) for case in set(READ) & set(PINNED) for one in READ[case])
