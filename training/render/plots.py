"""Plots over two axes as inline SVG: curves, histograms, figures over time and over distance.

Every function takes plain figures and returns safe markup, and a sentence instead of a plot where
there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from training.render.svg import Attribute, Scale, fixed, fluid, nothing, tag, text
from training.render.svg import ticks as round_ticks
from training.render.text import figure

MOST_POINTS: Final = 1000
"""How many points a plot draws; more are thinned evenly."""
MOST_LINES: Final = 5
_NAME: Final = 48
"""How many characters the name of an axis may have."""
_SIDE: Final = 260
_LEFT: Final = 46
_TOP: Final = 10


def curve(
    x: Sequence[float],
    y: Sequence[float],
    caption: str,
    labels: tuple[str, str],
    point: tuple[float | None, float | None] | None = None,
    *,
    diagonal: bool = True,
) -> Markup:
    """Draw a curve in the unit square, with the operating point where one is given as (x, y).

    The diagonal is what guessing gives in a ROC plot; elsewhere it means nothing.
    """
    points = _points(x, y)
    if not points:
        return nothing(caption)
    body = [tag("rect", x=_LEFT, y=_TOP, width=_SIDE, height=_SIDE, class_="frame")]
    for tick in (0.25, 0.5, 0.75):
        across, down = _LEFT + tick * _SIDE, _TOP + tick * _SIDE
        body.append(tag("line", x1=across, x2=across, y1=_TOP, y2=_TOP + _SIDE, class_="grid"))
        body.append(tag("line", x1=_LEFT, x2=_LEFT + _SIDE, y1=down, y2=down, class_="grid"))
    if diagonal:
        right, bottom = _LEFT + _SIDE, _TOP + _SIDE
        body.append(tag("line", x1=_LEFT, y1=bottom, x2=right, y2=_TOP, class_="guess"))
    path = " ".join("{:.1f},{:.1f}".format(*_place(a, b)) for a, b in _thinned(points))
    body.append(tag("polyline", points=path, class_="line0"))
    body += square_axes(_LEFT, _TOP, _SIDE, labels)
    note = ""
    if point is not None and point[0] is not None and point[1] is not None:
        across, down = _place(point[0], point[1])
        note = f"The dot is the operating point: {labels[0]} {figure(point[0])}, "
        note += f"{labels[1]} {figure(point[1])}."
        body.append(tag("circle", note, cx=across, cy=down, r=5.5, class_="s1 ring"))
    return fixed(
        _LEFT + _SIDE + 14,
        _TOP + _SIDE + 40,
        caption,
        body,
        note=note,
        spoken=[note] if note else [],
    )


def square_axes(left: float, top: float, side: float, labels: tuple[str, str]) -> list[Markup]:
    """Return the figures and the names of both axes of a plot in the unit square."""
    body = []
    bottom = top + side
    for tick in (0, 0.5, 1):
        body.append(text(tick, x=left + tick * side, y=bottom + 16, text_anchor="middle"))
        body.append(text(tick, x=left - 7, y=top + (1 - tick) * side + 4, text_anchor="end"))
    body.append(text_at(labels[0], left + side / 2, bottom + 34))
    body.append(upright(labels[1], 13, top + side / 2))
    return body


def text_at(content: str, x: Attribute, y: float) -> Markup:
    """Return the name of an axis, centred."""
    return text(content, _NAME, x=x, y=y, text_anchor="middle", class_="axisname")


def upright(content: str, x: float, y: float) -> Markup:
    """Return the name of an axis that stands upright."""
    turned = f"rotate(-90 {x:.1f} {y:.1f})"
    place: dict[str, Any] = {"x": x, "y": y, "transform": turned}
    return text(content, _NAME, **place, text_anchor="middle", class_="axisname")


def histogram(
    edges: Sequence[float], series: Mapping[str, Sequence[float]], caption: str
) -> Markup:
    """Draw histograms over shared bin edges, each as a share of its own total."""
    drawn = {
        name: counts
        for name, counts in list(series.items())[:MOST_LINES]
        if len(counts) == len(edges) - 1 and any(counts) and None not in counts
    }
    if not drawn or None in edges:
        return nothing(caption)
    width, height, top = 420, 190, 8
    shares = {name: [count / sum(counts) for count in counts] for name, counts in drawn.items()}
    highest = max(max(values) for values in shares.values())
    span = (edges[-1] - edges[0]) or 1.0
    body: list[str] = []
    for mark in round_ticks(0.0, highest, 3):
        y = top + height * (1 - mark / highest)
        body.append(tag("line", x1=_LEFT, x2=_LEFT + width, y1=y, y2=y, class_="grid"))
        body.append(
            text(
                f"{mark:.3g}" if mark < 0.01 else f"{mark:.0%}",
                x=_LEFT - 7,
                y=y + 4,
                text_anchor="end",
            )
        )
    for number, (name, values) in enumerate(shares.items()):
        for index, share in enumerate(values):
            if not share:
                continue
            x = _LEFT + (edges[index] - edges[0]) / span * width
            w = (edges[index + 1] - edges[index]) / span * width
            h = share / highest * height
            tip = (
                f"{name}, {figure(edges[index])} to {figure(edges[index + 1])}: "
                f"{figure(drawn[name][index])} ({share:.1%})"
            )
            kind = f"s{number} over"
            body.append(tag("rect", tip, x=x, y=top + height - h, width=w, height=h, class_=kind))
    for mark in round_ticks(edges[0], edges[-1], 5):
        x = _LEFT + (mark - edges[0]) / span * width
        body.append(text(figure(mark), x=x, y=top + height + 16, text_anchor="middle"))
    legend = {name: f"s{number}" for number, name in enumerate(drawn)} if len(drawn) > 1 else None
    spoken = [f"{name}: {figure(sum(counts))} in all" for name, counts in drawn.items()]
    return fixed(_LEFT + width + 20, top + height + 24, caption, body, legend=legend, spoken=spoken)


def series(
    x: Sequence[float],
    y: Sequence[float],
    caption: str,
    bounds: tuple[float, float] | None,
    unit: str,
    jumps: Sequence[float] = (),
) -> Markup:
    """Draw points over time in seconds.

    Args:
        x: seconds.
        y: one figure a time.
        caption: what the plot shows; stands above it.
        bounds: the band that the gate allows; None for none.
        unit: of y.
        jumps: where the figure jumps, in seconds.
    """
    points = _points(x, y)
    if not points:
        return nothing(caption)
    x, y = [a for a, _ in points], [b for _, b in points]
    height, top = 130, 8
    low, high = min([*y, *(bounds or ())]), max([*y, *(bounds or ())])
    margin = (high - low) * 0.08 or 1.0
    low, high = low - margin, high + margin
    across = Scale(0.0, max([*x, 1e-9]), 12.0, 98.0)

    def down(value: float) -> float:
        return float(top + (high - value) / (high - low) * height)

    body = [tag("rect", x="12%", y=top, width="86%", height=height, class_="frame")]
    if bounds:
        between = down(bounds[0]) - down(bounds[1])
        body.append(
            tag(
                "rect",
                f"what the gate allows: {figure(bounds[0], unit)} to {figure(bounds[1], unit)}",
                x="12%",
                y=down(bounds[1]),
                width="86%",
                height=between,
                class_="band",
            )
        )
    for mark in round_ticks(low, high, 4):
        body.append(tag("line", x1="12%", x2="98%", y1=down(mark), y2=down(mark), class_="grid"))
        body.append(text(figure(mark, unit), x="12%", dx=-7, y=down(mark) + 4, text_anchor="end"))
    for second in jumps:
        at = across.at(second)
        body.append(
            tag(
                "line",
                f"jump at {figure(second, 's')}",
                x1=at,
                x2=at,
                y1=top,
                y2=top + height,
                class_="jump",
            )
        )
    for a, b in _thinned(points):
        tip = f"{figure(b, unit)} at {figure(a, 's')}"
        body.append(tag("circle", tip, cx=across.at(a), cy=down(b), r=2.5, class_="s0"))
    for mark in round_ticks(0.0, across.high, 5):
        at = across.at(mark)
        body.append(text(figure(mark, "s"), x=at, y=top + height + 16, text_anchor="middle"))
    said = f"{len(x)} points from {figure(min(y), unit)} to {figure(max(y), unit)}"
    return fluid(top + height + 22, caption, body, spoken=[said])


def lines(
    x: Sequence[float | None],
    rows: Mapping[str, Sequence[float | None]],
    caption: str,
    labels: tuple[str, str],
) -> Markup:
    """Draw figures over a running number, such as losses over epochs, one line a name.

    Args:
        x: the running number, whole.
        rows: name → one figure a number; None for a gap.
        caption: what the plot shows; stands above it.
        labels: of the x and y axis.
    """
    drawn = {name: _points(x, y) for name, y in list(rows.items())[:MOST_LINES]}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return nothing(caption)
    width, height, left, top = 420, 200, 60, 8
    every = [point for points in drawn.values() for point in points]
    first, last = min(a for a, _ in every), max(a for a, _ in every)
    low, high = min(0.0, *(b for _, b in every)), max(b for _, b in every)
    across, up = (last - first) or 1.0, (high - low) or 1.0

    def place(a: float, b: float) -> tuple[float, float]:
        return left + (a - first) / across * width, top + (high - b) / up * height

    body = [tag("rect", x=left, y=top, width=width, height=height, class_="frame")]
    for mark in round_ticks(low, high):
        y = place(first, mark)[1]
        body.append(tag("line", x1=left, x2=left + width, y1=y, y2=y, class_="grid"))
        body.append(text(figure(mark), x=left - 7, y=y + 4, text_anchor="end"))
    for mark in round_ticks(first, last, 5):
        if mark % 1:
            continue  # between two epochs there is nothing
        at = place(mark, low)[0]
        body.append(text(figure(mark), x=at, y=top + height + 16, text_anchor="middle"))
    for number, (name, points) in enumerate(drawn.items()):
        shown = [place(a, b) for a, b in _thinned(points)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in shown)
        body.append(tag("polyline", name, points=path, class_=f"line{number}"))
        a, b = shown[-1]
        body.append(tag("circle", name, cx=a, cy=b, r=3.0, class_=f"s{number}"))
    body.append(text_at(labels[0], left + width / 2, top + height + 34))
    body.append(upright(labels[1], 13, top + height / 2))
    spoken = [
        f"{name}: {figure(p[0][1])} at first, {figure(p[-1][1])} at last"
        for name, p in drawn.items()
    ]
    legend = {name: f"s{number}" for number, name in enumerate(drawn)} if len(drawn) > 1 else None
    return fixed(left + width + 20, top + height + 40, caption, body, legend=legend, spoken=spoken)


def steps(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], caption: str, labels: tuple[str, str]
) -> Markup:
    """Draw figures in [0, 1] that hold for stretches of x, one line a name.

    Args:
        rows: name -> stretches with `lower`, `upper` (None = open) and `value` (None = a gap).
        caption: what the plot shows; stands above it.
        labels: of the x and y axis.
    """
    rows = {name: [row for row in each if row["lower"] is not None] for name, each in rows.items()}
    if not any(rows.values()):
        return nothing(caption)
    height, top = 210, 8
    stretches = [row for each in rows.values() for row in each]
    ends = [row["upper"] or row["lower"] for row in stretches]
    # an open stretch has no end of its own: it is drawn as far again as a quarter of the rest
    reach = 1.25 if any(row["upper"] is None for row in stretches) else 1.0
    across = Scale(0.0, max([*ends, 1e-9]) * reach, 12.0, 98.0)

    def down(value: float) -> float:
        return float(top + (1 - value) * height)

    body = [tag("rect", x="12%", y=top, width="86%", height=height, class_="frame")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        body.append(tag("line", x1="12%", x2="98%", y1=down(tick), y2=down(tick), class_="grid"))
        body.append(text(tick, x="12%", dx=-7, y=down(tick) + 4, text_anchor="end"))
    shown = -1e9
    for mark in sorted({0.0, *ends}):
        if across.share(mark) - shown >= 6:
            shown = across.share(mark)
            at = across.at(mark)
            body.append(text(figure(mark), x=at, y=top + height + 16, text_anchor="middle"))
    spoken = []
    for number, (name, each) in enumerate(list(rows.items())[:MOST_LINES]):
        for row in each:
            if row["value"] is None:
                continue
            upper = across.high if row["upper"] is None else row["upper"]
            where = (
                f"{figure(row['lower'])} to {figure(row['upper']) if row['upper'] else 'the end'}"
            )
            said = f"{name}, {where}: {figure(row['value'])}"
            spoken.append(said)
            # lines of one value lie beside, not on, each other
            y = down(row["value"]) + number * 2 - 2
            width = across.between(row["lower"], upper)
            kind = f"s{number}"
            body.append(
                tag(
                    "rect",
                    said,
                    x=across.at(row["lower"]),
                    y=y - 2,
                    width=width,
                    height=4,
                    class_=kind,
                )
            )
    body.append(text_at(labels[0], "55%", top + height + 34))
    body.append(upright(labels[1], 12, top + height / 2))
    legend = {name: f"s{number}" for number, name in enumerate(list(rows)[:MOST_LINES])}
    return fluid(top + height + 42, caption, body, legend=legend, spoken=spoken)


def _place(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * _SIDE, _TOP + (1 - y) * _SIDE


def _points(x: Sequence[float | None], y: Sequence[float | None]) -> list[tuple[float, float]]:
    """Return the points that have both figures."""
    return [(a, b) for a, b in zip(x, y, strict=False) if a is not None and b is not None]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points, evenly thinned where there are too many; both ends stay."""
    if len(points) <= MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(index * step)] for index in range(MOST_POINTS)]
