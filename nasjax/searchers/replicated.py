"""The controller's distributed scheme as a searcher: K replicas whose children any runtime trains.

Zoph & Le 2017, section 3.2 ("Accelerate training with parallelism and asynchronous updates") and appendix A. A replica
fetches the parameters, samples m children, has them trained, sends the gradient of those m at the parameters that it
fetched, and fetches again; it waits for no other. How late a gradient is follows from the order in which children end.

The parameters lie in this process, so that no message takes time and the paper's S shards of them are always of one
version: Adam moves every parameter by itself, hence S changes nothing here. `searchers.distributed` has shards, and
messages that take time, on a virtual clock.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from nasjax.searchers.policy import DepthSchedule, Policy
from nasjax.searchers.reinforce import Reward, check_baseline, cube, gained, score_loss
from nasjax.searchers.scheme import flat_controller
from nasjax.types import Evaluation, Key, Proposal, PyTree, Searcher, Space, Status

_LAST = jnp.iinfo(jnp.int32).max


class Replicas(NamedTuple):
    """The K replicas, with m children each, and S sites."""

    held: jax.Array  # f32[K, P], the parameters that each fetched
    fetched: jax.Array  # i32[K], the number of gradients that these had seen
    turn: jax.Array  # i32[K], the order of the fetches: whose children are asked first
    given: jax.Array  # i32[K], children that were asked since
    id: jax.Array  # i32[K, m], -1 = not asked yet
    arch: jax.Array  # i32[K, m, S]
    reward: jax.Array  # f32[K, m]
    ended: jax.Array  # bool[K, m]
    counts: jax.Array  # bool[K, m], whether it has a reward: it was not refused before training


class ReplicatedState(NamedTuple):
    """State of `replicated`; `searchers.reinforce.metrics` reads it, too. A gradient is an update."""

    params: jax.Array  # f32[P], of the policy
    optimizer: PyTree
    replicas: Replicas
    asked: jax.Array  # i32[], trials proposed so far
    turns: jax.Array  # i32[], fetches so far
    updates: jax.Array  # i32[], gradients so far
    baseline: jax.Array  # f32[], b, one for all replicas
    reward: jax.Array  # f32[], mean reward of the last gradient
    entropy: jax.Array  # f32[], mean entropy of the policy along its architectures, nats
    grad_norm: jax.Array  # f32[]
    staleness: jax.Array  # f32[], gradients of others between its replica's fetch and it


def replicated(
    space: Space,
    *,
    replicas: int,
    children: int = 8,
    accumulate: int = 1,
    policy: Literal["lstm", "independent"] | Policy = "lstm",
    learning_rate: float = 6e-4,
    baseline_decay: float = 0.95,
    baseline_init: Literal["first_batch"] | float = "first_batch",
    reward: Reward = cube,
    depth_schedule: DepthSchedule | None = None,
    entropy_weight: float = 0.0,
) -> Searcher:
    """K controllers with common parameters. At most K m children are asked and not yet told.

    Children are asked in the order in which their replicas fetched. With one replica and all of its children told
    together it is `reinforce`. A refused child adds nothing to the gradient, whose divisor stays m.

    Args:
      space: where to search.
      replicas: K; the paper has 100 for images and 400 for texts.
      children: m, per replica and gradient; 8 and 1.
      accumulate: gradients that become one step of Adam; 1 and 10.
      policy, learning_rate, baseline_decay, baseline_init, reward, depth_schedule, entropy_weight: as of `reinforce`.

    Raises:
      ValueError: an unknown policy, or a setting outside its range.

    Example:
      >>> from nasjax.spaces.conv_chain.space import variant
      >>> searcher = replicated(variant("v1"), replicas=100)
    """
    numbers, m = {"replicas": replicas, "children": children}, children
    pi, schedule, adam, _, unravel = flat_controller(
        space, policy, learning_rate, depth_schedule, accumulate, **numbers
    )
    check_baseline(baseline_decay, baseline_init)

    def init(key: Key) -> ReplicatedState:
        params = jax.flatten_util.ravel_pytree(pi.init(key))[0]
        zero, whole = jnp.float32(0), (replicas, m)
        fresh = Replicas(
            held=jnp.repeat(params[None], replicas, 0),
            fetched=jnp.zeros(replicas, jnp.int32),
            turn=jnp.arange(replicas, dtype=jnp.int32),
            given=jnp.zeros(replicas, jnp.int32),
            id=jnp.full(whole, -1, jnp.int32),
            arch=jnp.full((*whole, len(space.sites)), -1, jnp.int32),
            reward=jnp.zeros(whole, jnp.float32),
            ended=jnp.zeros(whole, bool),
            counts=jnp.zeros(whole, bool),
        )
        return ReplicatedState(
            params=params,
            optimizer=adam.init(params),
            replicas=fresh,
            asked=jnp.int32(0),
            turns=jnp.int32(replicas),
            updates=jnp.int32(0),
            baseline=jnp.float32(0 if baseline_init == "first_batch" else baseline_init),
            reward=zero,
            entropy=zero,
            grad_norm=zero,
            staleness=zero,
        )

    def ask(key: Key, state: ReplicatedState, n: int) -> tuple[ReplicatedState, Proposal]:
        def one(state: ReplicatedState, _: None) -> tuple[ReplicatedState, tuple[jax.Array, jax.Array]]:
            of, trial = state.replicas, state.asked
            open_ = of.given < m
            k = jnp.where(open_, of.turn, _LAST).argmin()
            arch = pi.sample(jax.random.fold_in(key, trial), unravel(of.held[k]), schedule(trial))
            there = open_.any()
            place = jnp.where(there, k, replicas), of.given[k]  # beyond the last one nothing is written
            after = of._replace(
                given=of.given.at[place[0]].add(1, mode="drop"),
                id=of.id.at[place].set(trial, mode="drop"),
                arch=of.arch.at[place].set(arch, mode="drop"),
            )
            state = state._replace(replicas=after, asked=trial + there)
            return state, (jnp.where(there, trial, -1), jnp.where(there, arch, -1))

        state, (ids, archs) = jax.lax.scan(one, state, None, length=n)
        return state, Proposal(ids, archs, jnp.full(n, -1, jnp.int32))

    def send(state: ReplicatedState, k: jax.Array) -> ReplicatedState:
        """Replica k, whose children have all ended, sends its gradient and fetches."""
        of = state.replicas
        counts, rewards = of.counts[k], of.reward[k]
        some, mean = counts.any(), jnp.where(counts, rewards, 0).sum() / jnp.maximum(counts.sum(), 1)
        first = (state.updates == 0) & (baseline_init == "first_batch")
        baseline = jnp.where(first, mean, state.baseline)

        def loss(params: jax.Array) -> tuple[jax.Array, jax.Array]:
            advantage = jnp.where(counts, rewards - baseline, 0)
            return score_loss(pi, unravel(params), of.arch[k], advantage, entropy_weight)

        gradient, entropy = jax.grad(loss, has_aux=True)(of.held[k])
        steps, moments = adam.update(gradient, state.optimizer, state.params)
        sent = state._replace(
            params=state.params + steps,
            optimizer=moments,
            updates=state.updates + 1,
            baseline=baseline_decay * baseline + (1 - baseline_decay) * mean,
            reward=mean,
            entropy=entropy.astype(jnp.float32),
            grad_norm=jnp.linalg.norm(gradient).astype(jnp.float32),
            staleness=(state.updates - of.fetched[k]).astype(jnp.float32),
        )
        state = jax.tree.map(lambda new, old: jnp.where(some, new, old), sent, state)  # of refused ones there is none
        fetched = of._replace(
            held=of.held.at[k].set(state.params),
            fetched=of.fetched.at[k].set(state.updates),
            turn=of.turn.at[k].set(state.turns),
            given=of.given.at[k].set(0),
            id=of.id.at[k].set(-1),
            ended=of.ended.at[k].set(False),
        )
        return state._replace(replicas=fetched, turns=state.turns + 1)

    def tell(state: ReplicatedState, proposal: Proposal, evaluation: Evaluation) -> ReplicatedState:
        if evaluation.fitness.ndim != 1:
            raise ValueError("reinforce needs one fitness per trial, f32[N]; combine several objectives into one first")
        rewards, counts = gained(reward, evaluation), jnp.asarray(evaluation.status) != Status.REJECTED
        order = jnp.argsort(proposal.id)

        def one(n: jax.Array, state: ReplicatedState) -> ReplicatedState:
            i, of = order[n], state.replicas
            mine = (of.id == proposal.id[i]) & (proposal.id[i] >= 0)
            k = mine.any(1).argmax()
            after = of._replace(
                reward=jnp.where(mine, rewards[i], of.reward),
                counts=jnp.where(mine, counts[i], of.counts),
                ended=of.ended | mine,
            )
            done = mine.any() & after.ended[k].all()
            state = state._replace(replicas=after)
            return jax.lax.cond(done, lambda state: send(state, k), lambda state: state, state)

        return jax.lax.fori_loop(0, len(proposal.id), one, state)

    def live(state: ReplicatedState) -> jax.Array:
        return jnp.zeros(0, jnp.int32)  # nothing inherits

    return Searcher(init, ask, tell, live)
