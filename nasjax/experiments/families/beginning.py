"""A supernet that begins with the weights of another one, trained on other data."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from nasjax.experiments.families.supernet_options import network_options
from nasjax.nets.supernet import Shared, Supernet
from nasjax.problem.problem import Problem
from nasjax.store.weights import read
from nasjax.train.transfer import Transfer, depending, transfer
from nasjax.types import PyTree


def beginning(problem: Problem, supernet: Supernet) -> Callable[[PyTree], Transfer]:
    """Variables of the supernet -> the same with the weights of `init_from`.

    Raises:
      ValueError: they cannot be read, or are of another network.
    """
    config, signature = problem.config, problem.signature
    weights, known = read(config.init_from)
    assert problem.builder.shared is not None
    more = signature._replace(outputs=signature.outputs + 1)
    other: Shared = problem.builder.shared(problem.space, problem.form, more)
    options = network_options(config.supernet, other, problem.space.name)
    arch = np.asarray(problem.space.sample(jax.random.key(0)))
    x = jax.tree.map(lambda one: np.zeros((1, *one.shape), one.dtype), signature.inputs)

    def shapes(network: Supernet) -> PyTree:
        variables = network.init(jax.random.key(0), arch, x)  # on the host, so no eval_shape
        leaves = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
        return {name: leaves.get(name, {}) for name in weights}

    own = shapes(supernet)
    head = depending(own, shapes(other.network(affine=config.supernet.affine, **options)))
    same = known.get("data") == problem.data.sha256

    def begin(fresh: PyTree) -> Transfer:
        return transfer(fresh, weights, head, same)

    begin(own)  # what does not fit is told before the search is begun
    return begin
