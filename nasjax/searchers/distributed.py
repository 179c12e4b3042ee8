"""The controller's distributed scheme on a virtual clock: parameter-server shards, controller replicas, late gradients.

Zoph & Le 2017, section 3.2 ("Accelerate training with parallelism and asynchronous updates") and appendix A. S shards
hold the controller's parameters. K replicas fetch them, sample m children each, train the m in parallel, and send the
gradient of their own m at the parameters that they sampled with. Nobody waits for anybody else, so a gradient is late:
its *staleness* is the number of updates between the fetch and its own. What the paper leaves open is listed at
`distributed_reinforce`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from nasjax.searchers.policy import DepthSchedule, Policy
from nasjax.searchers.policy import depth_schedule as paper_schedule
from nasjax.searchers.reinforce import Reward, check_baseline, controller, cube, gained, optimizer, score_loss
from nasjax.types import Array, Evaluation, Evaluator, Key, Proposal, PyTree, Space, Status

Seconds = Callable[[Key, Proposal, Evaluation], jax.Array]


class Children(NamedTuple):
    """All children, T of them in the order of their ids: the order in which they were sampled."""

    arch: Array  # i32[T, S]
    fitness: Array  # f32[T]; NaN = failed
    reward: Array  # f32[T]
    seconds: Array  # f32[T], how long each trained on the virtual clock
    status: Array  # i8[T], values of Status
    info: dict[str, Any]  # {name: [T, ...]}, what the evaluator adds
    start: Array  # f64[T], virtual seconds


class Gradients(NamedTuple):
    """All gradients, G = T / m of them in the order in which they were sent."""

    replica: np.ndarray  # i32[G]
    first: np.ndarray  # i32[G], id of the first of its m children
    sent: np.ndarray  # f64[G], virtual seconds: when the last of its children ended
    reward: np.ndarray  # f32[G], mean over its children
    baseline: np.ndarray  # f32[G], b as it was subtracted
    fetched: np.ndarray  # i32[G, S], version of each shard that the children were sampled with
    staleness: np.ndarray  # i32[G, S], updates of the shard between that fetch and this gradient's own update
    applied: np.ndarray  # f64[G, S], virtual seconds at which the shard took it in


class Run(NamedTuple):
    """What became of one simulated search."""

    children: Children
    gradients: Gradients
    params: PyTree  # of the policy, at the end
    updates: np.ndarray  # i32[S], of each shard
    seconds: float  # on the virtual clock, until the last gradient was taken in everywhere


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

    Not in the paper, and so our choice:

    * A replica sends its gradient and asks for fresh parameters in one message per shard. The shard answers with its
      part after it has taken the gradient in, so a lone replica is never stale. The replica samples again when the
      last part has arrived: parts of different versions may meet.
    * A message takes exponentially distributed seconds, drawn for each gradient and shard. A shard takes messages in
      the order of arrival, in no time. Parameters are one flat vector, cut into S equal parts.
    * A shard counts gradients by itself and makes one step of Adam for the mean of every `accumulate` of them. Each
      shard holds the moments of its part.
    * The baseline is one number for all, or one per replica; it moves when a gradient is computed, at once.
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
      ValueError: a number below 1, a negative delay, a wrong word, or trials that are no multiple of m.

    Example:
      >>> simulate = distributed_reinforce(space, table(space, rows), replicas=100, shards=20)
      >>> run = simulate(jax.random.key(0), 12_800)
      >>> run.gradients.staleness.mean()
    """
    given = {"replicas": replicas, "children": children, "shards": shards, "accumulate": accumulate}
    if wrong := [f"{name}={number}" for name, number in given.items() if number < 1]:
        raise ValueError(f"write 1 or more instead of {', '.join(wrong)}")
    if delay < 0:
        raise ValueError(f"delay is a mean time in seconds, 0 or more, got {delay}")
    if baseline not in ("shared", "replica"):
        raise ValueError(f'baseline must be "shared" or "replica", got {baseline!r}')
    check_baseline(baseline_decay, baseline_init)
    pi, m = controller(space, policy), children
    schedule = paper_schedule() if depth_schedule is None else depth_schedule
    adam = optimizer(learning_rate, accumulate=accumulate)
    example = jax.eval_shape(pi.init, jax.random.key(0))
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example))
    part = -(-flat.size // shards)

    def cut(params: jax.Array) -> jax.Array:  # [P] -> [S, part], the last one padded with zeros
        return jnp.pad(params, (0, shards * part - flat.size)).reshape(shards, part)

    def whole(parts: jax.Array) -> PyTree:
        return unravel(parts.reshape(-1)[: flat.size])

    @jax.jit
    def init(key: Key) -> tuple[jax.Array, PyTree]:
        parts = cut(jax.flatten_util.ravel_pytree(pi.init(key))[0])
        return parts, jax.vmap(adam.init)(parts)

    @jax.jit
    def sample(key: Key, parts: jax.Array, first: jax.Array) -> Children:
        """m children at the replica's parameters, and what will become of them."""
        _, key_ask, key_evaluate = jax.random.split(key, 3)  # the keys of `drive.search` and `drive.scan`
        ids = first + jnp.arange(m, dtype=jnp.int32)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key_ask, ids)
        arch = jax.vmap(pi.sample, in_axes=(0, None, 0))(keys, whole(parts), jax.vmap(schedule)(ids))
        proposal = Proposal(ids, arch, jnp.full(m, -1, jnp.int32))
        found, _ = evaluator.evaluate(key_evaluate, proposal, None)
        took = seconds(key_evaluate, proposal, found)
        return Children(arch, found.fitness, gained(reward, found), took, found.status, found.info, jnp.zeros(m))

    @jax.jit
    def gradient(parts: jax.Array, arch: jax.Array, advantage: jax.Array) -> jax.Array:
        def loss(params: PyTree) -> jax.Array:
            return score_loss(pi, params, arch, advantage)[0]

        return cut(jax.flatten_util.ravel_pytree(jax.grad(loss)(whole(parts)))[0])

    @jax.jit
    def delays(key: Key, n: jax.Array) -> jax.Array:
        key_init, _, _ = jax.random.split(key, 3)
        return delay * jax.random.exponential(jax.random.fold_in(key_init, n), (shards,))

    @jax.jit
    def take_in(parts: jax.Array, moments: PyTree, gradients: jax.Array, here: jax.Array) -> tuple[jax.Array, PyTree]:
        """One gradient each for the shards that have a message here."""

        def one(part: jax.Array, moments: PyTree, gradient: jax.Array) -> tuple[jax.Array, PyTree]:
            steps, moments = adam.update(gradient, moments, part)
            return part + steps, moments

        new = jax.vmap(one)(parts, moments, gradients)
        mask = [here.reshape(-1, *[1] * (leaf.ndim - 1)) for leaf in jax.tree.leaves(new)]
        chosen = map(jnp.where, mask, jax.tree.leaves(new), jax.tree.leaves((parts, moments)))
        return jax.tree.unflatten(jax.tree.structure(new), list(chosen))

    def simulate(key: Key, trials: int) -> Run:
        if trials < m or trials % m:
            raise ValueError(f"trials must be a multiple of {m}, the children of a replica, got {trials}")
        parts, moments = init(jax.random.split(key, 3)[0])
        held = np.repeat(np.asarray(parts)[None], replicas, 0)  # what each replica has fetched, [K, S, part]
        versions = np.zeros((replicas, shards), np.int32)
        received = np.zeros(shards, np.int32)
        averages = np.full(replicas if baseline == "replica" else 1, np.nan, np.float32)
        if baseline_init != "first_batch":
            averages[:] = baseline_init
        outgoing = np.zeros_like(held)
        batches: list[Children | None] = [None] * (trials // m)
        at_work = np.full(replicas, -1)  # number of the batch that a replica trains
        sent: list[dict[str, Any]] = []  # the gradients
        current = np.full(replicas, -1)  # number of the gradient that a replica has sent last
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
            batch: Children = jax.device_get(sample(key, held[replica], np.int32(begun * m)))
            batches[begun] = batch._replace(start=np.full(m, at))
            at_work[replica] = begun
            begun += 1
            push(at + float(batch.seconds.max()), replica, -1)

        def end(at: float, replica: int) -> None:
            n = int(at_work[replica])
            batch = batches[n]
            assert batch is not None
            counts = batch.status != Status.REJECTED
            mean = batch.reward[counts].mean(dtype=np.float32) if counts.any() else np.float32(np.nan)
            mine = replica % len(averages)
            b = mean if np.isnan(averages[mine]) else averages[mine]
            advantage = np.where(counts, batch.reward - b, 0).astype(np.float32)
            outgoing[replica] = gradient(held[replica], batch.arch, advantage)
            if counts.any():
                averages[mine] = baseline_decay * b + (1 - baseline_decay) * mean
            current[replica], awaited[replica] = len(sent), shards
            row = {"replica": replica, "first": n * m, "sent": at, "reward": mean, "baseline": b}
            row |= {"fetched": versions[replica].copy(), "staleness": np.full(shards, -1), "applied": np.zeros(shards)}
            late = np.asarray(delays(key, np.int32(len(sent)))) if delay else np.zeros(shards)
            sent.append(row)
            for shard in range(shards):
                push(at + float(late[shard]), replica, shard)

        def deliver(messages: dict[int, tuple[float, int]]) -> None:
            """Shard -> (when, whose gradient): each shard takes its part in and answers with its parameters."""
            nonlocal parts, moments
            gradients, here = np.zeros((shards, part), np.float32), np.zeros(shards, bool)
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
            # Shards know nothing of one another: messages that follow each other are one call, up to the first that
            # meets a busy shard, or that completes a replica's parameters: that replica's next event is not known yet.
            messages = {shard: (clock, replica)}
            awaited[replica] -= 1
            while awaited[replica] and events and events[0][3] >= 0 and events[0][3] not in messages:
                clock, _, replica, shard = heapq.heappop(events)
                messages[shard] = (clock, replica)
                awaited[replica] -= 1
            deliver(messages)
            if not awaited[replica]:
                begin(clock, replica)

        columns = {name: np.stack([np.asarray(row[name]) for row in sent]) for name in Gradients._fields}
        trained = jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
        return Run(trained, Gradients(**columns), jax.device_get(whole(parts)), received // accumulate, clock)

    return simulate
