"""Plots with a row a label, as inline SVG: bars, intervals, and one figure against its limit.

Every function takes plain figures and returns safe markup. Colours are CSS classes, so that a plot
follows the page's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from training.errors import printable
from training.render.svg import PLOT_END, ROWS, Scale, axis, fluid, gate, label, nothing, tag, text
from training.render.svg import ticks as round_ticks
from training.render.text import figure

ROW: Final = 22
TOP: Final = 18


def bars(
    rows: Mapping[str, Mapping[str, float | None]],
    parts: Sequence[str],
    caption: str,
    line: float | Mapping[str, float] | None = None,
    *,
    share: bool = False,
    unit: str = "",
) -> Markup:
    """Draw one stacked horizontal bar a label.

    Args:
        rows: label → part → amount; None counts as 0.
        parts: the parts in the order in which they are stacked; the n-th gets class `s<n>`.
        caption: what the plot shows; stands above it.
        line: where the gate stands, in the unit of the amounts, for all labels or for each; None
            for none.
        share: draw every bar at full length, parts as shares of it, the sum beside it.
        unit: of the amounts.

    Without a row there is a sentence instead of a plot.
    """
    if not rows:
        return nothing(caption)
    amounts = {
        name: [max(row.get(part) or 0.0, 0.0) for part in parts] for name, row in rows.items()
    }
    shown = dict(list(amounts.items())[:ROWS])
    lines = dict.fromkeys(shown, line) if isinstance(line, int | float) else dict(line or {})
    gates = {name: lines[name] for name in shown if lines.get(name)}
    top = 1.0 if share else max([*map(sum, shown.values()), *gates.values(), 1e-12])
    scale = Scale(0.0, top)
    one = len(set(gates.values())) == 1
    start = TOP if one else 4
    body: list[str] = []
    spoken = []
    for index, (name, values) in enumerate(shown.items()):
        y, whole, before = start + index * ROW, sum(values), 0.0
        body.append(label(y + 13, name))
        for number, (part, amount) in enumerate(zip(parts, values, strict=True)):
            drawn = amount / (whole or 1.0) if share else amount
            if drawn:
                said = f"{name}, {part}: {figure(amount, unit)}"
                tip = f"{said} ({drawn:.1%})" if share else said
                body.append(
                    tag(
                        "rect",
                        tip,
                        x=scale.at(before),
                        y=y,
                        width=scale.between(before, before + drawn),
                        height=ROW - 6,
                        class_=f"s{number % 5} part",
                    )
                )
            before += drawn
        body.append(text(figure(whole, unit), x=scale.at(before), dx=6, y=y + 12, class_="value"))
        named = ", ".join(f"{part} {figure(a)}" for part, a in zip(parts, values, strict=True))
        spoken.append(f"{name}: {named if len(parts) > 1 else figure(whole, unit)}")
        if not one and name in gates:
            at, said = scale.at(gates[name]), f"gate {figure(gates[name], unit)}"
            body.append(tag("line", said, x1=at, x2=at, y1=y - 3, y2=y + ROW - 3, class_="gate"))
    height = start + len(shown) * ROW
    if one:
        line = next(iter(gates.values()))
        body.append(gate(scale, line, height, f"gate {figure(line, unit)}"))
    legend = {part: f"s{n % 5}" for n, part in enumerate(parts)} if len(parts) > 1 else None
    return fluid(
        height + 2, caption, body, legend=legend, spoken=spoken, left_out=len(rows) - len(shown)
    )


def forest(
    rows: Sequence[Mapping[str, Any]],
    caption: str,
    line: float | None = None,
    *,
    unit: str = "",
    limits: tuple[float, float] | None = None,
) -> Markup:
    """Draw point estimates with their intervals, and the gate as a line.

    Args:
        rows: each with `label`, `point`, `lower`, `upper`; None for what was not measured.
        caption: what the plot shows; stands above it.
        line: where the gate stands; None for none.
        unit: of the figures.
        limits: from where to where the gate lets pass, where it has two sides.

    The scale is [0, 1] where every figure lies in it, and as wide as the figures otherwise.
    """
    if not rows:
        return nothing(caption)
    shown = rows[:ROWS]
    scale = _scale(shown, [line, *(limits or ())], unit)
    named = line is not None or limits is not None
    start = TOP if named else 4
    bottom = start + len(shown) * ROW
    body: list[str] = []
    if limits:
        body.append(
            tag(
                "rect",
                "what the gate allows",
                x=scale.at(limits[0]),
                y=start,
                width=scale.between(*limits),
                height=bottom - start,
                class_="band",
            )
        )
    body.append(axis(scale, start, bottom, round_ticks(scale.low, scale.high)))
    spoken = []
    for index, row in enumerate(shown):
        y = start + index * ROW + ROW / 2
        body.append(label(y + 4, row["label"]))
        said = _interval(row, unit)
        spoken.append(f"{row['label']}: {said}")
        if row["point"] is None:
            body.append(text("not measured", x=f"{scale.start}%", dx=6, y=y + 4, class_="muted"))
            continue
        body.append(_whiskers(row, scale, y))
        body.append(tag("circle", said, cx=scale.at(row["point"]), cy=y, r=4.5, class_="s0"))
        at = f"{PLOT_END}%"
        body.append(text(figure(row["point"], unit), x=at, dx=10, y=y + 4, class_="value"))
    if line is not None:
        body.append(gate(scale, line, bottom, f"gate {figure(line, unit)}"))
    if limits:
        both = "±" if limits[0] == -limits[1] else ""
        body.append(gate(scale, limits[1], bottom, f"gate {both}{figure(limits[1], unit)}"))
    return fluid(bottom + 20, caption, body, spoken=spoken, left_out=len(rows) - len(shown))


def against_limit(row: Mapping[str, Any]) -> Markup:
    """Draw what a gate saw against what it asks for; nothing where either is missing.

    Args:
        row: of `gating_results`.
    """
    seen, limit, ci = row["observed"], row["threshold"], row["ci"]
    if seen is None or limit is None:
        return Markup("")
    bounds = [ci["lower"], ci["upper"]] if ci else []
    scale = _spread([seen, limit, *bounds], row["unit"])
    scale = Scale(scale.low, scale.high, 1.0, 99.0)
    low, high = {
        "<=": (scale.low, limit),
        ">=": (limit, scale.high),
    }.get(row["comparator"], (limit, limit))
    body: list[str] = [
        tag("rect", x="1%", y=22, width="98%", height=10, rx=3, class_="track"),
        tag(
            "rect",
            x=scale.at(low),
            y=22,
            width=scale.between(low, high),
            height=10,
            rx=3,
            class_="allowed",
        ),
    ]
    if ci:
        body.append(_whiskers(ci, scale, 27, "seen"))
    body += [
        tag("circle", cx=scale.at(seen), cy=27, r=6, class_="seen"),
        _beside(f"seen {figure(seen, row['unit'])}", scale, seen, 13, "seenname"),
        tag("line", x1=scale.at(limit), x2=scale.at(limit), y1=18, y2=37, class_="limit"),
        _beside(f"limit {figure(limit, row['unit'])}", scale, limit, 51, "muted"),
    ]
    said = f"Seen {figure(seen, row['unit'])}, limit {figure(limit, row['unit'])}"
    return Markup(
        '<svg width="100%" height="56" role="img" aria-label="{}" class="bullet">{}</svg>'
    ).format(printable(said), Markup("").join(body))


def _beside(said: str, scale: Scale, value: float, y: float, kind: str) -> Markup:
    place = scale.share(value)
    anchor = "start" if place < 25 else "end" if place > 75 else "middle"
    return text(said, x=f"{place:.2f}%", y=y, text_anchor=anchor, class_=kind)


def _whiskers(row: Mapping[str, Any], scale: Scale, y: float, kind: str = "ci") -> Markup:
    """Return the interval of a figure; nothing where it has none."""
    if row["lower"] is None or row["upper"] is None:
        return Markup("")
    ends = {"x1": scale.at(row["lower"]), "x2": scale.at(row["upper"])}
    parts = [tag("line", **ends, y1=y, y2=y, class_=kind)]
    for end in ends.values():
        parts.append(tag("line", x1=end, x2=end, y1=y - 4, y2=y + 4, class_=kind))
    return Markup("").join(parts)


def _interval(row: Mapping[str, Any], unit: str) -> str:
    if row["point"] is None:
        return "not measured"
    said = figure(row["point"], unit)
    if row["lower"] is None or row["upper"] is None:
        return said
    return f"{said} [{figure(row['lower'])}, {figure(row['upper'])}]"


def _scale(rows: Sequence[Mapping[str, Any]], lines: Sequence[float | None], unit: str) -> Scale:
    found = [row[key] for row in rows for key in ("point", "lower", "upper")]
    return _spread([value for value in (*found, *lines) if value is not None], unit)


def _spread(values: Sequence[float], unit: str) -> Scale:
    """Return a scale from 0: to 1 for shares, and a little beyond the figures otherwise."""
    low, high = min([0.0, *values]), max([0.0, *values])
    if low >= 0 and high <= 1 and not unit:
        return Scale(0.0, 1.0)
    extent = (high - low) or 1.0
    return Scale(low - 0.08 * extent if low < 0 else 0.0, high + 0.08 * extent)
