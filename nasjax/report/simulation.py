"""The controller's distributed scheme on a virtual clock: children's accuracy over time, and late gradients.

simulation.json is what `benchmarks/distributed_reinforce.py --workdir` leaves in the workdir of a simulated search:
{"title", "window", "ways": [names], "children": [{"x": virtual hours, "y": percent, "line": way}], "staleness": [{"x",
"x2": updates from and to, "y": percent of gradients}]}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nasjax.report import charts, elements
from nasjax.report.runs import Run, number

Row = charts.Row


def children(found: Mapping[str, Any]) -> Row:
    """A chart's layer: the mean accuracy of children that follow each other, against virtual time, a line per way."""
    encoding = {"x": charts.axis("x", "virtual hours", zero=True), "color": charts.colours(found["ways"], lines=True)}
    encoding["x"]["axis"]["format"] = ".3~g"
    encoding["y"] = charts.axis("y", f"accuracy of {found['window']} children (%)")
    return charts.layer("line", found["children"], encoding)


def staleness(found: Mapping[str, Any]) -> Row:
    """A chart's layer: the share of gradients by the updates that came between their parameters and themselves."""
    bins = found["staleness"]
    encoding = {"x": charts.axis("x", "staleness (updates)"), "x2": {"field": "x2"}, "y2": {"datum": 0}}
    encoding["x"]["scale"] = {"domain": [-0.5, max(bins[-1]["x2"], 10.5)], "nice": False}
    encoding["y"] = charts.axis("y", "share of gradients (%)", zero=True)
    return charts.layer("bar", bins, encoding, color=charts.PALETTE[0], binSpacing=0)


def section(run: Run) -> str:
    """Both figures; "" for a run that was no simulation, or whose file is damaged."""
    try:
        found = json.loads((run.folder / "simulation.json").read_text())
        title, window, late = str(found["title"]), int(found["window"]), found["staleness"]
        whole = [number(row[name]) for name in ("x", "y") for row in (*found["children"], *late)]
        whole += [number(row["x2"]) for row in late]
        if None in whole or not late or not found["children"] or not all(isinstance(way, str) for way in found["ways"]):
            return ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    told = f"{title}. Mean accuracy of {window} children, one after the other as they were sampled, in virtual time."
    late_told = f"{title}. Updates of a shard between a replica's fetch and its gradient's own update."
    cards = [
        elements.figure("Children over virtual time", charts.chart([children(found)], told), told),
        elements.figure("Staleness of gradients", charts.chart([staleness(found)], late_told), late_told),
    ]
    return elements.section("The distributed scheme, simulated", cards)
