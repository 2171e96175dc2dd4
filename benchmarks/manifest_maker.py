"""Makes an events manifest of production size, the same one every time.

A manifest is a stream of sessions of about 148 events, each with its drummer, kit, room, device,
tempo and split. What real manifests get wrong is there as well, in small shares: repeated ids, one
place in the audio named twice, performances that stand in two sessions, unknown and aliased labels,
labels outside their own `annotated_labels`. The first N events are the same in every size.

A session is drawn with NumPy and written with `%` templates; memory holds one session at a time.
"""

# ruff: noqa: UP031 - JSON is full of braces, which format strings would have to double

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

PRODUCTION_EVENTS, PRODUCTION_SESSIONS = 7_391_699, 49_967
VERSION = 1  # part of the file names, so that files of an older recipe are not taken for this one
FAMILY_EVERY = 40  # of so many sessions, the last repeats the performance of the one before it

# Per mille of the hits; "bd" and "splash" are aliases, the last two unknown to the taxonomy.
LABELS = {
    **{"kick": 235, "snare": 205, "hihat_closed": 245, "hihat_open": 60, "hihat_pedal": 45},
    **{"ride": 75, "ride_bell": 15, "crash": 35, "side_stick": 20, "tom_high": 20},
    **{"tom_mid": 17, "tom_low": 20, "aux_percussion": 6},
    **{"bd": 0.8, "splash": 0.7, "gong": 0.3, "thunder_sheet": 0.2},
}
NAMES = list(LABELS)
SHARES = np.cumsum(list(LABELS.values())) / sum(LABELS.values())
CRASH, HIHATS = NAMES.index("crash"), {"hihat_closed", "hihat_open", "hihat_pedal"}
VARIANTS = ("16in", "18in", "splash", "china")

TECHNIQUES = (
    *("ghost_note", "flam", "accent", "rimshot", "drag", "buzz_roll", "hihat_bark"),
    *("cymbal_choke", "crash_dual_label", "double_kick_burst", "blast_beat", "swing"),
    *("flams", "moon_stroke"),  # an alias, and one unknown to the catalogue
)
METERS = ("4/4", "4/4", "4/4", "4/4", "3/4", "6/8", "7/8", "5/4")
# source_set, share of the sessions, is_synthetic (None: not stated), what names drummers
SOURCES: tuple[tuple[str, float, bool | None, bool], ...] = (
    ("studio", 0.38, False, True),
    ("ekit", 0.27, False, True),
    ("rendered", 0.2, True, True),
    ("field", 0.09, None, False),
    ("open", 0.06, False, True),
)
SOURCE_SHARES = np.cumsum([share for _, share, _, _ in SOURCES])
DEVICES: tuple[tuple[str, str | None] | None, ...] = (
    ("Roland", "TD-11"),
    ("Roland", "TD-50X"),
    ("Yamaha", "DTX-PRO"),
    ("Alesis", None),
    None,
)
PARTIAL = ["snare", "kick", "chh", "hihat_open", "ride", "crash"]  # "chh": alias of hihat_closed

CHANGES = {"moved": 0.005, "relabelled": 0.003, "velocity": 0.002, "removed": 0.001}
CHANGES |= {"added": 0.001, "renamed": 0.001}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which manifest: how many events, under which name and seed, and changed or not.

    `changed` gives the same manifest after an edit: of its events, 0.5% moved by 5 to 20 ms, 0.3%
    relabelled, 0.2% with another velocity, 0.1% removed, 0.1% added, 0.1% under new ids.
    """

    events: int
    name: str = "prod"
    seed: int = 0
    changed: bool = False

    @property
    def file_name(self) -> str:
        """The name of its file; the same recipe has the same name."""
        edited = "-changed" if self.changed else ""
        return f"{self.name}-{self.events}{edited}-v{VERSION}.jsonl"

    @property
    def other(self) -> Recipe:
        """A manifest as large that shares no id and no session with this one."""
        return replace(self, name=f"{self.name}b", seed=self.seed + 1)


def make(folder: Path, recipe: Recipe) -> Path:
    """Write the manifest into a folder, unless it is there already; return its path."""
    path = folder / recipe.file_name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".made-")
    with open(handle, "wb", buffering=1 << 20) as file:
        for text in sessions(recipe):
            file.write(text.encode())
    os.replace(name, path)
    return path


def sessions(recipe: Recipe) -> Iterator[str]:
    """Give the manifest as text, one session at a time."""
    left = recipe.events
    for number, size in enumerate(_sizes(recipe.events)):
        made = _session(recipe, number, size)
        if size > left:
            made = made[:left]
        left -= size
        if recipe.changed:
            made = _edited(made, np.random.default_rng([recipe.seed, 9, number]))
        yield _written(made)


def _sizes(events: int) -> list[int]:
    """Events of each session, as many sessions as it takes; the last may be cut short.

    In production size they add up exactly. Sessions come in pairs, the one as much above the mean
    as the other is below it; of a family both have 147, and a third takes what is left over.
    """
    if not 0 < events <= PRODUCTION_EVENTS:
        raise ValueError(f"from 1 to {PRODUCTION_EVENTS} events can be made, not {events}")
    count = PRODUCTION_SESSIONS
    edge = np.arange(count + 1, dtype=np.int64) * PRODUCTION_EVENTS // PRODUCTION_SESSIONS
    sizes = np.diff(edge)
    above = np.random.default_rng(7).gamma(1.6, 30.0, count // 2)
    above = np.minimum(above, 139).astype(np.int64)
    above[FAMILY_EVERY // 2 - 1 :: FAMILY_EVERY // 2] = 0
    sizes[: 2 * len(above)] += np.stack([above, -above], axis=1).ravel()
    last = np.arange(FAMILY_EVERY - 1, count, FAMILY_EVERY)
    sizes[last - 2] += sizes[last - 1] + sizes[last] - 2 * 147
    sizes[last - 1] = sizes[last] = 147
    until = int(np.searchsorted(np.cumsum(sizes), events)) + 1
    return sizes[:until].tolist()


@dataclass
class _Made:
    """The events of one session in columns; `rest` is the part of a line after the components."""

    sample_id: list[str]
    onset: list[float]
    parts: list[list[str]]
    rest: list[str]
    opening: str

    def __getitem__(self, which: slice) -> _Made:
        columns = {name: getattr(self, name)[which] for name in _COLUMNS}
        return replace(self, **columns)


_COLUMNS = ("sample_id", "onset", "parts", "rest")


def _written(made: _Made) -> str:
    head = '{"sample_id":"%s",' + made.opening.replace("%", "%%")
    line = head + '"onset_time":%.5f,"components":[%s]%s\n'
    rows = zip(made.sample_id, made.onset, made.parts, made.rest, strict=True)
    return "".join(
        [line % (name, onset, ",".join(parts), rest) for name, onset, parts, rest in rows]
    )


def _session(recipe: Recipe, number: int, size: int) -> _Made:
    """Draw one session. Times are drawn in steps of 10 us, so that nothing is lost in the text."""
    rng = np.random.default_rng([recipe.seed, 1, number])
    family = number % FAMILY_EVERY >= FAMILY_EVERY - 2
    played = number - (number % FAMILY_EVERY == FAMILY_EVERY - 1)
    take = np.random.default_rng([recipe.seed, 2, played])
    fixed, source = _fixed(recipe, number, rng)
    tempo = int(rng.integers(120, 440)) / 2
    steps = take.integers(4_000, 55_000, size)
    onset = np.cumsum(steps) + int(rng.integers(10_000, 300_000))
    label = np.searchsorted(SHARES, take.random((3, size)), side="right").clip(max=len(NAMES) - 1)
    more = take.random(size)
    struck = 1 + (more < 0.34).astype(int) + (more < 0.03)
    label[1][label[1] == label[0]] += 1  # of one drum seldom two at a time
    label.clip(max=len(NAMES) - 1, out=label)
    label[1][(label[0] == CRASH) & (take.random(size) < 0.1)] = CRASH
    empty = np.full(size, 1.0) if family else rng.random(size)
    parts = _parts(rng, label, struck, raw=source == "ekit", stuck=number % 97 == 11)
    names = [f"{recipe.name}-{number:06d}-{hit:05d}" for hit in range(size)]
    rest = _rest(rng, fixed, onset, tempo, parts, empty)
    made = _Made(
        sample_id=names,
        onset=(onset / 1e5).tolist(),
        parts=parts,
        rest=rest,
        opening=f'"session_id":"{recipe.name}-s{number:06d}",',
    )
    if not family:
        _spoil(made, number, rng)
    return made


def _fixed(recipe: Recipe, number: int, rng: np.random.Generator) -> tuple[str, str]:
    """What all events of a session state, as JSON text that follows their own; its source."""
    draw = rng.random(12)
    index = min(int(np.searchsorted(SOURCE_SHARES, draw[0], side="right")), len(SOURCES) - 1)
    source, _, synthetic, names_drummer = SOURCES[index]
    said: list[str] = []

    def say(name: str, value: Any) -> None:
        if value is not None:
            quoted = f'"{value}"' if isinstance(value, str) else str(value).lower()
            said.append(f'"{name}":{quoted}')

    say("track_id", "mix" if draw[11] < 0.9 else None)
    say("drummer_id", f"d{int(draw[1] * 43):03d}" if names_drummer else None)
    say("kit_id", f"kit{int(draw[2] * 71):03d}")
    say("room_id", None if synthetic else f"room{int(draw[3] * 28):02d}")
    say("source_set", source)
    say("is_synthetic", synthetic)
    say("audio_path", f"{source}/{recipe.name}-{number:06d}.flac")
    say("sample_rate", 48000 if draw[4] < 0.3 else None)
    say("channels", 2 if draw[5] < 0.2 else None)
    say("meter", METERS[int(draw[6] * len(METERS))])
    say("mix_context", ("full_mix", "drums_only", "stem", None)[int(draw[7] * 4)])
    device = DEVICES[int(draw[8] * len(DEVICES))] if source == "ekit" else None
    if device:
        say("device_vendor", device[0])
        say("device_model", device[1])
    split = "train" if draw[9] < 0.79 else "val" if draw[9] < 0.89 else "test"
    say("split", None if draw[10] < 0.01 else split)
    if source == "open":
        said.append('"annotated_labels":[%s]' % ",".join(f'"{name}"' for name in PARTIAL))
    return ",".join(said), source


def _parts(
    rng: np.random.Generator, label: np.ndarray, struck: np.ndarray, *, raw: bool, stuck: bool
) -> list[list[str]]:
    """The components of each event, as JSON texts."""
    size = len(struck)
    velocity = (rng.beta(2.6, 1.9, (3, size)) if not stuck else np.full((3, size), 0.7874)).tolist()
    other = rng.random((3, size)).tolist()
    found = []
    for hit, count in enumerate(struck.tolist()):
        parts = []
        for which in range(count):
            name, hard, chance = NAMES[label[which][hit]], velocity[which][hit], other[which][hit]
            more = ""
            if name in HIHATS:
                if raw and chance < 0.9:
                    more = ',"openness_raw":%d' % int(chance * 141)
                if chance > 0.35:
                    more += ',"openness":%.4f' % ((chance - 0.35) / 0.65)
            elif name == "crash" and chance < 0.6:
                more = ',"instrument_variant":"%s"' % VARIANTS[int(chance * 6)]
            elif name == "snare" and chance < 0.3:
                more = ',"strike_position":"edge"'
            if chance > 0.02:
                if chance < 0.97:
                    more += ',"dynamic_bucket":"%s"' % _bucket(hard)
                more = ',"velocity":%.4f' % hard + more
            parts.append('{"label":"%s"%s}' % (name, more))
        found.append(parts)
    return found


def _bucket(velocity: float) -> str:
    if velocity < 0.3:
        return "ghost"
    return "light" if velocity < 0.5 else "medium" if velocity < 0.8 else "accent"


def _rest(
    rng: np.random.Generator,
    fixed: str,
    onset: np.ndarray,
    tempo: float,
    parts: list[list[str]],
    empty: np.ndarray,
) -> list[str]:
    """The fields after the components, as JSON text that closes the line; empties `parts` too."""
    size = len(onset)
    draw = rng.random((3, size))
    beats = onset / 1e5 * tempo / 60
    loud = rng.normal(float(rng.normal(-19, 4)), 1.5, size).round(2)
    peak = np.minimum(loud + rng.gamma(6, 2.2, size), -0.1).round(2)
    peak[rng.random(size) < 0.002] = 0.3
    where = ',"bar_index":%d,"beat_index":%.3f' if draw[0, 0] < 0.15 else "%.0s%.0s"
    context = ',"context_ms":{"pre":50,"post":526}' if draw[1, 0] < 0.4 else ""
    tail = context + ',"tempo_bpm":%.1f,%s}' % (tempo, fixed)
    rows = zip(
        (onset / 1e5 + 0.04 + 0.36 * draw[0]).tolist(),
        (beats // 4).astype(int).tolist(),
        (beats % 4).tolist(),
        draw[1].tolist(),
        draw[2].tolist(),
        empty.tolist(),
        loud.tolist(),
        peak.tolist(),
        strict=True,
    )
    found = []
    for hit, (end, bar, beat, bleed, played, nothing, lufs, dbfs) in enumerate(rows):
        more = ""
        if played < 0.08:
            which = int(played / 0.08 * 173)
            more = ',"techniques":["%s"%s]' % (
                TECHNIQUES[which % 13 if which else 13],
                ',"accent"' if which % 5 == 0 else "",
            )
        if nothing < 0.0062:
            if nothing > 0.0005:  # the others are near-misses: marked, yet something is struck
                parts[hit] = []
            if nothing < 0.006:
                more += ',"negative_example":true'
        if bleed < 0.95:
            more += ',"bleed_level":"%s"' % (
                "low" if bleed < 0.6 else "med" if bleed < 0.85 else "high"
            )
        if played < 0.97:
            more += ',"loudness":{"LUFS_i":%.2f,"peak_dbfs":%.2f}' % (lufs, dbfs)
        found.append(',"offset_time":%.5f%s%s%s' % (end, where % (bar, beat), more, tail))
    return found


def _spoil(made: _Made, number: int, rng: np.random.Generator) -> None:
    """Repeat the id (0.01% of the events) or the place (0.02%) of a hit, in every so many sessions.

    Of the repeated ids half are whole lines; of the repeated places half are the same hit again.
    """
    hit = int(rng.integers(1, max(len(made.onset), 2)))
    if hit >= len(made.onset):
        return
    whole = number % 136 in (3, 5, 39)
    if number % 68 == 3:
        made.sample_id[hit] = made.sample_id[hit - 1]
        if whole:
            made.onset[hit], made.rest[hit] = made.onset[hit - 1], made.rest[hit - 1]
            made.parts[hit] = made.parts[hit - 1]
    elif number % 34 == 5:
        made.onset[hit] = made.onset[hit - 1]
        if whole:
            made.parts[hit] = made.parts[hit - 1]


def _edited(made: _Made, rng: np.random.Generator) -> _Made:
    """The same session after an edit; see `Recipe.changed`."""
    edges = np.cumsum(list(CHANGES.values()))
    kinds = [*CHANGES, ""]
    which = np.searchsorted(edges, rng.random(len(made.onset)), side="right").tolist()
    shift = (rng.integers(500, 2001, len(which)) / 1e5).tolist()
    result = replace(made, **{name: [] for name in _COLUMNS})
    for hit, index in enumerate(which):
        kind = kinds[index]
        name, onset, parts = made.sample_id[hit], made.onset[hit], made.parts[hit]
        if kind == "removed":
            continue
        if kind == "moved":
            onset += shift[hit] if hit % 2 else -shift[hit]
        elif kind == "relabelled" and parts:
            parts = [_relabelled(parts[0]), *parts[1:]]
        elif kind == "velocity" and parts:
            parts = [_harder(parts[0]), *parts[1:]]
        elif kind == "renamed":
            name = f"{name}-again"
        _append(result, name, onset, parts, made.rest[hit])
        if kind == "added":
            # 31 ms: nearer than the nearest two hits of a session, so that it lies between them.
            _append(result, f"{name}-new", onset + 0.031, ['{"label":"snare"}'], made.rest[hit])
    return result


def _append(made: _Made, name: str, onset: float, parts: list[str], rest: str) -> None:
    made.sample_id.append(name)
    made.onset.append(onset)
    made.parts.append(parts)
    made.rest.append(rest)


def _relabelled(part: str) -> str:
    label = part.split('"')[3]
    return part.replace(f'"{label}"', '"tom_low"' if label != "tom_low" else '"tom_mid"', 1)


def _harder(part: str) -> str:
    before, said, after = part.partition('"velocity":')
    if not said:
        return part.replace("}", ',"velocity":0.5}')
    number = after.split(",")[0].rstrip("}")
    return f"{before}{said}{(float(number) + 0.4321) % 1:.4f}{after[len(number) :]}"
