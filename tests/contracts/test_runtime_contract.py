"""What every runtime promises of a task: fine, raising, hanging, dying, cancelled, and how its worker goes on."""

import numpy as np
import pytest
from tools import mishaps
from tools.mishaps import task

from nasjax.runtime.inline import inline
from nasjax.runtime.process import process
from nasjax.runtime.ray import RayConfig, ray
from nasjax.runtime.simulated import simulated
from nasjax.types import Failure, Status

FINE, DIES, HANGS, RAISES = 0, 1, 6, 9  # trials, as `mishaps.fate` has it
OTHERS = {"process": process, "ray": ray}  # whose workers are other processes


def opened(name, request, folder):
    """A runtime with one worker."""
    if name in OTHERS:
        options = {"workers": 1, "logs": folder / "run/workers"}
        if name == "ray":
            request.getfixturevalue("cluster")
            options["settings"] = RayConfig(num_cpus=1)
        runtime, facts = OTHERS[name](mishaps.begin, (str(folder), 0.0), **options)
        assert facts == {"strategy": "toy"}
        return runtime
    work = mishaps.begin(str(folder), 0.0)[1]
    if name == "inline":
        return inline(work)

    def waking(task):  # a hang on a virtual clock is a long duration
        return work(task if task.ids[0] != HANGS else task._replace(ids=np.int32([FINE])))

    return simulated(waking, lambda task, result: 60.0 if task.ids[0] == HANGS else 0.1)


ON_RAY = pytest.param("ray", marks=pytest.mark.filterwarnings("ignore"))  # Ray's own


@pytest.mark.parametrize("name", ["inline", "simulated", "process", ON_RAY])
def test_what_may_happen_to_a_task(name, request, tmp_path):
    """One after the other; each ticket answers once, and what came before leaves no trace in what comes after."""
    runtime = opened(name, request, tmp_path)

    def found(trial, timeout_s=None):
        ticket = runtime.submit(task(trial), timeout_s)
        ((answered, result),) = runtime.wait()
        assert answered == ticket and runtime.worker(ticket) == 0
        return result

    def fine():
        return found(FINE).evaluation.fitness.shape == (1,)

    try:
        assert runtime.workers == 1 and runtime.wait() == [] and fine()
        raised = found(RAISES)
        assert raised == Failure(Status.FAILED, "RuntimeError: the child fell over", seconds=raised.seconds) and fine()
        if name != "inline":  # which cannot interrupt itself
            assert found(HANGS, 1.0) == Failure(Status.TIMEOUT, "took longer than 1 s", seconds=1.0) and fine()
            runtime.cancel(runtime.submit(task(HANGS), None))
            assert runtime.wait() == [] and fine()
        hung = runtime.submit(task(HANGS), None)  # the caller may stop waiting, whatever the task does
        assert runtime.wait(0.2) == []
        runtime.cancel(hung)
        assert runtime.wait(0.2) == [] and fine()
        if name in OTHERS:
            dead = found(DIES)
            assert dead.status == Status.LOST and dead.error.startswith("its worker died (") and not dead.blameless
            assert fine() and "the child fell over" in (tmp_path / "run/workers/worker0.log").read_text()
    finally:
        runtime.close()
