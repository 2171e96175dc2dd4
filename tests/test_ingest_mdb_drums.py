"""MDB Drums: what a code means, which hits are one event, what the beats say, and the real set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from training.errors import InputError
from training.ingest import common, mdb_drums
from training.manifest import Component, Event, read_records, resolve_inside
from training.taxonomy import load_components


def hit(onset_s: float, label: str, variant: str | None = None) -> common.Hit:
    component = Component(label=label, instrument_variant=variant)
    return common.Hit(onset_s=onset_s, component=component)


def labels(groups: list[tuple[common.Hit, ...]]) -> list[list[str]]:
    return [[hit.component.label for hit in group] for group in groups]


def test_hits_within_the_limit_of_the_first_are_one_event() -> None:
    # 0.00 and 0.03 belong together; 0.04 is within 30 ms of 0.03 but not of the first.
    hits = [hit(0.04, "crash"), hit(0.0, "kick"), hit(0.03, "snare")]
    assert labels(common.group_hits(hits, merge_ms=30)) == [["kick", "snare"], ["crash"]]


def test_the_two_strokes_of_a_flam_stay_two_events() -> None:
    hits = [hit(0.0, "snare"), hit(0.01, "kick"), hit(0.02, "snare")]
    assert labels(common.group_hits(hits, merge_ms=30)) == [["snare", "kick"], ["snare"]]


def test_two_crashes_at_once_are_one_event() -> None:
    hits = [hit(0.0, "crash"), hit(0.0, "crash", "china")]
    assert labels(common.group_hits(hits, merge_ms=0)) == [["crash", "crash"]]


def test_no_hits_no_events() -> None:
    assert common.group_hits([], merge_ms=30) == []


@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["kick", "snare", "ride"]))),
    st.integers(0, 100),
)
def test_grouping_loses_nothing_and_keeps_its_limits(
    strokes: list[tuple[int, str]], merge_ms: int
) -> None:
    hits = [hit(ms / 1000, label) for ms, label in strokes]
    groups = common.group_hits(hits, merge_ms=merge_ms)
    assert Counter(h for group in groups for h in group) == Counter(hits)
    onsets = [group[0].onset_s for group in groups]
    assert onsets == sorted(onsets)
    for group in groups:
        assert group[-1].onset_s - group[0].onset_s <= merge_ms / 1000 + 1e-6
        assert len({h.instrument for h in group}) == len(group)


@pytest.mark.parametrize(
    ("velocity", "bucket"),
    [
        (0.0, "ghost"),
        (0.29, "ghost"),
        (0.3, "light"),
        (0.6, "medium"),
        (0.9, "accent"),
        (1, "accent"),
    ],
)
def test_dynamic_bucket(velocity: float, bucket: str) -> None:
    assert common.dynamic_bucket(velocity) == bucket


def test_all_21_subclasses_have_a_label_that_the_taxonomy_knows() -> None:
    assert len(mdb_drums.SUBCLASSES) == 21
    assert {entry.label for entry in mdb_drums.SUBCLASSES.values()} == load_components().known
    per_class = Counter(entry.parent for entry in mdb_drums.SUBCLASSES.values())
    assert per_class == {"KD": 1, "SD": 6, "HH": 3, "TT": 4, "CY": 5, "OT": 2}


def test_the_taxonomy_reads_the_codes_the_same_way() -> None:
    taxonomy = load_components()
    for code, entry in mdb_drums.SUBCLASSES.items():
        assert taxonomy.canonical(code) in {entry.label, None}


def write_track(root: Path, name: str, lines: str, classes: str, beats: str | None = None) -> None:
    texts = {"subclass": (lines, "_subclass.txt"), "class": (classes, "_class.txt")}
    if beats is not None:
        texts["beats"] = (beats, "_MIX.beats")
    for folder, (text, suffix) in texts.items():
        path = root / "annotations" / folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def only_track(root: Path, **choices: object) -> mdb_drums.Track:
    (track,) = mdb_drums.find_tracks(root, **choices)  # type: ignore[arg-type]
    return track


def test_one_track_by_hand(tmp_path: Path) -> None:
    lines = "0.10 KD\n0.11 SDG\n1.00 CHC\n1.50 TMB\n4.9 KD\n"
    write_track(tmp_path, "T", lines, "0.1 KD\n0.11 SD\n1.0 CY\n1.5 OT\n4.9 KD\n", "0.5 1\n1.5 2\n")
    converted = mdb_drums.convert(only_track(tmp_path), merge_ms=30)
    first, china, tambourine, late = converted.events
    assert first.components == (
        Component(label="kick"),
        Component(label="snare", dynamic_bucket="ghost"),
    )
    assert first.techniques == ("ghost_note",)
    assert (first.bar_index, first.beat_index) == (None, None), "before the first beat"
    assert china.components == (Component(label="crash", instrument_variant="china"),)
    assert (china.bar_index, china.beat_index, china.tempo_bpm) == (0, 0.5, 60.0)
    assert tambourine.components[0].instrument_variant == "tambourine"
    assert (tambourine.bar_index, tambourine.beat_index) == (0, 1.0)
    assert late.bar_index is None, "long after the last beat"
    assert first.audio_path is None
    assert first.split is None
    assert {event.session_id for event in converted.events} == {"T"}
    assert len({event.sample_id for event in converted.events}) == 4
    assert sum(converted.warnings.values()) == 4


def test_bars_are_counted_from_the_first_annotated_beat(tmp_path: Path) -> None:
    path = tmp_path / "x.beats"
    path.write_text("0.0 : 3\n0.5 : 1\n1.0 : 2\n1.5 : 3\n2.0 : 1\n2.5 : 2\n3.0 : 3\n3.5 : 1\n")
    beats = mdb_drums.read_beats(path)
    assert beats.bars == (0, 1, 1, 1, 2, 2, 2, 3)
    assert beats.per_bar == 3
    assert beats.place(0.75) == (1, 0.5)
    assert beats.place(3.99) == (3, 0.98)
    assert beats.place(4.0) is None


def test_audio_auto_falls_back_to_the_full_mix(tmp_path: Path) -> None:
    write_track(tmp_path, "T", "0.1 KD\n", "0.1 KD\n")
    full = tmp_path / "audio" / "full_mix" / "T_MIX.wav"
    full.parent.mkdir(parents=True)
    full.write_bytes(b"x")
    assert only_track(tmp_path, audio="auto").mix == "full_mix"
    assert only_track(tmp_path, audio="drum_only").audio is None
    drums = tmp_path / "audio" / "drum_only" / "T_Drum.wav"
    drums.parent.mkdir(parents=True)
    drums.write_bytes(b"x")
    assert only_track(tmp_path, audio="auto").mix == "drums_only"


def test_splits_are_named_by_track(tmp_path: Path) -> None:
    for name in "ABC":
        write_track(tmp_path, name, "0.1 KD\n", "0.1 KD\n")
    tracks = mdb_drums.find_tracks(tmp_path, test_tracks=["B"], val_tracks=["C"])
    assert [track.split for track in tracks] == ["train", "test", "val"]
    with pytest.raises(InputError, match="named for both"):
        mdb_drums.find_tracks(tmp_path, test_tracks=["B"], val_tracks=["B"])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("0.1 KD\n0.5 HH\n", r"T_class.txt:2: onset: HH has 0 onsets by subclass and 1 by class"),
        ("0.5 SD\n", r"T_subclass.txt:1: onset: KD has 1 onsets by subclass and 0 by class"),
        ("0.2 KD\n", r"T_class.txt:1: onset: KD disagrees with T_subclass.txt:1 \(0.1 s\)"),
        ("0.100004 KD\n", None),
    ],
)
def test_the_class_file_is_a_check(tmp_path: Path, classes: str, message: str | None) -> None:
    write_track(tmp_path, "T", "0.1 KD\n", classes)
    if message is None:
        assert len(mdb_drums.convert(only_track(tmp_path), merge_ms=30).events) == 1
    else:
        with pytest.raises(InputError, match=message):
            mdb_drums.convert(only_track(tmp_path), merge_ms=30)


def test_problems_of_all_tracks_are_named_together(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    for name in ("A", "B"):
        write_track(tmp_path, name, "0.1 KD\nx KD\n", "0.1 KD\n")
    output = tmp_path / "events.jsonl"
    output.write_text("old\n")
    result = drumgate("ingest-mdb-drums", tmp_path, "--output", output)
    assert result.exit_code == 2
    assert "A_subclass.txt:2" in result.stderr
    assert "B_subclass.txt:2" in result.stderr
    assert output.read_text() == "old\n", "a failed run leaves the old file alone"


def test_the_real_dataset(
    shared_data: Path, tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    root = shared_data / "mdb_drums"
    output = tmp_path / "events.jsonl"
    result = drumgate(
        "ingest-mdb-drums", root, "--output", output, "--test-tracks", "MusicDelta_Rock"
    )
    assert result.exit_code == 0, result.stderr
    assert "5 tracks without audio: MusicDelta_BebopJazz" in result.stderr
    events = read_records(output, Event).rows
    assert (len(events), len({event.sample_id for event in events})) == (3087, 3087)
    # Nothing is lost: the annotation files hold 3,856 onsets, read here by a second, dumber road.
    files = (root / "annotations" / "subclass").glob("*.txt")
    codes = Counter(line.split()[1] for file in files for line in file.read_text().splitlines())
    expected: Counter[str] = Counter()
    for code, count in codes.items():
        expected[mdb_drums.SUBCLASSES[code].label] += count
    assert Counter(c.label for event in events for c in event.components) == expected
    techniques = Counter(name for event in events for name in event.techniques)
    assert techniques["ghost_note"] == codes["SDG"]
    with_audio = [event for event in events if event.audio_path]
    assert len({event.session_id for event in with_audio}) == 7
    for path in {event.audio_path for event in with_audio}:
        assert resolve_inside(root, str(path), source=output).is_file()
    assert {(event.sample_rate, event.channels) for event in with_audio} == {(44100, 1)}
    assert {e.session_id for e in events if e.split == "test"} == {"MusicDelta_Rock"}
    # Drummers land near beats: most kicks lie within a tenth of a beat of an eighth note.
    kicks = [e.beat_index for e in events if "kick" in e.labels and e.beat_index is not None]
    near = sum(abs(beat * 2 - round(beat * 2)) < 0.2 for beat in kicks) / len(kicks)
    assert near > 0.8
    assert json.loads(output.read_text().splitlines()[0])["meter"] == "4/4"
