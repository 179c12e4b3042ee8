"""Heat maps: a row per edge or layer, a column per operator."""

from __future__ import annotations

from collections.abc import Sequence

from nasjax.report import charts

_ROW = 18  # pixels


def heat_map(
    table: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[Sequence[str]],
    alt: str,
    *,
    what: str,
    down: str,
    order: Sequence[str] = (),
    by_row: bool = False,
    marked: Sequence[int] = (),
) -> str:
    """Squares, darker for larger values; values that a row lacks stay blank.

    Args:
      table: the values; None = not a number.
      rows: a label per row.
      columns: per row the names of its squares, as far as known.
      alt: its text for readers who cannot see it.
      what: name of a value, with its unit.
      down: what a row is.
      order: of the columns; columns that it does not name come last.
      by_row: compare values with those of their own row only, not with the whole table.
      marked: per row the column that is outlined; -1 = none.

    Returns:
      Trusted HTML.
    """
    used = dict.fromkeys(name for found in columns for name in found)
    data, names = [], dict.fromkeys([*(name for name in order if name in used), *used])
    for r, row in enumerate(table):
        compared = [value for value in row if value is not None]
        low, high = min(compared, default=0.0), max(compared, default=1.0)
        for i, value in enumerate(row):
            name = columns[r][i] if r < len(columns) and i < len(columns[r]) else f"operator {i}"
            names.setdefault(name)
            share = None if value is None else (value - low) / (high - low or 1.0) if by_row else value
            shown = "not a number" if value is None else f"{value:.5g}"
            datum = {"row": rows[r], "name": name, "share": share, "shown": shown}
            data.append(datum | ({"chosen": True} if r < len(marked) and marked[r] == i else {}))
    legend = {
        "title": f"{what}, within its {down}" if by_row else what,
        "gradientLength": 160,
        "tickCount": 3,
        "format": ".4~g",
    }
    shade = {"field": "share", "type": "quantitative", "legend": legend, "scale": {"scheme": "blues", "zero": by_row}}
    if by_row:
        legend |= {"values": [0, 1], "labelExpr": "datum.value > 0.5 ? 'strongest' : 'weakest'"}
    top = {"orient": "top", "labelAngle": -40, "labelOverlap": False, "title": None, "domain": False, "ticks": False}
    side = {"title": None, "labelOverlap": False, "domain": False, "ticks": False}
    places = {
        "x": {"field": "name", "type": "nominal", "sort": list(names), "axis": top},
        "y": {"field": "row", "type": "nominal", "sort": list(rows), "axis": side},
        "tooltip": charts.hover(("row", down), ("name", "operator"), ("shown", what)),
    }
    squares = [row for row in data if row["share"] is not None]
    blanks = [row for row in data if row["share"] is None]
    marks = [
        charts.layer("rect", blanks, places, color="#eceff2", cornerRadius=2),
        charts.layer("rect", squares, places | {"color": shade}, stroke="white", strokeWidth=2, cornerRadius=2),
    ]
    chosen = [row for row in data if row.get("chosen")]
    outlined = {"stroke": charts.PALETTE[1], "strokeWidth": 2.5, "fill": None, "cornerRadius": 2}
    marks += [charts.layer("rect", chosen, places, **outlined)] if chosen else []
    return charts.chart(
        [mark for mark in marks if mark["data"]["values"]],
        alt,
        height={"step": _ROW},
        padding=charts.room([*names][-1], 40),
    )
