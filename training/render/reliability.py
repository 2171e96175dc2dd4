"""Reliability diagrams as inline SVG: how often what was scored 0.8 is really there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final

from markupsafe import Markup

from training.errors import printable
from training.render.text import figure

_SIDE: Final = 220
_LEFT: Final = 50
_TOP: Final = 26
_COLOURS: Final = {"before": "s4"}
Points = Sequence[Mapping[str, float]]


def reliability(stages: Mapping[str, Points], title: str) -> Markup:
    """Draw the share of clips that hold a class over the mean score of their bin.

    On the diagonal a score means what it says; below it the model says too much.

    Args:
        stages: stage → bins, each with `cells`, `mean_score` and `share_true`. `before` is grey,
            the last stage is the one drawn as a line. A dot's area follows the bin's share of the
            cells.
        title: stands above the plot, and is read to those who do not see it.
    """
    body = [
        Markup('<rect x="{}" y="{}" width="{s}" height="{s}" class="frame"/>').format(
            _LEFT, _TOP, s=_SIDE
        ),
        Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="grid"/>').format(
            _LEFT, _TOP + _SIDE, _LEFT + _SIDE, _TOP
        ),
        Markup('<text x="{}" y="14" font-weight="600">{}</text>').format(_LEFT, printable(title)),
    ]
    last = list(stages)[-1] if stages else None
    for name, points in stages.items():
        if name == last and points:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(_place, points))
            body.append(Markup('<polyline points="{}" class="line0"/>').format(path))
    total = {name: sum(each["cells"] for each in points) for name, points in stages.items()}
    for name, points in stages.items():
        if name not in ("before", last):
            continue
        colour = _COLOURS.get(name, "s0") if len(stages) > 1 else "s0"
        for each in points:
            x, y = _place(each)
            radius = 2.0 + 9.0 * sqrt(each["cells"] / total[name])
            tip = (
                f"{name.replace('_', ' ')}: scores of {figure(each['mean_score'])} on average, "
                f"{each['share_true']:.1%} there ({figure(each['cells'])} cells)"
            )
            body.append(
                Markup(
                    '<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{} over">'
                    "<title>{}</title></circle>"
                ).format(x, y, radius, colour, printable(tip))
            )
    body += _axes()
    width, height = _LEFT + _SIDE + 16, _TOP + _SIDE + 40
    return Markup(
        '<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{}"'
        ' class="plot">{}</svg>'
    ).format(printable(f"reliability of {title}"), Markup("").join(body), w=width, h=height)


def _axes() -> list[Markup]:
    body = []
    for tick in (0, 0.5, 1):
        body.append(
            Markup('<text x="{:.0f}" y="{}" text-anchor="middle">{}</text>').format(
                _LEFT + tick * _SIDE, _TOP + _SIDE + 18, tick
            )
        )
        body.append(
            Markup('<text x="{}" y="{:.0f}" text-anchor="end">{}</text>').format(
                _LEFT - 13, _TOP + (1 - tick) * _SIDE + 4, tick
            )
        )
    body.append(
        Markup('<text x="{}" y="{}" text-anchor="middle">mean score</text>').format(
            _LEFT + _SIDE / 2, _TOP + _SIDE + 34
        )
    )
    middle = _TOP + _SIDE / 2
    body.append(
        Markup(
            '<text x="12" y="{y}" transform="rotate(-90 12 {y})" text-anchor="middle">'
            "share that is there</text>"
        ).format(y=middle)
    )
    return body


def _place(point: Mapping[str, float]) -> tuple[float, float]:
    return _LEFT + point["mean_score"] * _SIDE, _TOP + (1.0 - point["share_true"]) * _SIDE
