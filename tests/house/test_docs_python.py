"""The Python of README.md and docs/: calls fit what they call, and what can run at a toy size does.

What compiles more than a little is slow. Plugins run in plugins/, a whole search with its records in
house/test_notebooks.py.
"""

import ast
import doctest
import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tools.calls import wrong_calls
from tools.commands import forget_own, here
from tools.other_libraries import ClassLabel, Columns, Pairs
from tools.pages import PAGES
from tools.programs import COVERED, PROGRAMS, run, runs
from tools.toy_search_network import toy_network

import nasjax
from nasjax import catalog
from nasjax.data.dataset import DataConfig, resize
from nasjax.data.image_file import read_image
from nasjax.evaluators.table import COST, COST_SCALE, FITNESS, RESULT
from nasjax.nets.darts_cell import released as darts_released
from nasjax.ops import onnx_graph
from nasjax.runtime import replicas as replicas_module
from nasjax.searchers.distributed import distributed_reinforce
from nasjax.settings import override
from nasjax.spaces.darts_cell.plan import DartsPlan
from nasjax.types import Built, Signature

from . import test_notebooks  # noqa: F401 - it says which blocks it runs

ELSEWHERE = {("docs/plugins.md", number) for number in range(9)}  # in plugins/
ELSEWHERE |= {("docs/plugins.md", 9)}  # the call itself is in plugins/, on a workdir of its own


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The benchmark's file, with numbers of ours."""
    monkeypatch.chdir(tmp_path)
    space = nasjax.TabularCell()
    archs = np.array(list(space.enumerate()))
    results = np.random.default_rng(0).random(len(archs))
    columns = dict.fromkeys((FITNESS, RESULT), 100 * results) | {COST: np.full(len(archs), 1 / COST_SCALE)}
    np.savez("nas_bench_201.npz", ops=archs, op_names=np.array(space.ops), **columns)
    return results


def test_every_python_block_runs_somewhere():
    every = {(page, number) for page, blocks in PROGRAMS.items() for number in range(len(blocks))}
    assert every == COVERED | ELSEWHERE and not COVERED & ELSEWHERE


@pytest.mark.parametrize("page", sorted(PROGRAMS))
def test_calls_fit_their_signatures(page):
    """Also in what a test runs with other numbers, and where a name is wrong that only Ray, say, would reach."""
    for block in PROGRAMS[page]:
        assert wrong_calls(block.text)[0] == [], block.place


def test_calls_in_text_fit_their_signatures():
    looked = 0
    for page in PAGES:
        for line, text in page.spans:
            if "nasjax." in text and "(" in text and not text.startswith("python"):
                wrong, calls = wrong_calls(text)
                assert not wrong, f"{page.name}:{line}: {wrong}"
                looked += calls
    assert looked >= 4


def test_calls_in_docstrings_fit_their_signatures():
    looked = 0
    for found in pkgutil.walk_packages(nasjax.__path__, "nasjax."):
        module = import_module(found.name)
        for test in doctest.DocTestFinder(exclude_empty=True).find(module, found.name):
            wrong, calls = wrong_calls("".join(example.source for example in test.examples), vars(module).items())
            assert not wrong, f"{test.name}: {wrong}"
            looked += calls
    assert looked > 50


@runs("README.md", 1)
@runs("docs/library.md", 1)
@pytest.mark.slow
@pytest.mark.parametrize(("page", "number"), [("README.md", 1), ("docs/library.md", 1)])
def test_searches_of_a_table(page, number, table):
    names = run(page, [number], {"nasjax": nasjax, "jax": jax}, {"200)": "3)", "trials=110": "trials=24"})
    best = jax.vmap(nasjax.incumbent)(names["history"])
    assert jax.tree.leaves(best)[0].shape[0] == 3


@runs("docs/tables.md", 0)
def test_a_small_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("docs/tables.md", [0])
    space = nasjax.table_space("small.npz")
    rows = nasjax.load_table("small.npz", space, fitness="valid", cost="seconds", result="test", percent=False)
    assert space.size() == 9 and [site.name for site in space.sites] == ["first", "second"]
    np.testing.assert_allclose(rows.fitness - rows.result, 0.02, atol=1e-6)


@runs("docs/tables.md", 1)
def test_a_table_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ops, names, known = np.array([[0], [2]]), np.array(["a", "b", "c"]), {"metric": "rate", "unit": "fraction"}
    np.savez("mine.npz", ops=ops, op_names=names, rate=np.array([0.5, 0.25]), cost=np.ones(2), **known)
    names = run("docs/tables.md", [1])
    assert names["space"].size() == 2 and names["truth"]["rate"].tolist() == [0.5, 0.25]


@runs("README.md", 2)
def test_a_space_of_ones_own():
    try:
        run("README.md", [2])
        builder = catalog.builder("mlp")
        built = builder.build(builder.default, None, {"space": "mlp", "choices": {"width": 32}}, images())
        assert built.params == 64 * 32 + 32 + 32 * 10 + 10
    finally:
        forget_own()


def images():
    return Signature(jax.ShapeDtypeStruct((8, 8, 1), jnp.float32), 10)


@runs("docs/export.md", 0, 1)
@pytest.mark.slow
def test_an_exported_network(tmp_path, monkeypatch, capsys):
    """A sum in place of the network; real ones are run by what the export prints, in house/test_next_lines.py."""
    folder = tmp_path / "runs" / "reinforce-conv_chain-digits-s0" / "export"
    folder.mkdir(parents=True)
    images = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), 8, 8, 1), jnp.uint8)
    exported = jax.export.export(jax.jit(lambda x: 1.0 + x.sum((1, 2, 3))[:, None]))(images)
    (folder / "model.jax").write_bytes(exported.serialize())
    monkeypatch.chdir(tmp_path)
    (folder / "model.json").write_text('{"names": ["cat"], "inputs": [{"shape": ["b", 8, 8, 1]}]}')
    picture = np.random.default_rng(0).integers(0, 256, (13, 5), np.uint8)
    Image.fromarray(picture).save("picture.jpg")
    names = run("docs/export.md", [0, 1])
    assert capsys.readouterr().out == "[[1.]]\ncat\n"
    np.testing.assert_array_equal(names["pixels"], resize(read_image(Path("picture.jpg"), 1)[None], 8, 8)[0])


ELASTIC = ["space.stem=4", "space.channels=8", "space.depths=2", "space.strides=2", "space.tail=8", "space.first=0"]
ELASTIC += ["space.operators=mbconv_k3_e3,mbconv_k5_e3", "supernet.epochs=6", "supernet.batch_size=10"]
ELASTIC += [
    "retrain_recipe.batch_size=10",
    "search.population=4",
    "search.calibration_batches=2",
    "search.calibration_batch_size=16",
]


@runs("docs/export.md", 2, 3)
@pytest.mark.slow
def test_a_front_of_ones_own_images_as_onnx_classifies_pngs(tmp_path, monkeypatch, capsys):
    """From a user's .npz to the front and to the page's scripts, which say of PNGs what `predict` says of arrays."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    monkeypatch.chdir(tmp_path)
    y = np.random.default_rng(0).integers(0, 3, 60)
    x = (
        np.random.default_rng(1).integers(0, 90, (60, 6, 7, 3)).astype(np.uint8)
        + (80 * y).astype(np.uint8)[:, None, None, None]
    )
    np.savez("mine.npz", x=x, y=y, class_names=["cat", "dog", "fox"])
    run_of, few = "--workdir=runs/mine", [f"--set={one}" for one in ELASTIC]
    code, _, err = here("--method=bignas", "--trials=4", "--dataset=mine.npz", run_of, *few)
    assert code == 0, err
    code, out, err = here("--mode=export", "--point=all", "--format=onnx", run_of)
    assert code == 0, err
    *_, point = (int(folder.name) for folder in Path("runs/mine/points").iterdir())
    assert f"trial {point}: test accuracy " in out
    code, out, err = here("--mode=export", f"--point={point}", "--format=onnx", run_of)
    assert code == 0, err
    folder = f"runs/mine/points/{point}"
    assert f"trial {point}: test accuracy " in out and "Outputs are those of cat, dog, fox, in this order." in out
    exec(out[out.index("import numpy, onnxruntime") : out.index("Outputs are")], {})
    assert "array" not in capsys.readouterr().out
    Path("pictures").mkdir()
    for n in range(12):
        Image.fromarray(x[n]).save(f"pictures/{n:02}.png")
    model = nasjax.load("runs/mine", point=point)
    wanted = [[f"{n:02}.png", name] for n, name in enumerate(model.predict(x[:12]))]
    assert len({name for _, name in wanted}) > 1, "the pictures do not count"
    places = {"runs/reinforce-conv_chain-digits-s0": folder, "runs/mine/points/17": folder}
    for block, place in zip((2, 3), places.items(), strict=True):
        run("docs/export.md", [block], replaced=dict([place]))
        said = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert [[Path(file).name, name] for file, name in said] == wanted
    Image.fromarray(x[0, :, :6]).save("pictures/small.png")
    with pytest.raises(AssertionError, match=r"small\.png: other size or kind"):
        run("docs/export.md", [3], replaced={"runs/mine/points/17": folder})
    monkeypatch.setattr(onnx_graph, "CLOSE", -1.0)
    Path(folder, "export/model.onnx").unlink()
    code, _, err = here("--mode=export", f"--point={point}", "--format=onnx", run_of)
    assert code == 2 and "ONNX Runtime gives other outputs than the network" in err
    assert not Path(folder, "export/model.onnx").exists()


def test_the_script_without_pillow_has_fifteen_lines():
    assert sum(bool(line.strip()) for line in PROGRAMS["docs/export.md"][3].text.splitlines()) == 15


def test_a_missing_library_of_onnx_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs jax2onnx and onnx and onnxruntime; pip install 'nasjax\[onnx\]'"):
        onnx_graph.graph(lambda variables, x: x, {}, lambda size: None, ["y"])


@runs("docs/scores.md", 0)
@pytest.mark.slow
def test_scores_without_training():
    small = {"range(10)": "range(2)", "min_layers=4, max_layers=4": "min_layers=1, max_layers=1"}
    names = run("docs/scores.md", [0], replaced=small)
    assert names["best"] in (0, 1) and all(one["synflow"] > 0 for one in names["found"])


@runs("docs/library.md", 0, 2)
@pytest.mark.slow
def test_a_searcher_a_score_and_children():
    names = {"my_score": lambda tree: float(sum(layer["num_filters"] for layer in tree["layers"]))}
    small = {"range(10)": "range(1)", "min_layers=4, max_layers=4": "min_layers=1, max_layers=1"}
    small |= {"DataConfig()": "DataConfig(train_limit=32, valid_limit=16)", "epochs=3": "epochs=1, batch_size=16"}
    run("docs/library.md", [0, 2], names, small)
    assert names["fitness"].shape == (16,) and names["evaluation"].fitness.shape == (2,)
    assert not np.isnan(names["evaluation"].fitness).any(), names["evaluation"].info["error"]


@runs("docs/library.md", 3)
@pytest.mark.slow
def test_a_supernet():
    small = {"channels=(32, 64), depths=(2, 2)": "channels=(24, 48), depths=(1, 1)", "tail=128": "tail=16"}
    names = run("docs/library.md", [3], {"nasjax": nasjax, "jax": jax, "jnp": jnp}, small)
    assert names["logits"].shape == (4, 2, 10)


@runs("docs/library.md", 4)
@pytest.mark.slow
def test_a_search_by_gradients(monkeypatch):
    """With a toy in place of the search network."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), np.array([1, 2])
    monkeypatch.setattr(nasjax, "darts_search", lambda *, channels, layers, classes: toy_network(classes=classes))
    names = run("docs/library.md", [4], {"nasjax": nasjax, "jax": jax, "batch": {"train": (x, y), "val": (x, y)}})
    assert len(names["cell"]["normal"]) == 8 and np.isfinite(names["metrics"]["train_loss"])
    nasjax.darts_eval(nasjax.DartsPlan(nasjax.genotype(names["cell"])))


@runs("docs/library.md", 5, 6)
@pytest.mark.slow
def test_a_released_checkpoint(tmp_path, monkeypatch):
    """With zeros for weights; the published size is traced and stored, not computed."""
    monkeypatch.chdir(tmp_path)
    plan = DartsPlan(nasjax.genotype(nasjax.named("DARTS_V2")), channels=36, layers=20, auxiliary=True)
    np.savez(
        "weights.npz",
        **{name: np.zeros(leaf.shape, np.float32) for leaf in darts_released._leaves(plan) for name in leaf.names},
    )
    names = {"nasjax": nasjax, "x": jnp.zeros((1, 32, 32, 3)), "classes": list("abcdefghij")}
    traced = {
        "nasjax.darts_eval(plan).apply(variables, None, x)": "apply(nasjax.darts_eval(plan), variables, x)",
    }
    names["apply"] = lambda network, v, x: jax.eval_shape(lambda v: network.apply(v, None, x), v)
    run("docs/library.md", [5, 6], names, traced)
    assert names["logits"].shape == (1, 10) and names["model"].names == tuple("abcdefghij")


FORMS = np.random.default_rng(0).integers(0, 256, (90, 8, 8), np.uint8)


@runs("docs/data.md", 0)
def test_arrays_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("docs/data.md", [0], {"images": FORMS, "labels": np.array(["a", "b", "c"] * 30)})
    assert catalog.source("mine.npz").open(DataConfig("mine.npz")).class_names == ("a", "b", "c")


@runs("docs/data.md", 1, 2)
@pytest.mark.slow
def test_arrays_in_a_program(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = ("space.min_layers=1", "space.max_layers=1", "recipe.epochs=1", "last_epochs=1", "recipe.batch_size=16")
    tiny += ("retrain_recipe.epochs=1", "retrain_recipe.batch_size=16")
    names = {"images": FORMS, "labels": np.array(["a", "b", "c"] * 30)}
    small = {'"trials=8"': ", ".join(map(repr, ("trials=2", *tiny)))}
    small |= {'nasjax.configure("random")': f'override(nasjax.configure("random"), "trials=2", *{tiny})'}
    names["override"] = override
    run("docs/data.md", [1, 2], names, small)
    assert (
        set(names["fitted"].predict(FORMS)) <= {"a", "b", "c"}
        and "runs/random-conv_chain-arrays-" in capsys.readouterr().out
    )


@runs("docs/data.md", 3, 4)
def test_data_sets_of_other_libraries(monkeypatch):
    """With stand-ins for the libraries, and what is fitted looked at in the place of a search."""
    pictures = [Image.fromarray(one) for one in FORMS[:4]]
    part = Columns(
        {"image": None, "labels": ClassLabel(["rust", "healthy"])},
        [{"image": p, "labels": i % 2} for i, p in enumerate(pictures)],
    )
    parts = {"train": part, "validation": part, "test": part}
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda name: parts))
    mnist = lambda root, train: Pairs(pictures, [0, 1, 0, 1], ["zero", "one"])  # noqa: E731
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=SimpleNamespace(MNIST=mnist)))
    monkeypatch.setattr(nasjax, "fit", lambda **arrays: arrays, raising=False)
    beans = run("docs/data.md", [3], {"nasjax": nasjax})["fitted"]
    assert beans["x_valid"].shape == (4, 32, 32, 1) and beans["class_names"].tolist() == ["rust", "healthy"]
    assert run("docs/data.md", [4], {"nasjax": nasjax})["fitted"]["y_test"].tolist() == [0, 1, 0, 1]


@runs("docs/methods/reinforce.md", 0)
@pytest.mark.slow
def test_the_distributed_scheme(table):
    space = nasjax.TabularCell()
    names = {"distributed_reinforce": distributed_reinforce, "space": space, "table": nasjax.table, "jax": jax}
    names["rows"] = nasjax.load_table("nas_bench_201.npz", space)
    small = {"replicas=100, children=8, shards=20": "replicas=3, children=2, shards=2", "12_800": "24", "-800": "-4"}
    names = run("docs/methods/reinforce.md", [0], names, small)
    assert names["run"].children.reward.shape == (24,)


@runs("docs/ray.md", 0)
@pytest.mark.slow
def test_parameter_servers(table, monkeypatch):
    """Ray is not needed: in its place stands the simulation of the same parts."""

    def simulated(parts, *, replicas, sleep, settings):
        assert parts and (replicas, sleep, settings.address) == (3, 0.01, "auto")
        space = nasjax.TabularCell()
        evaluator = nasjax.table(space, nasjax.load_table("nas_bench_201.npz", space))
        return distributed_reinforce(space, evaluator, replicas=3, children=2, shards=2)

    monkeypatch.setattr(replicas_module, "replicas", simulated)
    names = run("docs/ray.md", [0], None, {"children=8": "children=2", "960": "24", "-80": "-4"})
    assert names["run"].children.reward.shape == (24,)


@runs("docs/methods/reinforce_rnn.md", 0)
def test_a_cell_for_other_programs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/found").mkdir(parents=True)
    (tmp_path / "runs/found/best.json").write_text(json.dumps({"arch": nasjax.named("GRU")}))
    layer = run("docs/methods/reinforce_rnn.md", [0], None, {"features=256": "features=4"})["layer"]
    x = jnp.zeros((2, 3, 4))
    assert jax.eval_shape(lambda: layer.init_with_output(jax.random.key(0), x)[0]).shape == (2, 3, 4)


@runs("docs/extend.md", 0)
def test_a_builder_as_the_page_for_contributors_shows_it():
    """`...` stands for an architecture there."""
    table = SimpleNamespace(params=3, macs=4)
    space = SimpleNamespace(decode=lambda tree: tree["a"], encode=lambda arch: {"space": "mine", "a": arch})
    names = {"Builder": nasjax.Builder, "Built": Built, "MySpace": lambda: space, "plan": lambda *of: table}
    names["my_network"] = lambda table, *, bn_eps, dtype: (table, bn_eps, dtype)
    builder = run("docs/extend.md", [0], names)["BUILDER"]
    built = builder.build(space, None, {"space": "mine", "a": 1}, images())
    assert (built.arch, built.params, built.macs) == ({"space": "mine", "a": 1}, 3, 4)
    assert built.network(bn_eps=1e-3, dtype="float32") == (table, 1e-3, "float32")


@runs("docs/extend.md", 1)
def test_a_method_as_the_page_for_contributors_shows_it():
    """Every method has these functions with these arguments."""
    shown = run("docs/extend.md", [1], {"Config": object, "Experiment": nasjax.Experiment})
    functions = [
        node for node in ast.parse(PROGRAMS["docs/extend.md"][1].text).body if isinstance(node, ast.FunctionDef)
    ]
    assert len(functions) == 3
    for method in catalog.METHODS:
        module = catalog.method(method)
        for function in functions:
            code = getattr(module, function.name).__code__
            assert code.co_varnames[: code.co_argcount] == tuple(arg.arg for arg in function.args.args), method
            assert shown[function.name].__doc__
        space = module.SPACE
        assert space in catalog.SPACES
        assert set(getattr(module, "PUBLISHED", {})) <= {space, (space, "large"), (space, "cells")}
    (row,) = shown["PUBLISHED"].values()
    assert set(row) <= set(catalog.method("darts").PUBLISHED["darts_cell"])
