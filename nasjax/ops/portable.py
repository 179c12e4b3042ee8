"""A function of a batch as a `jax.export` artifact: any batch size, and every platform's own forms of the operators."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
from jax import export, lax

from nasjax.ops import backend
from nasjax.types import PyTree

PLATFORMS = ("cpu", "cuda", "tpu")
_FORM_OF = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}
# Days on which jaxlib releases were built. A later version that is missing here was built no earlier than the last one.
_BUILT = {"0.10.2": datetime.date(2026, 6, 17)}
_MONTHS = 6


def batched(apply: Callable[[PyTree, Any], PyTree], variables: PyTree, of_batch: Callable[[Any], PyTree]) -> Any:
    """`x -> apply(variables, x)` as one `jax.export.Exported` for all `PLATFORMS`.

    The artifact branches on the platform once, around the whole function, so that it holds the weights once and a
    program per platform. Compiling keeps only the platform's own program. One file is simpler to use than one per
    platform, and hardly larger, as programs are small beside weights.

    Args:
      apply: (variables, x) -> outputs; takes any batch size.
      variables: become constants of the artifact.
      of_batch: size of a batch -> shapes and dtypes of x, a pytree of ShapeDtypeStruct; the size is a symbol.
    """
    (batch,) = export.symbolic_shape("b")

    def of(form: str) -> Callable[[PyTree, Any], PyTree]:
        def run(variables: PyTree, x: Any) -> PyTree:
            with backend.forced(form):
                return apply(variables, x)

        return run

    def call(x: Any) -> PyTree:
        return lax.platform_dependent(variables, x, **{name: of(form) for name, form in _FORM_OF.items()})

    return export.export(jax.jit(call), platforms=PLATFORMS)(of_batch(batch))


def facts(exported: Any) -> dict[str, Any]:
    """What a reader of the artifact must know, as JSON: who wrote it, and which versions of JAX read it.

    https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees: JAX reads what was written by a jaxlib
    built up to six months before its own, or up to three weeks after. "read_by_versions_built_until" is that day,
    None where this library cannot tell; "or_later": the version is newer than those it knows, so the day is too early.
    """
    built = _built(version("jaxlib"))
    return {
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "calling_convention_version": exported.calling_convention_version,
        "calling_convention_versions_read": [
            export.minimum_supported_calling_convention_version,
            export.maximum_supported_calling_convention_version,
        ],
        "written": datetime.date.today().isoformat(),
        "read_by_versions_built_until": _months_later(built, _MONTHS).isoformat() if built else None,
        "or_later": built is not None and version("jaxlib") not in _BUILT and _dated(version("jaxlib")) is None,
        "platforms": list(exported.platforms),
        "inputs": [
            {"shape": [n if isinstance(n, int) else str(n) for n in x.shape], "dtype": str(x.dtype)}
            for x in exported.in_avals
        ],
    }


def _built(release: str) -> datetime.date | None:
    """The day on which a release was built, or one before it; None = not known."""
    if (day := _dated(release)) is not None:
        return day

    def number(name: str) -> tuple[int, ...]:
        return tuple(int(part) for part in name.split(".")[:3] if part.isdigit())

    return max((day for known, day in _BUILT.items() if number(known) <= number(release)), default=None)


def _dated(release: str) -> datetime.date | None:
    """The day that a development version has in its name; of others JAX itself says none."""
    found = re.search(r"\.dev(\d{4})(\d\d)(\d\d)(?!\d)", release)
    return datetime.date(*map(int, found.groups())) if found else None


def _months_later(day: datetime.date, months: int) -> datetime.date:
    """The same day of a later month, or the 28th where the month may be too short."""
    years, month = divmod(day.month - 1 + months, 12)
    return datetime.date(day.year + years, month + 1, min(day.day, 28))
