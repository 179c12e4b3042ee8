"""Asynchronous searches: on a virtual clock, replayed from every prefix of their ledger, and in real processes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from tools import mishaps

from nasjax.drive.search import search
from nasjax.drive.work import Answer
from nasjax.runtime.inline import inline
from nasjax.runtime.process import process
from nasjax.runtime.simulated import simulated
from nasjax.searchers.aging import aging
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.store import artifacts
from nasjax.types import Budget, Evaluation, Status

SPACE = ConvChain(2, 2, (1, 3), (1, 3), (4, 8))
KEY = jax.random.key(3)


def describe(arch):
    return {"arch": SPACE.encode(arch), "params": int(np.maximum(arch, 0).sum()), "macs": 7}


def work(task):
    """Fitness from the architecture and the trial; trials 5, 15, ... raise."""
    (trial,) = task.ids.tolist()
    if trial % 10 == 5:
        raise OSError("fell over")
    fitness = np.float32([np.maximum(task.archs[0], 0).mean() + trial % 7 / 100])
    return Answer(Evaluation(fitness, np.float32([1 + trial % 3]), np.int8([Status.OK]), {"error": [""]}), {})


def run(path, runtime, trials=40, searcher=None, **options):
    path.mkdir(parents=True, exist_ok=True)
    searcher = searcher or aging(SPACE, population=8, sample_size=3)
    return search(KEY, searcher, runtime, workdir=path, budget=Budget(trials), describe=describe, **options)


def uneven(task, result):
    return 1.0 + int(task.ids[0]) * 7 % 5


def events(path):
    return [json.loads(line) for line in (path / "ledger.jsonl").read_text().splitlines()]


def rows(path):
    return [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_one_simulated_worker_is_the_synchronous_loop(tmp_path):
    a = run(tmp_path / "a", inline(work))
    b = run(tmp_path / "b", simulated(work, lambda task, result: 2.0))
    ours, theirs = rows(tmp_path / "a"), rows(tmp_path / "b")
    for row in (*ours, *theirs):
        if row["status"] == "failed":
            del row["cost_s"]  # what raising took on the clock
    assert ours == theirs
    for x, y in zip(jax.tree.leaves(a.state), jax.tree.leaves(b.state), strict=True):
        np.testing.assert_array_equal(x, y)
    assert b.wall_s == 80.0 and a.failed == b.failed == 4


@pytest.mark.parametrize("workers", [2, 8])
def test_no_worker_idles_after_its_first_candidate(tmp_path, workers):
    run(tmp_path, simulated(work, uneven, workers))
    busy, begun = Counter(), {}
    end = max(event["at"] for event in events(tmp_path) if event["event"] == "started")  # then none is left to start
    for event in events(tmp_path):
        if event["event"] == "started":
            begun[event["worker"]] = event["at"]
        elif event["event"] == "told":
            busy[event["worker"]] += min(event["at"], end) - begun.pop(event["worker"])
    assert not begun and all(busy[worker] == pytest.approx(end) for worker in range(workers))
    told = [event["rows"][0]["id"] for event in events(tmp_path) if event["event"] == "told"]
    assert told == [row["id"] for row in rows(tmp_path)] and told != sorted(told)


@pytest.mark.slow
def test_slow_candidates_count_like_fast_ones(tmp_path):
    """Eight trials on four workers are the eight that were asked first, however long one takes."""
    run(tmp_path, simulated(work, lambda task, result: 100.0 if 0 in task.ids else 1.0, 4), trials=8)
    assert sorted(row["id"] for row in rows(tmp_path)) == list(range(8)) and rows(tmp_path)[-1]["id"] == 0
    assert sum(event["event"] == "started" for event in events(tmp_path)) == 8
    run(tmp_path, simulated(work, uneven, 4), trials=12)  # and goes on
    assert sorted(row["id"] for row in rows(tmp_path)) == list(range(12))


@pytest.mark.slow
def test_resuming_from_every_prefix_of_the_ledger(tmp_path):
    """The accounts add up, and what was logged is replayed to the same bytes."""
    run(tmp_path / "whole", simulated(work, uneven, 3), trials=24)
    lines = (tmp_path / "whole/ledger.jsonl").read_bytes().splitlines(keepends=True)
    told = [json.loads(line)["event"] == "told" for line in lines]
    trials = (tmp_path / "whole/trials.jsonl").read_bytes().splitlines(keepends=True)
    searcher = aging(SPACE, population=8, sample_size=3)
    path = tmp_path / "part"
    for n in range(1, len(lines) + 1):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        torn = lines[n][: len(lines[n]) // 2] if n < len(lines) else b""
        (path / "ledger.jsonl").write_bytes(b"".join(lines[:n]) + torn)
        end = run(path, simulated(work, uneven, 3), trials=24, searcher=searcher)
        assert end.trials == 24 and end.resumed == sum(told[:n])
        found = (path / "trials.jsonl").read_bytes().splitlines(keepends=True)
        assert found[: sum(told[:n])] == trials[: sum(told[:n])]
        assert (path / "ledger.jsonl").read_bytes().startswith(b"".join(lines[:n]))
        ids = [row["id"] for row in rows(path)]
        asked = [trial for event in events(path) if event["event"] == "asked" for trial in event["ids"]]
        assert len(set(ids)) == 24 and set(ids) <= set(asked) == set(range(len(asked))) and len(asked) <= 26
        for row in rows(path):  # parents were told before their children were asked
            assert row["parent"] == -1 or ids.index(row["parent"]) < ids.index(row["id"])
            assert (row["status"] == "failed") == (row["id"] % 10 == 5)


def test_time_outs_and_late_results_on_the_virtual_clock(tmp_path):
    end = run(tmp_path, simulated(work, uneven, 2), timeout_s=4.5)
    late = [row["id"] for row in rows(tmp_path) if row["status"] == "timeout"]
    assert late and all(trial * 7 % 5 == 4 for trial in late) and end.failed >= len(late)


@pytest.mark.slow
def test_artifacts_live_as_long_as_they_may_be_inherited(tmp_path):
    """Each trial keeps its weights; a child is handed its parent's; at most the living ones are stored."""
    handed = []

    def keeping(task):
        (trial,), (parent,) = task.ids.tolist(), task.parents.tolist()
        inherited = {i: artifacts.load(tmp_path, digest)["deep"]["w"] for i, digest in task.weights.items()}
        handed.append((parent, {i: int(w[0]) for i, w in inherited.items()}))
        stored.append(len(artifacts.stored(tmp_path)))
        digest = artifacts.save(tmp_path, {"deep": {"w": np.full(3, trial)}, "b": np.zeros(2)})
        return work(task)._replace(weights={trial: digest})

    stored = []
    run(tmp_path, simulated(keeping, uneven, 3), trials=40)
    assert all(found == ({parent: parent} if parent >= 0 and parent % 10 != 5 else {}) for parent, found in handed)
    assert sum(parent >= 0 for parent, _ in handed) > 25 and max(stored) <= 8 + 3 + 1 + 3
    assert len(artifacts.stored(tmp_path)) <= 8 + 3 + 1 + 3  # those of cancelled trials go when the search goes on
    assert run(tmp_path, simulated(keeping, uneven, 3), trials=45).trials == 45


def test_equal_artifacts_are_one_file(tmp_path):
    tree = {"a": {"b": np.arange(3.0)}, "c": np.int32(4)}
    digest = artifacts.save(tmp_path, tree)
    assert artifacts.save(tmp_path, {"c": np.int32(4), "a": {"b": np.arange(3.0)}}) == digest
    found = artifacts.load(tmp_path, digest)
    np.testing.assert_array_equal(found["a"]["b"], tree["a"]["b"])
    assert found["c"].dtype == np.int32 and artifacts.stored(tmp_path) == {digest}
    assert artifacts.save(tmp_path, {"a": {"b": np.arange(3.0)}, "c": np.int64(4)}) != digest
    artifacts.delete(tmp_path, [digest, "gone"])
    assert len(artifacts.stored(tmp_path)) == 1


def mishap_run(tmp_path, trials, workers, timeout_s, start=process):
    logs = tmp_path / "run" / "workers"
    runtime, facts = start(mishaps.begin, (str(tmp_path), 0.01), workers=workers, logs=logs)
    try:
        assert facts == {"strategy": "toy"}
        end = run(tmp_path / "run", runtime, trials=trials, timeout_s=timeout_s)
    finally:
        runtime.close()
    expected = {"dies": "lost", "hangs": "timeout", "raises": "failed", "nan": "failed"}
    for row in rows(tmp_path / "run"):
        assert row["status"] == expected.get(mishaps.fate(row["id"]), "ok"), row
    return end


@pytest.mark.slow
def test_crashes_hangs_and_nan_are_trials_that_failed(tmp_path):
    mishaps_are_trials_that_failed(tmp_path, process, "its worker died (SIGKILL)")


def mishaps_are_trials_that_failed(tmp_path, start, death, timeout_s=0.6):
    """Of a runtime whose workers may die."""
    end = mishap_run(tmp_path, trials=14, workers=2, timeout_s=timeout_s, start=start)
    assert end.trials == 14
    while not {1, 4, 6, 9, 12} <= {row["id"] for row in rows(tmp_path / "run")}:
        # On a slow machine one of them, whose workers must start again, is still at work when 14 others have ended.
        end = mishap_run(tmp_path, trials=end.trials + 1, workers=2, timeout_s=timeout_s, start=start)
    assert end.failed == 4 and end.trials < 26
    log = events(tmp_path / "run")
    deaths = Counter(event["task"] for event in log if event["event"] == "died")
    assert deaths == {1: 3, 4: 1}
    by_id = {row["id"]: row for row in rows(tmp_path / "run")}
    assert death in by_id[1]["error"] and f"longer than {timeout_s:g} s" in by_id[6]["error"]
    assert by_id[9]["error"] == "RuntimeError: the child fell over"
    attempts = [event["attempt"] for event in log if event["event"] == "started" and event["task"] == 1]
    assert attempts == list(range(1, len(attempts) + 1)) and len(attempts) >= 3
    assert "fell over" in "".join(file.read_text() for file in (tmp_path / "run/workers").iterdir())


@pytest.mark.slow
def test_sixty_trials_with_mishaps(tmp_path):
    end = mishap_run(tmp_path, trials=60, workers=4, timeout_s=2.0)
    assert end.trials == 60
    assert len({row["id"] for row in rows(tmp_path / "run")}) == 60


@pytest.mark.slow
def test_a_worker_that_cannot_start_says_why(tmp_path):
    with pytest.raises(ValueError, match="no such data set; give --data_dir"):
        process(mishaps.refuse, (str(tmp_path),), workers=2, logs=tmp_path)
    with pytest.raises(OSError, match=r"workers die while they start \(.*exit code 3.*\); see .*worker0.log"):
        process(mishaps.never_starts, (str(tmp_path),), workers=2, logs=tmp_path)


DRIVER = """
import sys, jax
from pathlib import Path
from runtime import test_runtime
from tools import mishaps
from nasjax.runtime.process import process
folder = Path(sys.argv[1])
runtime, _ = process(mishaps.begin, (str(folder), 0.05), workers=2, logs=folder / "workers")
test_runtime.run(folder / "run", runtime, trials=12, timeout_s=0.6)
"""


@pytest.mark.slow
def test_four_kills_of_worker_and_driver(tmp_path):
    """kill -9 of the driver, or of one of its workers, at odd moments: the accounts add up, and no worker is left."""
    folders = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    env = {**os.environ, "PYTHONPATH": folders, "JAX_PLATFORMS": "cpu"}

    def children(pid):
        text = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
        ).stdout
        return [int(word) for word in text.split()]

    left = set()
    for kill in range(4):
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], env=env, stderr=subprocess.PIPE)
        ledger, size = tmp_path / "run/ledger.jsonl", kill * 4 + 5
        deadline = time.monotonic() + 60
        while (not ledger.exists() or len(ledger.read_bytes().splitlines()) < size) and driver.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        workers = children(driver.pid)
        if kill % 2 and workers:
            with contextlib.suppress(ProcessLookupError):  # the driver was done, and its workers with it
                os.kill(workers[0], signal.SIGKILL)
            time.sleep(0.1)
        left |= set(workers)
        driver.kill()
        driver.communicate()
    before = (tmp_path / "run/trials.jsonl").read_bytes() if (tmp_path / "run/trials.jsonl").exists() else b""
    done = subprocess.run([sys.executable, "-c", DRIVER, str(tmp_path)], env=env, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "run")
    asked = [trial for event in events(tmp_path / "run") if event["event"] == "asked" for trial in event["ids"]]
    ids = {row["id"] for row in found}
    assert len(ids) == len(found) == 12 and ids <= set(asked) == set(range(len(asked))) and len(asked) <= 14
    assert (tmp_path / "run/trials.jsonl").read_bytes().startswith(before)
    replayed = tmp_path / "replayed"
    replayed.mkdir()
    shutil.copy(tmp_path / "run/ledger.jsonl", replayed)
    run(replayed, inline(work), trials=12)
    assert (replayed / "trials.jsonl").read_bytes() == (tmp_path / "run/trials.jsonl").read_bytes()
    time.sleep(1)
    assert not [pid for pid in left if _lives(pid)]


def _lives(pid):
    """Whether a worker of a driver that was killed is still there."""
    try:
        return b"nasjax.runtime.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_workers_find_what_this_process_finds(tmp_path):
    """The same command with workers and without: the same architectures, and the same accuracies up to rounding."""
    from tools.commands import here

    tiny = ["--method=random", "--trials=4", "--set=strategy=exact"]
    tiny += [
        "--set=recipe.epochs=1",
        "--set=data.train_limit=64",
        "--set=space.max_layers=2",
        "--set=space.min_layers=2",
    ]
    for name, more in (("none", []), ("two", ["--workers=2", "--trial_timeout=100"])):
        code, _, err = here(*tiny, *more, f"--workdir={tmp_path / name}")
        assert code == 0, err
    found = [sorted(rows(tmp_path / name), key=lambda row: row["id"]) for name in ("none", "two")]
    assert [row["arch"] for row in found[0]] == [row["arch"] for row in found[1]][:4]
    np.testing.assert_allclose(*([row["fitness"] for row in rows_] for rows_ in found), atol=0.05)
    config = json.loads((tmp_path / "two/config.json").read_text())
    assert (
        config["strategy"] == "exact"
        and config["dataset"]["train"] == 64
        and (tmp_path / "two/workers/worker1.log").exists()
    )
    for wrong, said in (("--trial_timeout=5", "add --workers=1"), ("--workers=-1", "not negative")):
        code, _, err = here(*tiny, wrong, f"--workdir={tmp_path / 'wrong'}")
        assert code == 2 and said in err
