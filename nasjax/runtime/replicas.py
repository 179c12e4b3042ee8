"""The controller's distributed scheme in Ray actors: parameter shards and independent replicas.

Zoph & Le 2017, section 3.2 and appendix A. What the actors compute is a `nasjax.searchers.scheme`, the same that the
simulation computes on a virtual clock; here the clock is real, and how late a gradient is follows from who was faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.runtime.actor import claim_cores
from nasjax.runtime.ray import RayConfig, environment, imported, joined, placed, why
from nasjax.types import Key

SHARES = RayConfig()  # even ones of what there is


class Shard:
    """A part of the parameters. It applies gradients in the order of arrival and answers with its new values."""

    def __init__(self, step: Any, part: np.ndarray, moments: Any, accumulate: int) -> None:
        self._step, self._part, self._moments, self._accumulate = step, part, moments, accumulate
        self._received = 0

    def take(self, gradient: np.ndarray, fetched: int) -> tuple[np.ndarray, int, int, float]:
        """(part, its version, staleness of the gradient, time); the gradient was computed at version `fetched`."""
        staleness = self._received // self._accumulate - fetched
        part, self._moments = jax.device_get(self._step(self._part, self._moments, gradient))
        self._part = part
        self._received += 1
        return part, self._received // self._accumulate, staleness, time.time()

    def end(self) -> tuple[np.ndarray, int]:
        """The part, and its number of updates."""
        return self._part, self._received // self._accumulate


class Replica:
    """A copy of the controller with the parameters that it has fetched last."""

    def __init__(
        self, scheme: Any, key: np.ndarray, shards: Sequence[Any], parts: np.ndarray, sleep: float, cpus: float
    ) -> None:
        claim_cores(cpus)
        self._scheme, self._key = scheme, jax.random.wrap_key_data(jnp.asarray(key))
        self._shards, self._parts, self._sleep = shards, parts.copy(), sleep
        self._versions = np.zeros(len(shards), np.int32)

    def train(self, first: int) -> tuple[Any, float]:
        """Children from id `first` on, with the time at which they began; and when they ended."""
        began = time.time()
        batch = jax.device_get(self._scheme.sample(self._key, self._parts, np.int32(first)))
        time.sleep(self._sleep * float(np.max(batch.seconds)))
        return batch._replace(start=np.full(len(batch.arch), began)), time.time()

    def send(self, arch: np.ndarray, advantage: np.ndarray) -> dict[str, np.ndarray]:
        """Sends the children's gradient to all shards and fetches their answers."""
        import ray as engine

        gradient = np.asarray(self._scheme.gradient(self._parts, arch, advantage))
        fetched = self._versions.copy()
        given = zip(self._shards, gradient, fetched.tolist(), strict=True)
        answers = engine.get([shard.take.remote(part, version) for shard, part, version in given])
        parts, versions, staleness, applied = zip(*answers, strict=True)
        self._parts, self._versions = np.stack(parts), np.array(versions, np.int32)
        return {"fetched": fetched, "staleness": np.array(staleness), "applied": np.array(applied)}


def replicas(
    scheme: Any,
    *,
    replicas: int,
    sleep: float = 0.0,
    baseline: Literal["shared", "replica"] = "shared",
    settings: RayConfig = SHARES,
    say: Callable[[str], None] = lambda line: None,
) -> Callable[[Key, int], Any]:
    """The scheme in K + S actors. The driver numbers the children and keeps the baseline; gradients do not pass it.

    Args:
      scheme: from `nasjax.searchers.scheme`; Ray must be able to pickle its evaluator, as that of a table.
      replicas: K. Each has the CPUs and GPUs of a worker as `settings` says; shards count for none.
      sleep: real seconds that a replica sleeps per second of training time of its slowest child.
      baseline: "shared", or "replica" for one each; it moves when a replica's children have ended.
      settings: where Ray is, and how much a replica has.
      say: receives lines for the user.

    Returns:
      `search(key, trials) -> Run` with trials a multiple of m; its times are real, from the start of the first replica,
      by the clocks of the machines. With one replica it is the simulation, to rounding; with more, runs differ by who
      was faster. Nothing is saved before the end.

    Raises:
      ValueError: a number below 1, an unknown baseline, Ray is not installed or cannot be joined, or a Ray started here
        has no room for them all.
      OSError: an actor died.

    Example:
      >>> run = replicas(scheme(space, table(space, rows), children=8, shards=4), replicas=16)(jax.random.key(0), 1280)
      >>> run.gradients.staleness.mean()
    """
    if replicas < 1 or sleep < 0:
        raise ValueError(f"replicas must be at least 1 and sleep not negative, got {replicas} and {sleep}")
    if baseline not in ("shared", "replica"):
        raise ValueError(f'baseline must be "shared" or "replica", got {baseline!r}')

    def search(key: Key, trials: int) -> Any:
        batches: list[Any] = [None] * scheme.batches(trials)
        engine = imported()
        with joined(engine, settings, say) as own:
            cpus, gpus = placed(engine, replicas, settings, own, say)  # a replica without room would never start
            here: dict[str, Any] = {
                "max_restarts": 0,
                "max_task_retries": 0,
                "runtime_env": {"env_vars": environment(gpus)},
            }
            parts, moments = jax.device_get(scheme.init(jax.random.split(key, 3)[0]))
            held = [jax.tree.map(lambda leaf, s=s: leaf[s], moments) for s in range(scheme.shards)]
            shard = engine.remote(Shard).options(num_cpus=0, **here)
            replica = engine.remote(Replica).options(num_cpus=cpus, num_gpus=gpus, **here)
            shards = [
                shard.remote(scheme.step, part, moment, scheme.accumulate)
                for part, moment in zip(parts, held, strict=True)
            ]
            shared = (engine.put(scheme), np.asarray(jax.random.key_data(key)), shards, parts, sleep, cpus)
            actors = [replica.remote(*shared) for _ in range(replicas)]
            averages = np.full(replicas if baseline == "replica" else 1, scheme.start, np.float32)
            rows: list[dict[str, Any]] = []
            running: dict[Any, tuple[int, int]] = {}  # answer -> replica, and its batch or, once trained, -1 - its row
            begun = 0

            def begin(number: int) -> None:
                nonlocal begun
                if begun < len(batches):
                    running[actors[number].train.remote(begun * scheme.children)] = (number, begun)
                    begun += 1

            def trained(number: int, n: int, batch: Any, ended: float) -> None:
                batches[n], mine = batch, number % len(averages)
                advantage, reward, b, averages[mine] = scheme.judge(batch, averages[mine])
                running[actors[number].send.remote(batch.arch, advantage)] = (number, -1 - len(rows))
                first = n * scheme.children
                rows.append({"replica": number, "first": first, "sent": ended, "reward": reward, "baseline": b})

            try:
                for number in range(replicas):
                    begin(number)
                while running:
                    for ref in engine.wait(list(running))[0]:
                        number, n = running.pop(ref)
                        if n >= 0:
                            trained(number, n, *engine.get(ref))
                        else:
                            rows[-1 - n] |= engine.get(ref)
                            begin(number)
                last, updates = zip(*engine.get([shard.end.remote() for shard in shards]), strict=True)
            except engine.exceptions.RayActorError as error:
                raise OSError(f"a replica or a shard is gone: {why(error)}") from error
            finally:
                for actor in (*actors, *shards):
                    engine.kill(actor)
        zero = min(batch.start.min() for batch in batches)
        batches = [batch._replace(start=batch.start - zero) for batch in batches]
        rows = [{**row, "sent": row["sent"] - zero, "applied": row["applied"] - zero} for row in rows]
        end = max(float(row["applied"].max()) for row in rows)
        return scheme.gather(batches, rows, np.stack(last), np.array(updates, np.int32), end)

    return search
