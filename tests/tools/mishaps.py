"""A worker's work that goes wrong in every way, for tests of runtimes."""

import os
import signal
import time

import numpy as np

from nasjax.drive.work import Answer, Work
from nasjax.types import Evaluation, Status

HANG_S = 60.0


def fate(trial):
    """What happens to a trial: it dies at every attempt, dies once, hangs, raises, is NaN, or is fine."""
    return {1: "dies", 4: "dies once", 6: "hangs", 9: "raises", 12: "nan"}.get(trial % 25, "fine")


def task(trial):
    return Work(np.zeros(2, np.uint32), np.int32([trial]), np.zeros((1, 2), np.int32), np.int32([-1]), {})


def begin(folder, seconds):
    """Of `runtime.process`; `folder` remembers who died."""

    def work(task):
        (trial,) = task.ids.tolist()
        what, mark = fate(trial), os.path.join(folder, f"died{trial}")
        if what == "dies" or (what == "dies once" and not os.path.exists(mark)):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hangs":
            time.sleep(HANG_S)
        if what == "raises":
            raise RuntimeError("the child fell over")
        time.sleep(seconds * (1 + trial % 4))
        fitness = np.float32([np.nan if what == "nan" else fitness_of(task.archs[0])])
        return Answer(Evaluation(fitness, np.float32([0.5]), np.int8([Status.OK]), {"error": [""]}), {})

    return {"strategy": "toy"}, work


def together(folder, workers, seconds):
    """Where nothing goes wrong, and no trial ends before so many workers are there; `folder` says where on Ray."""
    import ray

    open(os.path.join(folder, f"{ray.get_runtime_context().get_node_id()}-{os.getpid()}"), "w").close()

    def work(task):
        while len(os.listdir(folder)) < workers:
            time.sleep(0.02)
        time.sleep(seconds)
        fitness = np.float32([fitness_of(task.archs[0])])
        return Answer(Evaluation(fitness, np.float32([seconds]), np.int8([Status.OK]), {"error": [""]}), {})

    return {"strategy": "toy"}, work


def fitness_of(arch):
    return float(np.maximum(arch, 0).mean())


def refuse(folder):
    raise ValueError("no such data set; give --data_dir")


def never_starts(folder):
    os._exit(3)
