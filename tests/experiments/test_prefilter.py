"""Random candidates filtered by NASWOT before training: which go, and what the search makes of those that stay."""

import json

import numpy as np
import pytest

from nasjax import commands
from nasjax.experiments.families.prefilter import dropped
from nasjax.settings import override

TINY = (
    *("data.train_limit=16", "data.valid_limit=8", "data.resize=8", "recipe.epochs=1", "recipe.batch_size=8"),
    *("space.levels=2", "space.extra_nodes=0", "space.min_params=1", "space.node_ops=resnet", "space.channels=4"),
    *("trials=3", "search.population=2", "search.sample_size=2"),
)


def rows(path, name):
    return [json.loads(line) for line in (path / f"{name}.jsonl").read_text().splitlines()]


def test_the_worst_of_each_size_go_and_those_without_a_score_first():
    assert dropped([5, 6, 7, 8], [3.0, None, 1.0, 2.0], 2) == [1, 2]
    sizes = [1] * 25 + [1000] * 25  # the larger ones have the larger scores
    scores = [float(n) for n in range(50)]
    assert dropped(sizes, scores, 10) == [0, 1, 2, 3, 4, 25, 26, 27, 28, 29]
    assert dropped(sizes[::-1], scores[::-1], 10) == [20, 21, 22, 23, 24, 45, 46, 47, 48, 49]
    assert dropped([1, 2], [1.0, 2.0], 0) == []


@pytest.mark.slow
def test_the_search_begins_with_those_that_stay_and_goes_on_with_the_same(tmp_path):
    config = override(commands.configure("evolution"), *TINY, "search.prefilter=0.4")
    commands.search(override(config, "trials=1"), tmp_path / "run", progress=False)
    drawn = (tmp_path / "run/prefilter.jsonl").read_bytes()
    commands.search(config, tmp_path / "run", progress=False)
    assert (tmp_path / "run/prefilter.jsonl").read_bytes() == drawn
    filtered = rows(tmp_path / "run", "prefilter")
    assert [row["kept"] for row in filtered].count(False) == 2 and len(filtered) == 4
    assert all(np.isfinite(row["score"]) for row in filtered)
    kept, gone = ([row["score"] for row in filtered if row["kept"] == which] for which in (True, False))
    assert min(kept) >= max(gone)
    asked = [arch for event in rows(tmp_path / "run", "ledger") if event["event"] == "asked" for arch in event["archs"]]
    assert asked[:2] == [row["genes"] for row in filtered if row["kept"]]
    assert rows(tmp_path / "run", "trials")[2]["parent"] in range(2)


@pytest.mark.parametrize(
    ("settings", "space", "dataset", "said"),
    [
        (("search.prefilter=1",), None, None, "from 0 to below 1"),
        (("search.prefilter=0.2", "table.path=x.npz"), "tabular_cell", None, "leave it 0"),
        (("search.prefilter=0.2",), "cell_tree", "pydoc", "leave it 0"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_there_is_a_workdir(tmp_path, settings, space, dataset, said):
    with pytest.raises(ValueError, match=said):
        commands.search(override(commands.configure("evolution", None, dataset, space), *settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_space_whose_networks_have_no_relu_is_refused(tmp_path):
    """Transformers have GELUs: to drop the first ones of them would be no filter."""
    small = ("space.depths=1", "space.widths=8", "space.heads=1", "space.patch=4", "space.distance=0")
    config = override(commands.configure("evolution", space="vit_chain"), *small, "search.population=2")
    with pytest.raises(ValueError, match=r"score none of 4 random networks of --space=vit_chain .*no ReLU.*leave it 0"):
        commands.search(override(config, "search.sample_size=2", "search.prefilter=0.4"), tmp_path, progress=False)


@pytest.mark.slow
def test_a_workdir_of_an_older_version_goes_on_where_the_new_setting_is_the_default(tmp_path):
    """As one that was made before `search.prefilter` there was."""
    config = override(commands.configure("evolution"), *TINY, "trials=1")
    commands.search(config, tmp_path, progress=False)
    record = json.loads((tmp_path / "config.json").read_text())
    del record["config"]["search"]["prefilter"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"search.prefilter: 0.0 -> 0.2"):
        commands.search(override(config, "search.prefilter=0.2"), tmp_path, progress=False)
    assert commands.search(override(config, "trials=2"), tmp_path, progress=False).trials == 2
