"""`--seeds`: which seeds, in which workdirs, in which processes, and the table at the end."""

import io
import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from tools.commands import TINY, accepted, here, idle, rows, start

from nasjax import commands
from nasjax.cli import seeds
from nasjax.store import started
from nasjax.store.checkpoint import RunError

from .test_runs import RESULT, written


@pytest.mark.parametrize(
    ("text", "found"), [("0..4", [0, 1, 2, 3, 4]), ("3..3", [3]), ("0,2,7", [0, 2, 7]), ("5", [5]), ("1, 2", [1, 2])]
)
def test_seeds_are_a_range_or_a_list(text, found):
    assert seeds.parsed(text) == found


@pytest.mark.parametrize("text", ["", "a", "4..0", "0..", "..3", "1,1", "-1,0", "0..99999", "1.5"])
def test_other_seeds_are_refused(text):
    with pytest.raises(ValueError, match=r"write --seeds=0\.\.4 or --seeds=0,1,2"):
        seeds.parsed(text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--parallel=2"], "--parallel has no effect without --seeds"),
        (["--seeds=0,1", "--seed=3"], "give one of them"),
        (["--seeds=0,1", "--set=seed=3"], "--set seed and --seeds: give one of them"),
        (["--seeds=0,1", "--mode=inspect"], "no effect with --mode=inspect"),
        (["--seeds=0,1", "--parallel=0"], "1 or more"),
        (["--seeds=0,1", "--parallel=2", "--workers=2"], "without --workers"),
        (["--seeds=0,1", "--coordinator=auto"], "on several hosts"),
        (["--seeds=0,1", "--set=recipe.epochs=0"], "recipe.epochs"),
    ],
)
def test_what_makes_no_sense_is_refused_once_before_any_run(flags, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = here("--method=random", *flags)
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_each_seed_has_its_workdir_and_its_own_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    configs, told = idle(monkeypatch), []
    search = commands.search
    monkeypatch.setattr(commands, "search", lambda config, path, command, **o: told.append((str(path), command)) or
                        search(config, path, command, **o))  # fmt: skip
    out = accepted(["--method=random", "--seeds=0,2", "--trials=4", "--set=width=2", "--set=recipe.epochs=1"])
    assert [config.seed for config in configs] == [0, 2] and {config.width for config in configs} == {2}
    assert [path for path, _ in told] == ["runs/random-conv_chain-digits-s0", "runs/random-conv_chain-digits-s2"]
    for (_, command), seed in zip(list(told), (0, 2), strict=True):
        assert f"--seed={seed}" in command and "--seeds" not in command and "--set=width=2" in command
        accepted(command.split()[3:])
    assert "Next: " in out and out.count("random-conv_chain-digits-s2") == 2  # in the table, and in the next command
    accepted(["--method=random", "--seeds=0,1", "--workdir=mine"])
    assert (tmp_path / "mine-s0" / "config.json").exists() and (tmp_path / "mine-s1" / "config.json").exists()
    accepted(["--mode=retrain", "--seeds=0,1", "--workdir=mine"])
    accepted(["--mode=retrain", "--method=random", "--seeds=0,2"])
    assert [config.seed for config in configs[-4:]] == [0, 1, 0, 2]


def test_a_seed_that_fails_stops_no_other_and_gives_its_code(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    idle(monkeypatch)
    search = commands.search

    def failing(config, path, command, **options):
        if config.seed == 1:
            raise RunError("the disk is full")
        return search(config, path, command, **options)

    monkeypatch.setattr(commands, "search", failing)
    code, out, err = here("--method=random", "--seeds=0..2")
    assert code == 1 and "error: the disk is full" in err
    assert "(exit code 1)" in out and "random-conv_chain-digits-s2" in out


def test_an_interrupt_ends_all_seeds():
    found = seeds.after_another({0: "a", 1: "b", 2: "c"}, lambda seed: 130 if seed == 1 else 0)
    assert found == {0: 0, 1: 130} and seeds.worst(found) == 130


def test_processes_run_side_by_side_and_their_lines_say_whose_they_are(capfd):
    code = (
        "import os, sys; print('out', os.environ['SHARE']); print('err', file=sys.stderr); sys.exit(int(sys.argv[1]))"
    )
    commands = {seed: [sys.executable, "-c", code, str(seed)] for seed in (0, 3, 2)}
    found = seeds.side_by_side(dict.fromkeys(commands, ""), commands.__getitem__, 2, {"SHARE": "0.45"})
    assert list(found.items()) == [(0, 0), (3, 3), (2, 2)] and seeds.worst(found) == 3
    out, err = capfd.readouterr()
    told = [line for line in out.splitlines() if line.startswith("s")]  # the tests' own progress may stand between
    assert sorted(told) == ["s0: out 0.45", "s2: out 0.45", "s3: out 0.45"]
    assert sorted(err.splitlines()) == ["s0: err", "s2: err", "s3: err"]
    assert threading.active_count() < 20


class Slow(io.StringIO):
    """A terminal that lets other threads write after each piece."""

    def write(self, text):
        written = super().write(text)
        time.sleep(0.002)
        return written


def test_lines_of_two_seeds_that_print_at_once_stay_whole():
    out = Slow()
    copies = [
        threading.Thread(target=seeds._copied, args=(io.StringIO("saved\n" * 5), out, f"s{seed}: ")) for seed in (0, 1)
    ]
    for copy in copies:
        copy.start()
    for copy in copies:
        copy.join()
    assert sorted(out.getvalue().splitlines()) == ["s0: saved"] * 5 + ["s1: saved"] * 5


SLEEPER = """
import sys, time
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("saved", flush=True)
    sys.exit(130)
"""
DRIVER = """
import sys
from nasjax.cli import seeds
try:
    seeds.side_by_side({0: "", 1: "", 2: ""}, lambda seed: [sys.executable, "-c", sys.argv[1]], 2, {})
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_an_interrupt_is_passed_on_and_starts_no_other():
    command = [sys.executable, "-c", DRIVER, SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        begun = {driver.stdout.readline(), driver.stdout.readline()}
        driver.send_signal(signal.SIGINT)
        left = sorted(driver.stdout.read().splitlines())
    assert begun == {"s0: begun\n", "s1: begun\n"}
    assert left == ["interrupted", "s0: saved", "s1: saved"] and driver.returncode == 0


def test_the_table_has_mean_and_deviation_of_what_was_found(tmp_path):
    config = commands.configure("random")
    runs = {seed: written(tmp_path / f"s{seed}", config, trials) for seed, trials in ((0, 11), (1, 31))}
    runs[2] = tmp_path / "s2"
    (tmp_path / "s0" / "result.json").write_text(RESULT)
    lines = seeds.summary(runs, {0: 0, 1: 0, 2: 1})
    cells = [line.split("  ") for line in lines]
    assert [[cell.strip() for cell in line if cell.strip()] for line in cells[:6]] == [
        ["seed", "best validation accuracy", "test accuracy", "workdir"],
        ["0", "10.00 %", "50.00 %", str(runs[0])],
        ["1", "30.00 %", "none", str(runs[1])],
        ["2", "none", "none", f"{runs[2]} (exit code 1)"],
        ["mean", "20.00 %", "50.00 %"],
        ["deviation", "14.14 %", "of the sample, n - 1"],
    ]
    assert lines[6] == f"Next: {started.own()} --mode=report --workdir={runs[0]},{runs[1]}"
    smaller = json.loads((tmp_path / "s0" / "config.json").read_text())
    for seed in (0, 1):  # a metric of which less is better has its own value, and a deviation above 0
        smaller["metric"] = {"name": "perplexity", "unit": "plain", "sign": -1}
        (runs[seed] / "config.json").write_text(json.dumps(smaller))
    assert seeds.summary({0: runs[0], 1: runs[1]}, {0: 0, 1: 0})[4].split()[1] not in ("none", "-0.141421")


@pytest.mark.slow
def test_seeds_side_by_side_equal_those_one_after_the_other(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = ["--method=random", "--trials=4", *TINY, "--seeds=0,1"]
    alone = start(*flags, "--workdir=after")  # this process compiles otherwise
    alone.communicate(timeout=300)
    assert alone.returncode == 0
    accepted([*flags, "--workdir=beside", "--parallel=2"])
    for seed in (0, 1):
        assert rows(tmp_path / f"after-s{seed}") == rows(tmp_path / f"beside-s{seed}")
    assert rows(tmp_path / "after-s0") != rows(tmp_path / "after-s1")
