"""Renders the report of one or more workdirs, finished or not. Needs no JAX, and NumPy only for pictures."""

from typing import Any

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from nasjax.report.page import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
