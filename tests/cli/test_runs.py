"""`--mode=runs`: what lies in a folder, how far it is, and the command that goes on."""

import json
import subprocess
import sys

import pytest
from tools.commands import accepted, forget_own, here, idle

from nasjax import commands
from nasjax.cli import runs, seeds
from nasjax.commands.configuration import record_of

RESULT = '{"metric": {"name": "accuracy", "unit": "fraction", "sign": 1}, "test_accuracy": 0.5}'
ROW = {"arch": {}, "hash": "", "params": 1, "status": "ok", "cost_s": 1.0}


def written(folder, config, trials=0, **more):
    """A workdir of a search with so many trials."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(record_of(config, more)))
    rows = [{"id": n, "fitness": n / 100, **ROW} for n in range(trials)]
    (folder / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def config():
    return commands.configure("random")


def test_a_finished_an_unfinished_and_a_retrained_run_go_on_by_their_commands(config, tmp_path, monkeypatch):
    command = "python -m nasjax.launch --method=random --trials=32"
    done = runs.row(written(tmp_path / "done", config, 32))
    assert (done.state, done.done, done.best) == ("finished", "32 of 32 trials", "best validation accuracy 31.00 %")
    assert done.what == "random, conv_chain, digits, seed 0"
    assert done.after.endswith(f"--mode=retrain --workdir={tmp_path}/done")
    half = runs.row(written(tmp_path / "half", config, 4, command=command))
    assert (half.state, half.done) == ("unfinished", "4 of 32 trials")
    assert half.after == f"{command} --workdir={tmp_path}/half"
    (tmp_path / "done" / "result.json").write_text(RESULT)
    again = runs.row(tmp_path / "done")
    assert "test accuracy after retraining 50.00 %" in again.best and "--mode=export" in again.after
    (tmp_path / "done" / "export").mkdir()
    (tmp_path / "done" / "export" / "model.json").write_text("{}")
    whole = runs.row(tmp_path / "done")
    assert f"exported to {tmp_path}/done/export" in whole.best and "--mode=report" in whole.after
    begun = runs.row(written(tmp_path / "begun", config))
    assert (begun.best, begun.done) == ("", "0 of 32 trials") and "nasjax.search(config" in begun.after
    monkeypatch.chdir(tmp_path)
    idle(monkeypatch)
    for row in (done, half, again, whole):
        accepted(row.after.split()[3:])


def test_a_run_that_was_moved_goes_on_where_it_is(config, tmp_path):
    """Its command named the folder in which it began, where the same words would begin another run."""
    start = "python -m nasjax.launch --method=random"
    for old in (f"--workdir={tmp_path}/old", f"'--workdir={tmp_path}/o l d'", f"--workdir {tmp_path}/old"):
        folder = written(tmp_path / f"n e w{len(list(tmp_path.iterdir()))}", config, command=f"{start} {old} --seed=1")
        assert runs.row(folder).after == f"{start} '--workdir={folder}' --seed=1"
    same = f"{start} --workdir={tmp_path}/old/../there --seed=1"
    assert runs.row(written(tmp_path / "there", config, command=same)).after == same


def test_what_was_looked_up_is_told_by_its_table(tmp_path):
    record = record_of(commands.configure("random"), {})
    record["config"] |= {"table": {"path": "small.npz"}, "space": {"name": "from_table"}}
    folder = written(tmp_path / "run", commands.configure("random"))
    (folder / "config.json").write_text(json.dumps({**record, "space": "from_table"}))
    assert runs.row(folder).what.split(", ")[2] == "small.npz"


def test_a_result_in_a_table_is_an_accuracy_whatever_the_search_goes_by(config, tmp_path):
    folder = written(tmp_path / "run", config, metric={"name": "loss", "unit": "plain", "sign": -1})
    (folder / "trials.jsonl").write_text(json.dumps({"id": 0, "fitness": -0.5, "result": 0.9413, **ROW}) + "\n")
    assert runs.row(folder).best == "best validation loss 0.5, its result in the table 94.13 %"
    line = next(line for line in seeds.summary({0: folder}, {0: 0}) if line.startswith("0 "))
    assert line.split("  ")[0] == "0" and "94.13 %" in line


def test_searches_by_gradients_and_supernets_are_counted_in_epochs(tmp_path):
    darts = written(tmp_path / "darts", commands.configure("darts"))
    (darts / "metrics.jsonl").write_text("".join(json.dumps({"epoch": n, "stage": 0}) + "\n" for n in (1, 2)))
    assert runs.row(darts).done == "2 of 8 epochs"
    spos = written(tmp_path / "spos", commands.configure("spos"))
    (spos / "supernet").mkdir()
    (spos / "supernet" / "metrics.jsonl").write_text('{"epoch": 1}\n')
    wanted = commands.configure("spos").supernet.epochs
    assert runs.row(spos).done == f"1 of {wanted} epochs of the supernet"


def test_a_run_with_a_plugin_goes_on_with_it(config, tmp_path):
    folder = written(tmp_path / "own", config, 32)
    record = json.loads((folder / "config.json").read_text())
    record["config"]["plugin"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(record))
    assert f"--plugin={folder}/plugin.py" in runs.row(folder).after
    forget_own()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"config": []}', '{"config": {"data": 3, "seed": {}}}', '{"metric": 7}'],
)
def test_damaged_workdirs_are_listed_and_stop_nothing(text, config, tmp_path):
    written(tmp_path / "runs" / "a", config, 32)
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "config.json").write_text(text)
    (tmp_path / "runs" / "b" / "trials.jsonl").write_bytes(b'{"id": [], "fitness": "x"}\n\xff\xfe\n{"a"')
    (tmp_path / "runs" / "c").write_text("no folder")
    out = accepted(["--mode=runs", f"--workdir={tmp_path}/runs"])
    assert f"{tmp_path}/runs/a  random" in out and f"{tmp_path}/runs/b" in out and f"{tmp_path}/runs/c" not in out


def test_runs_are_found_a_folder_below_and_in_a_persons_order(config, tmp_path):
    for name in ("s10", "s2", "study/s1"):
        written(tmp_path / name, config)
    assert [path.name for path in runs.found(tmp_path)] == ["s2", "s10", "s1"]
    assert runs.found(tmp_path / "s2") == [tmp_path / "s2"]
    (tmp_path / "empty").mkdir()
    assert "no runs in" in accepted(["--mode=runs", f"--workdir={tmp_path}/empty"])
    code, _, err = here("--mode=runs", f"--workdir={tmp_path}/none")
    assert code == 2 and "is no folder" in err


def test_the_list_and_the_help_import_no_jax(tmp_path):
    code = (
        "import sys; from nasjax import launch; launch.main(['n', '--help']); "
        f"launch.main(['n', '--mode=runs', '--workdir={tmp_path}']); print('jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"
