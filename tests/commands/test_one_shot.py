"""The one-shot methods as a user meets them: three phases, kills in the first two, mistakes, published counts."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from tools.commands import here, killed

import nasjax
from nasjax import commands, launch
from nasjax.experiments.families import supernets
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.types import Proposal

TINY = [
    "--set=space.stem=4",
    "--set=space.channels=8",
    "--set=space.depths=2",
    "--set=space.strides=2",
    "--set=space.tail=8",
    "--set=supernet.epochs=3",
    "--set=supernet.batch_size=16",
    "--set=data.train_limit=48",
    "--set=data.valid_limit=32",
    "--set=search.population=4",
    "--set=retrain_recipe.epochs=1",
    "--set=retrain_recipe.batch_size=48",
]
SPOS = ["--method=spos", "--set=space.operators=shuffle_k3,shuffle_k5", *TINY, "--set=space.depths=3"]
SPOS += ["--set=search.population=3", "--set=search.top_k=2", "--set=search.mutants=1", "--set=search.crossovers=1"]
SPOS += ["--set=search.calibration_batches=2", "--set=search.calibration_batch_size=16", "--trials=6"]
MOBILE = [*TINY, "--set=space.first=0", "--set=space.operators=mbconv_k3_e3,mbconv_k5_e3"]
FAIRNAS = ["--method=fairnas", *MOBILE, "--set=search.calibration_batches=2", "--trials=4"]  # of four paths
FAIRNAS += ["--set=search.calibration_batch_size=16"]
BN_NAS = ["--method=bn_nas", *MOBILE, "--set=space.depths=9", "--set=search.top_k=2"]
BN_NAS += [
    "--set=search.population=8",
    "--set=search.mutants=8",
    "--set=search.crossovers=0",
    "--set=search.mutation_rate=0.3",
]


def lines(path):
    """A file's rows, without what is measured in seconds."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("wall_s", "cost_s")} for row in rows]


def states(folder):
    """The last checkpoint but for its clock: name, {where: bytes}."""
    newest = max(path for path in folder.iterdir() if path.name.isdigit())
    leaves = jax.tree.leaves_with_path(ocp.load(newest))
    arrays = {jax.tree_util.keystr(where): np.asarray(leaf).tobytes() for where, leaf in leaves}
    return newest.name, {where: data for where, data in arrays.items() if "wall_s" not in where}


@pytest.fixture(scope="module")
def spos(tmp_path_factory):
    path = tmp_path_factory.mktemp("spos") / "run"
    code, out, err = here(*SPOS, f"--workdir={path}")
    assert code == 0, err
    return path, out, err


def test_both_phases_leave_their_results(spos):
    path, out, err = spos
    trials = lines(path / "trials.jsonl")
    assert len(trials) == 6 and len({row["hash"] for row in trials}) == 6
    assert all(row["status"] == "ok" and 0 <= row["fitness"] <= 1 and row["macs"] > 0 for row in trials)
    epochs = lines(path / "supernet/metrics.jsonl")
    assert [row["epoch"] for row in epochs] == [1, 2, 3] and epochs[-1]["train_loss"] > 0
    assert json.loads((path / "best.json").read_text())["fitness"] == max(row["fitness"] for row in trials)
    assert "6 trials (0 failed)" in out and "--mode=retrain" in out and "supernet epoch 3" in err
    assert "<html" in (path / "report.html").read_text()


@pytest.mark.slow
def test_kills_in_both_phases_change_nothing(spos, tmp_path):
    """kill -9 after the second epoch's line, then after the first generation's trials, then to the end."""
    path = tmp_path / "killed"
    for dying in (2, 6):  # the second run writes two epochs, then three events of the ledger and the trials
        killed(*SPOS, f"--workdir={path}", write=dying)
        assert (path / "trials.jsonl").exists() == (dying == 6)
    code, _, err = here(*SPOS, f"--workdir={path}")
    assert code == 0, err
    for name in ("trials.jsonl", "metrics.jsonl", "supernet/metrics.jsonl"):
        assert lines(path / name) == lines(spos[0] / name), name
    folder = "supernet/checkpoints"
    (name, found), (expected_name, expected) = states(path / folder), states(spos[0] / folder)
    assert name == expected_name and found.keys() == expected.keys() and len(found) > 5
    assert [where for where in found if found[where] != expected[where]] == []


@pytest.mark.slow
def test_retrain_the_best_two_and_judge_the_ranking(spos):
    """retrain.top_k and retrain.sample; then the model is there to load."""
    path = spos[0]
    code, out, err = here("--mode=retrain", f"--workdir={path}", "--set=retrain.top_k=2", "--set=retrain.sample=2")
    assert code == 0, err
    assert "Test accuracy" in out and "Kendall's tau of the search's scores and of 2 paths trained alone: " in out
    alone = lines(path / "standalone.jsonl")
    trials = lines(path / "trials.jsonl")
    assert [(row["arch"], row["score"]) for row in alone] == [(row["arch"], row["fitness"]) for row in trials[:2]]
    assert all(0 <= row["accuracy"] <= 1 for row in alone)
    result, model = json.loads((path / "result.json").read_text()), nasjax.load(path)
    best = sorted(trials, key=lambda row: (-row["fitness"], row["id"]))[:2]
    assert result["arch"] in [row["arch"] for row in best]
    assert model.apply(model.variables, np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)


@pytest.mark.slow
def test_a_supernet_begins_with_the_weights_of_another(spos, tmp_path):
    """On other data with other classes: all but the head; also out of a file, and a resumed run needs neither."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.integers(0, 256, (80, 8, 8, 1), np.uint8), y=np.arange(80) % 3)
    source = tmp_path / "source"
    shutil.copytree(spos[0], source)
    file = nasjax.export_supernet(source, tmp_path / "net.safetensors")
    still = [*SPOS, "--trials=0", f"--dataset={tmp_path / 'mine.npz'}", "--set=supernet.epochs=1"]
    still += ["--set=supernet.descent.learning_rate=1e-12"]
    old = ocp.load(max(path for path in (source / "supernet/checkpoints").iterdir() if path.name.isdigit()))["state"]
    for given in (source, file):
        run = [*still, f"--init_from={given}", f"--workdir={tmp_path / given.name}-run"]
        code, _, err = here(*run)
        assert code == 0 and "1 begun anew (params/head/dense)" in err, err
        folder = tmp_path / f"{given.name}-run" / "supernet"
        told = json.loads((folder / "init_from.json").read_text())
        assert told["fresh"] == told["left"] and not any("head" in name for name in told["taken"])
        new = ocp.load(max(path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()))["state"]
        body = [{name: array for name, array in state["params"].items() if name != "head"} for state in (old, new)]
        assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), *body))
    shutil.rmtree(folder / "checkpoints")  # killed after its first epoch's line, before its first checkpoint
    code, _, err = here(*run)
    assert code == 0 and "1 begun anew" in err, err
    shutil.rmtree(source)
    code, _, err = here(*still, f"--init_from={source}", f"--workdir={source}-run", "--set=supernet.epochs=1")
    assert code == 0, err
    code, _, err = here(*still, f"--init_from={file}", "--set=space.stem=6", f"--workdir={tmp_path / 'other'}")
    assert code == 2 and "only the head may" in err and not (tmp_path / "other").exists()


def test_fairnas_weighs_accuracy_against_cost(tmp_path):
    path = tmp_path / "run"
    code, _, err = here(*FAIRNAS, f"--workdir={path}")
    assert code == 0, err
    for row in lines(path / "trials.jsonl"):
        score, macs, params = row["fitness"]
        assert (-macs, -params) == (row["macs"], row["params"]) and 0 <= score <= 1
    scores = np.array([row["scores"] for row in lines(path / "supernet/metrics.jsonl")])
    assert scores.shape == (3, 2, 2) and np.all(scores[-1] != 1)  # every operator was trained


def test_bn_nas_trains_first_and_searches_later(tmp_path):
    """--trials=0 ends after the supernet; the next command, which may bring a limit, finds it trained, and the exact
    optimum beside 80 of the 2^9 paths: the bred ones score better than random ones on average, the best nearly as well
    as the optimum."""
    path = tmp_path / "run"
    code, out, err = here(*BN_NAS, f"--workdir={path}", "--trials=0")
    assert code == 0 and "The supernet is trained" in out, err
    assert not (path / "trials.jsonl").exists()
    trained = (path / "supernet/metrics.jsonl").read_bytes()
    wide = f"--max_macs={10**9}"
    code, out, err = here(*BN_NAS, f"--workdir={path}", "--trials=80", wide)
    assert code == 0 and "80 trials" in out and "supernet epoch" not in err, err
    code, out, err = here(*BN_NAS, f"--workdir={path}", "--trials=90")
    assert code == 2 and "max_macs" in err, err
    assert (path / "supernet/metrics.jsonl").read_bytes() == trained
    scores = np.array(lines(path / "supernet/metrics.jsonl")[-1]["scores"])
    trials, optimum = lines(path / "trials.jsonl"), json.loads((path / "optimum.json").read_text())
    for row in [*trials, optimum]:
        assert row["fitness"] == pytest.approx(scores[range(9), row["arch"]["path"]].sum(), abs=1e-4)
    fitness, best = np.array([row["fitness"] for row in trials]), optimum["fitness"]
    assert len({row["hash"] for row in trials}) == 80 and fitness.max() <= best + 1e-5
    assert best == pytest.approx(scores.max(1).sum(), abs=1e-4)
    spread = np.linalg.norm(scores[:, 1] - scores[:, 0]) / 2  # standard deviation of a random path's score
    assert fitness[8:].mean() > scores.mean(1).sum() + spread / 2 and best - fitness.max() < spread


def test_named_options_reach_the_supernet_and_the_search():
    """Which norms are an operator's last; more parameters as an objective."""
    sizes = [setting.removeprefix("--set=") for setting in TINY if "search." not in setting]
    spos = override(commands.configure("spos"), *sizes, "supernet.affine=true", "search.score=indicator")
    projection = ("group0", "shuffle_k3", "branch1", "gamma")
    for last_norms, counts in (("main", False), ("both", True)):
        built = supernets.parts(Problem(override(spos, f"supernet.last_norms={last_norms}")))
        assert built.supernet.last_norm(projection) == counts
    fairnas = override(commands.configure("fairnas"), *sizes, "space.first=0", "search.score=indicator")
    for prefer, sign in (("fewer", -1), ("more", 1)):
        built = supernets.parts(Problem(override(fairnas, f"search.prefer_params={prefer}")))
        state = SimpleNamespace(scores=np.ones((2, 7), np.float32))
        arch = np.array([[0, 5]], np.int32)
        proposal = Proposal(np.array([0]), arch, np.array([-1]))
        evaluation, _ = built.evaluator(state).evaluate(jax.random.key(0), proposal, None)
        params, macs = built.shared.counts(arch[0])
        assert np.asarray(evaluation.fitness).tolist() == [[2.0, -macs, sign * params]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--method=bn_nas", "--set=supernet.last_norms=both"], "is for shuffle blocks"),
        (["--method=bn_nas", "--set=supernet.last_norms=all"], "choose from main, both"),
        (["--method=spos", "--set=search.prefer_params=more"], "no effect with search.searcher=topk"),
        (["--method=spos", "--set=search.score=indicator"], "set supernet.affine=true"),
        (["--method=spos", "--set=supernet.trainable=all_bn"], "needs supernet.affine=true"),
        (["--method=spos", "--set=supernet.early_bird=0.9"], "affine=true"),
        (["--method=bn_nas", "--set=supernet.early_bird=2"], "-1..1"),
        (["--method=fairnas", "--set=space.choose_identity=true"], "choose_identity=false"),
        (["--method=spos", "--max_macs=1"], "smallest path"),
        (["--method=bn_nas", "--max_macs=1"], "smallest path"),
        (["--method=fairnas", "--max_params=1"], "smallest path"),
        (["--method=spos", "--set=search.average=ema"], "100 calibration batches"),
        (["--method=spos", "--set=search.average=median"], "cumulative"),
        (["--method=spos", "--set=supernet.epochs=0"], "at least 1"),
        (["--method=spos", "--set=supernet.batch_size=99999"], "batch_size"),
        (["--method=spos", "--set=supernet.descent.momentum=1"], "momentum"),
        (["--method=spos", "--set=supernet.sampler=fair"], "strict"),
        (["--method=spos", "--set=space.operators=mbconv_k3_e3"], "shuffle_k3"),
        (["--method=spos", "--set=space.depths=1,1,1"], "one entry per stage"),
        (["--method=spos", "--set=search.top_k=0"], "top_k"),
        (["--method=spos", "--space=conv_chain"], "choose from tabular_cell, choice_chain, vit_chain"),
        (["--method=spos", "--preset=big"], "choose demo or paper"),
        (["--method=spos", "--trials=-1"], "0 trains the supernet only"),
        (["--method=spos", "--dataset=imagenet"], "--mode=inspect"),
        (["--method=spos", "--table=x.npz"], "--table has no effect with --method=spos --space=choice_chain; leave it"),
        (["--method=spos", "--dtype=float8"], "float8"),
        (["--method=spo"], "did you mean spos"),
        (["--method=spos", "--mode=inspect", "--arch=FAIRNAS_A"], '"path"'),
    ],
)
def test_mistakes_are_one_clear_line(args, message, capsys, monkeypatch, tmp_path):
    """Before anything is trained: nothing was written."""
    monkeypatch.chdir(tmp_path)
    assert launch.main(["nasjax", "--compile_cache=off", *args]) == 2
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err and len(err.strip().splitlines()) == 1 and not out
    assert not list(tmp_path.rglob("*.jsonl")) and not list(tmp_path.rglob("nasjax-error.log"))


@pytest.mark.parametrize(
    ("method", "arch", "params", "macs", "size"),
    [
        ("spos", "SPOS_RELEASED", 3_558_464, 322_918_720, 4**20),
        ("fairnas", "FAIRNAS_A", 4_651_352, 388_122_848, 6**19),
        ("bn_nas", "BN_NAS_RELEASED", 5_228_536, 471_822_240, 6**17),
    ],
)
def test_inspect_gives_published_counts(method, arch, params, macs, size, capsys):
    paper = ["nasjax", "--mode=inspect", f"--method={method}", "--preset=paper", "--compile_cache=off"]
    assert launch.main([*paper, f"--arch={arch}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["params"], found["macs"], found["space_size"]) == (params, macs, str(size))
    assert launch.main(paper) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["describes"] == "supernet" and whole["params"] > 2 * params
    assert whole["macs_of_smallest_path"] < macs < whole["macs"]
