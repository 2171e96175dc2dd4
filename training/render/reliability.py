"""Reliability diagrams as inline SVG: how often what was scored 0.8 is really there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final

from markupsafe import Markup

from training.render.plots import square_axes
from training.render.svg import fixed, nothing, tag
from training.render.text import figure

_SIDE: Final = 220
_LEFT: Final = 50
_TOP: Final = 10
_COLOURS: Final = {"before": "s4"}
_LARGEST: Final = 9.0
"""The radius that the dot of all cells would have, less that of the smallest."""
Points = Sequence[Mapping[str, float]]


def reliability(stages: Mapping[str, Points], title: str) -> Markup:
    """Draw the share of clips that hold a class over the mean score of their bin.

    On the diagonal a score means what it says; below it the model says too much. Without a bin
    there is a sentence instead.

    Args:
        stages: stage → bins, each with `cells`, `mean_score` and `share_true`. `before` is grey,
            the last stage is the one drawn as a line. A dot's area follows the bin's share of the
            cells.
        title: stands above the plot, and is read to those who do not see it.
    """
    stages = {name: [each for each in points if _whole(each)] for name, points in stages.items()}
    if not any(stages.values()):
        return nothing(f"reliability of {title}")
    right, bottom = _LEFT + _SIDE, _TOP + _SIDE
    body = [
        tag("rect", x=_LEFT, y=_TOP, width=_SIDE, height=_SIDE, class_="frame"),
        tag("line", x1=_LEFT, y1=bottom, x2=right, y2=_TOP, class_="guess"),
    ]
    last = list(stages)[-1]
    if stages[last]:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(_place, stages[last]))
        body.append(tag("polyline", points=path, class_="line0"))
    spoken = []
    for name, points in stages.items():
        if name not in ("before", last):
            continue
        colour = _COLOURS.get(name, "s0") if len(stages) > 1 else "s0"
        total = sum(each["cells"] for each in points) or 1.0
        for each in points:
            x, y = _place(each)
            tip = (
                f"{name.replace('_', ' ')}: scores of {figure(each['mean_score'])} on average, "
                f"{each['share_true']:.1%} there ({figure(each['cells'])} cells)"
            )
            radius = 2.0 + _LARGEST * sqrt(each["cells"] / total)
            body.append(tag("circle", tip, cx=x, cy=y, r=radius, class_=f"{colour} over"))
            spoken.append(tip)
    body += square_axes(_LEFT, _TOP, _SIDE, ("mean score", "share that is there"))
    size = (_LEFT + _SIDE + 16, _TOP + _SIDE + 40)
    return fixed(*size, title, body, spoken=spoken, name=f"reliability of {title}")


def _whole(point: Mapping[str, float | None]) -> bool:
    return all(point[name] is not None for name in ("cells", "mean_score", "share_true"))


def _place(point: Mapping[str, float]) -> tuple[float, float]:
    return _LEFT + point["mean_score"] * _SIDE, _TOP + (1.0 - point["share_true"]) * _SIDE
