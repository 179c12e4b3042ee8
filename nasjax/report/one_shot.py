"""What one-shot runs leave beside their trials: the cost of each phase, the supernet's training, how paths rank."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nasjax.report import figures, networks, ranking, svg
from nasjax.report.drawings import choice_chain as paths
from nasjax.report.sections import count, table
from nasjax.report.workdir import Run, mapping, number

_TOP = 0.1  # the share of trials that counts as the best
_BAR, _OPERATOR, _FULL = 44, 62, 56  # pixels: height of a bar with its text, an operator's column, a share of 1 in it


def overview(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """The section that sets all one-shot runs beside each other; "" where there is none."""
    chosen = [(run, label) for run, label in zip(runs, labels, strict=True) if run.one_shot]
    if not chosen:
        return ""
    trained = [run._replace(metrics=run.supernet) for run in runs]
    cards = [_costs(chosen), *figures.metrics(trained, labels)]
    rows = [
        [
            escape(label),
            phase.name,
            "–" if phase.seconds is None else f"{phase.seconds:,.1f}",
            "–" if phase.seconds is None else f"{100 * phase.seconds / (run.spent_s or 1.0):.1f}",
            phase.state,
        ]
        for run, label in chosen
        for phase in run.phases
    ]
    tables = table("Cost per phase", ["run", "phase", "wall-clock (s)#", "share (%)#", "state"], rows)
    if len(chosen) > 1:
        tables += f"<p></p>{_rankings(chosen)}"
    return f'<section><h2>Phases</h2><div class="cards">{"".join(cards)}</div><p></p>{tables}</section>'


def section(run: Run, as_percent: bool) -> str:
    """The section of one run; "" for any that is not one-shot."""
    if not run.one_shot:
        return ""
    cards = [_scores(run), _operators(run), _ranking(run, as_percent), _optimum(run)]
    note = (
        "Fitness is a BN score: the sum over the layers of a path of the mean absolute scale of the operator's last "
        "batch norm. It has no unit and is no accuracy."
    )
    told = f'<p class="note">{note}</p>' if run.indicator else ""
    body = f'{told}<div class="cards">{"".join(cards)}</div>{_front_table(run, as_percent)}'
    return f"<section><h2>Supernet and ranking</h2>{body}</section>"


def fronts(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Multiply-adds against the first objective where a search has several; "" where none has."""
    several = [[t for t in run.done if len(t.objectives) > 1 and t.macs] for run in runs]
    if not any(several):
        return ""
    as_percent = figures.is_percent(runs)
    unit, text = ("accuracy (%)", svg.percent) if as_percent else ("first objective", svg.short)
    x = svg.axis("multiply-adds (count)", [float(t.macs or 0) for ts in several for t in ts])
    y = svg.axis(unit, [t.fitness or 0.0 for ts in several for t in ts], text=text)
    clouds: list[str] = []
    rings: list[str] = []
    told: list[str] = []
    for c, trials in enumerate(several):
        best = ranking.front(trials)
        for found, css, radius, marks in ((trials, "dots", 2.6, clouds), (best, "ring", 5.0, rings)):
            points = [(float(t.macs or 0), t.fitness or 0.0) for t in found]
            titles = [f"trial {t.id}: {figures.fitness_text(t.fitness, as_percent)}, {t.macs:,} macs" for t in found]
            marks.append(
                svg.dots(x, y, figures.thin(points), figures.thin(titles), f"{css} {figures.colour(c)}", radius)
            )
        told += [f"{len(best)} of {len(trials)} trials"] if trials else []
    caption = (
        f"Across: multiply-adds (count), smaller is better. Up: {unit}, larger is better. Rings: the front, "
        f"{'; '.join(told)}: no other trial is better in one of the search's objectives without being worse in another."
    )
    shown = [label if trials else "" for label, trials in zip(labels, several, strict=True)]
    keys = [("dot c0", "one trial"), ("circle c0", "on the front")] if len(runs) == 1 else figures.run_keys(shown)
    return figures.figure("Pareto front", svg.chart(x, y, [*clouds, *rings], caption), caption, keys)


def _front_table(run: Run, as_percent: bool) -> str:
    members = ranking.front([t for t in run.done if len(t.objectives) > 1])
    rows = [
        [
            str(t.id),
            figures.fitness_text(t.fitness, as_percent),
            count(t.macs),
            count(t.params),
            f"<code>{escape(networks.summary(t.arch))}</code>",
        ]
        for t in members[:200]
    ]
    heads = ["trial#", "accuracy#" if as_percent else "first objective#", "macs#", "parameters#", "path"]
    return f"<h3>Members of the Pareto front</h3>{table('Pareto front', heads, rows, 'sortable tall')}" if rows else ""


def _costs(chosen: Sequence[tuple[Run, str]]) -> str:
    """One bar per run, made of its phases."""
    scale = (svg.WIDTH - 2) / (max(run.spent_s for run, _ in chosen) or 1.0)
    parts, told = [], []
    for n, (run, label) in enumerate(chosen):
        y, x = _BAR * n, 1.0
        open_phases = [f"{phase.name} {phase.state}" for phase in run.phases if phase.state != "finished"]
        text = "; ".join([f"{run.spent_s:,.1f} s", *open_phases])
        text = f"{label}: {text}" if len(chosen) > 1 else text
        parts.append(f'<text x="0" y="{y + 13}">{escape(text)}</text>')
        for c, phase in enumerate(run.phases):
            wide = scale * (phase.seconds or 0.0)
            title = f"{label}: {phase.name} {phase.seconds or 0.0:,.1f} s ({phase.state})"
            place = f'x="{x:.1f}" y="{y + 20}" width="{wide:.1f}" height="18"'
            parts.append(f'<rect class="segment {figures.colour(c)}" {place}><title>{escape(title)}</title></rect>')
            x += wide
        told.append(f"{label}: " + ", ".join(f"{p.name} {p.seconds or 0.0:,.1f} s ({p.state})" for p in run.phases))
    caption = "Length: wall-clock (s) per phase, compiling included. What has no figure yet counts as 0."
    keys = [(f"swatch {figures.colour(c)}", phase.name) for c, phase in enumerate(chosen[0][0].phases)]
    alt = escape(f"{caption} {'; '.join(told)}.")
    head = f'<svg viewBox="0 0 {svg.WIDTH} {_BAR * len(chosen)}" role="img" aria-label="{alt}">'
    return figures.figure("Cost per phase", f"{head}{''.join(parts)}</svg>", caption, keys)


def _pairs(run: Run) -> list[tuple[float, float]]:
    """(score, accuracy) of the paths that were also trained alone."""
    both = [(number(row.get("score")), number(row.get("accuracy"))) for row in run.standalone]
    return [(score, accuracy) for score, accuracy in both if score is not None and accuracy is not None]


def _rankings(chosen: Sequence[tuple[Run, str]]) -> str:
    """How well each run's score ranks, and what retraining its best gave."""
    rows = []
    for run, label in chosen:
        pairs = _pairs(run)
        tau, tested = ranking.kendall_tau(pairs), number(run.result.get("test_accuracy"))
        shown = ["–" if tau is None else f"{tau:.3f}", "–" if tested is None else f"{100 * tested:.2f} %"]
        rows.append([escape(label), str(len(pairs)), *shown])
    heads = ["run", "paths trained alone#", "Kendall's tau of the score#", "test accuracy, retrained#"]
    return table("Ranking and result", heads, rows)


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
            "layer (rows), no unit; stronger = larger within its layer, since layers are not comparable."
        )
        caption += " Outlined: the path of the best trial." if path else ""
        rows = [f"layer {n}" for n in range(len(scores))]
        drawing = svg.heat_map(matrix, rows, names, caption, by_row=True, marked=path)
        return figures.figure("Scores of the operators", drawing, caption)
    return ""


def _operators(run: Run) -> str:
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
    left, head, parts = 62, 96, []
    for o, name in enumerate(names):
        x = left + _OPERATOR * o
        at = x + 18
        parts.append(f'<text x="{at}" y="{head - 6}" transform="rotate(-50 {at} {head - 6})">{escape(name)}</text>')
        parts.append(f'<path class="grid" d="M{x} {head}v{20 * len(whole)}"/>')
    for n in range(len(whole)):
        y = head + 20 * n
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">layer {n}</text>')
        for o, name in enumerate(names):
            title = f"layer {n} {name}: {100 * top[n][o]:.0f} % of the best, {100 * whole[n][o]:.0f} % of all"
            bars = "".join(
                f'<rect class="{css}" x="{left + _OPERATOR * o}" y="{at}" width="{_FULL * share:.1f}" height="7"/>'
                for css, at, share in (("share c0", y + 2, top[n][o]), ("share whole", y + 10, whole[n][o]))
            )
            parts.append(f"<g><title>{escape(title)}</title>{bars}</g>")
    caption = (
        f"Each layer (rows) and operator (columns): the share of trials that chose it, a full column = 100 %. "
        f"Upper bar: the best {len(best)} trials (10 %) by fitness; lower bar: all {len(found)} that did not fail."
    )
    keys = [("swatch c0", f"best {len(best)}"), ("swatch whole", f"all {len(found)}")]
    size = f'viewBox="0 0 {max(svg.WIDTH, left + _OPERATOR * len(names) + 40)} {head + 20 * len(whole) + 6}"'
    drawing = f'<svg {size} role="img" aria-label="{escape(caption)}">{"".join(parts)}</svg>'
    return figures.figure("Operators chosen", drawing, caption, keys)


def _ranking(run: Run, as_percent: bool) -> str:
    """Score against the accuracy of the same path trained alone."""
    pairs = _pairs(run)
    tau = ranking.kendall_tau(pairs)
    if not run.standalone:
        return ""
    unit, text = ("score (%)", svg.percent) if as_percent else ("score", svg.short)
    x = svg.axis(unit, [score for score, _ in pairs], text=text)
    y = svg.axis("stand-alone accuracy (%)", [accuracy for _, accuracy in pairs], text=svg.percent)
    titles = [f"{figures.fitness_text(s, as_percent)}, alone {100 * a:.2f} %" for s, a in pairs]
    seconds = sum(number(row.get("seconds")) or 0.0 for row in run.standalone)
    caption = (
        f"Across: {unit} that the search went by. Up: validation accuracy (%) of the same path trained alone. "
        f"{len(pairs)} paths; training them took {seconds:,.0f} s, which is no part of the method's cost. "
    )
    if tau is None:
        caption += "Kendall's tau needs two paths that differ on both axes."
    else:
        caption += (
            f"Kendall's tau {tau:.3f} (tau-b; 1 = same order, 0 = unrelated). Few paths give a rough tau: between "
            f"unrelated orders its standard deviation around 0 would be {ranking.tau_by_chance(len(pairs)):.2f}."
        )
    if failed := len(run.standalone) - len(pairs):
        caption += f" {failed} more failed."
    drawing = svg.chart(x, y, [svg.dots(x, y, pairs, titles, "dots c0", 4.0)], caption)
    return figures.figure("Score and stand-alone accuracy", drawing, caption)


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
    sizes = f"{macs:,} macs, {params:,} parameters. " if isinstance(macs, int) and isinstance(params, int) else ""
    caption = f"The highest score of all paths{within}, by exact search: {score:.6g}. {told} {sizes}{caption}"
    return figures.figure("Provable optimum", drawing, caption)


def _path(arch: object) -> list[int] | None:
    try:
        return paths.numbers(arch)
    except ValueError:
        return None


def _names(run: Run, at_least: int = 0) -> list[str]:
    """Of the operators; numbers where the space does not tell."""
    known = run.space.get("operators")
    names = [str(name) for name in known] if isinstance(known, list) else []
    return [*names, *(f"operator {o}" for o in range(len(names), at_least))]
