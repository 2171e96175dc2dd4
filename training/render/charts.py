"""Plots as inline SVG: what people would rather look at than read.

Every function takes plain numbers and returns safe markup; text that comes from data is escaped.
Colours are CSS classes, so that a plot follows the page's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from training.errors import printable
from training.render.text import figure

WIDTH = 720
LABEL = 200
ROW = 22


def _text(x: float, y: float, content: object, extra: str = "") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" {}>{}</text>').format(
        x, y, Markup(extra), printable(str(content))
    )


def _svg(height: float, title: str, body: Sequence[str], width: float = WIDTH) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {w:.0f} {h:.0f}" width="{w:.0f}" height="{h:.0f}" role="img"'
        ' aria-label="{}" class="plot">{}</svg>'
    ).format(printable(title), Markup("").join(body), w=width, h=height)


def _rect(x: float, y: float, width: float, height: float, name: str, tip: str) -> Markup:
    return Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}">'
        "<title>{}</title></rect>"
    ).format(x, y, max(width, 0.0), height, name, printable(tip))


def bars(
    rows: Mapping[str, Mapping[str, float]], parts: Sequence[str], title: str, line: float = 0
) -> Markup:
    """Draw one stacked horizontal bar a label.

    Args:
        rows: label → part → amount.
        parts: the parts in the order in which they are stacked; the n-th gets class `s<n>`.
        title: what the plot shows, for those who do not see it.
        line: where to draw the gate, in the unit of the amounts; 0 for none.
    """
    sums = {label: sum(row.get(part, 0) or 0 for part in parts) for label, row in rows.items()}
    top = max([*sums.values(), line, 1e-12])
    scale = (WIDTH - LABEL - 70) / top
    body: list[str] = []
    for index, (label, row) in enumerate(rows.items()):
        y, x = index * ROW + 4, float(LABEL)
        body.append(_text(LABEL - 8, y + 13, label, 'text-anchor="end"'))
        for number, part in enumerate(parts):
            amount = row.get(part, 0) or 0
            tip = f"{label} {part}: {figure(amount)}"
            body.append(_rect(x, y, amount * scale, ROW - 7, f"s{number}", tip))
            x += amount * scale
        body.append(_text(x + 6, y + 13, figure(sums[label]), 'class="value"'))
    height = len(rows) * ROW + 6
    if line:
        body.append(_vertical(LABEL + line * scale, height, f"gate {figure(line)}"))
    return _svg(height, title, body)


def forest(rows: Sequence[Mapping[str, Any]], title: str, line: float | None = None) -> Markup:
    """Draw point estimates with their intervals on [0, 1], and the gate as a line.

    Each row holds `label`, `point`, `lower`, `upper`; the bounds may be None.
    """
    scale = WIDTH - LABEL - 80
    body: list[str] = [_axis(len(rows) * ROW + 4, scale)]
    for index, row in enumerate(rows):
        y = index * ROW + ROW / 2
        body.append(_text(LABEL - 8, y + 4, row["label"], 'text-anchor="end"'))
        if row["point"] is None:
            body.append(_text(LABEL + 4, y + 4, "not measured", 'class="muted"'))
            continue
        if row["lower"] is not None:
            body.append(
                Markup(
                    '<line x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}" class="ci"/>'
                ).format(LABEL + row["lower"] * scale, LABEL + row["upper"] * scale, y=y)
            )
        body.append(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" class="s0"/>').format(
                LABEL + row["point"] * scale, y
            )
        )
        body.append(_text(LABEL + scale + 10, y + 4, figure(row["point"]), 'class="value"'))
    height = len(rows) * ROW + 24
    if line is not None:
        body.append(_vertical(LABEL + line * scale, height - 20, f"gate {figure(line)}"))
    return _svg(height, title, body)


def curve(
    x: Sequence[float], y: Sequence[float], title: str, labels: tuple[str, str], point: Any = None
) -> Markup:
    """Draw a curve in the unit square, with the operating point where one is given as (x, y)."""
    side, left, top = 260, 44, 10
    path = " ".join(
        f"{left + a * side:.1f},{top + (1 - b) * side:.1f}" for a, b in zip(x, y, strict=True)
    )
    body: list[str] = [
        _rect(left, top, side, side, "frame", ""),
        Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="grid"/>').format(
            left, top + side, left + side, top
        ),
        Markup('<polyline points="{}" class="line0"/>').format(path),
        _text(left + side / 2, top + side + 32, labels[0], 'text-anchor="middle"'),
        _text(
            12,
            top + side / 2,
            labels[1],
            f'transform="rotate(-90 12 {top + side / 2})" text-anchor="middle"',
        ),
    ]
    for tick in (0, 0.5, 1):
        body.append(_text(left + tick * side, top + side + 15, tick, 'text-anchor="middle"'))
        body.append(_text(left - 6, top + (1 - tick) * side + 4, tick, 'text-anchor="end"'))
    if point is not None:
        body.append(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5" class="s1"/>').format(
                left + point[0] * side, top + (1 - point[1]) * side
            )
        )
    return _svg(top + side + 40, title, body, width=left + side + 14)


def histogram(edges: Sequence[float], series: Mapping[str, Sequence[float]], title: str) -> Markup:
    """Draw histograms over shared bin edges, each as a share of its own total."""
    width, height, left, top = 420, 200, 40, 24
    shares = {
        name: [count / (sum(counts) or 1) for count in counts] for name, counts in series.items()
    }
    highest = max([share for values in shares.values() for share in values] + [1e-12])
    span = (edges[-1] - edges[0]) or 1.0
    body: list[str] = []
    for number, (name, values) in enumerate(shares.items()):
        for index, share in enumerate(values):
            x = left + (edges[index] - edges[0]) / span * width
            w = (edges[index + 1] - edges[index]) / span * width
            h = share / highest * height
            tip = f"{name}, {figure(edges[index])} to {figure(edges[index + 1])}: {share:.1%}"
            body.append(_rect(x, top + height - h, w, h, f"s{number} over", tip))
        body.append(_rect(left + number * 110, 4, 10, 10, f"s{number}", ""))
        body.append(_text(left + 15 + number * 110, 13, name))
    for tick in (0.0, 0.5, 1.0):
        at = edges[0] + tick * span
        body.append(
            _text(left + tick * width, top + height + 16, figure(at), 'text-anchor="middle"')
        )
    return _svg(top + height + 24, title, body, width=left + width + 30)


def series(
    x: Sequence[float], y: Sequence[float], title: str, bounds: tuple[float, float], unit: str
) -> Markup:
    """Draw points over time with the band between `bounds` that the gate allows."""
    width, height, left, top = 560, 120, 80, 10
    low = min([*y, bounds[0]])
    high = max([*y, bounds[1]])
    margin = (high - low) * 0.08 or 1.0
    low, high = low - margin, high + margin
    end = max([*x, 1e-9])

    def across(value: float) -> float:
        return left + value / end * width

    def down(value: float) -> float:
        return top + (high - value) / (high - low) * height

    band = down(bounds[0]) - down(bounds[1])
    body: list[str] = [
        _rect(left, top, width, height, "frame", ""),
        _rect(left, down(bounds[1]), width, band, "band", "within the gate"),
    ]
    body += [
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2" class="s0"/>').format(across(a), down(b))
        for a, b in zip(x, y, strict=True)
    ]
    for value in bounds:
        body.append(_text(left - 6, down(value) + 4, figure(value, unit), 'text-anchor="end"'))
    body.append(_text(left + width, top + height + 15, figure(end, "s"), 'text-anchor="end"'))
    body.append(_text(left, top + height + 15, "0"))
    return _svg(top + height + 22, title, body, width=left + width + 10)


def _axis(height: float, scale: float) -> Markup:
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = LABEL + tick * scale
        parts.append(
            Markup('<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{:.1f}" class="grid"/>').format(
                height, x=x
            )
        )
        parts.append(_text(x, height + 14, tick, 'text-anchor="middle" class="muted"'))
    return Markup("").join(parts)


def _vertical(x: float, height: float, tip: str) -> Markup:
    return Markup(
        '<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{:.1f}" class="gate"><title>{}</title></line>'
    ).format(height, escape(tip), x=x)
