"""REINFORCE: a policy over architectures, trained with the score-function gradient.

Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", section 3.2. docs/methods/reinforce.md says
what the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from nasjax.searchers.independent_policy import independent_policy
from nasjax.searchers.lstm_policy import lstm_policy
from nasjax.searchers.policy import DepthSchedule, Policy
from nasjax.searchers.policy import depth_schedule as paper_schedule
from nasjax.types import Evaluation, Key, Proposal, PyTree, Searcher, Space, Status

Reward = Callable[[jax.Array], jax.Array]
_LAST = jnp.iinfo(jnp.int32).max


def cube(accuracy: jax.Array) -> jax.Array:
    """The CNN reward: validation accuracy (a fraction) to the third power."""
    return accuracy**3


def inverse_square_perplexity(c: float = 80.0) -> Reward:
    """The PTB reward c / perplexity^2, of the fitness -perplexity (or perplexity: the sign does not matter)."""
    return lambda fitness: c / fitness**2


class Buffer(NamedTuple):
    """Results that wait for their update."""

    id: jax.Array  # i32[m], -1 = empty
    arch: jax.Array  # i32[m, S]
    reward: jax.Array  # f32[m]


class ReinforceState(NamedTuple):
    """State of `reinforce`; m = samples per update."""

    params: PyTree  # of the policy
    optimizer: PyTree
    asked: jax.Array  # i32[], trials proposed so far
    asked_at: jax.Array  # i32[capacity], number of updates when trial i (modulo capacity) was asked
    buffer: Buffer
    updates: jax.Array  # i32[]
    baseline: jax.Array  # f32[], b
    reward: jax.Array  # f32[], mean reward of the last update
    entropy: jax.Array  # f32[], mean entropy of the policy along the last update's architectures, nats
    grad_norm: jax.Array  # f32[], before clipping
    staleness: jax.Array  # f32[], mean number of updates between ask and use


def metrics(state: ReinforceState) -> dict[str, jax.Array]:
    """The scalars of the last update that are worth plotting (0 before the first)."""
    names = ("baseline", "reward", "entropy", "grad_norm", "updates", "staleness")
    return {name: getattr(state, name) for name in names}


def score_loss(
    policy: Policy, params: PyTree, arch: jax.Array, advantage: jax.Array, entropy_weight: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """-(1/m) sum_k (R_k - b) log P(a_k), to minimise; arch i32[m, S], advantage f32[m]. Also the mean entropy."""
    logp, entropy = jax.vmap(policy.log_prob, in_axes=(None, 0))(params, arch)
    loss = -(logp * advantage).mean()
    if entropy_weight:  # left out where it is 0, so that its gradient is not compiled
        loss -= entropy_weight * entropy.mean()
    return loss, entropy.mean()


def controller(
    space: Space,
    policy: Literal["lstm", "independent"] | Policy,
    *,
    hidden: int = 35,
    embedding: int = 35,
    init_scale: float = 0.08,
) -> Policy:
    """The policy of that name over a space, or the Policy itself; a ValueError for any other name."""
    if policy == "lstm":
        return lstm_policy(space, hidden=hidden, embedding=embedding, init_scale=init_scale)
    if policy == "independent":
        return independent_policy(space)
    if isinstance(policy, Policy):
        return policy
    raise ValueError(f'unknown policy {policy!r}; choose "lstm", "independent" or pass a Policy')


def optimizer(
    learning_rate: float, *, clip_norm: float | None = None, accumulate: int = 1
) -> optax.GradientTransformation:
    """Adam, with clipping if set; with `accumulate`, one step with the mean of that many gradients."""
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    steps = optax.chain(clip, optax.adam(learning_rate))
    return optax.MultiSteps(steps, accumulate).gradient_transformation() if accumulate > 1 else steps


def gained(reward: Reward, evaluation: Evaluation) -> jax.Array:
    """f32[N]: the reward of each child, 0 for a failed one."""
    ok = (evaluation.status == Status.OK) & jnp.isfinite(evaluation.fitness)
    return jnp.where(ok, reward(jnp.where(ok, evaluation.fitness, 1.0)), 0.0).astype(jnp.float32)


def check_baseline(decay: float, start: str | float) -> None:
    """Raises ValueError for settings that the moving average cannot have."""
    if not 0 <= decay <= 1:
        raise ValueError(f"baseline_decay must be between 0 and 1, got {decay}")
    if isinstance(start, str) and start != "first_batch":
        raise ValueError(f'baseline_init must be "first_batch" or a number, got {start!r}')


def reinforce(
    space: Space,
    *,
    policy: Literal["lstm", "independent"] | Policy = "lstm",
    learning_rate: float = 6e-4,
    samples_per_update: int = 8,
    accumulate: int = 1,
    baseline_decay: float = 0.95,
    baseline_init: Literal["first_batch"] | float = "first_batch",
    reward: Reward = cube,
    depth_schedule: DepthSchedule | None = None,
    entropy_weight: float = 0.0,
    clip_norm: float | None = None,
    hidden: int = 35,
    embedding: int = 35,
    init_scale: float = 0.08,
    capacity: int = 1024,
) -> Searcher:
    """A controller trained by REINFORCE with Adam and a moving-average baseline.

    Results wait until there are m of them; the m with the smallest ids then make one update with log P under the
    current parameters, so the order of results within one `tell` does not matter. A failed child has reward 0;
    one that was rejected before training does not count.

    Args:
      space: where to search.
      policy: "lstm" is the paper's controller, "independent" one table of logits; or a Policy of your own.
      learning_rate: of Adam; 6e-4 is the paper's for CNNs, 5e-4 for recurrent cells.
      samples_per_update: the paper's m.
      accumulate: batches of m whose gradients become one step of Adam. The paper's recurrent cells have m = 1 and 10:
        its parameter server waits for the gradients of 10 of the 400 replicas. The baseline moves with every batch,
        and `updates` and `staleness` count batches.
      baseline_decay: d in b <- d b + (1 - d) mean R, applied after the update has used b (our value).
      baseline_init: b before the first update, or "first_batch": the mean reward of that batch (our choice).
      reward: of the fitness; the baseline averages the same quantity.
      depth_schedule: trial -> depth, rounded to the nearest depth of the space; None is the paper's schedule.
      entropy_weight: weight of an entropy bonus; the paper has none.
      clip_norm: gradient norm to clip at; the paper mentions none.
      hidden, embedding, init_scale: of the LSTM policy.
      capacity: most trials in flight at once (only `staleness` needs it).

    Raises:
      ValueError: an unknown policy, or a setting outside its range.

    Example:
      >>> from nasjax.spaces.conv_chain.space import variant
      >>> searcher = reinforce(variant("v1"))
    """
    m = samples_per_update
    if m < 1 or capacity < 1 or accumulate < 1:
        given = f"{m}, {accumulate} and {capacity}"
        raise ValueError(f"samples_per_update, accumulate and capacity must be at least 1, got {given}")
    check_baseline(baseline_decay, baseline_init)
    pi = controller(space, policy, hidden=hidden, embedding=embedding, init_scale=init_scale)
    schedule = paper_schedule() if depth_schedule is None else depth_schedule
    # One flat vector instead of some twenty leaves: the update compiles in three quarters of the time.
    adam = optax.flatten(optimizer(learning_rate, clip_norm=clip_norm, accumulate=accumulate))

    def empty() -> Buffer:
        shape = (m, len(space.sites))
        return Buffer(jnp.full(m, -1, jnp.int32), jnp.full(shape, -1, jnp.int32), jnp.zeros(m, jnp.float32))

    def init(key: Key) -> ReinforceState:
        params = pi.init(key)
        zero = jnp.float32(0)
        return ReinforceState(
            params=params,
            optimizer=adam.init(params),
            asked=jnp.int32(0),
            asked_at=jnp.zeros(capacity, jnp.int32),
            buffer=empty(),
            updates=jnp.int32(0),
            baseline=jnp.float32(0 if baseline_init == "first_batch" else baseline_init),
            reward=zero,
            entropy=zero,
            grad_norm=zero,
            staleness=zero,
        )

    def ask(key: Key, state: ReinforceState, n: int) -> tuple[ReinforceState, Proposal]:
        ids = state.asked + jnp.arange(n, dtype=jnp.int32)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, ids)
        arch = jax.vmap(pi.sample, in_axes=(0, None, 0))(keys, state.params, jax.vmap(schedule)(ids))
        state = state._replace(asked=state.asked + n, asked_at=state.asked_at.at[ids % capacity].set(state.updates))
        return state, Proposal(ids, arch, jnp.full(n, -1, jnp.int32))

    def update(state: ReinforceState, batch: Buffer) -> ReinforceState:
        mean = batch.reward.mean()
        first = (state.updates == 0) & (baseline_init == "first_batch")
        baseline = jnp.where(first, mean, state.baseline)

        def loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            return score_loss(pi, params, batch.arch, batch.reward - baseline, entropy_weight)

        grads, entropy = jax.grad(loss, has_aux=True)(state.params)
        steps, opt_state = adam.update(grads, state.optimizer, state.params)
        return state._replace(
            params=optax.apply_updates(state.params, steps),
            optimizer=opt_state,
            updates=state.updates + 1,
            baseline=baseline_decay * baseline + (1 - baseline_decay) * mean,
            reward=mean,
            entropy=entropy.astype(jnp.float32),
            grad_norm=jnp.linalg.norm(jax.flatten_util.ravel_pytree(grads)[0]).astype(jnp.float32),
            staleness=(state.updates - state.asked_at[batch.id % capacity]).astype(jnp.float32).mean(),
        )

    def tell(state: ReinforceState, proposal: Proposal, evaluation: Evaluation) -> ReinforceState:
        if evaluation.fitness.ndim != 1:
            raise ValueError("reinforce needs one fitness per trial, f32[N]; combine several objectives into one first")
        asked = jnp.where(evaluation.status == Status.REJECTED, -1, proposal.id)  # a rejected child has no reward
        told = Buffer(asked, proposal.arch, gained(reward, evaluation))
        # All waiting results, in order of id with empty rows last; m extra rows, so that a slice never overruns.
        rows = jax.tree.map(lambda a, b, c: jnp.concatenate([a, b, c]), state.buffer, told, empty())
        order = jnp.argsort(jnp.where(rows.id < 0, _LAST, rows.id))
        rows = jax.tree.map(lambda x: x[order], rows)
        ready = (rows.id >= 0).sum() // m

        def batch(k: jax.Array) -> Buffer:
            return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, k * m, m), rows)

        state = jax.lax.fori_loop(0, ready, lambda k, state: update(state, batch(k)), state)
        return state._replace(buffer=batch(ready))

    def live(state: ReinforceState) -> jax.Array:
        return jnp.zeros(0, jnp.int32)  # nothing inherits

    return Searcher(init, ask, tell, live)
