"""Bayesian optimisation with a Gaussian process over the decisions of an architecture.

White et al. 2021, "BANANAS" (arXiv:1910.11858): the protocol (a random start, then candidates by an acquisition
function of a surrogate), features of paths, independent Thompson sampling. Kandasamy et al. 2018 (arXiv:1802.07191): a
Gaussian process as the surrogate, asynchronous. Desautels et al. 2014 (JMLR 15): candidates that are still running, and
earlier ones of a batch, count with their expected result, so they lower the uncertainty alone. Ours: the kernel (a
weight per block of features), ranks as targets, the start among those that score best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.searchers import archive as rows
from nasjax.searchers import gaussian_process as gp
from nasjax.searchers.archive import Archive, Feasible
from nasjax.searchers.features import Features, features
from nasjax.types import Evaluation, Key, Proposal, Searcher, Space, arch_size, canonical

Scores = Callable[[jax.Array], jax.Array]  # Arch -> f32[K], each about -1 to 1; traceable
_UNROLLED = 64
_FEW = 64  # rows of a Gaussian process that are not worth another program
LISTED = 50_000  # spaces of at most so many architectures are proposed from as a whole


class BoState(NamedTuple):
    """Every trial, and the hyper-parameters as they were fitted last."""

    archive: Archive
    mark: jax.Array  # u32[C, 2], by which it is recognised: its place in a listed space, else its code
    hyper: gp.Hyper


class _Pool(NamedTuple):
    """M architectures that may be proposed, or are known."""

    arch: jax.Array  # i32[M, A]
    features: tuple[jax.Array, ...]  # whole numbers [T, M] per block
    scores: jax.Array  # f32[K, M]

    def at(self, index: jax.Array) -> _Pool:
        """Those of the index."""
        return _Pool(self.arch[index], tuple(x[:, index] for x in self.features), self.scores[:, index])


def bo(
    space: Space,
    *,
    initial: int = 10,
    capacity: int = 1000,
    memory: int = 256,
    acquisition: Literal["ucb", "thompson"] = "ucb",
    beta: float = 0.5,
    fit_steps: int = 5,
    samples: int = 1000,
    mutants: int = 1000,
    parents: int = 10,
    shortlist: int = 2000,
    describe: Features | None = None,
    scores: Scores | None = None,
    start: Callable[[jax.Array], jax.Array] | None = None,
    start_share: float = 0.02,
    feasible: Feasible | None = None,
) -> Searcher:
    """Proposes what a Gaussian process of the results so far finds most promising; no architecture comes twice.

    Args:
      space: where to search. All its architectures are compared where it can be listed (`enumerate`, at most 50,000),
        else random ones and mutants of the best.
      initial: trials of the start, which are random.
      capacity: most trials of the run.
      memory: rows of the Gaussian process: the running trials, then the best half and the latest half of the others.
        All of them, where `capacity` is not more.
      acquisition: "ucb" takes the largest mean + beta * deviation, "thompson" the largest draw of each candidate's own
        normal distribution (BANANAS).
      beta: of "ucb".
      fit_steps: gradient steps on the marginal likelihood after every result; 0 keeps the kernel as it starts.
      samples, mutants, parents: of spaces that are not listed: random candidates, mutants, and of how many of the best.
      shortlist: the uncertainty is computed of so many candidates only, those with the largest mean; no more are
        proposed at a time.
      describe: features of an Arch, see `searchers.features`; None = the space's own.
      scores: known before any training, e.g. a training-free score: a further block of the kernel.
      start: Arch -> f32[], the start is drawn among the best `start_share` by it, of all or of `samples`.
      start_share: (0, 1].
      feasible: arch -> bool[], which architectures may be tried at all.

    Returns:
      The Searcher; nothing inherits.

    Raises:
      ValueError: a setting out of its range.

    Example:
      >>> from nasjax.spaces.tabular_cell.space import TabularCell
      >>> searcher = bo(TabularCell(), initial=5, capacity=100)
      >>> state, proposal = searcher.ask(jax.random.key(1), searcher.init(jax.random.key(0)), 5)
    """
    if min(initial, capacity, memory, samples, parents, shortlist) < 1 or mutants < 0 or fit_steps < 0:
        raise ValueError(
            "initial, capacity, memory, samples, parents and shortlist must be at least 1, mutants and fit_steps at "
            f"least 0; got {initial}, {capacity}, {memory}, {samples}, {parents}, {shortlist}, {mutants}, {fit_steps}"
        )
    if acquisition not in ("ucb", "thompson"):
        raise ValueError(f"acquisition must be ucb or thompson, got {acquisition!r}")
    if not 0 < start_share <= 1 or beta < 0:
        raise ValueError(f"start_share must be in (0, 1] and beta at least 0, got {start_share} and {beta}")
    told_by = describe or features(space)
    memory = min(memory, capacity)
    sizes = [memory]  # of the Gaussian process: as few rows as hold all trials, for what has its cube as cost
    while sizes[0] >= 2 * _FEW:
        sizes.insert(0, -(-sizes[0] // 2))
    prior = _prior(space, told_by, scores)

    def pool_of(archs: Any) -> _Pool:
        archs = jnp.asarray(archs, jnp.int32)
        known = jax.vmap(scores)(archs).T if scores is not None else jnp.zeros((0, len(archs)))
        return _Pool(archs, tuple(x.T for x in jax.vmap(told_by)(archs)), known)

    every = _listed(space)
    listed = None if every is None else jax.jit(pool_of)(every)

    def candidates(key: Key, archive: Archive) -> _Pool:
        """Random ones and mutants of the best, where the space is not listed."""
        key_sample, key_parent, key_mutate = jax.random.split(key, 3)
        drawn = jax.vmap(space.sample)(jax.random.split(key_sample, samples))
        if not mutants:
            return pool_of(drawn)
        best = jax.lax.top_k(archive.fitness[:, 0], min(parents, capacity))[1]
        known = jnp.isfinite(archive.fitness[best, 0]).sum()
        of = archive.arch[best[jax.random.randint(key_parent, (mutants,), 0, jnp.maximum(known, 1))]]
        of = jnp.where(known > 0, of, jnp.resize(drawn, of.shape))
        return pool_of(jnp.concatenate([drawn, jax.vmap(space.mutate)(jax.random.split(key_mutate, mutants), of)]))

    def allowed(pool: _Pool, state: BoState) -> jax.Array:
        """bool[M]: feasible, and never tried."""
        used, size = jnp.arange(capacity) < state.archive.made, len(pool.arch)
        if listed is not None:
            new = jnp.ones(size, bool).at[jnp.where(used, state.mark[:, 0], jnp.uint32(size))].set(False, mode="drop")
        else:
            mine = rows.codes(space, pool.arch)
            tried = (rows.equal(mine, state.mark) & used[None]).any(1)
            again = (rows.equal(mine, mine) & (jnp.arange(size)[:, None] > jnp.arange(size)[None])).any(1)
            new = ~tried & ~again
        return new & jax.vmap(feasible)(pool.arch) if feasible is not None else new

    def init(key: Key) -> BoState:
        return BoState(rows.empty(space, capacity, 1), jnp.zeros((capacity, 2), jnp.uint32), prior)

    def remembered(archive: Archive) -> jax.Array:
        """i32[memory], rows for the Gaussian process: the running, the best, the latest."""
        number = jnp.arange(capacity)
        fitness = jnp.where(archive.told, archive.fitness[:, 0], -jnp.inf)
        by_result = jnp.argsort(jnp.argsort(-fitness))  # 0 = the best
        urgent = jnp.where(by_result < memory // 2, 2 * capacity - by_result, number)
        urgent = jnp.where(archive.told, urgent, 3 * capacity)
        return jax.lax.top_k(jnp.where(number < archive.made, urgent, -1), memory)[1]

    def with_rows(archive: Archive, use: Callable[[jax.Array], Any]) -> Any:
        """What `use` makes of the rows that the Gaussian process knows, i32[one of the sizes]."""
        last = remembered if memory < capacity else lambda archive: jnp.arange(capacity)
        uses = [lambda size=size: use(jnp.arange(size)) for size in sizes[:-1]] + [lambda: use(last(archive))]
        return jax.lax.switch((archive.made > jnp.array(sizes[:-1], jnp.int32)).sum(), uses)

    def by_chance(key: Key, pool: _Pool, may: jax.Array, n: int) -> jax.Array:
        """i32[n], candidates of the start; -1 beyond the last."""
        n, wanted = min(n, len(may)), n
        chance = jax.random.uniform(key, may.shape)
        if start is not None:
            promise = jnp.where(may, jax.vmap(start)(pool.arch), -jnp.inf)
            least = jax.lax.top_k(promise, max(n, int(start_share * len(may))))[0][-1]
            chance = jnp.where(promise >= least, chance, chance - 1)
        chosen = jax.lax.top_k(jnp.where(may, chance, -jnp.inf), n)[1]
        return jnp.pad(chosen, (0, wanted - n), constant_values=-1)

    def by_model(
        keys: Key, pool: _Pool, may: jax.Array, archive: Archive, hyper: gp.Hyper, row: jax.Array
    ) -> jax.Array:
        """i32[n], the most promising candidates, one after the other, for n keys; -1 beyond the last."""
        mine, there = pool_of(archive.arch[row]), row < archive.made
        told = archive.told[row] & there
        targets, among = gp.scores(archive.fitness[row, 0], told), _distances(mine, mine)
        mean = gp.pull(gp.condition(hyper, among, targets, told)) @ gp.kernel(hyper, _distances(mine, pool))
        first, short = jax.lax.top_k(jnp.where(may, mean, -jnp.inf), min(shortlist, len(may)))
        some = pool.at(short)
        # Running trials say nothing of the mean, and lower the uncertainty.
        white = gp.condition(hyper, among, targets, there).whiten @ gp.kernel(hyper, _distances(mine, some))
        variance, noise = jnp.maximum(1 - (white**2).sum(0), 1e-6), jnp.exp(hyper.noise)

        def pick(carry: Any, step: tuple[jax.Array, jax.Array]) -> Any:
            first, variance, rest = carry
            key, number = step
            draw = beta if acquisition == "ucb" else jax.random.normal(key, first.shape)
            best = (first + draw * jnp.sqrt(variance)).argmax()
            # The covariance with the one that was picked, given all rows and the earlier ones of this batch.
            cross = gp.kernel(hyper, _distances(some.at(best[None]), some))[0]
            cross = cross - white[:, best] @ white - rest[:, best] @ rest
            line = cross / jnp.sqrt(variance[best] + noise)
            variance = jnp.maximum(variance - line**2, 1e-6)
            chosen = jnp.where(first[best] == -jnp.inf, -1, short[best])  # none is left that was not picked
            return (first.at[best].set(-jnp.inf), variance, rest.at[number].set(line)), chosen

        n = len(keys)
        begin = (first, variance, jnp.zeros((n, len(first))))
        return jax.lax.scan(pick, begin, (keys, jnp.arange(n)))[1]

    def ask(key: Key, state: BoState, n: int) -> tuple[BoState, Proposal]:
        archive = state.archive
        key_pool, key_start, key_pick = jax.random.split(key, 3)
        pool = listed if listed is not None else candidates(jax.random.fold_in(key_pool, archive.made), archive)
        may = allowed(pool, state)
        known = (archive.made >= initial) & jnp.isfinite(archive.fitness).any()
        keys = jax.vmap(lambda trial: jax.random.fold_in(key_pick, trial))(archive.made + jnp.arange(n))
        chosen = jax.lax.cond(
            known,
            lambda: with_rows(archive, lambda row: by_model(keys, pool, may, archive, state.hyper, row)),
            lambda: by_chance(jax.random.fold_in(key_start, archive.made), pool, may, n),
        )
        new = (chosen >= 0) & may[chosen]
        place = jnp.where(new, archive.made + jnp.cumsum(new) - 1, capacity)  # what is beyond the capacity is dropped
        archive = archive._replace(
            arch=archive.arch.at[place].set(pool.arch[chosen], mode="drop"),
            made=jnp.minimum(archive.made + new.sum(), capacity),
        )
        archive, proposal = rows.hand_out(archive, n)
        mark = jnp.stack([chosen, chosen], 1) if listed is not None else rows.codes(space, pool.at(chosen).arch)
        marks = state.mark.at[place].set(mark.astype(jnp.uint32), mode="drop")
        return BoState(archive, marks, state.hyper), proposal

    def fit(archive: Archive, hyper: gp.Hyper, row: jax.Array) -> gp.Hyper:
        mine, told = pool_of(archive.arch[row]), archive.told[row] & (row < archive.made)
        targets = gp.scores(archive.fitness[row, 0], told)
        return gp.fit(hyper, prior, _distances(mine, mine), targets, told, fit_steps, 0.1)

    def tell(state: BoState, proposal: Proposal, evaluation: Evaluation) -> BoState:
        archive = rows.record(state.archive, proposal, evaluation)
        fitted = with_rows(archive, lambda row: fit(archive, state.hyper, row))
        changed = (proposal.id >= 0).any()
        return state._replace(
            archive=archive, hyper=jax.tree.map(lambda new, old: jnp.where(changed, new, old), fitted, state.hyper)
        )

    def live(state: BoState) -> jax.Array:
        return jnp.zeros(0, jnp.int32)  # nothing inherits from a trial

    return Searcher(init, ask, tell, live)


def _listed(space: Space) -> np.ndarray | None:
    """Every architecture once, i32[N, A], of a space that is small enough."""
    size = space.size()
    if size is None or size > LISTED or not hasattr(space, "enumerate"):
        return None
    archs = np.asarray(list(space.enumerate()), np.int32).reshape(-1, arch_size(space))
    if hasattr(space, "canonical"):
        same = np.asarray(jax.vmap(lambda arch: canonical(space, arch))(archs))
        archs = archs[np.sort(np.unique(same, axis=0, return_index=True)[1])]
    return archs


def _prior(space: Space, told_by: Features, scores: Scores | None) -> gp.Hyper:
    """A kernel that falls to exp(-1) at half of all blocks' distance, and noise of a twentieth of the variance."""
    one = jax.ShapeDtypeStruct((arch_size(space),), jnp.int32)
    number = len(jax.eval_shape(told_by, one)) + (scores is not None)
    return gp.Hyper(jnp.full(number, np.log(2 / number), jnp.float32), jnp.log(jnp.float32(0.05)))


def _distances(a: _Pool, b: _Pool) -> list[jax.Array]:
    """f32[N, M] per block: the share of features in which two differ; of scores the mean squared difference."""

    def total(x: jax.Array, y: jax.Array, apart: Callable[[jax.Array, jax.Array], jax.Array], kind: Any) -> jax.Array:
        if len(x) <= _UNROLLED:  # one pass over the result
            return sum((apart(u[:, None], v[None]).astype(kind) for u, v in zip(x, y, strict=True)), kind(0))

        def add(total: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            return total + apart(pair[0][:, None], pair[1][None]).astype(kind), None

        return jax.lax.scan(add, jnp.zeros((x.shape[1], y.shape[1]), kind), (x, y))[0]

    found = []
    for x, y in zip(a.features, b.features, strict=True):
        differ = total(x, y, jnp.not_equal, np.min_scalar_type(len(x)).type)  # bytes are added several at a time
        found.append(differ.astype(jnp.float32) * np.float32(1 / len(x)))
    if len(a.scores):
        found.append(total(a.scores, b.scores, lambda u, v: (u - v) ** 2, np.float32) / len(a.scores))
    return found
