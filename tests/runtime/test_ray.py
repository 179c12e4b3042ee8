"""The runtime on Ray: mishaps, the same trials as elsewhere, a machine that goes, a driver that is killed."""

import functools
import json
import os
import shutil
import signal
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import mishaps
from tools.commands import TINY, here, replayed, start, work_of
from tools.commands import rows as timeless
from tools.ray_here import STORE

from nasjax.commands import searching
from nasjax.runtime import ray as runtime_ray
from nasjax.runtime.inline import inline
from nasjax.runtime.ray import RayConfig, ray
from nasjax.runtime.replicas import replicas
from nasjax.searchers.distributed import distributed_reinforce
from nasjax.searchers.scheme import scheme
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.types import Evaluation, Evaluator, Failure, Status

from .test_runtime import events, mishap_run, mishaps_are_trials_that_failed, rows, run, work

engine = pytest.importorskip("ray", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
ONE = RayConfig(num_cpus=1)
HANGS = 6  # as `mishaps.fate` has it
TIMEOUT_S = 6.0  # on a busy machine Ray needs seconds to notice a death


def test_a_worker_that_is_stopped_at_work_leaves_its_cpu(tmp_path, cluster):
    runtime, _ = ray(mishaps.begin, (str(tmp_path), 0.0), workers=1, logs=tmp_path / "run/workers", settings=ONE)
    runtime.submit(mishaps.task(HANGS))
    runtime.close()
    deadline = time.monotonic() + 20
    while engine.available_resources().get("CPU", 0) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_mishaps_are_trials_that_failed(tmp_path, cluster):
    mishaps_are_trials_that_failed(tmp_path, functools.partial(ray, settings=ONE), "its worker died", TIMEOUT_S)


@pytest.mark.slow
def test_two_hundred_trials_with_mishaps(tmp_path, cluster):
    four = functools.partial(ray, settings=RayConfig(num_cpus=0.5))
    assert mishap_run(tmp_path, trials=200, workers=4, timeout_s=TIMEOUT_S, start=four).trials == 200
    assert len({row["id"] for row in rows(tmp_path / "run")}) == 200


def test_a_machine_that_goes_in_mid_search(tmp_path, cluster):
    """Nothing is lost, and no candidate is counted twice; the workers that are left do the rest."""
    node = cluster.add_node(num_cpus=2, object_store_memory=STORE)
    said, there = [], tmp_path / "there"
    there.mkdir()
    options = {"workers": 4, "logs": tmp_path / "run/workers", "settings": ONE, "say": said.append}
    runtime, _ = ray(mishaps.together, (str(there), 4, 0.1), **options)
    assert said == ["Ray: workers with 1 CPU: 4, machines: 2"]

    def told(summary):
        if summary.trials == 8:
            pids = [int(mark.name.partition("-")[2]) for mark in there.glob(f"{node.node_id}-*")]
            assert len(pids) == 2
            for pid in pids:  # which would outlive their Ray by a second
                os.kill(pid, signal.SIGKILL)
            cluster.remove_node(node, allow_graceful=False)

    try:
        end = run(tmp_path / "run", runtime, trials=40, on_told=told)
    finally:
        runtime.close()
    found, log = rows(tmp_path / "run"), events(tmp_path / "run")
    asked = [trial for event in log if event["event"] == "asked" for trial in event["ids"]]
    assert end.trials == len(found) == len({row["id"] for row in found}) == 40 and end.failed == 0
    assert set(asked) == set(range(len(asked))) and len(asked) <= 44
    died = [event["task"] for event in log if event["event"] == "died"]
    assert 1 <= len(died) <= 4 and {"ok"} == {row["status"] for row in found if row["id"] in died}
    replayed = tmp_path / "replayed"
    replayed.mkdir()
    shutil.copy(tmp_path / "run/ledger.jsonl", replayed)
    run(replayed, inline(work), trials=40)
    assert (replayed / "trials.jsonl").read_bytes() == (tmp_path / "run/trials.jsonl").read_bytes()


@pytest.mark.slow
def test_a_machine_that_is_preempted_is_told_as_that(tmp_path, cluster):
    """As a cloud does it: a notice with a deadline, then the machine is gone."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    node = cluster.add_node(num_cpus=4, object_store_memory=STORE)
    three = RayConfig(num_cpus=3)  # of which only the new machine has so many
    runtime, _ = ray(mishaps.begin, (str(tmp_path), 0.0), workers=1, logs=tmp_path / "run/workers", settings=three)
    try:
        ticket = runtime.submit(mishaps.task(HANGS))
        time.sleep(1)
        reason, deadline = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), time.time() + 3
        assert GcsClient(address=cluster.address).drain_node(node.node_id, reason, "spot", int(deadline * 1000))[0]
        time.sleep(4)
        cluster.remove_node(node, allow_graceful=False)
        assert runtime.wait() == [(ticket, Failure(Status.LOST, "its worker died: the machine was preempted", True))]
    finally:
        runtime.close()


@pytest.mark.parametrize(
    ("names", "trials"),
    [(("inline", "ray"), 2), pytest.param(("inline", "process", "ray"), 8, marks=pytest.mark.slow)],
)
def test_one_worker_finds_what_this_process_finds(tmp_path, cluster, monkeypatch, names, trials):
    """The same lines, times apart; and a search may move from one runtime to the other."""
    monkeypatch.setattr(searching, "work_of", work_of)
    args = ["--method=reinforce", *TINY, "--set=width=1", "--set=strategy=exact"]
    for name in names:
        more = [] if name == "inline" else ["--workers=1"]
        code, _, err = here(*args, *more, f"--runtime={name}", f"--trials={trials}", f"--workdir={tmp_path / name}")
        assert code == 0, err
    assert "Ray: workers with 2 CPU: 1, machines: 1" in err
    assert all(timeless(tmp_path / name) == timeless(tmp_path / "inline") for name in names)
    code, _, err = here(*args, f"--trials={trials + 1}", f"--workdir={tmp_path / 'ray'}")
    assert code == 0 and len(rows(tmp_path / "ray")) == trials + 1, err


@pytest.mark.slow
def test_reinforce_learns_from_late_results_and_goes_on(tmp_path, cluster):
    """Two actors look cells up: every result counts once in the order of its coming, however old its parameters are."""
    archs = TabularCell().enumerate()
    columns = {"fitness": (archs == 3).mean(1), "cost": np.ones(len(archs))}
    np.savez(tmp_path / "table.npz", arch=archs, **columns)
    args = [
        "--method=reinforce",
        "--space=tabular_cell",
        f"--table={tmp_path / 'table.npz'}",
        "--set=cost_s=1e9",
        "--set=table.percent=false",
    ]
    args += ["--set=search.policy=independent", "--set=search.samples_per_update=4"]
    path, two = tmp_path / "run", ["--runtime=ray", "--workers=2"]
    for trials in (18, 42):
        code, _, err = here(*args, *two, f"--trials={trials}", f"--workdir={path}")
        assert code == 0 and len(rows(path)) == len({row["id"] for row in rows(path)}) == trials, err
        assert {row["status"] for row in rows(path)} == {"ok"}
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        assert len(lines) == trials and lines[-1]["updates"] == trials // 4
    assert max(line["staleness"] for line in lines) > 0  # the other worker was at work when an update came
    again = tmp_path / "again"
    again.mkdir()
    for name in ("ledger.jsonl", "config.json"):
        shutil.copy(path / name, again)
    code, _, err = here(*args, "--trials=42", f"--workdir={again}")
    assert code == 0, err
    assert all((again / name).read_bytes() == (path / name).read_bytes() for name in ("trials.jsonl", "metrics.jsonl"))
    state = {name.strip("."): value for name, value in replayed(again).items()}
    asked = sum(len(event["ids"]) for event in events(path) if event["event"] == "asked")
    assert 42 <= state["asked"] == asked <= 44
    assert (state["updates"], state["staleness"]) == (10, lines[-1]["staleness"])


CELL = TabularCell(edges=4, ops=("none", "skip", "conv"))


def cells_of(seconds, **settings):
    """The scheme over cells that are the better the more convolutions they have."""

    def judge(key, proposal, inherited=None):
        good = (proposal.arch == 2).mean(1)
        cost = jnp.full(len(good), seconds)
        return Evaluation(0.2 + 0.6 * good, cost, jnp.zeros(len(good), jnp.int8), {"result": good}), None

    return CELL, Evaluator(judge), {"policy": "independent", "learning_rate": 0.1, "children": 2, **settings}


@pytest.mark.slow
def test_one_replica_on_ray_is_the_simulation(cluster):
    space, evaluator, settings = cells_of(5.0, shards=2, accumulate=2)
    key = jax.random.key(3)
    run = replicas(scheme(space, evaluator, **settings), replicas=1, settings=RayConfig(num_cpus=0.5))(key, 24)
    simulated = distributed_reinforce(space, evaluator, replicas=1, **settings)(key, 24)
    np.testing.assert_array_equal(run.children.arch, simulated.children.arch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), run.params, simulated.params)
    assert (run.gradients.staleness == 0).all() and run.updates.tolist() == [6, 6]
    for name in ("first", "fetched", "reward", "baseline"):
        np.testing.assert_allclose(getattr(run.gradients, name), getattr(simulated.gradients, name), rtol=1e-5)


@pytest.mark.slow
def test_gradients_of_three_replicas_on_ray_are_late_by_the_two_others(cluster):
    space, evaluator, settings = cells_of(5.0, shards=1)
    search = replicas(scheme(space, evaluator, **settings), replicas=3, sleep=0.1, settings=RayConfig(num_cpus=0.5))
    run, count = search(jax.random.key(3), 60), 30
    late = run.gradients.staleness[:, 0]
    assert sorted(run.gradients.first) == list(range(0, 60, 2)) and run.updates.tolist() == [count]
    # Every update makes the gradients of the two others one later, but for the last ones.
    assert 2 * count - 9 <= late.sum() <= 2 * count - 3
    order = np.argsort(np.argsort(run.gradients.applied[:, 0], kind="stable"))
    np.testing.assert_array_equal(late, order - run.gradients.fetched[:, 0])
    assert set(run.gradients.replica) == {0, 1, 2} and run.seconds > 4  # 30 batches of 0.5 s in three replicas


def test_what_keeps_workers_from_starting_is_one_line(tmp_path, cluster, monkeypatch):
    with pytest.raises(ValueError, match="no such data set; give --data_dir"):
        ray(mishaps.refuse, (str(tmp_path),), workers=1, logs=tmp_path / "workers", settings=ONE)
    other = {**runtime_ray.versions(), "jax": "0.1"}
    monkeypatch.setattr(runtime_ray, "versions", lambda: other)
    with pytest.raises(ValueError, match=r"has jax .* \(driver: 0.1\); install the same versions everywhere"):
        ray(mishaps.begin, (str(tmp_path), 0.0), workers=1, logs=tmp_path / "workers", settings=ONE)
    assert engine.is_initialized()  # what the program had joined is left as it was


def of_session():
    """Processes of a Ray that a driver has started, by their ids: {id: command}."""
    text = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    marks = ("raylet/raylet", "gcs_server", "ray::")
    return {int(pid): args for pid, args in lines if any(mark in args for mark in marks)}


def vanished(before, seconds, but=()):
    """Waits until what was started since is gone."""
    deadline = time.monotonic() + seconds
    while left := {
        pid: args for pid, args in of_session().items() if pid not in before and not any(word in args for word in but)
    }:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_and_leaves_no_process(tmp_path):
    """kill -9 and Ctrl-C, over the command; Ray is started by it."""
    before, path = of_session(), tmp_path / "run"
    args = ["--method=random", *TINY, "--set=strategy=exact", "--runtime=ray", "--workers=2", "--trials=12"]
    args += ["--set=ray.dashboard=false", f"--workdir={path}"]
    for number, count in ((signal.SIGKILL, 3), (signal.SIGINT, 6)):
        driver = start(*args, prefix=("setsid",))
        deadline = time.monotonic() + 120
        while not (path / "trials.jsonl").exists() or len(rows(path)) < count:
            assert driver.poll() is None and time.monotonic() < deadline, driver.communicate()
            time.sleep(0.05)
        if number == signal.SIGINT:
            os.killpg(driver.pid, number)  # as a terminal does: Ray's processes are in its group
        else:
            driver.send_signal(number)
        _, err = driver.communicate(timeout=60)
        assert driver.returncode == (-9 if number == signal.SIGKILL else 130) and "Traceback" not in err, err
        # Where even Ray's own server was killed with the driver, two of its helpers look for it for two minutes.
        vanished(before, 20, but=("Agent",) if number == signal.SIGKILL else ())
    done = start(*args)
    _, err = done.communicate(timeout=180)
    assert done.returncode == 0, err
    found = rows(path)
    assert len(found) == len({row["id"] for row in found}) == 12 and {row["status"] for row in found} == {"ok"}
    vanished(before, 150)
    assert (path / "report.html").exists()
