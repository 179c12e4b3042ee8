"""Strictness for every test: implicit rank promotion is an error (pyproject makes warnings errors)."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
