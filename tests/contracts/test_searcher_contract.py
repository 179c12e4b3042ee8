"""What every searcher promises. To add one, add a line to CASES."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.searchers import nsga2, random_search, reinforce, topk_evolution
from nasjax.searchers.aging import aging
from nasjax.searchers.bo import bo
from nasjax.searchers.local_search import local_search
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.types import Evaluation, Searcher, Status

SPACE = ConvChain(
    2, 3, filter_heights=(1, 3, 5), filter_widths=(1, 3), filter_counts=(4, 8, 12), types=("conv", "max_pool")
)
N = 8  # proposals per ask
ROUNDS = 60


class Case(NamedTuple):
    make: Callable[..., Searcher]  # space -> Searcher, for ROUNDS * N trials
    learns: bool  # whether what it is told changes what it asks
    repeats: bool = True  # whether it may ask for an architecture again


CASES = {
    "random": Case(random_search, learns=False),
    "reinforce_lstm": Case(partial(reinforce, learning_rate=0.02), learns=True),
    "reinforce_independent": Case(partial(reinforce, policy="independent", learning_rate=0.1), learns=True),
    "topk": Case(
        partial(topk_evolution, population=16, top_k=5, mutants=8, crossovers=8, capacity=ROUNDS * N),
        learns=True,
        repeats=False,
    ),
    "aging": Case(partial(aging, population=16, sample_size=25), learns=True),
    "bo": Case(
        partial(bo, capacity=ROUNDS * N, memory=64, samples=100, mutants=100, shortlist=50, fit_steps=2),
        learns=True,
        repeats=False,
    ),
    "local_search": Case(partial(local_search, capacity=ROUNDS * N), learns=True, repeats=False),
    "nsga2": Case(partial(nsga2, objectives=1, population=16, capacity=ROUNDS * N), learns=True, repeats=False),
}


class Subject(NamedTuple):
    searcher: Searcher
    learns: bool
    repeats: bool
    init: Callable
    ask: Callable  # (key, state) -> (state, Proposal of N)
    tell: Callable
    traces: dict[str, int]


SLOW = ("bo", "local_search")  # they compile for long


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES],
)
def subject(request):
    case = CASES[request.param]
    searcher = case.make(SPACE)
    traces = {"ask": 0, "tell": 0}

    def ask(key, state):
        traces["ask"] += 1
        return searcher.ask(key, state, N)

    def tell(state, proposal, evaluation):
        traces["tell"] += 1
        return searcher.tell(state, proposal, evaluation)

    return Subject(searcher, case.learns, case.repeats, jax.jit(searcher.init), jax.jit(ask), jax.jit(tell), traces)


TARGET = np.array([0 if site.group == "type" else len(site.choices) - 1 for site in SPACE.sites])


@jax.jit
def planted(arch):
    """Fraction of the active sites that agree with TARGET, f32[N]."""
    active = (arch >= 0).at[:, 0].set(False)
    return ((arch == TARGET[None, :]) & active).sum(1) / jnp.maximum(active.sum(1), 1)


def evaluation(fitness):
    fitness = jnp.asarray(fitness, jnp.float32)
    status = jnp.where(jnp.isnan(fitness), Status.FAILED, Status.OK).astype(jnp.int8)
    return Evaluation(fitness, jnp.zeros_like(fitness), status, {})


def run(subject, seed, fitness=planted, rounds=ROUNDS, state=None):
    """The archs of every round [rounds, N, S] and the last state."""
    key = jax.random.key(seed)
    state = subject.init(jax.random.fold_in(key, 1_000_000)) if state is None else state
    asked = []
    for _ in range(rounds):
        state, proposal = subject.ask(key, state)
        state = subject.tell(state, proposal, evaluation(fitness(proposal.arch)))
        asked.append(np.array(proposal.arch))
    return np.array(asked), state


def same(a, b):
    return all(
        np.array_equal(x, y, equal_nan=True) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_proposals_are_valid_and_numbered(subject):
    state = subject.init(jax.random.key(0))
    seen = []
    for _ in range(3):
        state, proposal = subject.ask(jax.random.key(1), state)
        state = subject.tell(state, proposal, evaluation(planted(proposal.arch)))
        for trial, arch, parent in zip(*map(np.array, proposal[:3]), strict=True):
            if trial >= 0:
                SPACE.validate(arch)
                assert -1 <= parent < trial
                seen.append(trial)
    assert seen == list(range(len(seen))) and seen


def test_deterministic_in_the_key(subject):
    state = subject.init(jax.random.key(0))
    first, again, other = (subject.ask(jax.random.key(k), state)[1] for k in (1, 1, 2))
    assert same(first, again)
    assert not np.array_equal(first.arch, other.arch)


def test_second_call_does_not_recompile_and_the_state_keeps_its_shapes(subject):
    before = subject.init(jax.random.key(0))
    _, after = run(subject, 0, rounds=3)
    shapes = [[(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(state)] for state in (before, after)]
    assert shapes[0] == shapes[1]
    assert subject.traces == {"ask": 1, "tell": 1}


def test_a_state_stored_and_restored_goes_on_bit_for_bit(subject):
    whole, last = run(subject, 3, rounds=6)
    half, state = run(subject, 3, rounds=3)
    state = jax.tree.map(jnp.array, jax.tree.map(np.array, state))
    rest, resumed = run(subject, 3, rounds=3, state=state)
    assert np.array_equal(whole, np.concatenate([half, rest]))
    assert same(last, resumed)
    assert subject.traces == {"ask": 1, "tell": 1}


def test_rows_without_an_id_are_ignored(subject):
    _, state = run(subject, 0, rounds=2)
    _, proposal = subject.ask(jax.random.key(0), state)
    nothing = proposal._replace(id=jnp.full(N, -1, jnp.int32))
    assert same(state, subject.tell(state, nothing, evaluation(jnp.ones(N))))


def test_results_in_any_order(subject):
    """Two rounds in flight, told newest first and rows reversed."""
    key = jax.random.key(0)
    state, first = subject.ask(key, subject.init(key))
    state, second = subject.ask(key, state)
    for proposal in (second, first):
        proposal = jax.tree.map(lambda x: x[::-1], proposal)
        state = subject.tell(state, proposal, evaluation(planted(proposal.arch)))
    state, proposal = subject.ask(key, state)
    for arch in np.array(proposal.arch)[np.array(proposal.id) >= 0]:
        SPACE.validate(arch)


def test_failures_do_not_win(subject):
    """Where every max_pool in layer 0 fails, a searcher that learns comes to avoid it; none is poisoned by NaN."""
    pool = SPACE.columns["layer0/type"]

    def fitness(arch):
        return jnp.where(arch[:, pool] == 1, jnp.nan, 0.9)

    asked, state = run(subject, 5, fitness)
    share = (asked[-10:, :, pool] == 1).mean()
    if subject.learns:
        assert share < 0.2
        assert not any(np.isnan(x).any() for x in jax.tree.leaves(getattr(state, "params", ())))
    else:
        assert 0.3 < share < 0.7


def test_finds_a_planted_optimum_faster_than_random(subject):
    found = np.array([planted(run(subject, seed)[0].reshape(-1, len(TARGET))) for seed in range(3)])
    # Who never repeats has soon been everywhere near the optimum: its best trials count, not its last ones.
    reached = (found if subject.repeats else np.sort(found))[:, -5 * N :].mean()
    if subject.learns:
        assert reached > 0.8  # of uniform sampling the last reach 0.45, the best 0.73
    else:
        assert reached < 0.55


@pytest.mark.slow
def test_many_seeds_are_one_vmap(subject):
    def rounds(key):
        def body(state, _):
            state, proposal = subject.searcher.ask(key, state, N)
            return subject.searcher.tell(state, proposal, evaluation(planted(proposal.arch))), proposal.arch

        return jax.lax.scan(body, subject.searcher.init(key), length=3)[1]

    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.jit(jax.vmap(rounds))(keys)
    for key, arch in zip(keys, together, strict=True):
        state = subject.init(key)
        for r in range(3):
            state, proposal = subject.ask(key, state)
            state = subject.tell(state, proposal, evaluation(planted(proposal.arch)))
            assert np.array_equal(arch[r], proposal.arch)


def test_live_names_only_trials_whose_weights_a_later_proposal_may_inherit(subject):
    """A parent is live. Where nothing inherits, nothing is kept."""
    _, state = run(subject, 0, rounds=2)
    live = subject.searcher.live(state)
    assert live.ndim == 1 and live.dtype == jnp.int32
    _, proposal = subject.ask(jax.random.key(0), state)
    parents, kept = ({int(trial) for trial in ids} - {-1} for ids in (proposal.parent, live))
    assert parents <= kept and bool(parents) == bool(kept)
