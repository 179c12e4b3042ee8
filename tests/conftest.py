"""Strictness for every test: implicit rank promotion is an error (pyproject makes warnings errors).

XLA takes most of the tests' time, so programs that name no compiler options are compiled without optimisation.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
