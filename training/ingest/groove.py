"""The Groove MIDI Dataset: `info.csv`, and one MIDI file a take, played on a Roland TD-11 kit.

See Gillick et al., "Learning to Groove with Inverse Sequence Transformations", ICML 2019, and the
table of notes on https://magenta.tensorflow.org/datasets/groove.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from training.errors import InputError, Problem
from training.ingest.common import (
    Converted,
    Hit,
    dynamic_bucket,
    group_hits,
    joined_techniques,
)
from training.ingest.midi import Performance, Stroke, read_performance
from training.manifest import Component, Event, resolve_inside

__all__ = ["ANNOTATED_LABELS", "PADS", "GrooveEvent", "Pad", "Take", "convert", "find_takes"]

DEVICE_VENDOR, DEVICE_MODEL = "Roland", "TD-11"
# Two notes from one pad closer than this are one stroke that the module heard twice. Drummers do
# not play that fast; in the whole set about 200 of 446,000 notes are concerned.
RETRIGGER_S = 0.005
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_COLUMNS = (
    "drummer",
    "session",
    "id",
    "style",
    "bpm",
    "beat_type",
    "time_signature",
    "midi_filename",
    "audio_filename",
    "duration",
    "split",
)
_UNKNOWN_NOTE = "notes outside of the TD-11 table: kept as aux_percussion"
_RETRIGGERS = "notes within 5 ms of another on the same pad: folded into the louder one"
_OTHER_TEMPO = "takes whose MIDI tempo differs from info.csv by more than 1 bpm: MIDI is believed"
_OTHER_METER = "takes whose MIDI meter differs from info.csv: MIDI is believed"
_PAST_END = "strokes later than the duration in info.csv"
_SILENT = "takes without a stroke"


class GrooveEvent(Event, frozen=True, kw_only=True, omit_defaults=True):
    """An event with what only this dataset says: the take's style, and whether it is a fill."""

    style: str | None = None
    beat_type: str | None = None


@dataclass(frozen=True, slots=True)
class Pad:
    """What a note of the TD-11 means."""

    label: str
    position: str | None = None
    variant: str | None = None
    technique: str | None = None


PADS: dict[int, Pad] = {
    36: Pad("kick"),
    38: Pad("snare", "head"),
    40: Pad("snare", "rim", technique="rimshot"),
    37: Pad("side_stick", "rim", technique="cross_stick"),
    48: Pad("tom_high", "head"),
    50: Pad("tom_high", "rim"),
    45: Pad("tom_mid", "head"),
    47: Pad("tom_mid", "rim"),
    43: Pad("tom_low", "head"),
    58: Pad("tom_low", "rim"),
    42: Pad("hihat_closed", "bow"),
    22: Pad("hihat_closed", "edge"),
    46: Pad("hihat_open", "bow"),
    26: Pad("hihat_open", "edge"),
    44: Pad("hihat_pedal"),
    49: Pad("crash", "bow", "crash_1"),
    55: Pad("crash", "edge", "crash_1"),
    57: Pad("crash", "bow", "crash_2"),
    52: Pad("crash", "edge", "crash_2"),
    51: Pad("ride", "bow"),
    59: Pad("ride", "edge"),
    53: Pad("ride_bell", "bell"),
}
ANNOTATED_LABELS = tuple(dict.fromkeys(pad.label for pad in PADS.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Take:
    """One line of info.csv, checked; `audio` is relative to the root, None where there is none."""

    id: str
    drummer: str
    session: str
    style: str
    bpm: float
    beat_type: str
    meter: str
    midi: Path
    audio: str | None
    audio_file: Path | None
    duration_s: float
    split: str


def find_takes(root: Path) -> list[Take]:
    """Read `info.csv` below `root`.

    Raises:
        InputError: it is missing, lacks a column, or a line of it makes no sense; every problem is
            named with its line.
    """
    path = root / "info.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames is None:
                raise InputError.at(path, "is empty")
            missing = [name for name in _COLUMNS if name not in reader.fieldnames]
            if missing:
                why = f"lacks the columns {', '.join(missing)}"
                raise InputError.at(path, why, line=1)
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise InputError.at(path, "no such file: is this the root of the Groove dataset?") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError.at(path, f"cannot be read as CSV: {error}") from None
    takes: list[Take] = []
    problems: list[Problem] = []
    ids: dict[str, int] = {}
    for line, row in rows:
        found, wrong = _take(root, path, line, row)
        if found is not None and found.id in ids:
            wrong.append(Problem(str(path), f"stands already in line {ids[found.id]}", line, "id"))
        problems += wrong
        if found is not None and not wrong:
            ids[found.id] = line
            takes.append(found)
    if problems:
        raise InputError(problems)
    if not takes:
        raise InputError.at(path, "names no take")
    return takes


def sessions_across_splits(takes: Iterable[Take]) -> list[str]:
    """Return the sessions whose takes lie in more than one split of the official division."""
    splits: dict[str, set[str]] = {}
    for take in takes:
        splits.setdefault(take.session, set()).add(take.split)
    return sorted(name for name, held in splits.items() if len(held) > 1)


def convert(take: Take, *, merge_ms: float) -> Converted:
    """Turn the MIDI file of one take into events.

    Raises:
        InputError: the MIDI file or the audio beside it cannot be read.
    """
    from training.audio.reading import audio_info

    performance = read_performance(take.midi)
    info = None if take.audio_file is None else audio_info(take.audio_file)
    warnings = _oddities(take, performance)
    strokes = _fold_retriggers(performance.strokes, warnings)
    hits = [_hit(stroke) for stroke in strokes]
    strokes_of = {id(hit): stroke for hit, stroke in zip(hits, strokes, strict=True)}
    events = []
    for number, group in enumerate(group_hits(hits, merge_ms=merge_ms)):
        stroke = strokes_of[id(group[0])]
        event = GrooveEvent(
            sample_id=f"groove:{take.id}:{number:05d}",
            session_id=take.session,
            track_id=take.id,
            onset_time=round(stroke.onset_s, 6),
            components=tuple(hit.component for hit in group),
            techniques=joined_techniques(group),
            drummer_id=take.drummer,
            kit_id="roland_td-11",
            source_set="groove",
            # The strokes are human; only the sound, where there is any, comes out of a module.
            is_synthetic=None if take.audio is None else True,
            audio_path=take.audio,
            sample_rate=None if info is None else info.sample_rate,
            channels=None if info is None else info.channels,
            mix_context=None if take.audio is None else "drums_only",
            tempo_bpm=stroke.tempo_bpm,
            meter=stroke.meter,
            bar_index=stroke.bar,
            beat_index=stroke.beat,
            device_vendor=DEVICE_VENDOR,
            device_model=DEVICE_MODEL,
            split=take.split,
            annotated_labels=ANNOTATED_LABELS,
            style=take.style,
            beat_type=take.beat_type,
        )
        events.append(event)
    return Converted(events=tuple(events), warnings=warnings)


def _hit(stroke: Stroke) -> Hit:
    pad = PADS.get(stroke.note) or Pad("aux_percussion", variant=f"midi_note_{stroke.note}")
    velocity = stroke.velocity / 127.0
    is_hihat = pad.label.startswith("hihat_")
    component = Component(
        label=pad.label,
        velocity=round(velocity, 4),
        dynamic_bucket=dynamic_bucket(velocity),
        openness_raw=stroke.pedal if is_hihat else None,
        strike_position=pad.position,
        choke=True if stroke.choked else None,
        instrument_variant=pad.variant,
    )
    techniques = [] if pad.technique is None else [pad.technique]
    if stroke.choked:
        techniques.append("cymbal_choke")
    return Hit(onset_s=stroke.onset_s, component=component, techniques=tuple(techniques))


def _fold_retriggers(strokes: Iterable[Stroke], warnings: Counter[str]) -> list[Stroke]:
    """Keep the louder of two notes that one pad sent within `RETRIGGER_S`."""
    kept: list[Stroke] = []
    last: dict[tuple[str, str | None], int] = {}
    for stroke in strokes:
        pad = PADS.get(stroke.note) or Pad(str(stroke.note))
        key = (pad.label, pad.variant)
        before = last.get(key)
        if before is not None and stroke.onset_s - kept[before].onset_s < RETRIGGER_S:
            warnings[_RETRIGGERS] += 1
            if stroke.velocity > kept[before].velocity:
                stroke.onset_s = kept[before].onset_s
                kept[before] = stroke
            continue
        last[key] = len(kept)
        kept.append(stroke)
    return kept


def _oddities(take: Take, performance: Performance) -> Counter[str]:
    late = sum(stroke.onset_s > take.duration_s + 0.001 for stroke in performance.strokes)
    counts = {
        _UNKNOWN_NOTE: sum(stroke.note not in PADS for stroke in performance.strokes),
        _OTHER_TEMPO: int(abs(performance.tempo_bpm - take.bpm) > 1.0),
        _OTHER_METER: int(performance.meter != take.meter),
        _PAST_END: late,
        _SILENT: int(not performance.strokes),
    }
    return Counter({why: count for why, count in counts.items() if count})


def _take(
    root: Path, path: Path, line: int, row: dict[str, str | None]
) -> tuple[Take | None, list[Problem]]:
    problems: list[Problem] = []

    def bad(field: str, why: str) -> None:
        problems.append(Problem(str(path), why, line, field, row[field]))

    if any(row.get(name) is None for name in _COLUMNS) or None in row:
        return None, [Problem(str(path), f"must have {len(_COLUMNS)} columns", line)]
    text = {name: str(row[name]).strip() for name in _COLUMNS}
    numbers = {}
    for name in ("bpm", "duration"):
        numbers[name] = _positive(text[name])
        if numbers[name] is None:
            bad(name, "must be a number > 0")
    for name in ("drummer", "session", "id", "midi_filename"):
        if not text[name]:
            bad(name, "must not be empty")
    meter = text["time_signature"].split("-")
    if len(meter) != 2 or not all(part.isdecimal() and int(part) > 0 for part in meter):
        bad("time_signature", "must look like 4-4")
    if text["split"] not in _SPLITS:
        bad("split", f"must be one of {', '.join(_SPLITS)}")
    if problems:
        return None, problems
    try:
        midi = resolve_inside(
            root, text["midi_filename"], source=path, line=line, field="midi_filename"
        )
        audio_name = text["audio_filename"]
        audio = (
            resolve_inside(root, audio_name, source=path, line=line, field="audio_filename")
            if audio_name
            else None
        )
    except InputError as error:
        return None, list(error.problems)
    if not midi.is_file():
        bad("midi_filename", "no such file")
        return None, problems
    has_audio = audio is not None and audio.is_file()
    take = Take(
        id=text["id"],
        drummer=text["drummer"],
        session=text["session"],
        style=text["style"],
        bpm=numbers["bpm"] or 0.0,
        beat_type=text["beat_type"],
        meter="/".join(meter),
        midi=midi,
        audio=audio_name if has_audio else None,
        audio_file=audio if has_audio else None,
        duration_s=numbers["duration"] or 0.0,
        split=_SPLITS[text["split"]],
    )
    return take, []


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
