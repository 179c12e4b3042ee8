"""What JAX keeps of networks that are gone."""

from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

import nasjax
from nasjax.evaluators import child_exact
from nasjax.evaluators.children import Child
from nasjax.nets import initial
from nasjax.problem.own import own_builder
from nasjax.tasks import classification
from nasjax.train.fit import Data
from nasjax.types import Signature


class Mlp(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1))))


def population(widths):
    """train(n), which trains the child of the n-th width, and its architecture; all of them small."""
    space = nasjax.SiteSpace("widths", {"width": widths})
    builder = own_builder(
        space,
        lambda choices, signature: Mlp(choices["width"]),
        None,
        tasks=("classification",),
        named={},
        guard=lambda function: function,
    )
    signature = Signature(jax.ShapeDtypeStruct((4, 4, 1), np.float32), 2)
    x, y = np.zeros((8, 4, 4, 1), np.uint8), np.zeros(8, np.int32)
    data = jax.tree.map(jax.numpy.asarray, Data(x, y, x, y, np.zeros(1, np.float32), np.ones(1, np.float32)))
    recipe = nasjax.Recipe(epochs=1, batch_size=4)
    train = child_exact.exact(data, signature, classification.TASK, recipe, keep_weights=True)

    def one(n):
        arch = np.array([n], np.int32)
        built = builder.build(space, None, space.encode(arch), signature)
        return train(jax.random.key(0), [Child(n, arch, built)], 1)[0]

    return one


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_many_small_networks_keep_no_memory(monkeypatch):
    """Each keeps some 180 mappings of memory as long as its programs are kept; Linux ends a process with 65,530."""
    monkeypatch.setattr(child_exact, "_KEPT", 3)
    monkeypatch.setattr(child_exact, "_FORGET", 3)
    train, sizes = population(tuple(range(1, 19))), []
    for n in range(18):
        assert not train(n).error
        sizes.append(len(Path("/proc/self/maps").read_text().splitlines()))
    assert max(sizes[12:]) - max(sizes[:6]) < 180  # six more would have kept 1,080


@pytest.mark.slow
def test_a_network_compiles_its_own_programs_alone(monkeypatch, caplog):
    """Of operations by themselves JAX would keep a program for every new shape."""
    monkeypatch.setattr(child_exact, "_KEPT", 1)
    monkeypatch.setattr(child_exact, "_FORGET", 2)
    cleared = []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(1))

    train = population((3, 5))
    for n in range(2):
        caplog.clear()
        jax.config.update("jax_log_compiles", True)  # by the context other threads would not say theirs
        try:
            outcome = train(n)
        finally:
            jax.config.update("jax_log_compiles", False)
        assert not outcome.error and outcome.variables["params"]["Dense_1"]["kernel"].shape == (16, (3, 5)[n])
        compiled = [line.split()[4] for line in caplog.messages if line.startswith("Finished XLA compilation of")]
        if n:
            assert sorted(compiled) == ["jit(init)", "jit(update)", "jit(validate)"]
    assert cleared == [1]


@pytest.mark.parametrize("draw", [jax.random.normal, jax.random.uniform])
def test_draws_on_the_host_are_those_of_their_own_size(draw):
    for size in (1, 100):
        expected = draw(jax.random.key(3), (size,), np.float32)
        np.testing.assert_array_equal(initial.draws(draw, jax.random.key(3), size, np.float32), expected)
    assert len(initial.draws(draw, jax.random.key(3), 0, np.float32)) == 0
