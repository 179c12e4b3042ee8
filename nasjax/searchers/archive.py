"""The archive of searchers that work in generations: every architecture they made, and its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Evaluation, Key, Proposal, Space, Status, arch_size, canonical

Feasible = Callable[[jax.Array], jax.Array]  # arch -> bool[], traceable; e.g. a limit on multiply-adds


_AT_ONCE = 64  # draws at a time; a tight limit drops nearly all, and only the rest is compared with the archive


class Archive(NamedTuple):
    """Trial i is row i. C = capacity, K objectives."""

    arch: jax.Array  # i32[C, S]
    fitness: jax.Array  # f32[C, K], -inf where failed or not yet told
    told: jax.Array  # bool[C]
    made: jax.Array  # i32[], rows in use
    asked: jax.Array  # i32[], rows proposed


def empty(space: Space, capacity: int, objectives: int) -> Archive:
    """An empty archive for `capacity` trials."""
    return Archive(
        jnp.full((capacity, arch_size(space)), -1, jnp.int32),
        jnp.full((capacity, objectives), -jnp.inf, jnp.float32),
        jnp.zeros(capacity, bool),
        jnp.int32(0),
        jnp.int32(0),
    )


def codes(space: Space, archs: jax.Array) -> jax.Array:
    """u32[M, 2] of i32[M, A]: equal for equal architectures, for others with a chance of 2^-64."""
    same = jax.vmap(lambda arch: canonical(space, arch))(archs) if hasattr(space, "canonical") else archs
    factors = np.random.default_rng(0).integers(0, 2**32, (arch_size(space), 2), np.uint32)
    return (same + 2).astype(jnp.uint32) @ factors


def equal(a: jax.Array, b: jax.Array) -> jax.Array:
    """bool[N, M]: which codes u32[N, 2] and u32[M, 2] are equal."""
    return (a[:, None, 0] == b[None, :, 0]) & (a[:, None, 1] == b[None, :, 1])


def fill(
    key: Key,
    space: Space,
    archive: Archive,
    draw: Callable[[Key], jax.Array],
    wanted: int | jax.Array,
    limit: int,
    feasible: Feasible | None,
) -> Archive:
    """Adds up to `wanted` architectures from at most `limit` draws; infeasible and visited ones are dropped.

    An architecture counts as visited if its canonical form equals that of one in the archive.
    """
    capacity, same = len(archive.arch), hasattr(space, "canonical")
    end = jnp.minimum(archive.made + wanted, capacity)

    def going(carry: tuple[jax.Array, Archive]) -> jax.Array:
        count, archive = carry
        return (count < limit) & (archive.made < end)

    def again(carry: tuple[jax.Array, Archive]) -> tuple[jax.Array, Archive]:
        count, archive = carry
        numbers = count + jnp.arange(_AT_ONCE)
        archs = jax.vmap(lambda number: draw(jax.random.fold_in(key, number)))(numbers)
        good = numbers < limit
        if feasible is not None:
            good &= jax.vmap(feasible)(archs)

        def add_first(carry: tuple[jax.Array, Archive]) -> tuple[jax.Array, Archive]:
            good, archive = carry
            first = good.argmax()
            used = jnp.arange(capacity) < archive.made
            known = jax.vmap(lambda arch: canonical(space, arch))(archive.arch) if same else archive.arch
            new = ~((known == canonical(space, archs[first])[None]).all(1) & used).any()
            arch = archive.arch.at[jnp.where(new, archive.made, capacity)].set(archs[first], mode="drop")
            return good.at[first].set(False), archive._replace(arch=arch, made=archive.made + new)

        left = jax.lax.while_loop(lambda carry: carry[0].any() & (carry[1].made < end), add_first, (good, archive))
        return count + _AT_ONCE, left[1]

    return jax.lax.while_loop(going, again, (jnp.int32(0), archive))[1]


def complete(archive: Archive) -> jax.Array:
    """Whether every row was proposed and told, so that the next generation is due."""
    rows = jnp.arange(len(archive.told))
    return (archive.asked == archive.made) & (archive.told | (rows >= archive.made)).all()


def hand_out(archive: Archive, n: int) -> tuple[Archive, Proposal]:
    """The next n rows; id -1 beyond the existing ones."""
    ids = archive.asked + jnp.arange(n, dtype=jnp.int32)
    there = ids < archive.made
    arch = archive.arch[jnp.minimum(ids, len(archive.arch) - 1)]
    proposal = Proposal(jnp.where(there, ids, -1), jnp.where(there[:, None], arch, -1), jnp.full(n, -1, jnp.int32))
    return archive._replace(asked=archive.asked + there.sum()), proposal


def record(archive: Archive, proposal: Proposal, evaluation: Evaluation) -> Archive:
    """Stores results, in any order; a trial that failed in any objective gets -inf in all.

    A fitness f32[N] stands for all objectives at once: the host loops report a round that failed as a whole in this
    form.
    """
    fitness, objectives = jnp.asarray(evaluation.fitness), archive.fitness.shape[1]
    if fitness.ndim == 1:
        fitness = jnp.broadcast_to(fitness[:, None], (len(fitness), objectives))
    if fitness.shape[1] != objectives:
        raise ValueError(f"this searcher ranks {objectives} objectives, the evaluator gives {fitness.shape[1]}")
    ok = (evaluation.status == Status.OK) & jnp.isfinite(fitness).all(1)
    rows = jnp.where(proposal.id < 0, len(archive.told), proposal.id)  # ids out of range are dropped
    return archive._replace(
        fitness=archive.fitness.at[rows].set(jnp.where(ok[:, None], fitness, -jnp.inf), mode="drop"),
        told=archive.told.at[rows].set(True, mode="drop"),
    )


def mutation(space: Space, rate: float) -> Callable[[Key, jax.Array], jax.Array]:
    """Draws every gene anew with probability `rate`; in a space without `mutate_genes` it changes one gene."""
    genes = getattr(space, "mutate_genes", None)
    return space.mutate if genes is None else lambda key, arch: genes(key, arch, rate)
