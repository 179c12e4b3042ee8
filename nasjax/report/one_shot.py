"""Figures of a one-shot run: scores of operators, choices of the best trials, how well the score ranks."""

from __future__ import annotations

from typing import Any

from nasjax.report import charts, correlation, elements, metric, networks, pareto, ranking
from nasjax.report.grouping import Line
from nasjax.report.heat import heat_map
from nasjax.report.runs import Run, mapping, number
from nasjax.report.searching import sentence

_TOP = 0.1  # the share of trials that counts as the best
_FULL = 0.9  # width of a share of 1, in columns


def section(run: Run, line: Line, page_number: int = 0) -> str:
    """The section of one run; "" for any that is not one-shot."""
    if not run.one_shot:
        return ""
    note = (
        "The search goes by a batch norm score: the sum over the layers of a path of the mean absolute scale of the "
        "operator's last batch norm. It has no unit and is no accuracy."
    )
    told = elements.note(note) if run.metric.name == metric.BATCH_NORM_SCORE else ""
    cards = [_scores(run), _operators(run, line), _ranking(run, line, page_number), _optimum(run)]
    return elements.section("Supernet and ranking", cards, before=told, after=pareto.members(run))


def pairs(run: Run) -> list[tuple[float, float]]:
    """(score, fitness) of the paths that were also trained alone."""
    return [(score, alone) for score, alone, _ in _alone(run)]


def _alone(run: Run) -> list[tuple[float, float, Any]]:
    """(score, fitness, architecture) of those whose training did not fail."""
    found = []
    for row in run.standalone:
        score, key = number(row.get("score")), _key(row)
        value = number(row.get(key))
        if score is not None and value is not None:
            sign = 1 if key == "accuracy" else _metric(run, key).sign  # older files call any fitness accuracy
            found.append((score, sign * value, row.get("arch")))
    return found


def _key(row: dict[str, Any]) -> str:
    """The name of a row's metric."""
    return next((name for name in row if name not in ("arch", "score", "seconds", "settings")), "accuracy")


def _metric(run: Run, key: str) -> metric.Metric:
    """How the metric of paths trained alone is shown; the search may have gone by a score."""
    if run.metric.name != metric.BATCH_NORM_SCORE:
        return run.metric
    return metric.of_key(key, run.metric) or metric.Metric(key, "plain")


def _scores(run: Run) -> str:
    """The newest score matrix as a heat map."""
    for row in reversed(run.supernet):
        scores = row.get("scores")
        if not isinstance(scores, list) or not scores or not all(isinstance(layer, list) and layer for layer in scores):
            continue
        removed = run.space.get("removed")
        removed = removed if isinstance(removed, list) else []
        matrix = [[None if n in removed else number(v) for v in layer] for n, layer in enumerate(scores)]
        names = [_names(run, len(layer)) for layer in scores]
        path = _path(run.best.arch if run.best else None) or []
        caption = (
            f"Epoch {row.get('epoch')}: mean absolute scale of the last batch norm of each operator (columns) in each "
            "layer (rows), no unit; compared within a layer, since layers are not comparable."
        )
        caption += " Outlined: the path of the best trial." if path else ""
        rows = [f"layer {n}" for n in range(len(scores))]
        drawing = heat_map(matrix, rows, names, caption, what="score", down="layer", by_row=True, marked=path)
        return elements.figure("Scores of the operators", drawing, caption)
    return ""


def _operators(run: Run, line: Line) -> str:
    """How often the best trials and all of them chose each operator, layer by layer."""
    done = sorted(run.done, key=lambda t: t.fitness or 0.0, reverse=True)
    found = [path for t in done if (path := _path(t.arch))]
    most = len(_names(run)) or 64
    found = [path for path in found if len(path) == len(found[0]) and max(path) < most]
    if not found:
        return ""
    best = found[: max(1, round(_TOP * len(found)))]
    names = [*_names(run, max(map(max, found)) + 1), "identity"]
    top, whole = (ranking.shares(chosen, len(names) - 1) for chosen in (best, found))
    if not any(layer[-1] for layer in whole):
        names.pop()
    groups = [f"best {len(best)}", f"all {len(found)}"]
    rows = [
        {"layer": f"layer {n}", "operator": name, "group": group, "x": o, "x2": o + _FULL * share[n][o]}
        | {"share": 100 * share[n][o]}
        for group, share in zip(groups, (top, whole), strict=True)
        for n in range(len(whole))
        for o, name in enumerate(names)
    ]
    order = [f"layer {n}" for n in range(len(whole))]
    across = {"type": "quantitative", "scale": {"domain": [0, len(names)], "nice": False}}
    lines: charts.Row = {
        "values": list(range(len(names))),
        "labels": False,
        "title": None,
        "grid": True,
        "ticks": False,
    }
    down: charts.Row = {"field": "layer", "type": "nominal", "sort": order}
    down |= {"axis": {"title": None, "ticks": False, "domain": False}, "scale": {"paddingInner": 0.25}}
    bars: charts.Row = {
        "x": {"field": "x", **across, "axis": lines | {"domain": False}},
        "x2": {"field": "x2"},
        "y": down,
        "yOffset": {"field": "group", "type": "nominal", "sort": groups},
        "color": charts.colours(groups, (line.colour, "#a9b1ba"), field="group"),
        "tooltip": charts.hover(("layer",), ("operator",), ("group", "of"), ("share", "chosen by (%)", ".0f")),
    }
    bars["color"]["legend"] |= {"orient": "bottom"}
    heads = [{"x": o, "operator": name} for o, name in enumerate(names)]
    above = {"x": {"field": "x", **across}, "y": {"value": -6}, "text": {"field": "operator"}}
    marks = [
        charts.layer("bar", rows, bars),
        charts.layer("text", heads, above, align="left", angle=325, dx=4, color="#4d5560", fontSize=12),
    ]
    caption = (
        f"Each layer (rows) and operator (columns): the share of trials that chose it, a full column = 100 %. "
        f"Upper bar: the best {len(best)} trials (10 %) by {run.metric.title}; lower bar: all {len(found)} that did "
        "not fail."
    )
    return elements.figure(
        "Operators chosen",
        charts.chart(marks, caption, height={"step": 24}, padding=charts.room(names[-1], 35)),
        caption,
    )


def _ranking(run: Run, line: Line, page_number: int) -> str:
    """Score against the result of the same path trained alone."""
    if not run.standalone:
        return ""
    found, shown = _alone(run), run.metric
    alone = _metric(run, _key(run.standalone[0]))
    tau = ranking.kendall_tau(pairs(run))
    rows = []
    for score, result, arch in found:
        trial = next((t.id for t in run.trials if t.arch == arch), None)
        row = {"x": shown.value(score), "y": alone.value(result), "arch": networks.summary(arch, 90)}
        rows.append(row | ({} if trial is None else {"trial": trial, "row": elements.anchor(page_number, trial)}))
    seconds = sum(number(row.get("seconds")) or 0.0 for row in run.standalone)
    caption = (
        f"Across: the {shown.title} that guided the search. Up: {alone.title} of the same path trained alone. "
        f"{len(found)} paths; training them took {seconds:,.0f} s, which is no part of the method's cost. "
    )
    if tau is None:
        caption += "Kendall's tau needs two paths that differ on both axes."
    else:
        caption += (
            f"Kendall's tau {correlation.with_interval('kendall', tau, len(found))}, in brackets the 95 % interval "
            "(tau-b; 1 = same order, 0 = unrelated). Few paths give a rough tau: between unrelated orders its standard "
            f"deviation around 0 would be {ranking.tau_by_chance(len(found)):.2f}."
        )
    if failed := len(run.standalone) - len(found):
        caption += f" {failed} more failed."
    across, up = f"{shown.axis}, of the supernet" if shown == alone else shown.axis, f"{alone.axis}, trained alone"
    encoding = {
        "x": charts.axis("x", sentence(across), end="x"),
        "y": charts.axis("y", up),
        "tooltip": charts.hover(
            ("trial", "trial"), ("x", across, shown.format), ("y", up, alone.format), ("arch", "path")
        ),
    }
    dots = charts.layer("circle", rows, encoding, cursor="pointer", size=70, opacity=0.75, color=line.colour)
    drawing = charts.chart([dots], caption) if rows else ""
    return elements.figure("Score and result of paths trained alone", drawing, caption)


def _optimum(run: Run) -> str:
    """The provably best path beside the best that the search has found."""
    score = number(run.optimum.get("fitness"))
    if score is None:
        return ""
    best, arch = run.best, run.optimum.get("arch")
    told = "The search has no result yet."
    if best is not None and best.fitness is not None:
        gap = score - best.fitness
        so_far = "" if run.state == "finished" else " so far"
        if arch == best.arch:
            told = f"The search has found it (trial {best.id})."
        elif gap <= 1e-6 * abs(score):  # trials hold float32
            told = f"The search has found another path of the same score (trial {best.id})."
        else:
            told = f"The best trial{so_far} ({best.id}) scores {best.fitness:.6g}, {gap:.3g} less."
    drawing, caption = networks.draw(arch, run.space)
    limit = number(mapping(run.config.get("config")).get("max_macs"))
    within = "" if limit is None else f" within {limit:,.0f} multiply-adds"
    macs, params = run.optimum.get("macs"), run.optimum.get("params")
    sizes = (
        f"{macs:,} multiply-adds, {params:,} parameters. " if isinstance(macs, int) and isinstance(params, int) else ""
    )
    caption = f"The highest score of all paths{within}, by exact search: {score:.6g}. {told} {sizes}{caption}"
    return elements.figure("Provable optimum", drawing, caption)


def _path(arch: object) -> list[int] | None:
    """The operator of every layer, -1 = identity; None where the architecture is no path."""
    path = mapping(arch).get("path")
    if not isinstance(path, list) or not path or any(type(v) is not int or v < -1 for v in path):
        return None
    return path


def _names(run: Run, at_least: int = 0) -> list[str]:
    """Of the operators; numbers where the space does not tell."""
    known = run.space.get("operators")
    names = [str(name) for name in known] if isinstance(known, list) else []
    return [*names, *(f"operator {o}" for o in range(len(names), at_least))]
