"""Runs without numbers: programs are traced, not compiled, and give ones, or whole zeros; digests say what was run.

Inside `ghosts()` a training goes through its host loop in milliseconds. Two that keep the same record ran the same
programs on the same host values (rates, keys), so they cannot end differently; two that differ do.
"""

import contextlib
import functools
import hashlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from tools.handover import Plain

_jit, _traced = jax.jit, {}


def _leaf(x):
    """An argument as the record has it: small ones with their values."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return [str(np.shape(x)), np.asarray(x).tobytes().hex() if np.size(x) <= 4 else str(np.asarray(x).dtype)]


class _Ghost:
    """In place of `jax.jit(function)`."""

    def __init__(self, record, function, **options):
        self.record, self.function, self.real = record, function, _jit(function, **options)
        self.name = str(Plain()(function))
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *arguments, **settings):
        leaves, tree = jax.tree.flatten((arguments, settings))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self.function(*arguments, **settings)
        shapes = [(np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves]
        key = self.name, str(tree), str(shapes)
        if key not in _traced:
            traced = self.real.trace(*arguments, **settings)
            digest = hashlib.sha1(str(traced.jaxpr).encode())
            for constant in traced.jaxpr.consts:
                digest.update(str(_leaf(constant)).encode() + np.asarray(constant).tobytes())
            _traced[key] = digest.hexdigest(), traced.out_info
        program, shapes = _traced[key]
        self.record.append(str([program, *map(_leaf, leaves)]))
        return jax.tree.map(_blank, shapes)

    def lower(self, *arguments, **settings):
        return self

    def compile(self, **options):
        return self


def _blank(shape):
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), shape.shape)
    return np.full(shape.shape, jnp.issubdtype(shape.dtype, jnp.floating), shape.dtype)


def forget_programs():
    """The library's caches must not keep a ghost, nor a program from before. A task is one object and holds none."""
    for name, module in list(sys.modules.items()):
        if name.startswith("nasjax.") and not name.startswith("nasjax.tasks."):
            for value in list(vars(module).values()):
                if getattr(value, "__module__", None) == name and hasattr(value, "cache_clear"):
                    value.cache_clear()


@contextlib.contextmanager
def ghosts():
    """Gives the list that programs and their host values are appended to."""
    record = []
    forget_programs()
    jax.jit = lambda function=None, **options: (
        functools.partial(jax.jit, **options) if function is None else _Ghost(record, function, **options)
    )
    try:
        yield record
    finally:
        jax.jit = _jit
        forget_programs()
