"""What every Space promises. A new space adds a line to SPACES (and to TINY, if it has an `enumerate`)."""

import dataclasses
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.spaces.cell_tree.space import ACTIVATIONS, COMBINATIONS, CellTree
from nasjax.spaces.choice_chain import space as choice_chain
from nasjax.spaces.choice_chain.space import MOBILE, SHUFFLE, ChoiceChain
from nasjax.spaces.conv_chain.space import TYPES, ConvChain, variant
from nasjax.spaces.darts_cell.space import OPERATORS, DartsCell
from nasjax.spaces.tabular_cell.space import TabularCell
from nasjax.spaces.vit_chain.space import VitChain
from nasjax.types import Space, canonical

TINY = {
    "cell_tiny": CellTree(2, activations=("tanh",)),
    "conv_tiny": ConvChain(1, 3, filter_heights=(1, 3), filter_widths=(1,), filter_counts=(4,)),
    "conv_tiny_types": ConvChain(
        1, 2, filter_heights=(1,), filter_widths=(1, 3), filter_counts=(4, 8), types=("conv", "avg_pool", "batch_norm")
    ),
    "conv_tiny_rates": ConvChain(
        2, 2, filter_heights=(3,), filter_widths=(1, 3), filter_counts=(4,), skips=False, learning_rates=(0.1, 0.01)
    ),
    "conv_single": ConvChain(1, 1, filter_heights=(1,), filter_widths=(1,), filter_counts=(4,)),
    "tabular_tiny": TabularCell(edges=3, ops=("none", "skip", "conv")),
    "tabular_single": TabularCell(edges=2, ops=("conv",)),
    "choice_tiny": ChoiceChain(channels=(32, 64), depths=(1, 2), strides=(2, 2), operators=SHUFFLE[:3]),
    "choice_tiny_all_options": ChoiceChain(
        "mobile",
        channels=(16,),
        depths=(4,),
        strides=(2,),
        operators=MOBILE[:2],
        removed=(2,),
        choose_identity=True,
        channel_factors=(0.5, 1.0),
    ),
    "vit_tiny": VitChain((1, 2), (8, 16), (1, 2), (1.0, 2.0)),
    "vit_single": VitChain((2,), (8,), (1,), (2.0,)),
    "choice_single": ChoiceChain(channels=(32,), depths=(3,), strides=(2,), operators=SHUFFLE[:1], removed=(1,)),
}
SPACES = {
    **TINY,
    "cell_tree": CellTree(),
    "cell_all_options": CellTree(4, COMBINATIONS, ACTIVATIONS),
    "conv_v1": variant("v1"),
    "conv_v2": variant("v2"),
    "conv_v3": variant("v3"),
    "conv_all_options": ConvChain(2, 5, strides=(1, 2), types=TYPES, learning_rates=(0.2, 0.1, 0.05)),
    "tabular": TabularCell(),
    "vit": VitChain(),
    "darts": DartsCell(),
    "darts_two": DartsCell(OPERATORS[3:5]),
    "darts_one": DartsCell(("sep_conv_3x3",)),
    "spos": choice_chain.variant("spos"),
    "bn_nas": choice_chain.variant("bn_nas"),
    "choice_all_options": ChoiceChain(removed=(2, 19), choose_identity=True, channel_factors=(0.5, 1.0, 1.5)),
}
LARGER = ("cell_all_options", "conv_v1", "conv_v2", "darts_two", "bn_nas")  # others have what they have
RESTRICTED = ("darts_cell",)  # some combinations of choices are no architecture
N = 3000  # draws: the rarest choice above has probability 1/75


class Draws:
    """A space with some draws from its functions, all compiled as one program."""

    def __init__(self, space):
        self.space = space
        self.arity = np.array([len(site.choices) for site in space.sites])
        self.active = jax.jit(jax.vmap(space.active))
        self.mutate = jax.jit(jax.vmap(space.mutate))
        self.crossover = jax.jit(jax.vmap(space.crossover))
        self.archs = np.asarray(jax.jit(jax.vmap(space.sample))(keys(0)))
        self.mutants = np.asarray(self.mutate(keys(1), self.archs))

    def check(self, archs):
        """All are valid: sites in range exactly where active, -1 elsewhere."""
        active = np.asarray(self.active(archs))
        inside = (archs >= 0) & (archs < self.arity)
        np.testing.assert_array_equal(np.where(active, inside, archs == -1), True)
        for arch in archs[:20]:
            self.space.validate(arch)


def keys(seed):
    return jax.random.split(jax.random.key(seed), N)


@functools.cache
def draws_of(name):
    return Draws(SPACES[name])


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) if name in LARGER else name for name in SPACES])
def drawn(request):
    return draws_of(request.param)


@pytest.fixture(params=TINY)
def tiny(request):
    return draws_of(request.param)


def test_sites_describe_the_arch(drawn):
    space = drawn.space
    assert isinstance(space, Space)
    assert len({site.name for site in space.sites}) == len(space.sites)
    assert all(len(set(site.choices)) == len(site.choices) > 0 for site in space.sites)
    chex.assert_shape(drawn.archs, (N, len(space.sites)))


def test_archs_are_int32_whatever_the_default(drawn):
    space, key, arch = drawn.space, jax.random.key(0), drawn.archs[0]
    with jax.enable_x64(True):
        archs = jax.eval_shape(lambda: (space.sample(key), space.mutate(key, arch), space.crossover(key, arch, arch)))
    chex.assert_type(archs, jnp.int32)


def test_spaces_are_values(drawn):
    twin = dataclasses.replace(drawn.space)
    assert twin is not drawn.space
    assert twin == drawn.space
    assert hash(twin) == hash(drawn.space)


def test_samples_are_valid_and_reach_every_choice(drawn):
    drawn.check(drawn.archs)
    removed = getattr(drawn.space, "removed", ())  # layers whose sites are never active
    for site, column in zip(drawn.space.sites, drawn.archs.T, strict=True):
        expected = range(0 if site.layer in removed else len(site.choices))
        assert set(column[column >= 0].tolist()) == set(expected), site.name


def test_mutants_change_one_decision_and_what_it_switches(drawn):
    drawn.check(drawn.mutants)
    parents, mutants = drawn.archs, drawn.mutants
    both = (parents >= 0) & (mutants >= 0)
    changed = both & (parents != mutants)
    mutable = ((parents >= 0) & (drawn.arity > 1)).any(1)
    np.testing.assert_array_equal(changed.sum(1), mutable)
    # That decision, and what was drawn for sites it switched on, explains every site that is on or off.
    explained = drawn.active(np.where(changed | (parents < 0), mutants, parents))
    np.testing.assert_array_equal(np.asarray(explained), mutants >= 0)


def test_mutation_reaches_every_other_choice(drawn):
    parent = drawn.archs[int((drawn.archs >= 0).sum(1).argmax())]
    mutants = np.asarray(drawn.mutate(keys(2), np.broadcast_to(parent, drawn.archs.shape)))
    changed = (mutants >= 0) & (parent >= 0) & (mutants != parent)
    seen = {(int(s), int(mutants[n, s])) for n, s in zip(*np.nonzero(changed), strict=True)}
    expected = {(s, c) for s in np.flatnonzero(parent >= 0) for c in range(drawn.arity[s]) if c != parent[s]}
    if drawn.space.name in RESTRICTED:
        sites = np.arange(len(parent))
        expected = {(s, c) for s, c in expected if allowed(drawn.space, np.where(sites == s, c, parent))}
    # Every site is as likely as another; where there are many sites, N draws need not see each value of each.
    missing = expected - seen
    assert len(missing) <= (0 if len(expected) < 200 else 0.05 * len(expected)), missing
    assert seen <= expected


def allowed(space, arch):
    try:
        space.validate(arch)
    except ValueError:
        return False
    return True


def test_crossover_children_are_made_of_their_parents(drawn):
    a, b = drawn.archs, np.roll(drawn.archs, 1, axis=0)
    children = np.asarray(drawn.crossover(keys(3), a, b))
    drawn.check(children)
    # Every active decision is that of a parent, which makes it so wherever both are active, too.
    np.testing.assert_array_equal((children == a) | (children == b) | (children < 0), True)
    differ = (a != b) & (a >= 0) & (b >= 0)
    if differ.any():
        from_a = np.mean((children == a)[differ & (children >= 0)])
        assert 0.45 < from_a < 0.55
    np.testing.assert_array_equal(np.asarray(drawn.crossover(keys(3), a, a)), a)


@pytest.mark.parametrize("name", ["conv_all_options", "tabular", "darts", "choice_all_options"])
def test_single_vmap_and_jit_agree(name):
    drawn = draws_of(name)
    space = drawn.space
    np.testing.assert_array_equal(space.sample(keys(0)[5]), drawn.archs[5])
    np.testing.assert_array_equal(space.mutate(keys(1)[5], drawn.archs[5]), drawn.mutants[5])
    np.testing.assert_array_equal(space.active(drawn.archs[5]), drawn.archs[5] >= 0)


def test_json_round_trip_and_hash(drawn):
    for arch in np.concatenate([drawn.archs[:10], drawn.mutants[:10]]):
        tree = drawn.space.encode(arch)
        assert tree["space"] == drawn.space.name
        again = drawn.space.decode(json.loads(json.dumps(tree)))
        chex.assert_type(again, np.int32)
        np.testing.assert_array_equal(again, arch)
        assert drawn.space.identity(again) == drawn.space.identity(arch) == drawn.space.identity(arch.astype(np.int64))
    parents, mutants = {a.tobytes() for a in drawn.archs[:200]}, {a.tobytes() for a in drawn.mutants[:200]}
    rows = [np.frombuffer(row, np.int32) for row in parents | mutants]
    forms = {np.asarray(canonical(drawn.space, row)).tobytes() for row in rows}
    assert len({drawn.space.identity(row) for row in rows}) == len(forms)


def test_decode_refuses_what_is_not_an_architecture(drawn):
    for tree in (None, [], {}, {"space": "no_such_space"}):
        with pytest.raises(ValueError, match=f'is {{"space": "{drawn.space.name}", '):
            drawn.space.decode(tree)
    with pytest.raises(ValueError, match="must "):
        drawn.space.decode({"space": drawn.space.name})
    with pytest.raises(ValueError, match="unknown entry 'colour'"):
        drawn.space.decode({**drawn.space.encode(drawn.archs[0]), "colour": 1})


def test_laws_of_any_arch(drawn):
    """Any choices at all, cleared where inactive, are an architecture; spoiling one entry makes them none.

    Of restricted spaces the samples are.
    """
    space, rng, last = drawn.space, np.random.default_rng(0), drawn.arity - 1
    raw = np.int32([0 * last, last, *rng.integers(0, drawn.arity, (18, len(last)))])
    if space.name in RESTRICTED:
        raw = drawn.archs[rng.integers(0, N, 20)]
    active = np.asarray(drawn.active(raw))
    archs = np.where(active, raw, -1)
    np.testing.assert_array_equal(np.asarray(drawn.active(archs)), active)
    for arch, used in zip(archs, active, strict=True):
        space.validate(arch)
        np.testing.assert_array_equal(space.decode(json.loads(json.dumps(space.encode(arch)))), arch)
        site = rng.integers(0, len(arch))
        for value in [-2, -1, int(drawn.arity[site])] if used[site] else [0]:
            spoilt = arch.copy()
            spoilt[site] = value
            with pytest.raises(ValueError, match=r"must be|has no"):
                space.validate(spoilt)


def test_size_is_the_enumeration(tiny):
    rows = tiny.space.enumerate()
    assert len(rows) == tiny.space.size() == len({row.tobytes() for row in rows})
    tiny.check(rows)
    everything = {row.tobytes() for row in rows}
    assert {row.tobytes() for row in np.concatenate([tiny.archs, tiny.mutants])} <= everything
    assert len({json.dumps(tiny.space.encode(row)) for row in rows}) == len(rows)


def test_mutation_connects_the_space(tiny):
    rows = tiny.space.enumerate()
    number = {row.tobytes(): n for n, row in enumerate(rows)}
    parents = np.arange(N) % len(rows)
    mutants = np.asarray(tiny.mutate(keys(4), rows[parents]))
    steps = np.zeros((len(rows), len(rows)), bool)
    steps[parents, [number[row.tobytes()] for row in mutants]] = True
    reached = np.arange(len(rows)) == 0
    for _ in rows:
        reached = reached | steps[reached].any(0)
    assert reached.all()
