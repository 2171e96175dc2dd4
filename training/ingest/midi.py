"""Reading a MIDI file of a drum performance into strokes with their times in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import DrumgateError, InputError

__all__ = ["Performance", "Stroke", "read_performance"]

HIHAT_PEDAL_CONTROL = 4
# A pad that is grabbed sends polyphonic aftertouch: 127 on the grab, 0 on release.
_GRABBED = 64
_GRAB_WINDOW_S = 2.0


@dataclass(slots=True)
class Stroke:
    """One note-on.

    `pedal` is the value of CC4 in force at the note, None where none has been sent yet. `bar` and
    `beat` count from 0; a beat is the note value that the meter names below the line. `choked` is
    true when the pad was grabbed within two seconds after the stroke.
    """

    onset_s: float
    note: int
    velocity: int
    pedal: int | None
    tempo_bpm: float
    meter: str
    bar: int
    beat: float
    choked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """The strokes of one MIDI file in order of time, with the tempo and meter at its start."""

    strokes: tuple[Stroke, ...]
    tempo_bpm: float
    meter: str


class _Clock:
    """Musical time: turns ticks into seconds, bars and beats while tempo and meter change."""

    def __init__(self, ticks_per_beat: int) -> None:
        self.ticks_per_quarter = ticks_per_beat
        self.tick = 0
        self.seconds = 0.0
        self.us_per_quarter = 500_000  # 120 bpm and 4/4 are what the format says before any event
        self.numerator, self.denominator = 4, 4
        self.bars_before = 0
        self.meter_start = 0

    @property
    def ticks_per_beat(self) -> float:
        return self.ticks_per_quarter * 4 / self.denominator

    @property
    def tempo_bpm(self) -> float:
        return round(60e6 / self.us_per_quarter, 2)

    @property
    def meter(self) -> str:
        return f"{self.numerator}/{self.denominator}"

    def advance(self, ticks: int) -> None:
        self.tick += ticks
        self.seconds += ticks * self.us_per_quarter / (1e6 * self.ticks_per_quarter)

    def change_meter(self, numerator: int, denominator: int) -> None:
        bar, beat = self.place()
        self.bars_before = bar + (beat > 0)
        self.meter_start = self.tick
        self.numerator, self.denominator = numerator, denominator

    def place(self) -> tuple[int, float]:
        beats = (self.tick - self.meter_start) / self.ticks_per_beat
        bars, beat = divmod(beats, self.numerator)
        return self.bars_before + int(bars), round(beat, 4)


def read_performance(path: Path) -> Performance:
    """Read the strokes of a MIDI file; a note-on of velocity 0 is a note-off and no stroke.

    Raises:
        InputError: the file is missing, empty, or not a MIDI file that can be followed.
        DrumgateError: the `mido` package is not installed.
    """
    messages, ticks_per_beat = _messages(path)
    clock = _Clock(ticks_per_beat)
    strokes: list[Stroke] = []
    last_on: dict[int, Stroke] = {}
    first_tempo: float | None = None
    first_meter: str | None = None
    pedal: int | None = None
    for message in messages:
        clock.advance(message.time)
        match message.type:
            case "note_on" if message.velocity > 0:
                bar, beat = clock.place()
                stroke = Stroke(
                    clock.seconds,
                    message.note,
                    message.velocity,
                    pedal,
                    clock.tempo_bpm,
                    clock.meter,
                    bar,
                    beat,
                )
                strokes.append(stroke)
                last_on[message.note] = stroke
            case "control_change" if message.control == HIHAT_PEDAL_CONTROL:
                pedal = message.value
            case "polytouch" if message.value >= _GRABBED:
                struck = last_on.get(message.note)
                if struck is not None and clock.seconds - struck.onset_s <= _GRAB_WINDOW_S:
                    struck.choked = True
            case "set_tempo":
                if message.tempo <= 0:
                    raise InputError.at(path, "sets a tempo of no length", field="set_tempo")
                clock.us_per_quarter = message.tempo
                first_tempo = first_tempo or clock.tempo_bpm
            case "time_signature":
                if message.numerator < 1:
                    raise InputError.at(path, "has a bar of no beats", field="time_signature")
                clock.change_meter(message.numerator, message.denominator)
                first_meter = first_meter or clock.meter
    return Performance(
        strokes=tuple(strokes),
        tempo_bpm=first_tempo or clock.tempo_bpm,
        meter=first_meter or clock.meter,
    )


def _messages(path: Path) -> tuple[list[Any], int]:
    try:
        import mido
        from mido.midifiles.meta import KeySignatureError
    except ImportError:
        raise DrumgateError(
            'reading MIDI needs the mido package: pip install "drumgate[midi]"'
        ) from None
    if not path.exists():
        raise InputError.at(path, "no such file")
    if not path.is_file():
        raise InputError.at(path, "is a folder, not a file")
    if path.stat().st_size == 0:
        raise InputError.at(path, "is empty")
    try:
        file = mido.MidiFile(path)
    except (OSError, EOFError, ValueError, IndexError, KeyError, KeySignatureError) as error:
        raise InputError.at(path, f"is not a readable MIDI file ({error or 'cut short'})") from None
    if file.type == 2:
        raise InputError.at(path, "is MIDI of type 2 (independent patterns), which has no one time")
    if file.ticks_per_beat <= 0:
        raise InputError.at(path, "counts in SMPTE frames; beats are needed")
    tracks = file.tracks
    return (list(tracks[0]) if len(tracks) == 1 else list(mido.merge_tracks(tracks))), int(
        file.ticks_per_beat
    )
