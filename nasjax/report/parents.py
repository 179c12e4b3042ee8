"""The section of a run whose trials have parents, graphs with indicators, or a ledger."""

from __future__ import annotations

from nasjax.report import elements, indicators, inheritance, lineage, random_phase, timeline
from nasjax.report.grouping import Line
from nasjax.report.runs import Run


def section(run: Run, line: Line, number: int) -> str:
    """The figures of an evolution; "" for a run without parents, indicators or ledger."""
    cards = [plot(run, line, number) for plot in (random_phase.curve, random_phase.sizes, inheritance.scatter)]
    cards += lineage.figures(run, line, number)
    tables = [indicators.compared(run), lineage.changes(run)]
    return elements.section("Individuals and their parents", cards, after="".join(tables)) + elements.section(
        "Workers", [timeline.workers(run, line), timeline.load(run, line)], after=timeline.numbers(run)
    )
