"""Mistakes in a plugin are one line; what its arrays and sites mean."""

import json
import re

import jax
import numpy as np
import pytest
from tools.plugin_files import BLOCKS, TINY, clean, command  # noqa: F401 - clean is a fixture

import nasjax
from nasjax import catalog
from nasjax.data.dataset import DataConfig
from nasjax.problem.data import load, load_test
from nasjax.settings import as_json
from nasjax.types import Space

SPACE = 'nasjax.SiteSpace("s", {"a": (1, 2)})'
MISTAKES = {
    "raises": ("import nasjax\n\n1 / 0\n", r"mine.py:3 in <module>: ZeroDivisionError: division by zero"),
    "syntax": ("def f(:\n", r"mine.py:1: SyntaxError"),
    "no build": (f"import nasjax\nnasjax.register(space={SPACE})\n", r"mine.py:2 .*needs build= or traced="),
    "nothing": ("import nasjax\nnasjax.register()\n", r"mine.py:2 .*needs space=, data=, task= or searcher="),
    "shadows": (
        'import nasjax\nnasjax.register(space=nasjax.SiteSpace("conv_chain", {"a": (1, 2)}), build=print)\n',
        r"mine.py:2 .*'conv_chain' is taken",
    ),
    "half a space": (
        "import nasjax\nclass S:\n    name = 's'\n    sites = (nasjax.Site('a', (1, 2), 'a', 0),)\n"
        "    def sample(self, key): pass\nnasjax.register(space=S(), build=print)\n",
        r"mine.py:6 .*lacks active, mutate.*derive it from nasjax.SiteSpace",
    ),
    "build raises": (
        f"import nasjax\ndef build(choices, signature):\n    return choices['b']\n"
        f"nasjax.register(space={SPACE}, build=build)\n",
        r"mine.py:3 in build: KeyError: 'b'",
    ),
    "no network": (
        f"import nasjax\ndef build(choices, signature):\n    return 7\nnasjax.register(space={SPACE}, build=build)\n",
        r"build must return a Flax Linen module.* got int",
    ),
    "wrong outputs": (
        "import nasjax\nimport jax.numpy as jnp\ndef build(choices, signature):\n"
        "    return lambda key, x: {'w': jnp.zeros(1)}, lambda params, x: jnp.zeros((x.shape[0], 3)) + params['w']\n"
        f"nasjax.register(space={SPACE}, build=build)\n",
        r"\[1, 3\] for one sample of shape \[8, 8, 1\]; the data need \[1, ..., 10\]",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, capsys, name):
    text, expected = MISTAKES[name]
    (tmp_path / "mine.py").write_text(text)
    args = [f"--plugin={tmp_path}/mine.py", "--method=random", "--space=s", f"--workdir={tmp_path}/run", *TINY]
    assert command(*args) == 2
    err = capsys.readouterr().err
    assert re.search(expected, err), err
    assert err.startswith("error: ") and err.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ("lambda folder: {'x': 1}", "must return a dict with x and y, got one with x"),
        ("lambda folder: 1 / 0", r"mine.py:2 in <lambda>: ZeroDivisionError"),
        ("lambda folder: {'x': [[1.0]], 'y': [0]}", r"y holds fewer than two classes"),
        ("lambda folder: {'x': [[[1]]], 'y': [0], 'x_test': [[[1]]]}", r"one of x_test and y_test; give both"),
        ("lambda folder: {'x': [[1.0]] * 9, 'y': [0, 1, 0] * 3}", r"x must be \[N, H, W\]"),
    ],
)
def test_data_that_do_not_fit_are_one_line(tmp_path, capsys, load, expected):
    (tmp_path / "mine.py").write_text(f"import nasjax\nnasjax.register(data='d', load={load})\n")
    assert command(f"--plugin={tmp_path}/mine.py", "--method=random", "--dataset=d", f"--workdir={tmp_path}/run") == 2
    assert re.search(expected, capsys.readouterr().err)


def masked(y, y_test=None, names=("nucleus",)):
    x = np.zeros((12, 4, 4, 3), np.uint8)
    arrays = {"x": x, "y": y, "class_names": names} | ({} if y_test is None else {"x_test": x, "y_test": y_test})
    nasjax.register(data="masked", load=lambda folder: arrays, data_task="segmentation")
    config = DataConfig("masked")
    return load(config), load_test(config)


HALF = np.tile(np.arange(2, dtype=np.uint8), (12, 4, 2))[..., None]  # 0 and 1


@pytest.mark.parametrize(
    "y",
    [HALF, HALF * 255, HALF > 0, HALF.astype("int64") * 255, HALF[..., 0], HALF.astype("float64"), HALF[..., 0] > 0],
)
def test_masks_of_equal_meaning_are_equal(y):
    data, test = masked(y)
    for part in (data.train, data.valid, test):
        assert part.y.shape == (*part.x.shape[:3], 1) and part.y.dtype in (np.uint8, np.float32)
        np.testing.assert_array_equal(part.y, HALF[: len(part.y)])
    soft, _ = masked(HALF * np.float32(0.5))
    assert soft.train.y.max() == 0.5


@pytest.mark.parametrize(
    ("y", "y_test", "expected"),
    [
        (HALF * np.float32(255), None, "y holds values from 0 to 255, .* 0..1: divide it by 255"),
        (HALF * 2.0 - 1, None, "y holds values from -1 to 1, .* write 0 for background"),
        (np.where(HALF, 1.0, np.nan), None, "y holds NaN or infinite values"),
        (np.where(HALF, np.inf, 0.0), None, "y holds NaN or infinite values"),
        (HALF * 1.001, None, "y holds values from 0 to 1.001"),
        (HALF.astype("int32") * 2 - 1, None, "y holds -1, 1; write 0"),
        (HALF * 3, None, "y holds 0, 3; write 0"),
        (np.arange(192, dtype=np.uint8).reshape(HALF.shape), None, "y holds 0, 1, 2, 3, 4, 5, ...; write 0"),
        (HALF, HALF * 2, "y_test holds 0, 2; write 0"),
        (HALF * 255, HALF * 2.0, "y_test holds values from 0 to 2"),
        (HALF * 0, None, "y holds nothing but background"),
        (HALF * 0 + 1, None, "y holds nothing but foreground"),
        (HALF[:, :3], None, r"y must be \[12, 4, 4, 1\], .*got \[12, 3, 4, 1\]"),
        (HALF.repeat(2, -1), None, r"y must be .*got \[12, 4, 4, 2\]"),
        (HALF.astype(str), None, "y must hold numbers"),
    ],
)
def test_masks_whose_meaning_is_not_known_are_refused(y, y_test, expected):
    with pytest.raises(ValueError, match=f"--dataset=masked: {expected}"):
        masked(y, y_test)


@pytest.mark.parametrize("y", [np.full((6, 3), 4), np.full((6, 3), -1), np.zeros((6, 3)), np.zeros((6, 2), int)])
def test_tokens_number_the_words(y):
    arrays = {"x": np.zeros((6, 3), int), "y": y, "class_names": ["<eos>", "<unk>", "a", "b"]}
    nasjax.register(data="words", load=lambda folder: arrays, data_task="language")
    with pytest.raises(ValueError, match=r"--dataset=words: y (holds tokens from .* 0..3|must be tokens)"):
        load(DataConfig("words"))


@pytest.mark.slow
def test_a_policy_chooses_every_site():
    """Also one that a user calls depth, a word that a chain's schedule sets."""
    exec(BLOCKS["mlp"], {"__name__": "cell"})
    space = catalog.builder("mlp").default
    searcher = nasjax.reinforce(space, policy="independent")
    _, proposal = searcher.ask(jax.random.key(0), searcher.init(jax.random.key(1)), 64)
    assert {tuple(row) for row in np.asarray(proposal.arch).tolist()} == {(a, b) for a in range(3) for b in range(3)}
    with pytest.raises(ValueError, match="group 'depth' is taken"):
        nasjax.SiteSpace("s", [nasjax.Site("a", (1, 2), "depth", 0)])


def test_conditions_of_sites():
    """c hangs on b, which hangs on a; the size is exact, other conditions are another space."""
    sites = {"a": (1, 2, 3), "b": (1, 2), "c": ((3, 3), (5, 5)), "d": (1, 2)}
    when = {"b": {"a": (2, 3)}, "c": {"b": 2}, "d": {"c": (3, 3), "a": [3]}}
    space = nasjax.SiteSpace("s", sites, when=when)
    assert space.when == {"b": {"a": (2, 3)}, "c": {"b": (2,)}, "d": {"a": (3,), "c": ((3, 3),)}}
    assert space.size() == 1 + (1 + 2) + (1 + 2 + 1)
    assert space.values(np.array([2, 1, 0, 1])) == {"a": 3, "b": 2, "c": (3, 3), "d": 2}
    space.validate(np.array([1, 1, 0, -1]))
    with pytest.raises(ValueError, match="d does not count here"):
        space.decode({"space": "s", "choices": {"a": 2, "b": 2, "c": [3, 3], "d": 1}})
    assert space != nasjax.SiteSpace("s", sites) and space == nasjax.SiteSpace("s", sites, when=when)
    assert as_json(space)["when"] == space.when and "when" not in as_json(nasjax.SiteSpace("s", sites))


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"x": {"a": 1}}, "write {site: {an earlier site: its choices}} with sites among a, b"),
        ({"b": 1}, "write {site: {an earlier site: its choices}}"),
        ({"a": {"b": 1}}, "'a' can only hang on a site before it, got 'b'"),
        ({"b": {"a": (1, 9)}}, r"'b' counts where 'a' is \(1, 9\): choose from \(1, 2\)"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(when, expected):
    with pytest.raises(ValueError, match=expected):
        nasjax.SiteSpace("s", {"a": (1, 2), "b": (1, 2)}, when=when)


@pytest.mark.slow
def test_sites_that_count_only_sometimes():
    """b counts where a is 2, c where b counts and is 2: what falls silent silences what hangs on it."""

    class Chained(nasjax.SiteSpace):
        def active(self, arch):
            a, b, _ = arch
            return jax.numpy.stack([a >= 0, a == 1, b == 1])

    space = Chained("s", {"a": (1, 2), "b": (1, 2), "c": (1, 2)})
    keys = jax.random.split(jax.random.key(0), 200)
    archs = jax.jit(jax.vmap(space.sample))(keys)
    children = jax.jit(jax.vmap(space.mutate))(keys, archs)
    crossed = jax.jit(jax.vmap(space.crossover))(keys, archs, children)
    for arch in np.concatenate([archs, children, crossed]):
        space.validate(arch)
    assert {tuple(row) for row in np.asarray(archs).tolist()} == {(0, -1, -1), (1, 0, -1), (1, 1, 0), (1, 1, 1)}
    assert space.size() is None


def test_choices_may_be_lists():
    space = nasjax.SiteSpace("s", {"kernel": ([3, 3], [5, [5]])})
    tree = json.loads(json.dumps(space.encode(np.array([1]))))
    assert tree["choices"] == {"kernel": [5, [5]]} and space.decode(tree).tolist() == [1]


def test_a_searcher_that_is_none_is_one_line(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("import nasjax\nnasjax.register(searcher='s', make=lambda space: None)\n")
    assert command(f"--plugin={tmp_path}/mine.py", "--method=s", f"--workdir={tmp_path}/run") == 2
    assert "make must return a nasjax.Searcher" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_name_and_sites_are_enough():
    class Mine:
        name = "mine"
        sites = (nasjax.Site("a", (1, 2, 3), "a", 0), nasjax.Site("b", ("x", "y"), "b", 1))

    nasjax.register(space=Mine(), build=lambda choices, signature: None)
    space = catalog.builder("mine").default
    assert isinstance(space, Space) and space.size() == 6
    arch = np.asarray(space.sample(jax.random.key(0)))
    assert space.identity(space.decode(json.loads(json.dumps(space.encode(arch))))) == space.identity(arch)
