"""Every hyper-parameter of every `paper` preset, by name, value and source: golden/paper_presets.json.

A source is a section of a paper, a file of a release, "ours" (the sources are silent), "off" (neither has it) or "not
used" (another setting makes it idle). Who changes a preset changes that file, and says where the value comes from.
"""

import json
from pathlib import Path

import pytest

from nasjax import catalog, commands
from nasjax.settings import as_json

PINNED = json.loads((Path(__file__).parent / "golden/paper_presets.json").read_text())
FAMILY = ("darts", "pc_darts", "p_darts", "msr_darts")
CASES = (*catalog.METHODS, *(f"{method}:imagenet" for method in FAMILY))
# Where data lie, how a run is carried out, how precisely it multiplies: no hyper-parameters.
ASIDE = (
    "method",
    "preset",
    "seed",
    "plugin",
    "truth",
    "table",
    "workers",
    "trial_timeout",
    "wall_s",
    "cost_s",
    "width",
)
ASIDE += ("strategy", "inherit", "max_params", "data", "runtime", "ray")


def flat(case):
    """The preset's settings by dotted name, as JSON has them."""
    method, _, dataset = case.partition(":")

    def walk(tree, prefix=""):
        for name, value in tree.items():
            yield from walk(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]

    settings = dict(walk(json.loads(json.dumps(as_json(commands.configure(method, "paper", dataset or None))))))
    counted = ("data.valid_size", "data.window")
    return {
        name: value
        for name, value in settings.items()
        if name in counted or (name.split(".")[0] not in ASIDE and not name.endswith("dtype"))
    }


@pytest.mark.parametrize("case", CASES)
def test_every_hyper_parameter_is_pinned_with_its_source(case):
    pinned = {}
    for source, values in PINNED[case].items():
        assert source and not set(values) & set(pinned)
        pinned |= values
    found = flat(case)
    assert {name for name in found if name not in pinned} == set()
    assert {name: value for name, value in pinned.items() if found.get(name, "gone") != value} == {}


def test_all_presets_are_pinned():
    assert set(PINNED) == set(CASES)
