"""Transformers as a user meets them: searches, inherited weights, retraining, and a supernet."""

import numpy as np
import pytest
from tools.commands import here, rows

import nasjax

TINY = [
    *("--space=vit_chain", "--set=space.depths=1,2", "--set=space.widths=8,16", "--set=space.heads=1,2"),
    *("--set=space.patch=4", "--set=space.distance=1", "--set=data.train_limit=64", "--set=data.valid_limit=32"),
]
CANDIDATES = [*TINY, "--set=recipe.epochs=1", "--trials=4"]
SEARCHES = {
    "random": [],  # by `at_random`
    "reinforce": [],
    "topk": ["--set=search.population=2", "--set=search.mutants=1", "--set=search.crossovers=1"],
    "evolution": ["--set=search.population=2", "--set=search.sample_size=2"],
}
SUPERNETS = {
    "spos": ["--set=search.top_k=2", "--set=search.mutants=2", "--set=search.crossovers=2"],
    "fairnas": [],
    "bignas": [],
}


def searched(method, path, *more):
    code, out, err = here(f"--method={method}", f"--workdir={path}", *more)
    assert code == 0, err
    assert "--mode=retrain" in out
    return rows(path)


@pytest.fixture(scope="module")
def at_random(tmp_path_factory):
    path = tmp_path_factory.mktemp("vit") / "run"
    searched("random", path, *CANDIDATES)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("method", SEARCHES)
def test_a_search_by_candidates(method, at_random, tmp_path):
    """REINFORCE takes the largest depth; children of an evolution have weights of their parents."""
    path = at_random if method == "random" else tmp_path / "run"
    found = rows(path) if method == "random" else searched(method, path, *CANDIDATES, *SEARCHES[method])
    assert [row["status"] for row in found] == ["ok"] * 4
    if method == "reinforce":
        assert {len(row["arch"]["num_heads"]) for row in found} == {2}
    if method == "evolution":
        assert all((row["inherited"] > 0.3) == (row["parent"] >= 0) for row in found)
        assert any(row["parent"] >= 0 for row in found)
    page = (path / "report.html").read_text()
    assert '<svg class="net"' in page and "MLP ×" in page


@pytest.mark.slow
def test_retrain_predict_and_export(at_random, tmp_path):
    path = at_random
    code, out, err = here("--mode=retrain", f"--workdir={path}", "--set=retrain_recipe.epochs=1")
    assert code == 0 and "Test accuracy" in out, err
    model = nasjax.load(path)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    assert model.apply(model.variables, images).shape == (2, 10)
    np.savez(tmp_path / "mine.npz", x=images)
    for mode in ("predict", "export"):
        code, _, err = here(
            f"--mode={mode}", f"--workdir={path}", *([f"--input={tmp_path / 'mine.npz'}"] if mode == "predict" else [])
        )
        assert code == 0, err
    assert (path / "export" / "model.jax").is_file() and any((path / "predict").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("method", SUPERNETS)
def test_a_search_in_a_supernet(method, tmp_path):
    small = ["--set=supernet.epochs=2", "--set=supernet.batch_size=32", "--set=search.population=4", "--trials=8"]
    found = searched(method, tmp_path / "run", *TINY, *small, *SUPERNETS[method])
    assert len({row["hash"] for row in found}) == 8
    for row in found:
        score = row["fitness"] if method == "spos" else row["fitness"][0]
        assert 0 <= score <= 1 and row["params"] > 0
