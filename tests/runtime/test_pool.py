"""What runtimes with workers of their own share, with workers that are scripts: late results, deaths, waiting."""

import itertools
import os
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from tools.commands import here

from nasjax.commands import searching
from nasjax.runtime import actor
from nasjax.runtime.actor import Driver, claim_cores, unlike, versions
from nasjax.runtime.inline import answer
from nasjax.runtime.pool import pool
from nasjax.runtime.ray import RayConfig, _Link, _look, _reached, joined, placed, resources, share, why
from nasjax.runtime.replicas import replicas
from nasjax.store import plugin
from nasjax.types import Failure, Status

from .test_runtime import events, rows, run, work


class Script:
    """A worker that is ready at once (or never), and answers when it is asked, or when it is stopped."""

    def __init__(self, number, says):
        self.number, self.says, self.inbox = number, says, [("ready", {"number": number})]

    def send(self, ticket, task):
        self.inbox += self.says(self, ticket, task)

    def stop(self):
        left, self.inbox = self.inbox, []
        return left


def heard(links, seconds):
    said = [(link, link.inbox.pop(0)) for link in links if link.inbox]
    if not said:
        assert seconds is not None, "nothing will ever be said"
        time.sleep(seconds)
    return said


def scripted(says, workers=2, **options):
    started = []

    def start(number):
        started.append(Script(number, says))
        return started[-1]

    runtime, facts = pool(start, options.pop("heard", heard), workers=workers, logs="worker{}.log")
    assert facts == {"number": 0}
    return runtime, started


def test_a_result_that_comes_after_the_time_out_is_stale_and_counted_once(tmp_path):
    """Trial 3 is told as timed out; that its worker had answered in the last moment changes nothing."""

    def says(worker, ticket, task):
        return [(ticket, answer(work, task))] if task.ids.tolist() != [3] else []

    class Late(Script):
        def stop(self):
            return [(ticket, answer(work, task)) for ticket, task in self.held] + super().stop()

        held = ()

        def send(self, ticket, task):
            self.held = [(ticket, task)]
            super().send(ticket, task)

    runtime, _ = pool(lambda number: Late(number, says), heard, workers=2, logs="")
    end = run(tmp_path, runtime, trials=12, timeout_s=0.05)
    assert end.trials == 12 and [row["status"] for row in rows(tmp_path) if row["id"] == 3] == ["timeout"]
    assert len({row["id"] for row in rows(tmp_path)}) == 12
    assert [event["event"] for event in events(tmp_path)].count("stale") == 1
    again = run(tmp_path, runtime, trials=12)
    assert again.trials == 12


def test_a_death_is_lost_and_the_worker_is_replaced():
    runtime, started = scripted(lambda worker, ticket, task: [("died", "its worker died (gone)")] if task else [], 1)
    ticket = runtime.submit(1)
    ((answered, lost),) = runtime.wait()
    assert (answered, lost._replace(seconds=0.0)) == (ticket, Failure(Status.LOST, "its worker died (gone)"))
    assert lost.seconds > 0  # that the attempt took
    runtime.submit(2)
    assert len(started) == 2 and runtime.wait()[0][1].status == Status.LOST
    assert runtime.wait() == []


def test_a_free_worker_takes_the_task_of_one_that_waits_for_a_machine():
    """Worker 1 never starts; what it was given is not held up, and the search keeps its two tasks at a time."""

    def says(worker, ticket, task):
        return [(ticket, (worker.number, task))]

    def one_machine(links, seconds):
        return heard([link for link in links if link.number == 0], seconds)

    runtime, _ = scripted(says, heard=one_machine)
    places = {runtime.submit(task): task for task in "ab"}
    found = {}
    for task in "cdef":
        for ticket, result in runtime.wait():
            found[places[ticket]] = result
        places[runtime.submit(task)] = task
    assert found == {task: (0, task) for task in "abcd"}


def test_workers_must_agree():
    """A machine with other data, or another choice of strategy, would count other results in."""
    scripts = (Script(number, lambda worker, ticket, task: []) for number in range(2))
    runtime, _ = pool(lambda number: next(scripts), heard, workers=2, logs="", agree=("number",))
    runtime.submit("a")
    runtime.submit("b")
    with pytest.raises(ValueError, match="machines differ: number of worker 1 is 1, of the first 0"):
        runtime.wait()


def test_workers_that_die_while_they_start_end_the_run():
    reasons = itertools.chain(["no memory"], itertools.repeat("what came of it"))  # the first one is told

    class Stillborn(Script):
        def __init__(self, number, says):
            super().__init__(number, says)
            self.inbox = [("died", next(reasons))]

    with pytest.raises(OSError, match=r"workers die while they start \(no memory\); see worker0.log"):
        pool(lambda number: Stillborn(number, None), heard, workers=2, logs="worker{}.log")
    begun = iter((Stillborn(0, None), Stillborn(0, None), Script(0, None)))  # the first ones were killed, say
    _, facts = pool(lambda number: next(begun), heard, workers=2, logs="")
    assert facts == {"number": 0}
    with pytest.raises(ValueError, match="at least 1"):
        pool(lambda number: Stillborn(number, None), heard, workers=0, logs="")


def test_workers_that_die_with_their_machine_before_they_begin_are_one_failed_start(tmp_path):
    """Three of them: the search goes on, and their candidates have all of their attempts left."""
    started = []

    def start(number):
        worker = Script(number, lambda worker, ticket, task: [(ticket, answer(work, task))])
        if 1 <= len(started) <= 3:
            worker.inbox = [("died", "the machine went")]
        started.append(worker)
        return worker

    runtime, _ = pool(start, heard, workers=4, logs="")
    run(tmp_path, runtime, trials=12)
    died = [event for event in events(tmp_path) if event["event"] == "died"]
    assert len(died) == 3 and all(event["blameless"] for event in died)
    assert len({row["id"] for row in rows(tmp_path)}) == 12 and not [r for r in rows(tmp_path) if r["status"] == "lost"]


def test_preemption_is_no_attempt(tmp_path):
    """Trial 2 is preempted five times, and told as what it is; trial 3 kills its worker, and is lost after three."""
    left = {2: 5, 3: 3}

    def says(worker, ticket, task):
        (trial,) = task.ids.tolist()
        if left.get(trial, 0):
            left[trial] -= 1
            return [("died", "gone", True) if trial == 2 else ("died", "its worker died (SIGKILL)")]
        return [(ticket, answer(work, task))]

    runtime, _ = scripted(says)
    search = lambda trials: run(tmp_path, runtime, trials=trials)  # noqa: E731
    search(3)  # the account of what was blameless is the ledger's
    search(12)
    status = {row["id"]: row["status"] for row in rows(tmp_path)}
    assert status[2] == "ok" and status[3] == "lost" and left == {2: 0, 3: 0}
    found = [event["blameless"] for event in events(tmp_path) if event.get("task") == 2 and "error" in event]
    assert all(found) and len(found) >= 4  # the first search may have ended before it heard of one


@pytest.mark.parametrize(
    ("capacities", "workers", "most", "units"),
    [
        ([8, 4], 3, 9, 4),
        ([2, 2, 2], 4, 9, 1),
        ([2, 2, 2], 2, 9, 2),
        ([1], 3, 1, 0.3333),
        ([1, 1], 3, 1, 0.5),  # no worker has parts of two GPUs
        ([4], 2, 1, 1),
        ([0, 0], 2, 1, 0),
    ],
)
def test_even_shares(capacities, workers, most, units):
    assert share(capacities, workers, most) == units
    assert not units or sum(int(c / units + 1e-6) for c in capacities) >= workers


def test_resources_of_a_worker():
    nodes = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0}]
    assert resources(nodes, 4, RayConfig()) == (4, 0.5)  # CPUs of the machine that has the GPUs
    assert resources(nodes, 4, RayConfig(num_gpus=0)) == (16, 0)
    assert resources(nodes, 4, RayConfig(num_cpus=3, num_gpus=0.25)) == (3, 0.25)
    with pytest.raises(ValueError, match="use --runtime=inline on a TPU host"):
        resources([{"CPU": 8.0, "TPU": 4.0}], 2, RayConfig())
    with pytest.raises(ValueError, match=r"no Ray answers at localhost:1 \(.*`ray start --head`"):
        _reached("localhost:1")
    for wrong in ({"num_cpus": 0}, {"num_cpus": 1.5}, {"num_gpus": -1}, {"address": "ray://host:1"}):
        with pytest.raises(ValueError, match=r"num_|ray://"):
            RayConfig(**wrong)


def test_workers_without_room_are_told_of():
    engine, said = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}]), []
    assert placed(engine, 3, RayConfig(num_cpus=1), False, said.append) == (1, 0)
    assert said[-1] == "2 of the workers fit now; the others wait for machines"
    with pytest.raises(ValueError, match="this machine has room for 2 of 3 workers with 1 CPU; use fewer workers"):
        placed(engine, 3, RayConfig(num_cpus=1), True, said.append)


def test_a_worker_has_the_plugin_that_the_driver_has_run(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "_RUN", {})
    (tmp_path / "mine.py").write_text("edited = True\n")
    with pytest.raises(ValueError, match=r"mine.py is not the file that the driver has run"):
        searching.work_of({"plugin": "of another file"}, str(tmp_path), [str(tmp_path / "mine.py")], "")


def test_a_machine_that_differs_says_how(tmp_path):
    (tmp_path / "workers").mkdir()
    file = tmp_path / "workers/.shared"
    file.write_text("this one")
    assert unlike(Driver(versions(), str(file), "this one")) is None
    assert "python" in versions() and versions()["jax"][0].isdigit()
    other = unlike(Driver({**versions(), "jax": "0.1"}, str(file), "this one"))
    assert f"jax {versions()['jax']} (driver: 0.1); install the same" in other and "python" not in other
    for driver in (Driver(versions(), str(file), "another"), Driver(versions(), "/no/where/.shared", "this one")):
        assert "does not see" in unlike(driver) and "--workdir in a folder that all share" in unlike(driver)


def test_a_ray_that_does_not_start_is_one_line():
    """Ray raises a bare Exception where the machine is too busy for it."""

    def init(**options):
        raise Exception("The current node timed out during startup.")

    engine = SimpleNamespace(is_initialized=lambda: False, init=init)
    block = joined(engine, RayConfig(address="local"), print)
    with pytest.raises(ValueError, match="cannot start Ray: Exception: The current node timed out"), block:
        pass


@pytest.mark.parametrize("gone", [True, False])
def test_a_machine_that_goes_while_it_is_looked_at_keeps_nobody_from_starting(gone):
    class Died(Exception):
        pass

    nodes = [{"NodeID": name, "Alive": True, "Resources": {"CPU": 2.0}} for name in "ab"]

    def get(node):
        if node == "b":
            nodes[1]["Alive"] = not gone
            raise Died("it went")

    probe = SimpleNamespace(options=lambda **given: SimpleNamespace(remote=lambda driver: given["scheduling_strategy"]))
    strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
    engine = SimpleNamespace(
        remote=lambda function: probe,
        nodes=lambda: nodes,
        get=get,
        exceptions=SimpleNamespace(RayError=Died),
        util=SimpleNamespace(scheduling_strategies=strategies),
    )
    with nullcontext() if gone else pytest.raises(ValueError, match="cannot run nasjax: Died: it went"):
        _look(engine, 1.0, 0.0, {}, Driver({}, "", ""))


def test_wrong_replicas_are_told_before_ray_is_needed():
    for wrong in ({"replicas": 0}, {"replicas": 2, "sleep": -1.0}, {"replicas": 2, "baseline": "none"}):
        with pytest.raises(ValueError, match=r"replicas must be at least 1|shared"):
            replicas(None, **wrong)


def test_preemption_is_told_from_death():
    class Died(Exception):
        preempted = False

    text = "The actor died.\n class_name: Actor\nWorker exit detail: End of file. Some common causes include: (1) all"
    assert why(Died(text)) == "its worker died (Died: End of file.)"
    error = Died(text)
    error.preempted = True
    assert why(error) == "its worker died: the machine was preempted"

    def get(ref):
        raise error

    engine = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayTaskError=KeyError, RayError=Died))
    assert _Link(engine, 0, None, "ref").message() == ("died", why(error), True)
    error.preempted = False
    assert _Link(engine, 0, None, "ref").message() == ("died", why(error), False)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs sched_setaffinity")
def test_workers_of_a_machine_claim_different_cores(tmp_path, monkeypatch):
    """A claim ends with its process, here with its files."""
    chosen = []
    monkeypatch.setattr(actor.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: chosen.append(sorted(cores)))
    for cpus in (2, 1, 1):
        claim_cores(cpus)
    assert chosen == [[0, 1], [2], [3]]
    claim_cores(2)  # Ray was told of more than there are
    assert len(chosen[-1]) == 2
    claim_cores(4)  # all of them: nothing to limit
    assert len(chosen) == 4
    os.close(actor._CLAIMS.pop(0))
    claim_cores(1)
    assert chosen[-1] == [0]
    while actor._CLAIMS:
        os.close(actor._CLAIMS.pop())
    for _ in range(8):
        claim_cores(0.5)
    assert sorted(chosen[5:]) == sorted([[core] for core in range(4)] * 2)
    while actor._CLAIMS:
        os.close(actor._CLAIMS.pop())


def test_wrong_usage_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for given, said in (
        (["--runtime=ray", "--workers=1"], "runtime ray needs Ray: pip install 'nasjax[ray]'"),
        (["--runtime=ray"], "runtime ray needs workers; add --workers=N"),
        (["--runtime=inline", "--workers=2"], "use --runtime=process"),
        (["--runtime=rya"], "choose auto, inline, process, ray"),
        (["--workers=1", "--ray_address=auto"], "no effect without --runtime=ray"),
        (["--runtime=ray", "--workers=1", "--ray_address=ray://a:1"], "run the command on a machine of the cluster"),
        (["--method=darts", "--runtime=ray"], "--runtime has no effect with --method=darts"),
        (["--mode=inspect", "--runtime=inline"], "--runtime has no effect with --mode=inspect"),
    ):
        code, _, err = here("--method=random", *given, f"--workdir={tmp_path / 'wrong'}")
        assert code == 2 and said in err and err.count("error:") == 1 and "Traceback" not in err, err
    assert not list(tmp_path.glob("wrong/trials.jsonl"))
