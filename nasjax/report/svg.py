"""Small charts as inline SVG: an `Axis` places numbers, marks are strings, `chart` frames them; page.css colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 30, 42
_SQUARE = 34  # width of a square of the heat map
Point = tuple[float, float]


def short(value: float) -> str:
    """A number in at most about six characters: 4.202M, 36.5k, 0.25."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.99995:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def count(value: float) -> str:
    """A whole number; axes that use it have no ticks in between."""
    return f"{value:,.0f}"


def percent(value: float) -> str:
    """A fraction as a bare percentage, for axes whose label names the unit."""
    return f"{100 * value:.4g}"


class Axis(NamedTuple):
    """One axis of a chart."""

    label: str  # what it shows, with the unit
    low: float
    high: float
    log: bool = False
    text: Callable[[float], str] = short

    def place(self, value: float) -> float:
        """Where `value` lies between low (0) and high (1)."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """At most eight round values."""
        if self.log:
            mantissas = (1, 2, 5) if self.high / self.low < 1e3 else (1,)
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            rounds = [m * 10.0**e for e in exponents for m in mantissas if self.low <= m * 10.0**e <= self.high]
            if len(rounds) > 2:
                return rounds
        raw = (self.high - self.low) / 6
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= 0.8 * raw)
        step = max(step, 1.0) if self.text is count else step
        return [i * step for i in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def axis(
    label: str,
    values: Sequence[float],
    *,
    log: bool = False,
    zero: bool = False,
    text: Callable[[float], str] = short,
) -> Axis:
    """The axis that holds all `values` with a margin; `zero` lets it start at 0. Log axes need positive values."""
    low, high = (min(values), max(values)) if values else (1.0, 10.0) if log else (0.0, 1.0)
    if zero:
        low = min(low, 0.0)
    if log:
        margin = 1.5 if high < low * 1.01 else (high / low) ** 0.05
        low, high = low / margin, high * margin
    else:
        size = max(abs(low), abs(high))
        if high - low > 1e-6 * size:
            margin = max(0.05 * (high - low), 0.0025 * size)  # so that labels of four digits differ
        else:
            margin = 0.1 * size or 0.5
        low, high = low if zero and low == 0 else low - margin, high + margin
    return Axis(label, low, high, log, text)


def chart(x: Axis, y: Axis, marks: Sequence[str], alt: str) -> str:
    """Frames marks with two axes; `alt` is what a reader who cannot see it is told."""
    foot = HEIGHT - BOTTOM
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">']
    for value in y.ticks():
        _, at = _pixel(x, y, (x.low, value))
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(y.text(value))}</text>')
    for value in x.ticks():
        at, _ = _pixel(x, y, (value, y.low))
        parts.append(f'<path class="tick" d="M{at} {foot}v4"/>')
        parts.append(f'<text x="{at}" y="{foot + 17}" text-anchor="middle">{escape(x.text(value))}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {foot}H{WIDTH - RIGHT}"/>')
    parts.append(f'<text class="label" x="0" y="13">{escape(y.label)}</text>')
    label_at = f'x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end"'
    parts.append(f'<text class="label" {label_at}>{escape(x.label)}</text>')
    if not any(marks):
        parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">no data</text>')
    return "".join([*parts, *marks, "</svg>"])


def dots(x: Axis, y: Axis, points: Sequence[Point], titles: Sequence[str], css: str, radius: float = 2.6) -> str:
    """One circle per point; its title is shown on hover."""
    circles = []
    for point, title in zip(points, titles, strict=True):
        at = _pixel(x, y, point)
        circles.append(f'<circle cx="{at[0]}" cy="{at[1]}" r="{radius}"><title>{escape(title)}</title></circle>')
    return f'<g class="{css}">{"".join(circles)}</g>' if circles else ""


def line(x: Axis, y: Axis, points: Sequence[Point], css: str) -> str:
    """Straight lines between points; a single point is a dot."""
    return f'<path class="line {css}" d="M{"L".join("{} {}".format(*_pixel(x, y, p)) for p in points)}h0"/>'


def steps(x: Axis, y: Axis, points: Sequence[Point], css: str) -> str:
    """Horizontal until the next point, then vertical."""
    pixels = [_pixel(x, y, p) for p in points]
    path = f"M{pixels[0][0]} {pixels[0][1]}" + "".join(f"H{px}V{py}" for px, py in pixels[1:])
    return f'<path class="line {css}" d="{path}"/>'


def crosses(x: Axis, y: Axis, points: Sequence[Point], css: str) -> str:
    """Small crosses, all in one path."""
    path = "".join("M{} {}m-3 -3l6 6m0 -6l-6 6".format(*_pixel(x, y, p)) for p in points)
    return f'<path class="line {css}" d="{path}"/>'


def bars(x: Axis, y: Axis, bins: Sequence[tuple[float, float, int]], titles: Sequence[str], css: str) -> str:
    """Rectangles (from, to, height) that stand on y's low end."""
    rects = []
    for (start, stop, height), title in zip(bins, titles, strict=True):
        (left, top), (right, foot) = _pixel(x, y, (start, height)), _pixel(x, y, (stop, y.low))
        size = f'width="{max(right - left - 1, 0.5):.1f}" height="{foot - top:.1f}"'
        rects.append(f'<rect x="{left}" y="{top}" {size}><title>{escape(title)}</title></rect>')
    return f'<g class="{css}">{"".join(rects)}</g>' if rects else ""


def heat_map(
    table: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[Sequence[str]],
    alt: str,
    *,
    by_row: bool = False,
    marked: Sequence[int] = (),
) -> str:
    """Squares as dark as their value is large.

    Args:
      table: the values; None = not a number.
      rows: a label per row.
      columns: per row the names of its squares, as far as known; they head the columns where all rows agree.
      alt: what a reader who cannot see it is told.
      by_row: compare values with those of their own row only, not with the whole table.
      marked: per row the column that is outlined; -1 = none.
    """
    left, top = max(52, 20 + 7 * max(map(len, rows))), 96
    found = [value for row in table for value in row if value is not None]
    parts = []
    if len(columns) == len(table) and all(list(names) == list(columns[0]) for names in columns):
        for i, name in enumerate(columns[0]):
            x = left + _SQUARE * i + 20
            parts.append(f'<text x="{x}" y="{top - 6}" transform="rotate(-50 {x} {top - 6})">{escape(name)}</text>')
    for r, row in enumerate(table):
        y, compared = top + 18 * r, [value for value in row if value is not None] if by_row else found
        low, high = min(compared, default=0.0), max(compared, default=1.0)
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(rows[r])}</text>')
        for i, value in enumerate(row):
            name = columns[r][i] if r < len(columns) and i < len(columns[r]) else f"operator {i}"
            share = 0.0 if value is None else 0.06 + 0.94 * (value - low) / (high - low or 1.0)
            shown = f"{rows[r]} {name}: {'not a number' if value is None else f'{value:.4g}'}"
            css = ' class="chosen"' if r < len(marked) and marked[r] == i else ""
            parts.append(
                f'<rect{css} x="{left + _SQUARE * i}" y="{y}" width="{_SQUARE - 2}" height="16" fill="currentColor" '
                f'fill-opacity="{share:.3f}"><title>{escape(shown)}</title></rect>'
            )
    size = f"{left + _SQUARE * max(map(len, table)) + 50} {top + 18 * len(table) + 8}"
    head = f'<svg class="heat" viewBox="0 0 {size}" role="img" aria-label="{escape(alt)}" fill="currentColor">'
    return f"{head}{''.join(parts)}</svg>"


def _pixel(x: Axis, y: Axis, point: Point) -> Point:
    across, up = x.place(point[0]), y.place(point[1])
    return (
        round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
        round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
    )
