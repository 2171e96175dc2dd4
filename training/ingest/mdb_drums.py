"""The MDB Drums layout: class and subclass annotations, beats, and three kinds of audio.

An annotation line is ``<seconds> <code>``. The subclass files say everything; the class files say
the same onsets in six groups and serve as a check. See Southall et al., "MDB Drums: an annotated
subset of MedleyDB for automatic drum transcription", ISMIR 2017 late breaking.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal

from training.errors import InputError, Problem
from training.ingest.common import Converted, Hit, group_hits, joined_techniques
from training.manifest import Component, Event

__all__ = ["ANNOTATED_LABELS", "SUBCLASSES", "AudioChoice", "Track", "convert", "find_tracks"]

AudioChoice = Literal["drum_only", "full_mix", "auto"]
_WITHOUT_AUDIO = "events whose track has no audio at this root: they carry no audio_path"
_WITHOUT_BEATS = "tracks without beats: their events carry no tempo, meter, bar or beat"


@dataclass(frozen=True, slots=True)
class Subclass:
    """What one of the 21 codes means: its class, our label and variant, and how it is played."""

    parent: str
    label: str
    variant: str | None = None
    technique: str | None = None


SUBCLASSES: dict[str, Subclass] = {
    "KD": Subclass("KD", "kick"),
    "SD": Subclass("SD", "snare"),
    "SDB": Subclass("SD", "snare", technique="brush"),
    "SDD": Subclass("SD", "snare", technique="drag"),
    "SDF": Subclass("SD", "snare", technique="flam"),
    "SDG": Subclass("SD", "snare", technique="ghost_note"),
    "SDNS": Subclass("SD", "snare", technique="snares_off"),
    "CHH": Subclass("HH", "hihat_closed"),
    "OHH": Subclass("HH", "hihat_open"),
    "PHH": Subclass("HH", "hihat_pedal"),
    "HIT": Subclass("TT", "tom_high", "high_tom"),
    "MHT": Subclass("TT", "tom_mid", "high_mid_tom"),
    "HFT": Subclass("TT", "tom_low", "high_floor_tom"),
    "LFT": Subclass("TT", "tom_low", "low_floor_tom"),
    "RDC": Subclass("CY", "ride"),
    "RDB": Subclass("CY", "ride_bell"),
    "CRC": Subclass("CY", "crash"),
    "CHC": Subclass("CY", "crash", "china"),
    "SPC": Subclass("CY", "crash", "splash"),
    "SST": Subclass("OT", "side_stick", technique="cross_stick"),
    "TMB": Subclass("OT", "aux_percussion", "tambourine"),
}
CLASSES = frozenset(entry.parent for entry in SUBCLASSES.values())
ANNOTATED_LABELS = tuple(dict.fromkeys(entry.label for entry in SUBCLASSES.values()))
_AUDIO_SUFFIX = {"drum_only": "_Drum.wav", "full_mix": "_MIX.wav"}
_MIX_CONTEXT = {"drum_only": "drums_only", "full_mix": "full_mix"}
# Both files come from the same annotation; they differ in how many decimals they print.
_SAME_ONSET_S = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """Where the files of one track are; `audio` and `beats` are None where there are none."""

    name: str
    root: Path
    subclass_path: Path
    class_path: Path
    beats: Path | None
    audio: Path | None
    mix: str | None
    split: str | None


@dataclass(frozen=True, slots=True)
class _Mark:
    onset_s: float
    code: str
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Beats:
    """The beats of a track: `times` in seconds, `numbers` in the bar from 1, `bars` from 0.

    `interval_s` is the median time between beats, `per_bar` the commonest length of a whole bar.
    """

    times: tuple[float, ...]
    numbers: tuple[int, ...]
    bars: tuple[int, ...]
    interval_s: float
    per_bar: int

    def place(self, onset_s: float) -> tuple[int, float] | None:
        """Return (bar, beats since the bar began) of an onset, both from 0.

        Between two beats the place is interpolated; it is carried on for one beat after the last
        one, and None outside of that.
        """
        if onset_s < self.times[0] or onset_s >= self.times[-1] + self.interval_s:
            return None
        index = bisect_right(self.times, onset_s) - 1
        last = index + 1 == len(self.times)
        length = self.interval_s if last else self.times[index + 1] - self.times[index]
        beat = self.numbers[index] - 1 + (onset_s - self.times[index]) / length
        return self.bars[index], round(beat, 4)


def find_tracks(
    root: Path,
    *,
    audio: AudioChoice = "drum_only",
    test_tracks: Iterable[str] = (),
    val_tracks: Iterable[str] = (),
) -> list[Track]:
    """Find the tracks below `root`, in order of name.

    With `test_tracks` or `val_tracks` every track gets a split (`test`, `val`, otherwise `train`).
    `audio="auto"` takes the drum-only recording and, where it is missing, the full mix.

    Raises:
        InputError: `root` has no subclass annotations, or a named track is not there.
    """
    folder = root / "annotations" / "subclass"
    paths = sorted(folder.glob("*_subclass.txt"))
    if not paths:
        raise InputError.at(folder, "holds no *_subclass.txt: is this the root of MDB Drums?")
    names = [path.name.removesuffix("_subclass.txt") for path in paths]
    splits = dict.fromkeys(val_tracks, "val")
    wanted = list(test_tracks)
    if both := sorted(splits.keys() & set(wanted)):
        raise InputError.at(both[0], "is named for both test and validation")
    splits |= dict.fromkeys(wanted, "test")
    if unknown := sorted(splits.keys() - set(names)):
        have = ", ".join(names)
        raise InputError(Problem(name, f"no such track; there are {have}") for name in unknown)
    tracks = []
    for name, path in zip(names, paths, strict=True):
        beats = root / "annotations" / "beats" / f"{name}_MIX.beats"
        sound, mix = _find_audio(root, name, audio)
        track = Track(
            name=name,
            root=root,
            subclass_path=path,
            class_path=root / "annotations" / "class" / f"{name}_class.txt",
            beats=beats if beats.exists() else None,
            audio=sound,
            mix=mix,
            split=splits.get(name, "train") if splits else None,
        )
        tracks.append(track)
    return tracks


def convert(track: Track, *, merge_ms: float) -> Converted:
    """Turn the annotations of one track into events.

    Raises:
        InputError: an annotation line is malformed, the two annotations disagree, the beats make no
            sense, or the audio cannot be read; every problem of the track is named.
    """
    marks, problems = _read_marks(track.subclass_path, frozenset(SUBCLASSES))
    groups, more = _read_marks(track.class_path, CLASSES)
    problems += more
    if not problems:
        problems += _compare(track, marks, groups)
    beats = None
    if track.beats is not None:
        try:
            beats = read_beats(track.beats)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return _events(track, [_hit(mark) for mark in marks], beats, merge_ms)


def read_beats(path: Path) -> Beats:
    """Read a beats file: lines of seconds and the beat's number in the bar, a colon between or not.

    Raises:
        InputError: a line is malformed, time stands still, or there are fewer than two beats.
    """
    times: list[float] = []
    numbers: list[int] = []
    problems = []
    for line, text in _numbered(path):
        fields = text.replace(":", " ").split()
        time = _seconds(fields[0]) if len(fields) == 2 else None
        if time is None or not fields[1].isdecimal() or int(fields[1]) < 1:
            why = "must be seconds and a beat number"
            problems.append(Problem(str(path), why, line, None, text))
        elif times and time <= times[-1]:
            why = f"must come after {times[-1]} s"
            problems.append(Problem(str(path), why, line, "beat", time))
        else:
            times.append(time)
            numbers.append(int(fields[1]))
    if not problems and len(times) < 2:
        problems.append(Problem(str(path), "holds fewer than two beats"))
    if problems:
        raise InputError(problems)
    bars = [0]
    for before, after in pairwise(numbers):
        bars.append(bars[-1] + (after <= before))
    lengths = Counter(before for before, after in pairwise(numbers) if after <= before)
    return Beats(
        times=tuple(times),
        numbers=tuple(numbers),
        bars=tuple(bars),
        interval_s=median(after - before for before, after in pairwise(times)),
        per_bar=lengths.most_common(1)[0][0] if lengths else max(numbers),
    )


def _events(track: Track, hits: list[Hit], beats: Beats | None, merge_ms: float) -> Converted:
    from training.audio.reading import audio_info

    info = None if track.audio is None else audio_info(track.audio)
    audio_path = None if track.audio is None else track.audio.relative_to(track.root).as_posix()
    warnings: Counter[str] = Counter()
    events = []
    for number, group in enumerate(group_hits(hits, merge_ms=merge_ms)):
        onset_s = group[0].onset_s
        place = None if beats is None else beats.place(onset_s)
        event = Event(
            sample_id=f"mdb_drums:{track.name}:{number:05d}",
            session_id=track.name,
            track_id=track.name,
            onset_time=onset_s,
            components=tuple(hit.component for hit in group),
            techniques=joined_techniques(group),
            source_set="mdb_drums",
            is_synthetic=False,
            audio_path=audio_path,
            sample_rate=None if info is None else info.sample_rate,
            channels=None if info is None else info.channels,
            mix_context=track.mix,
            tempo_bpm=None if beats is None else round(60.0 / beats.interval_s, 2),
            meter=None if beats is None else f"{beats.per_bar}/4",
            bar_index=None if place is None else place[0],
            beat_index=None if place is None else place[1],
            split=track.split,
            annotated_labels=ANNOTATED_LABELS,
        )
        events.append(event)
    if track.audio is None:
        warnings[_WITHOUT_AUDIO] += len(events)
    if beats is None:
        warnings[_WITHOUT_BEATS] += 1
    return Converted(events=tuple(events), warnings=warnings)


def _hit(mark: _Mark) -> Hit:
    entry = SUBCLASSES[mark.code]
    component = Component(
        label=entry.label,
        instrument_variant=entry.variant,
        # The annotators give no loudness, but a ghost note is a soft stroke by definition.
        dynamic_bucket="ghost" if entry.technique == "ghost_note" else None,
    )
    techniques = () if entry.technique is None else (entry.technique,)
    return Hit(onset_s=mark.onset_s, component=component, techniques=techniques)


def _find_audio(root: Path, name: str, choice: AudioChoice) -> tuple[Path | None, str | None]:
    for mix in ("drum_only", "full_mix") if choice == "auto" else (choice,):
        path = root / "audio" / mix / f"{name}{_AUDIO_SUFFIX[mix]}"
        if path.exists():
            return path, _MIX_CONTEXT[mix]
    return None, None


def _read_marks(path: Path, codes: frozenset[str]) -> tuple[list[_Mark], list[Problem]]:
    marks: list[_Mark] = []
    problems: list[Problem] = []
    try:
        lines = _numbered(path)
    except InputError as error:
        return [], list(error.problems)
    for line, text in lines:
        fields = text.split()
        if len(fields) != 2:
            problems.append(Problem(str(path), "must be seconds and a code", line, None, text))
            continue
        onset_s = _seconds(fields[0])
        if onset_s is None:
            why = "must be a finite number of seconds >= 0"
            problems.append(Problem(str(path), why, line, "onset", fields[0]))
        elif fields[1] not in codes:
            why = f"must be one of {', '.join(sorted(codes))}"
            problems.append(Problem(str(path), why, line, "code", fields[1]))
        else:
            marks.append(_Mark(onset_s, fields[1], line))
    if not marks and not problems:
        problems.append(Problem(str(path), "holds no onset"))
    return marks, problems


def _compare(track: Track, marks: list[_Mark], groups: list[_Mark]) -> list[Problem]:
    """Check that the class file says the same onsets as the subclass file, class by class."""
    fine: dict[str, list[_Mark]] = defaultdict(list)
    coarse: dict[str, list[_Mark]] = defaultdict(list)
    for mark in marks:
        fine[SUBCLASSES[mark.code].parent].append(mark)
    for mark in groups:
        coarse[mark.code].append(mark)
    problems = []
    for name in sorted(fine.keys() | coarse.keys()):
        ours = sorted(fine[name], key=lambda mark: mark.onset_s)
        theirs = sorted(coarse[name], key=lambda mark: mark.onset_s)
        # The first pair that differs tells where the two files part; the rest would only repeat it.
        for left, right in zip(ours, theirs, strict=False):
            if abs(left.onset_s - right.onset_s) > _SAME_ONSET_S:
                place = f"{track.subclass_path.name}:{left.line}"
                why = f"{name} disagrees with {place} ({left.onset_s} s)"
                problem = Problem(str(track.class_path), why, right.line, "onset", right.onset_s)
                problems.append(problem)
                break
        else:
            if len(ours) != len(theirs):
                file, extra = (
                    (track.subclass_path, ours[len(theirs)])
                    if len(ours) > len(theirs)
                    else (track.class_path, theirs[len(ours)])
                )
                why = f"{name} has {len(ours)} onsets by subclass and {len(theirs)} by class"
                problems.append(Problem(str(file), why, extra.line, "onset", extra.onset_s))
    return problems


def _numbered(path: Path) -> list[tuple[int, str]]:
    """Return (line number, text) of the lines of a small text file that are not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError.at(path, "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.at(path, f"cannot be read as text: {error}") from None
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0.0 else None
