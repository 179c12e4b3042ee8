"""Every hyper-parameter of every `paper` preset, by name, value and source: golden/paper_presets.json.

A source is a section of a paper, a file of a release, "ours" (the sources are silent), "off" (neither has it) or "not
used" (another setting makes it idle). Who changes a preset changes that file, and says where the value comes from. A
case with "as" has that one's values where it says nothing, but for space and network where it has another space.
"""

import json
from pathlib import Path

import pytest

from nasjax import catalog, commands
from nasjax.settings import as_json

PINNED = json.loads((Path(__file__).parents[1] / "golden/paper_presets.json").read_text())
FAMILY = ("darts", "pc_darts", "p_darts", "msr_darts")
CASES = (  # method[:dataset][@space][/preset]
    *catalog.METHODS,
    *(f"{method}:imagenet" for method in FAMILY),
    *(f"reinforce/{preset}" for preset in ("paper_v2", "paper_v3")),
    "evolution/article",
    "reinforce_rnn/characters",
    *(f"{method}@tabular_cell" for method in ("random", "darts", "gdas", "drnas", "pc_darts", "spos")),
    "random@darts_cell",
    *(f"{method}:cifar10" for method in ("spos", "fairnas", "bn_nas", "bignas")),
)
# Where data lie, how a run is carried out, how precisely it multiplies: no hyper-parameters.
ASIDE = (
    "method",
    "preset",
    "seed",
    "plugin",
    "truth",
    "truth_percent",
    "table",
    "workers",
    "trial_timeout",
    "wall_s",
    "cost_s",
    "width",
)
ASIDE += ("strategy", "inherit", "max_params", "latency", "max_latency_ms", "data", "runtime", "ray", "save_every")
ASIDE += ("init_from", "max_memory_mb", "memory_batch", "tradeoff")


def flat(case):
    """The preset's settings by dotted name, as JSON has them."""
    case, _, preset = case.partition("/")
    case, _, space = case.partition("@")
    method, _, dataset = case.partition(":")

    def walk(tree, prefix=""):
        for name, value in tree.items():
            yield from walk(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]

    settings = dict(
        walk(
            json.loads(
                json.dumps(as_json(commands.configure(method, preset or "paper", dataset or None, space or None)))
            )
        )
    )
    counted = ("data.valid_size", "data.window")
    return {
        name: value
        for name, value in settings.items()
        if name in counted or (name.split(".")[0] not in ASIDE and not name.endswith("dtype"))
    }


def pinned(case):
    """Dotted name -> value."""
    tree = dict(PINNED[case])
    known = pinned(tree.pop("as")) if "as" in tree else {}
    if "@" in case:
        known = {name: value for name, value in known.items() if name.split(".")[0] not in ("space", "form")}
        known = {
            name: value
            for name, value in known.items()
            if name not in ("search.channels", "search.layers", "search.stem")
        }
    own = {}
    for source, values in tree.items():
        assert source and not set(values) & set(own)
        own |= values
    return known | own


@pytest.mark.parametrize("case", CASES)
def test_every_hyper_parameter_is_pinned_with_its_source(case):
    found, known = flat(case), pinned(case)
    assert {name for name in found if name not in known} == set()
    assert {name: value for name, value in known.items() if found.get(name, "gone") != value} == {}


def test_all_presets_are_pinned():
    assert set(PINNED) == set(CASES)
