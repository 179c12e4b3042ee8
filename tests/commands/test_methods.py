"""Commands of the methods that no other file has, each as small as it goes: a search, and what is printed next."""

import json
import shlex

import pytest
from tools.commands import here, rows

CHAIN = [
    *("--set=space.min_layers=2", "--set=space.max_layers=2", "--set=space.filter_heights=1,3"),
    *("--set=space.filter_widths=3", "--set=space.filter_counts=2,4", "--set=recipe.epochs=1"),
    *("--set=data.train_limit=64", "--set=data.valid_limit=32"),
]
GRAPH = [
    *("--set=space.levels=2", "--set=space.extra_nodes=0", "--set=space.min_params=1", "--set=space.node_ops=resnet"),
    *("--set=space.channels=4", "--set=search.population=2", "--set=search.sample_size=2", "--set=data.resize=8"),
    *("--set=recipe.epochs=1", "--set=recipe.batch_size=8", "--set=data.train_limit=16", "--set=data.valid_limit=8"),
]
COMMANDS = {
    "random": CHAIN,
    "topk": [*CHAIN, "--set=search.population=2", "--set=search.mutants=1", "--set=search.crossovers=1"],
    "bo": [
        *CHAIN,
        "--set=search.initial=2",
        "--set=search.samples=4",
        "--set=search.mutants=4",
        "--set=search.memory=8",
    ],
    "local_search": CHAIN,
    "asha": [*CHAIN, "--set=recipe.epochs=2", "--set=search.rungs=1,2"],
    "evolution": GRAPH,
}


SLOW = ("local_search",)


@pytest.mark.parametrize(
    "method", [pytest.param(method, marks=[pytest.mark.slow] if method in SLOW else []) for method in COMMANDS]
)
def test_a_search_finds_something_and_says_what_comes_next(method, tmp_path):
    path = tmp_path / "run"
    code, out, err = here(f"--method={method}", "--trials=4", f"--workdir={path}", *COMMANDS[method])
    assert code == 0, err
    found, best = rows(path), json.loads((path / "best.json").read_text())
    longest = max(row.get("fidelity", 0) for row in found)
    ended = [row["fitness"] for row in found if row["status"] == "ok" and row.get("fidelity", 0) == longest]
    assert len(found) == 4 and best["fitness"] == max(ended) and (method == "asha") == (longest == 2)
    (told,) = [line for line in out.splitlines() if line.startswith("Next: ")]
    assert "--mode=retrain" in shlex.split(told) and f"--workdir={path}" in shlex.split(told)
