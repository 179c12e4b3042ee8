"""Which form of an operator is traced: the one for CPUs, for GPUs or for TPUs."""

from __future__ import annotations

from contextlib import AbstractContextManager

import jax

FORMS = ("cpu", "gpu", "tpu")
_forced = jax.make_user_context(None)  # a part of the key of jit's caches: forms never mix


def form() -> str:
    """One of `FORMS`: the forced one, or that of the default backend. Asked while a function is traced."""
    return _forced.value or jax.default_backend()


def forced(form: str) -> AbstractContextManager[None]:
    """A context in which this form is traced, wherever it will run.

    Every form is correct on every backend, and fast on its own. What was traced outside is traced again inside.

    Raises:
      ValueError: no such form.

    Example:
      >>> with backend.forced("tpu"):
      ...     exported = jax.export.export(jax.jit(f), platforms=["tpu"])(x)
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; choose from {', '.join(FORMS)}")
    return _forced(form)
