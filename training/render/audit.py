"""The page on which mined clips are heard and seen; sound and pictures stand in the page itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from training.errors import printable
from training.render.page import render_template
from training.render.picture import png

LEFT: Final = 46
WIDTH: Final = 480
HEIGHT: Final = 180
TOP: Final = 36
TICKS_HZ: Final = (300, 1000, 3000, 10000)
_CHARACTER: Final = 6.2
"""About how wide a character of the picture's text is, in its units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """One stretch of a recording, ready for the page.

    `flac` is the sound as a file; `decibels` has shape (n_mels, frames). `events` are the true
    events within the stretch: seconds from the onset, and what is struck.
    """

    flac: bytes
    decibels: npt.NDArray[np.floating[Any]]
    before_s: float
    after_s: float
    gain_db: float
    events: Sequence[tuple[float, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """A stretch as the page embeds it."""

    sound: str
    picture: str
    gain_db: float
    before_s: float
    after_s: float
    events: Sequence[Mapping[str, Any]]
    times: Sequence[Mapping[str, Any]]

    @property
    def size(self) -> int:
        """How much of the page this takes, in bytes."""
        return len(self.sound) + len(self.picture)


def embed(heard: Heard) -> Media:
    """Turn a stretch into `data:` URIs and into what is drawn around its picture."""
    length_s = heard.before_s + heard.after_s
    step_s = next((s for s in (0.05, 0.1, 0.2, 0.5, 1.0) if length_s / s <= 8), 2.0)
    first, last = -int(heard.before_s / step_s), int(heard.after_s / step_s)
    return Media(
        sound=f"data:audio/flac;base64,{base64.b64encode(heard.flac).decode()}",
        picture=f"data:image/png;base64,{base64.b64encode(png(heard.decibels)).decode()}",
        gain_db=heard.gain_db,
        before_s=heard.before_s,
        after_s=heard.after_s,
        events=_placed(heard.events, heard.before_s, length_s),
        times=[
            {
                "x": _x(index * step_s, heard.before_s, length_s),
                "text": f"{index * step_s * 1000:+.0f}" if index else "0 ms",
            }
            for index in range(first, last + 1)
        ],
    )


def render_audit(page: Mapping[str, Any], bands: Mapping[int, float]) -> str:
    """Return the page.

    Args:
        page: what `templates/audit.html.j2` shows; every text in it is escaped there.
        bands: where each of `TICKS_HZ` lies in the picture, 0 at its lower edge and 1 at its upper.
    """
    ticks = [
        {
            "y": TOP + (1 - bands[hertz]) * HEIGHT,
            "text": f"{hertz // 1000} kHz" if hertz >= 1000 else f"{hertz} Hz",
        }
        for hertz in TICKS_HZ
    ]
    frame = {"left": LEFT, "top": TOP, "width": WIDTH, "height": HEIGHT, "ticks": ticks}
    return render_template("audit.html.j2", page=page, frame=frame)


def _x(at_s: float, before_s: float, length_s: float) -> float:
    return LEFT + (at_s + before_s) / length_s * WIDTH


def _placed(
    events: Sequence[tuple[float, str]], before_s: float, length_s: float
) -> list[dict[str, Any]]:
    """Set the names of the events above the picture, in two lines; what finds no room is a tick."""
    free = [0.0, 0.0]
    placed: list[dict[str, Any]] = []
    for at_s, name in sorted(events, key=lambda event: (event[0] != 0.0, event)):
        x = _x(at_s, before_s, length_s)
        text = printable(name)
        half = len(text) * _CHARACTER / 2
        middle = min(max(x, LEFT + half), LEFT + WIDTH - half)
        placed.append({"x": x, "at": middle, "half": half, "text": text, "own": at_s == 0.0})
    # The event itself always has its name; the others follow from left to right.
    own = [event for event in placed if event["own"]]
    taken = [(event["at"] - event["half"], event["at"] + event["half"]) for event in own[:1]]
    for event in placed:
        if own and event is own[0]:
            event["y"] = 14
            continue
        left, right = event["at"] - event["half"], event["at"] + event["half"]
        clear = all(right + 6 < low or left - 6 > high for low, high in taken)
        if clear and left > free[0] + 6:
            event["y"], free[0] = 14, right
        elif left > free[1] + 6:
            event["y"], free[1] = 28, right
        else:
            event["y"] = None
    return placed
