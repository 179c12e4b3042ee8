"""The memory of a network: sums of what each step of small programs needs, done by hand; and searches by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import commands
from nasjax.experiments.families.path_costs import memory_of, within
from nasjax.latency.memory import memory
from nasjax.problem.problem import Problem
from nasjax.settings import override
from nasjax.types import Built, Network, Signature

FLOAT = 4


def built(apply, shape=(10, 100)):
    """A network of one matrix; inputs have as many numbers as the matrix has rows."""

    def network(bn_eps, dtype):
        def init(key, choice, x):
            return {"params": jax.random.normal(key, shape)}

        return Network(init, lambda variables, choice, x: (apply(variables["params"], x), variables))

    return Built({}, int(np.prod(shape)), 0, None, network)


def floats(apply, shape=(10, 100), batch=1):
    """Numbers that are there at once."""
    found = memory(built(apply, shape), Signature(jax.ShapeDtypeStruct((shape[0],), jnp.float32), 1), batch)
    assert found.weights == FLOAT * np.prod(shape)
    assert found.total_mb == (found.weights + found.activations) / 1e6
    return found.activations / FLOAT


def test_a_step_needs_what_it_reads_and_writes():
    assert floats(lambda w, x: x @ w) == 110
    assert floats(lambda w, x: x @ w, batch=8) == 880
    assert floats(lambda w, x: (x @ w) @ w.T) == 110  # and then 100 + 10


def test_what_a_later_step_needs_is_there_meanwhile():
    assert floats(lambda w, x: (x @ w) @ w.T + x) == 120


@pytest.mark.parametrize("activate", [jax.nn.relu, jax.nn.silu, jax.nn.hard_swish, lambda h: (h - 3) / 2])
def test_an_elementwise_operation_writes_over_what_it_reads(activate):
    assert floats(lambda w, x: activate(x @ w) @ w.T) == 110


def test_an_elementwise_operation_has_its_own_place_where_its_input_is_needed_later():
    def apply(w, x):
        h = x @ w
        return (jnp.tanh(h) @ w.T) @ w + h

    assert floats(apply) == 210


def test_reshapes_slices_and_broadcasts_are_read_where_they_are():
    assert floats(lambda w, x: (x @ w).reshape(-1, 4, 25)[:, :2] * (x @ w)[:, :1, None]) == 210


def test_a_reduction_computes_what_only_it_reads():
    assert floats(lambda w, x: jnp.square(x @ w - 1).mean(-1)) == 110
    assert floats(lambda w, x: jnp.exp(x @ w).sum(-1) + (x @ w)[:, 0]) <= 210


def test_what_depends_on_weights_alone_takes_no_place():
    assert floats(lambda w, x: x @ jnp.tanh(w * 2)) == 110


def test_called_functions_count_as_if_written_in_place():
    assert floats(lambda w, x: jax.jit(lambda y: y @ w)(x)) == 110
    assert floats(lambda w, x: jax.checkpoint(lambda y: y @ w)(x)) == 110


def test_a_loop_needs_its_body_beside_what_goes_in_and_comes_out():
    def apply(w, x):
        return jax.lax.scan(lambda c, _: ((c @ w) @ w.T, None), x, None, length=3)[0]

    assert floats(apply) == 10 + 10 + 110


@pytest.mark.slow
def test_the_memory_of_paths_is_told_within_a_program():
    tiny = ["space.stem=4", "space.channels=8", "space.depths=2", "space.strides=2", "space.tail=8"]
    about = Problem(override(commands.configure("spos"), *tiny, "max_memory_mb=1", "memory_batch=2"))
    archs = np.array([(0, 0), (2, 1), (3, 3)], np.int32)
    built = [about.build(arch) for arch in archs]
    own = [memory(one, about.signature, 2).total_mb for one in built]
    assert len(set(own)) == 3 and [about.predicted(arch, 1, 1) for arch in archs] == [{"memory_mb": mb} for mb in own]
    np.testing.assert_allclose(jax.jit(jax.vmap(memory_of(about)))(archs), own, rtol=1e-6)
    feasible = jax.jit(within([(sorted(own)[1] + 1e-6, memory_of(about))]))
    assert [bool(feasible(arch)) for arch in archs] == [mb != max(own) for mb in own]
