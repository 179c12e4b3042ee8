"""The computations of the controller's distributed scheme, shared by the virtual clock and the actors.

Zoph & Le 2017, section 3.2 ("Accelerate training with parallelism and asynchronous updates") and appendix A. S shards
hold the controller's parameters; K replicas fetch them, sample m children each, train the m in parallel, and send the
gradient of those m at the parameters that they sampled with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from nasjax.searchers.policy import DepthSchedule, Policy
from nasjax.searchers.policy import depth_schedule as paper_schedule
from nasjax.searchers.reinforce import Reward, check_baseline, controller, cube, gained, optimizer, score_loss
from nasjax.types import Array, Evaluation, Evaluator, Key, Proposal, PyTree, Space, Status

Seconds = Callable[[Key, Proposal, Evaluation], jax.Array]


class Flat(NamedTuple):
    """The controller of a scheme, its parameters being one vector f32[P]."""

    policy: Policy
    schedule: DepthSchedule
    adam: optax.GradientTransformation
    size: int  # P
    unravel: Callable[[jax.Array], PyTree]


def flat_controller(
    space: Space,
    policy: Literal["lstm", "independent"] | Policy,
    learning_rate: float,
    depth_schedule: DepthSchedule | None,
    accumulate: int,
    **others: int,
) -> Flat:
    """Arguments as of `distributed_reinforce`; `others` are further numbers of it.

    Raises:
      ValueError: a number below 1, or an unknown policy.
    """
    if wrong := [f"{name}={number}" for name, number in {**others, "accumulate": accumulate}.items() if number < 1]:
        raise ValueError(f"write 1 or more instead of {', '.join(wrong)}")
    pi = controller(space, policy)
    example = jax.eval_shape(pi.init, jax.random.key(0))
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example))
    schedule = paper_schedule() if depth_schedule is None else depth_schedule
    return Flat(pi, schedule, optimizer(learning_rate, accumulate=accumulate), flat.size, unravel)


class Children(NamedTuple):
    """All children, T of them in the order of their ids: the order in which they were sampled."""

    arch: Array  # i32[T, S]
    fitness: Array  # f32[T]; NaN = failed
    reward: Array  # f32[T]
    seconds: Array  # f32[T], how long each trained; of a simulation or a table virtual seconds
    status: Array  # i8[T], values of Status
    info: dict[str, Any]  # {name: [T, ...]}, what the evaluator adds
    start: Array  # f64[T], seconds


class Gradients(NamedTuple):
    """All gradients, G = T / m of them in the order in which they were sent."""

    replica: np.ndarray  # i32[G]
    first: np.ndarray  # i32[G], id of the first of its m children
    sent: np.ndarray  # f64[G], seconds: when the last of its children ended
    reward: np.ndarray  # f32[G], mean over its children
    baseline: np.ndarray  # f32[G], b as it was subtracted
    fetched: np.ndarray  # i32[G, S], version of each shard that the children were sampled with
    staleness: np.ndarray  # i32[G, S], updates of the shard between that fetch and this gradient's own update
    applied: np.ndarray  # f64[G, S], seconds at which the shard applied it


class Run(NamedTuple):
    """The result of one search."""

    children: Children
    gradients: Gradients
    params: PyTree  # of the policy, at the end
    updates: np.ndarray  # i32[S], of each shard
    seconds: float  # until every shard has applied the last gradient


class Scheme(NamedTuple):
    """The functions of shards and replicas; P = parameters of the policy in S parts of equal length.

    init(key) -> (parts f32[S, P / S], moments of each part)
    sample(key, parts, first) -> m Children with ids from `first` on, at these parameters; their `start` is 0
    judge(children, average) -> (advantage f32[m], reward, baseline as it was subtracted, average): the last is the
      baseline of the next gradient, NaN before the first
    gradient(parts, arch, advantage) -> f32[S, P / S]
    step(part, moments, gradient) -> (part, moments): a shard applies its part of a gradient
    gather(batches, rows, parts, updates, seconds) -> Run, of what the replicas sampled, in the order of their ids, and
      of a row {field of Gradients: value} per gradient, in the order in which they were sent
    """

    init: Callable[[Key], tuple[jax.Array, PyTree]]
    sample: Callable[[Key, Array, Any], Children]
    judge: Callable[[Children, float], tuple[np.ndarray, float, float, float]]
    gradient: Callable[[Array, Array, Array], jax.Array]
    step: Callable[[jax.Array, PyTree, jax.Array], tuple[jax.Array, PyTree]]
    gather: Callable[..., Run]
    start: float  # the average before the first gradient
    children: int  # m
    shards: int  # S
    accumulate: int  # g

    def batches(self, trials: int) -> int:
        """The number of gradients, of m children each. Raises ValueError where `trials` is no multiple of m."""
        if trials < self.children or trials % self.children:
            raise ValueError(f"trials must be a multiple of {self.children}, the children of a replica, got {trials}")
        return trials // self.children


def scheme(
    space: Space,
    evaluator: Evaluator,
    *,
    children: int = 8,
    shards: int = 20,
    accumulate: int = 1,
    seconds: Seconds = lambda key, proposal, evaluation: jnp.asarray(evaluation.cost),
    policy: Literal["lstm", "independent"] | Policy = "lstm",
    learning_rate: float = 6e-4,
    baseline_decay: float = 0.95,
    baseline_init: Literal["first_batch"] | float = "first_batch",
    reward: Reward = cube,
    depth_schedule: DepthSchedule | None = None,
) -> Scheme:
    """The scheme over a space; arguments as of `distributed_reinforce`, which says what the paper leaves open.

    Raises:
      ValueError: a number below 1, or an unknown word.
    """
    numbers = {"children": children, "shards": shards}
    pi, schedule, adam, size, unravel = flat_controller(
        space, policy, learning_rate, depth_schedule, accumulate, **numbers
    )
    check_baseline(baseline_decay, baseline_init)
    m, part = children, -(-size // shards)

    def cut(params: jax.Array) -> jax.Array:  # [P] -> [S, part], the last one padded with zeros
        return jnp.pad(params, (0, shards * part - size)).reshape(shards, part)

    def whole(parts: jax.Array) -> PyTree:
        return unravel(parts.reshape(-1)[:size])

    @jax.jit
    def init(key: Key) -> tuple[jax.Array, PyTree]:
        parts = cut(jax.flatten_util.ravel_pytree(pi.init(key))[0])
        return parts, jax.vmap(adam.init)(parts)

    @jax.jit
    def sample(key: Key, parts: jax.Array, first: jax.Array) -> Children:
        """m children at the replica's parameters, and their results."""
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
    def step(part: jax.Array, moments: PyTree, gradient: jax.Array) -> tuple[jax.Array, PyTree]:
        steps, moments = adam.update(gradient, moments, part)
        return part + steps, moments

    def judge(batch: Children, average: float) -> tuple[np.ndarray, float, float, float]:
        counts, rewards = np.asarray(batch.status) != Status.REJECTED, np.asarray(batch.reward)
        if not counts.any():
            return np.zeros(m, np.float32), float("nan"), average, average
        mean = rewards[counts].mean(dtype=np.float32)
        b = mean if np.isnan(average) else np.float32(average)
        advantage = np.where(counts, rewards - b, 0).astype(np.float32)
        return advantage, float(mean), float(b), float(baseline_decay * b + (1 - baseline_decay) * mean)

    def gather(
        batches: Sequence[Children], rows: Sequence[dict[str, Any]], parts: Array, updates: np.ndarray, seconds: float
    ) -> Run:
        columns = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in Gradients._fields}
        trained = jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
        return Run(trained, Gradients(**columns), jax.device_get(whole(jnp.asarray(parts))), updates, seconds)

    start = float("nan") if isinstance(baseline_init, str) else baseline_init
    return Scheme(init, sample, judge, gradient, step, gather, start, children, shards, accumulate)
