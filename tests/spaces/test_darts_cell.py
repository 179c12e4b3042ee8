"""The space of normal and reduction cells, beyond the contract of all spaces."""

import math

import jax
import numpy as np
import pytest

from nasjax import catalog
from nasjax.catalog import named
from nasjax.spaces.darts_cell.space import CELLS, EDGES, OPERATORS, DartsCell, Genotype, genotype

SPACE = DartsCell()
S1 = {
    "normal": "skd3 skd5 skd5 sks3 skd3 mpsk sks3 sks3 skd3 sks3 mpsk skd3 d3d5 d3d5",
    "reduce": "mpap mpd3 mpap mpap skd5 mpap mps3 skd3 skd5 mpap mpap skd5 skd5 skd5",
}
NAMES = [name for space in catalog.SPACES for name in catalog.builder(space).named]


def test_operators_and_edges_are_in_the_published_order():
    assert OPERATORS == (
        "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
        "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
    )  # fmt: skip
    assert len(EDGES) == 14 and EDGES[:5] == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)) and EDGES[-1] == (4, 5)


def test_size_counts_cells_and_not_the_order_of_pairs():
    assert DartsCell(OPERATORS[4:]).size() == 11_796_480**2
    assert SPACE.size() == (math.prod(math.comb(n, 2) for n in (2, 3, 4, 5)) * 7**8) ** 2


def test_samples_are_uniform_over_pairs_of_sources():
    archs = np.asarray(jax.vmap(SPACE.sample)(jax.random.split(jax.random.key(0), 4000))).reshape(-1, 2, 4, 2, 2)
    for n, node in enumerate((2, 3, 4, 5)):
        sources = np.sort(archs[:, :, n, :, 1].reshape(-1, 2))
        assert (sources[:, 0] != sources[:, 1]).all()
        counts = np.unique(sources, axis=0, return_counts=True)[1]
        expected = len(sources) / math.comb(node, 2)
        assert len(counts) == math.comb(node, 2)
        assert ((counts - expected) ** 2 / expected).sum() < 3 * len(counts) + 5
        assert len(counts) == 1 or abs((archs[:, :, n, 0, 1] > archs[:, :, n, 1, 1]).mean() - 0.5) < 0.03


@pytest.mark.slow
def test_mutants_differ_in_one_operator_or_one_source():
    arch = SPACE.decode(named("DARTS_V2"))
    mutants = np.asarray(jax.vmap(SPACE.mutate, (0, None))(jax.random.split(jax.random.key(1), 2000), arch))
    changed = mutants != arch
    np.testing.assert_array_equal(changed.sum(1), 1)
    site = changed.argmax(1)
    assert not set(site) & {1, 3, 17, 19}  # the sources of node 2 are given
    counts = np.bincount(site, minlength=32)
    assert set(np.flatnonzero(counts)) == set(range(32)) - {1, 3, 17, 19}
    assert counts[counts > 0].min() > 0.5 * 2000 / 28 and counts.max() < 1.6 * 2000 / 28
    for mutant in mutants[:50]:
        SPACE.validate(mutant)


def test_crossover_keeps_nodes_whole():
    a, b = (np.asarray(SPACE.sample(jax.random.key(seed))) for seed in (0, 1))
    children = jax.vmap(SPACE.crossover, (0, None, None))(jax.random.split(jax.random.key(2), 100), a, b)
    nodes = np.asarray(children).reshape(100, 8, 4)
    from_a, from_b = ((nodes == parent.reshape(8, 4)).all(-1) for parent in (a, b))
    assert (from_a | from_b).all() and from_a.any(0).all() and from_b.any(0).all()


def test_the_order_of_a_node_s_pairs_is_kept_in_json_and_forgotten_in_the_hash():
    tree = named("PC_DARTS_cifar")
    assert SPACE.encode(SPACE.decode(tree)) == tree
    pairs = tree["normal"]
    swapped = SPACE.decode({**tree, "normal": [pairs[1], pairs[0], *pairs[2:]]})
    other = SPACE.decode({**tree, "normal": [pairs[0], pairs[1], pairs[3], pairs[2], *pairs[4:7], ["skip_connect", 4]]})
    arch = SPACE.decode(tree)
    assert not np.array_equal(swapped, arch)
    hashes = [SPACE.identity(each) for each in (arch, swapped, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    np.testing.assert_array_equal(SPACE.canonical(SPACE.canonical(swapped)), SPACE.canonical(swapped))
    SPACE.validate(np.asarray(SPACE.canonical(swapped)))


GENOTYPES = [name for name in NAMES if named(name)["space"] == "darts_cell"]


@pytest.mark.parametrize("name", GENOTYPES)
def test_published_genotypes_are_architectures(name):
    tree = named(name)
    cells = genotype(tree)
    assert isinstance(cells, Genotype) and hash(cells) == hash(genotype(tree))
    assert [list(map(list, cell)) for cell in cells] == [tree["normal"], tree["reduce"]]


def test_names():
    known = {"DARTS_V1", "DARTS_V2", "PDARTS", "PC_DARTS_cifar", "PC_DARTS_image", "MSRDARTS"}
    assert known | {"DrNAS_cifar10", "DrNAS_imagenet"} == set(GENOTYPES)
    assert named("nobody") is None and all(named(name) for name in NAMES)
    assert named("DARTS_V2")["normal"][-1] == ["dil_conv_3x3", 2]


GOOD = [["sep_conv_3x3", 0], ["skip_connect", 1]] * 4


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (GOOD[:7], '"reduce" must list 8 pairs'),
        ("sep_conv_3x3", '"reduce" must list 8 pairs'),
        ([*GOOD[:7], "skip_connect"], r"pair 7 must be \[operator, source\]"),
        ([*GOOD[:7], ["none", 1]], "'none' is not an operator here; choose from max_pool_3x3"),
        ([*GOOD[:7], [["skip_connect"], 1]], "is not an operator here"),
        ([*GOOD[:7], ["skip_connect", 5]], r"source of node 5 must be a tensor 0\.\.4, got 5"),
        ([*GOOD[:7], ["skip_connect", True]], "got True"),
        ([*GOOD[:7], ["skip_connect", 1.0]], r"got 1\.0"),
        ([*GOOD[:7], ["skip_connect", 0]], "two sources of reduce/node5 must be different, both are 0"),
    ],
)
def test_decode_says_what_to_write(pairs, message):
    with pytest.raises(ValueError, match=message):
        SPACE.decode({"space": "darts_cell", "normal": GOOD, "reduce": pairs})


def test_operators_are_checked():
    with pytest.raises(ValueError, match="choose from max_pool_3x3"):
        DartsCell(("none", "skip_connect"))
    with pytest.raises(ValueError, match="distinct"):
        DartsCell(("skip_connect", "skip_connect"))
    with pytest.raises(ValueError, match="choose from sep_conv_3x3, sep_conv_5x5"):
        DartsCell(OPERATORS[4:]).decode(named("DARTS_V2"))


def test_spaces_on_which_darts_fails():
    """Zela et al. 2020, section 3: S1 has two operators of its own on every edge, the others the same everywhere."""
    first = DartsCell(robust="S1")
    assert {len(names) for cell in CELLS for names in first.searched[cell]} == {2}
    # as in the file of spaces of the authors' code, edge by edge
    short = {"sk": "skip_connect", "d3": "dil_conv_3x3", "d5": "dil_conv_5x5", "s3": "sep_conv_3x3"}
    short |= {"mp": "max_pool_3x3", "ap": "avg_pool_3x3"}
    for cell, text in S1.items():
        assert first.searched[cell] == tuple((short[edge[:2]], short[edge[2:]]) for edge in text.split())
    assert "sep_conv_5x5" not in first.choices and len(first.choices) == 6
    assert first.size() == DartsCell(robust="S2").size() == DartsCell(("skip_connect", "sep_conv_3x3")).size()
    assert DartsCell(robust="S2").searched["reduce"] == (("skip_connect", "sep_conv_3x3"),) * 14
    assert DartsCell(robust="S3").searched["reduce"] == (("none", "skip_connect", "sep_conv_3x3"),) * 14
    assert DartsCell(robust="S3").choices == ("skip_connect", "sep_conv_3x3")
    assert DartsCell(robust="S4").searched["normal"] == (("noise", "sep_conv_3x3"),) * 14
    fourth = DartsCell(robust="S4")
    cell = fourth.encode(np.asarray(fourth.sample(jax.random.key(0))))
    assert {operator for operator, _ in cell["normal"] + cell["reduce"]} == {"noise", "sep_conv_3x3"}
    assert genotype(cell).normal == tuple(map(tuple, cell["normal"]))
    assert DartsCell().searched["normal"][3] == OPERATORS
    with pytest.raises(ValueError, match="other operators on every edge"):
        first.sample(jax.random.key(0))
    for wrong in ({"robust": "S5"}, {"robust": "S2", "none": False}):
        with pytest.raises(ValueError, match=r"choose S1, S2, S3, S4|leave out"):
            DartsCell(**wrong)
