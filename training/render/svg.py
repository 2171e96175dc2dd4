"""What plots are drawn with: text, shapes, scales, and the figure around them.

Plots that have a row a label are fluid: across they are laid out in per cent of the page, so that
text keeps its size on a narrow screen. Text that comes from data is escaped and shortened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from training.errors import printable
from training.render.text import figure

Attribute = str | float
LABEL_END: Final = 27.0
"""Where the labels of rows end, in per cent of the width."""
PLOT_END: Final = 88.0
"""Where the largest figure of a row lies, in per cent of the width."""
ROWS: Final = 60
"""How many rows a plot draws; the others stand in the tables and in the JSON."""
_LABEL_LENGTH: Final = 30
_NARROW_LENGTH: Final = 18
_SPOKEN: Final = 12


@dataclass(frozen=True, slots=True)
class Scale:
    """Places figures between `low` and `high` across a fluid plot, in per cent of its width.

    What lies outside is drawn at the edge; a scale without extent places everything at its start.
    """

    low: float
    high: float
    start: float = LABEL_END
    end: float = PLOT_END

    def share(self, value: float) -> float:
        """Return where a figure lies, in per cent."""
        extent = self.high - self.low
        part = (value - self.low) / extent if extent > 0 and math.isfinite(extent) else 0.0
        return self.start + min(max(part, 0.0), 1.0) * (self.end - self.start)

    def at(self, value: float) -> str:
        """Return the same as an attribute."""
        return f"{self.share(value):.2f}%"

    def between(self, lower: float, upper: float) -> str:
        """Return how wide a stretch is, as an attribute."""
        return f"{max(self.share(upper) - self.share(lower), 0.0):.2f}%"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return round figures from low to high, about `count` of them; none without an extent."""
    extent = high - low
    if not (math.isfinite(extent) and extent > 1e-300):
        return []
    size = 10.0 ** math.floor(math.log10(extent / count))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= extent / count * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tag(name: str, tip: str = "", **attributes: Attribute) -> Markup:
    """Return an element; `tip` is shown where the pointer rests on it.

    In names of attributes `_` stands for `-`, and a trailing one is dropped (`class_`).
    """
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _attribute(value))
        for key, value in attributes.items()
    )
    if not tip:
        return Markup("<{}{}/>").format(name, given)
    title = Markup("<title>{}</title>").format(printable(tip))
    return Markup("<{}{}>{}</{}>").format(name, given, title, name)


def text(
    content: object, longest: int = _LABEL_LENGTH, *, middle: bool = False, **attributes: Attribute
) -> Markup:
    """Return a text; what is longer than `longest` is cut, with the whole as its tip.

    It is cut at its end, or in its `middle`.
    """
    said = printable(str(content))
    short = shorter(said, longest) if middle else cut(said, longest)
    tip = Markup("") if short == said else Markup("<title>{}</title>").format(said)
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _attribute(value))
        for key, value in attributes.items()
    )
    return Markup("<text{}>{}{}</text>").format(given, short, tip)


def cut(said: str, length: int = _LABEL_LENGTH) -> str:
    """Return a label short enough for a plot."""
    return said if len(said) <= length else said[: length - 1] + "…"


def label(row: float, content: object) -> Markup:
    """Return the label of a row, at its left; a long one also as it fits a narrow screen."""
    said = printable(str(content))
    if len(said) <= _NARROW_LENGTH:
        return _label(row, said, _LABEL_LENGTH, "label")
    whole = _label(row, said, _LABEL_LENGTH, "label long")
    return whole + _label(row, said, _NARROW_LENGTH, "label short")


def _label(row: float, said: str, longest: int, kind: str) -> Markup:
    at = f"{LABEL_END}%"
    return text(said, longest, middle=True, x=at, dx=-8, y=row, text_anchor="end", class_=kind)


def shorter(said: str, length: int) -> str:
    """Cut a text in its middle: names differ at their ends."""
    if len(said) <= length:
        return said
    end = (length - 1) // 2
    return f"{said[: length - 1 - end]}…{said[-end:]}"


def gate(scale: Scale, value: float, bottom: float, said: str) -> Markup:
    """Return the line where a gate stands, with its name above."""
    place = scale.share(value)
    anchor = "end" if place > 75 else "start" if place < 40 else "middle"
    return tag("line", x1=f"{place:.2f}%", x2=f"{place:.2f}%", y1=15, y2=bottom, class_="gate") + (
        text(said, x=f"{place:.2f}%", y=11, text_anchor=anchor, class_="gatename")
    )


def axis(scale: Scale, top: float, bottom: float, marks: Iterable[float]) -> Markup:
    """Return the grid of a fluid plot with the figures below it."""
    parts = []
    for mark in marks:
        at = scale.at(mark)
        parts.append(tag("line", x1=at, x2=at, y1=top, y2=bottom, class_="grid"))
        parts.append(text(figure(mark), x=at, y=bottom + 14, text_anchor="middle", class_="muted"))
    return Markup("").join(parts)


def fluid(height: float, caption: str, body: Sequence[str], **about: Any) -> Markup:
    """Return a plot that is as wide as the page lets it be."""
    size = Markup('width="100%" height="{:.0f}"').format(height)
    return _figure(size, "plot fluid", caption, body, **about)


def fixed(width: float, height: float, caption: str, body: Sequence[str], **about: Any) -> Markup:
    """Return a plot that is scaled as a whole where the page is narrow."""
    size = Markup('viewBox="0 0 {w:.0f} {h:.0f}" width="{w:.0f}" height="{h:.0f}"').format(
        w=width, h=height
    )
    return _figure(size, "plot", caption, body, **about)


def nothing(caption: str) -> Markup:
    """Return what stands in the place of a plot that has nothing to draw."""
    return Markup('<p class="muted">{}: nothing to draw.</p>').format(printable(caption))


def _figure(
    size: Markup,
    kind: str,
    caption: str,
    body: Sequence[str],
    *,
    legend: Mapping[str, str] | None = None,
    spoken: Sequence[str] = (),
    note: str = "",
    left_out: int = 0,
    name: str = "",
) -> Markup:
    """Return the figure: caption, legend (name -> class), drawing, and what is not drawn.

    `spoken` holds what the plot shows, for those who do not see it, and `name` what it is called to
    them where the caption alone would not do.
    """
    keys = Markup("").join(
        Markup(' <span class="keyed"><span class="key {}"></span>{}</span>').format(
            colour, printable(cut(each))
        )
        for each, colour in (legend or {}).items()
    )
    said = [printable(each) for each in spoken[:_SPOKEN]]
    if len(spoken) > _SPOKEN:
        said.append(f"and {len(spoken) - _SPOKEN} more")
    more = f"{left_out:,} more in the JSON report" if left_out else ""
    below = "; ".join(filter(None, (note, more)))
    return Markup(
        '<figure class="{}"><figcaption>{}{}</figcaption>'
        '<svg {} role="img" aria-label="{}">{}{}</svg>{}</figure>'
    ).format(
        kind,
        printable(caption),
        keys,
        size,
        printable(name or caption),
        Markup("<desc>{}</desc>").format(". ".join(said)) if said else "",
        Markup("").join(body),
        Markup('<p class="muted">{}</p>').format(printable(below)) if below else "",
    )


def _attribute(value: Attribute) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
