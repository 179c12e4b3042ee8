"""The keys of a run: each phase has its own, and none comes twice."""

from collections import defaultdict

import jax
import numpy as np
import pytest
from tools.commands import here
from tools.ghosts import forget_programs

from nasjax.drive import retrain
from nasjax.drive.streams import Streams, streams

DRAWS = ("bits", "uniform", "normal", "permutation", "choice", "bernoulli", "categorical", "randint", "gumbel")
CHAIN = [
    *("--method=random", "--set=width=2", "--set=space.min_layers=2", "--set=space.max_layers=2"),
    *("--set=space.filter_heights=1", "--set=space.filter_widths=3", "--set=space.filter_counts=2"),
    *("--set=recipe.epochs=1", "--set=recipe.batch_size=32", "--set=data.train_limit=64", "--set=data.valid_limit=32"),
]
RETRAIN = [
    *("--set=retrain_recipe.epochs=3", "--set=retrain_recipe.batch_size=32", "--set=retrain.grid=true"),
    *("--set=retrain.grid_epochs=3", "--set=retrain.grid_learning_rates=0.1", "--set=retrain.grid_weight_decays=1e-4"),
    "--set=retrain.grid_bn_eps=1e-3",
]


def test_every_phase_has_a_key_of_its_own():
    found = {tuple(jax.random.key_data(key).tolist()) for seed in range(50) for key in streams(seed)}
    found |= {tuple(jax.random.key_data(jax.random.key(seed)).tolist()) for seed in range(50)}
    assert len(found) == 50 * (len(Streams._fields) + 1)


@pytest.fixture
def drawn(monkeypatch):
    """Keys that numbers are really drawn from, by phase, in programs too; and a list with the running phase's name."""
    keys, phase, inside = defaultdict(list), [""], [0]

    def recorded(real):
        def draw(key, *arguments, **settings):
            shape = settings.get("shape", arguments[0] if arguments else ())
            single = isinstance(shape, tuple) and not shape  # a weight has a key of its own
            if not inside[0] and not single:  # nor where one draw is made of another
                data = jax.random.key_data(key)
                jax.debug.callback(lambda data: keys[phase[0]].append(np.asarray(data).tobytes()), data)
            inside[0] += 1
            try:
                return real(key, *arguments, **settings)
            finally:
                inside[0] -= 1

        return draw

    for name in DRAWS:
        monkeypatch.setattr(jax.random, name, recorded(getattr(jax.random, name)))
    grid = retrain._grid

    def tried(*arguments):
        phase[0] = "grid"
        found = grid(*arguments)
        jax.effects_barrier()
        phase[0] = "retrain"
        return found

    def forget():  # programs that were traced before or after
        forget_programs()
        jax.clear_caches()

    monkeypatch.setattr(retrain, "_grid", tried)
    forget()
    yield keys, phase
    forget()


@pytest.mark.slow
def test_no_key_of_a_search_its_grid_and_its_retraining_comes_twice(drawn, tmp_path):
    keys, phase = drawn
    args = [*CHAIN, f"--workdir={tmp_path / 'run'}"]
    for phase[0], more in (("search", ["--trials=4"]), ("retrain", ["--mode=retrain", *RETRAIN])):
        code, _, err = here(*args, *more)
        jax.effects_barrier()
        assert code == 0, err
    found = {name: set(keys[name]) for name in ("search", "grid", "retrain")}
    assert all(len(own) > 2 for own in found.values()), found
    assert sum(map(len, found.values())) == len(set().union(*found.values()))
