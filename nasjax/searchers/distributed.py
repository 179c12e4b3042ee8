"""The controller's distributed scheme on a virtual clock: parameter-server shards, controller replicas, late gradients.

Zoph & Le 2017, section 3.2 ("Accelerate training with parallelism and asynchronous updates") and appendix A. S shards
hold the controller's parameters. K replicas fetch them, sample m children each, train the m in parallel, and send the
gradient of those m at the parameters that they sampled with. No replica waits for another, so gradients arrive late: a
gradient's *staleness* is the number of updates between its replica's fetch and its own update. `distributed_reinforce`
lists what the paper leaves open.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.searchers.policy import DepthSchedule, Policy
from nasjax.searchers.reinforce import Reward, cube
from nasjax.searchers.scheme import Children, Run, Seconds, scheme
from nasjax.types import Evaluator, Key, PyTree, Space


def distributed_reinforce(
    space: Space,
    evaluator: Evaluator,
    *,
    replicas: int = 100,
    children: int = 8,
    shards: int = 20,
    accumulate: int = 1,
    delay: float = 0.0,
    seconds: Seconds = lambda key, proposal, evaluation: jnp.asarray(evaluation.cost),
    policy: Literal["lstm", "independent"] | Policy = "lstm",
    learning_rate: float = 6e-4,
    baseline: Literal["shared", "replica"] = "shared",
    baseline_decay: float = 0.95,
    baseline_init: Literal["first_batch"] | float = "first_batch",
    reward: Reward = cube,
    depth_schedule: DepthSchedule | None = None,
) -> Callable[[Key, int], Run]:
    """A simulation of the scheme in one process; its searches are exact, only their clock is virtual.

    Our choices, where the paper is silent:

    * A replica sends its gradient and asks for fresh parameters in one message per shard. The shard answers with its
      part after it has applied the gradient, so a single replica is never stale. The replica samples again when the
      last part has arrived: parts of different versions may meet.
    * A message takes exponentially distributed seconds, drawn for each gradient and shard. A shard handles messages in
      the order of arrival, in no time. Parameters are one flat vector, cut into S equal parts.
    * Each shard counts its gradients and makes one step of Adam with the mean of every `accumulate` of them. Each
      shard holds the moments of its part.
    * The baseline is one number for all, or one per replica; it is updated at once when a gradient is computed.
    * A replica waits for all of its m children. A rejected one adds nothing to the gradient, whose divisor stays m.

    Args:
      space: where to search.
      evaluator: traceable, such as a table.
      replicas: K; the paper has 100 (CNN) and 400 (PTB).
      children: m per replica and gradient; 8 and 1.
      shards: S; 20.
      accumulate: g gradients per update; 1 and 10.
      delay: mean seconds that a message takes.
      seconds: (key, Proposal, Evaluation) -> f32[m], how long children train; the default is the evaluation's cost.
      policy, learning_rate, baseline_decay, baseline_init, reward, depth_schedule: as in `reinforce`.
      baseline: "shared", or "replica" for one each.

    Returns:
      `simulate(key, trials) -> Run` with trials a multiple of m. With one replica it is the search of `drive.scan` with
      `reinforce` and the same key, to rounding.

    Raises:
      ValueError: a number below 1, a negative delay, an unknown baseline, or trials that are no multiple of m.

    Example:
      >>> simulate = distributed_reinforce(space, table(space, rows), replicas=100, shards=20)
      >>> run = simulate(jax.random.key(0), 12_800)
      >>> run.gradients.staleness.mean()
    """
    if replicas < 1:
        raise ValueError(f"write 1 or more instead of replicas={replicas}")
    if delay < 0:
        raise ValueError(f"delay is a mean time in seconds, 0 or more, got {delay}")
    if baseline not in ("shared", "replica"):
        raise ValueError(f'baseline must be "shared" or "replica", got {baseline!r}')
    functions = scheme(
        space,
        evaluator,
        children=children,
        shards=shards,
        accumulate=accumulate,
        seconds=seconds,
        policy=policy,
        learning_rate=learning_rate,
        baseline_decay=baseline_decay,
        baseline_init=baseline_init,
        reward=reward,
        depth_schedule=depth_schedule,
    )
    m = children

    @jax.jit
    def delays(key: Key, n: jax.Array) -> jax.Array:
        key_init, _, _ = jax.random.split(key, 3)
        return delay * jax.random.exponential(jax.random.fold_in(key_init, n), (shards,))

    @jax.jit
    def take_in(parts: jax.Array, moments: PyTree, gradients: jax.Array, here: jax.Array) -> tuple[jax.Array, PyTree]:
        """Applies one gradient in each shard that has a message here."""
        new = jax.vmap(functions.step)(parts, moments, gradients)
        mask = [here.reshape(-1, *[1] * (leaf.ndim - 1)) for leaf in jax.tree.leaves(new)]
        chosen = map(jnp.where, mask, jax.tree.leaves(new), jax.tree.leaves((parts, moments)))
        return jax.tree.unflatten(jax.tree.structure(new), list(chosen))

    def simulate(key: Key, trials: int) -> Run:
        batches: list[Children | None] = [None] * functions.batches(trials)
        parts, moments = functions.init(jax.random.split(key, 3)[0])
        held = np.repeat(np.asarray(parts)[None], replicas, 0)  # what each replica has fetched, [K, S, part]
        versions = np.zeros((replicas, shards), np.int32)
        received = np.zeros(shards, np.int32)
        averages = np.full(replicas if baseline == "replica" else 1, functions.start, np.float32)
        outgoing = np.zeros_like(held)
        at_work = np.full(replicas, -1)  # number of the batch that a replica trains
        sent: list[dict[str, Any]] = []  # the gradients
        current = np.full(replicas, -1)  # number of the gradient that a replica sent last
        awaited = np.zeros(replicas, np.int64)  # answers
        events: list[tuple[float, int, int, int]] = []  # when, order, replica, shard (-1: its children have ended)
        order = begun = 0
        clock = 0.0

        def push(at: float, replica: int, shard: int) -> None:
            nonlocal order
            heapq.heappush(events, (at, order, replica, shard))
            order += 1

        def begin(at: float, replica: int) -> None:
            nonlocal begun
            if begun == len(batches):
                return
            batch: Children = jax.device_get(functions.sample(key, held[replica], np.int32(begun * m)))
            batches[begun] = batch._replace(start=np.full(m, at))
            at_work[replica] = begun
            begun += 1
            push(at + float(batch.seconds.max()), replica, -1)

        def end(at: float, replica: int) -> None:
            n = int(at_work[replica])
            batch = batches[n]
            assert batch is not None
            mine = replica % len(averages)
            advantage, mean, b, averages[mine] = functions.judge(batch, averages[mine])
            outgoing[replica] = functions.gradient(held[replica], batch.arch, advantage)
            current[replica], awaited[replica] = len(sent), shards
            row: dict[str, Any] = {"replica": replica, "first": n * m, "sent": at, "reward": mean, "baseline": b}
            row |= {"fetched": versions[replica].copy(), "staleness": np.full(shards, -1), "applied": np.zeros(shards)}
            late = np.asarray(delays(key, np.int32(len(sent)))) if delay else np.zeros(shards)
            sent.append(row)
            for shard in range(shards):
                push(at + float(late[shard]), replica, shard)

        def deliver(messages: dict[int, tuple[float, int]]) -> None:
            """Shard -> (when, whose gradient): each shard applies its part and answers with its parameters."""
            nonlocal parts, moments
            gradients, here = np.zeros_like(parts), np.zeros(shards, bool)
            for shard, (at, replica) in messages.items():
                gradients[shard], here[shard] = outgoing[replica, shard], True
                row = sent[current[replica]]
                row["applied"][shard] = at
                row["staleness"][shard] = received[shard] // accumulate - row["fetched"][shard]
                received[shard] += 1
            parts, moments = take_in(parts, moments, gradients, here)
            values = np.asarray(parts)
            for shard, (_, replica) in messages.items():
                held[replica, shard] = values[shard]
                versions[replica, shard] = received[shard] // accumulate

        for replica in range(replicas):
            begin(0.0, replica)
        while events:
            clock, _, replica, shard = heapq.heappop(events)
            if shard < 0:
                end(clock, replica)
                continue
            # Shards are independent, so consecutive messages become one call, up to the first that meets a busy shard
            # or completes a replica's parameters, as that replica's next event is not known yet.
            messages = {shard: (clock, replica)}
            awaited[replica] -= 1
            while awaited[replica] and events and events[0][3] >= 0 and events[0][3] not in messages:
                clock, _, replica, shard = heapq.heappop(events)
                messages[shard] = (clock, replica)
                awaited[replica] -= 1
            deliver(messages)
            if not awaited[replica]:
                begin(clock, replica)

        done = [batch for batch in batches if batch is not None]
        return functions.gather(done, sent, parts, received // accumulate, clock)

    return simulate
