"""The Groove MIDI Dataset: notes, pedal, velocity, musical time, and the real set."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from click.testing import Result

from training.errors import InputError
from training.ingest import groove
from training.ingest.midi import read_performance
from training.manifest import Event, read_records
from training.taxonomy import load_components

HEADER = (
    "drummer,session,id,style,bpm,beat_type,time_signature,"
    "midi_filename,audio_filename,duration,split\n"
)
ROW = "d1,d1/s1,d1/s1/1,rock,120,beat,4-4,1.mid,1.wav,60,validation\n"


def note(key: int, velocity: int) -> mido.Message:
    return mido.Message("note_on", note=key, velocity=velocity)


def pedal(value: int) -> mido.Message:
    return mido.Message("control_change", control=4, value=value)


def tempo(bpm: float) -> mido.MetaMessage:
    return mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm))


def meter(numerator: int, denominator: int) -> mido.MetaMessage:
    return mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)


def write_midi(path: Path, messages: Iterable[tuple[int, mido.Message]], ticks: int = 480) -> Path:
    """Write (tick, message) pairs, in order of tick, as a MIDI file."""
    file = mido.MidiFile(type=0, ticks_per_beat=ticks)
    track = mido.MidiTrack()
    file.tracks.append(track)
    now = 0
    for tick, message in messages:
        track.append(message.copy(time=tick - now))
        now = tick
    file.save(path)
    return path


def convert(tmp_path: Path, messages: Iterable[tuple[int, mido.Message]]) -> groove.Converted:
    write_midi(tmp_path / "1.mid", messages)
    (tmp_path / "info.csv").write_text(HEADER + ROW)
    (take,) = groove.find_takes(tmp_path)
    return groove.convert(take, merge_ms=30)


def test_one_take_by_hand(tmp_path: Path) -> None:
    converted = convert(
        tmp_path,
        [
            (0, tempo(120)),
            (0, meter(4, 4)),
            (0, note(42, 64)),
            (0, pedal(90)),
            (240, note(26, 127)),
            (250, note(36, 100)),
            (480, note(40, 20)),
            (500, note(40, 0)),
            (1920, note(37, 60)),
        ],
    )
    closed, both, rim, stick = converted.events
    (component,) = closed.components
    assert component.label == "hihat_closed"
    assert component.velocity == pytest.approx(64 / 127, abs=1e-4)
    assert component.dynamic_bucket == "light"
    assert component.openness_raw is None, "the pedal had not spoken yet"
    # A tick is 1/960 s at 120 bpm: the kick comes 10.4 ms after the hi-hat and joins it.
    assert both.onset_time == 0.25
    assert both.labels == ("hihat_open", "kick")
    assert [c.openness_raw for c in both.components] == [90, None]
    assert [c.strike_position for c in both.components] == ["edge", None]
    assert (rim.labels, rim.techniques) == (("snare",), ("rimshot",))
    assert (stick.labels, stick.techniques) == (("side_stick",), ("cross_stick",))
    assert (both.bar_index, both.beat_index) == (0, 0.5)
    assert (stick.bar_index, stick.beat_index) == (1, 0.0)
    assert (stick.tempo_bpm, stick.meter) == (120.0, "4/4")
    assert (stick.drummer_id, stick.session_id, stick.track_id) == ("d1", "d1/s1", "d1/s1/1")
    assert (stick.split, stick.style, stick.beat_type) == ("val", "rock", "beat")
    assert (stick.device_vendor, stick.device_model) == ("Roland", "TD-11")
    assert (stick.audio_path, stick.is_synthetic) == (None, None)
    assert not converted.warnings


def test_tempo_and_meter_may_change(tmp_path: Path) -> None:
    path = write_midi(
        tmp_path / "x.mid",
        [
            (0, tempo(120)),
            (0, meter(3, 4)),
            (1440, note(36, 90)),  # three quarters at 120: 1.5 s, bar 1
            (2880, tempo(60)),
            (2880, meter(6, 8)),  # from bar 2 on, at 3 s
            (3120, note(38, 90)),  # an eighth later, half a second at 60
            (4320, note(38, 90)),  # six eighths after the change
        ],
    )
    strokes = read_performance(path).strokes
    assert [stroke.onset_s for stroke in strokes] == pytest.approx([1.5, 3.5, 6.0])
    assert [(stroke.bar, stroke.beat) for stroke in strokes] == [(1, 0), (2, 1), (3, 0)]
    assert [stroke.meter for stroke in strokes] == ["3/4", "6/8", "6/8"]
    assert [stroke.tempo_bpm for stroke in strokes] == [120, 60, 60]


def test_seconds_agree_with_mido_playback(tmp_path: Path) -> None:
    messages = [(0, tempo(97)), (100, note(36, 9)), (333, tempo(141)), (777, note(38, 9))]
    path = write_midi(tmp_path / "x.mid", messages, ticks=96)
    now, expected = 0.0, []
    for message in mido.MidiFile(path):
        now += message.time
        if message.type == "note_on":
            expected.append(now)
    assert [s.onset_s for s in read_performance(path).strokes] == pytest.approx(expected)


def test_an_unknown_note_is_kept_and_counted(tmp_path: Path) -> None:
    converted = convert(tmp_path, [(0, note(99, 50))])
    (component,) = converted.events[0].components
    assert (component.label, component.instrument_variant) == ("aux_percussion", "midi_note_99")
    assert list(converted.warnings.values()) == [1]


def test_a_pad_heard_twice_is_one_stroke_but_a_flam_is_two(tmp_path: Path) -> None:
    # 4 ticks are 4.2 ms: the module's double; 20 ticks are 20.8 ms: a flam.
    messages = [(0, note(38, 40)), (4, note(38, 90)), (480, note(38, 40)), (500, note(38, 90))]
    converted = convert(tmp_path, messages)
    velocities = [event.components[0].velocity for event in converted.events]
    assert velocities == pytest.approx([90 / 127, 40 / 127, 90 / 127], abs=1e-4)
    assert converted.events[0].onset_time == 0.0
    assert list(converted.warnings.values()) == [1]


def test_a_grabbed_cymbal_is_choked(tmp_path: Path) -> None:
    grab = mido.Message("polytouch", note=49, value=127)
    messages = [(0, note(49, 100)), (0, note(57, 100)), (480, grab), (9600, grab)]
    (event,) = convert(tmp_path, messages).events
    assert [component.choke for component in event.components] == [True, None]
    assert event.techniques == ("cymbal_choke",)


def test_two_crashes_at_once_stay_two_components(tmp_path: Path) -> None:
    (event,) = convert(tmp_path, [(0, note(49, 100)), (0, note(57, 100))]).events
    assert [c.instrument_variant for c in event.components] == ["crash_1", "crash_2"]


def test_audio_beside_the_midi_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "1.wav", np.zeros(800), 8000)
    (event,) = convert(tmp_path, [(0, note(36, 100))]).events
    assert (event.audio_path, event.sample_rate, event.channels) == ("1.wav", 8000, 1)
    assert event.is_synthetic is True


def test_disagreement_with_the_table_is_counted(tmp_path: Path) -> None:
    messages = [(0, tempo(90)), (0, meter(3, 4)), (480 * 120, note(36, 1))]
    warnings = convert(tmp_path, messages).warnings
    assert len(warnings) == 3
    assert any("tempo" in name for name in warnings)
    assert any("meter" in name for name in warnings)
    assert any("later than the duration" in name for name in warnings)


def test_a_take_twice_is_refused(tmp_path: Path) -> None:
    write_midi(tmp_path / "1.mid", [(0, note(36, 1))])
    (tmp_path / "info.csv").write_text(HEADER + ROW + ROW)
    with pytest.raises(InputError, match=r"info.csv:3: id: stands already in line 2"):
        groove.find_takes(tmp_path)


def test_every_pad_has_a_target_label() -> None:
    assert {pad.label for pad in groove.PADS.values()} == set(load_components().targets)
    assert len(groove.PADS) == 22


def test_messages_of_the_damaged_kind_are_input_errors(tmp_path: Path) -> None:
    good = write_midi(tmp_path / "x.mid", [(0, tempo(120)), (5, note(36, 1)), (9, note(38, 1))])
    whole = good.read_bytes()
    broken = tmp_path / "broken.mid"
    rng = np.random.default_rng(0)
    said = []
    for _ in range(300):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        broken.write_bytes(data)
        try:
            read_performance(broken)
        except InputError as error:
            said.append(str(error))
    assert said
    assert all(message.startswith(str(broken)) for message in said)


@pytest.mark.slow
def test_the_real_dataset(
    shared_data: Path, tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    root = shared_data / "groove"
    output = tmp_path / "events.jsonl"
    result = drumgate("ingest-groove", root, "--output", output)
    assert result.exit_code == 0, result.stderr
    assert "1,150 of 1,150 takes have no audio" in result.stderr
    assert "17 of 25 sessions lie in more than one official split" in result.stderr
    events = read_records(output, Event).rows
    assert len(events) == 312_080
    with (root / "info.csv").open() as file:
        rows = list(csv.DictReader(file))
    takes = Counter(event.track_id for event in events)
    assert set(takes) == {row["id"] for row in rows}
    # 446,312 notes, less the 198 that a pad sent twice.
    assert sum(len(event.components) for event in events) == 446_114
    raws = [c for e in events for c in e.components if c.openness_raw is not None]
    closed = np.median([c.openness_raw for c in raws if c.label == "hihat_closed"])
    opened = np.median([c.openness_raw for c in raws if c.label == "hihat_open"])
    assert closed == 90, "a pressed pedal sends a high CC4"
    assert opened < 60
