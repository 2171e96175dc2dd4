"""Rendering performances: what the manifest says is what was played, and what is heard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonl import write

from training.audio.synth import make_kits, rendering
from training.audio.synth.desk import (
    EQ_HZ,
    Desk,
    compress,
    draw_desk,
    equalise,
    faders_db,
    mix,
)
from training.audio.synth.kits import RANGES
from training.audio.synth.patterns import HAT_OPEN_AT
from training.audio.synth.played import (
    VOICES,
    Piece,
    PlayedEvent,
    Reading,
    draw_reading,
    notes_of,
    read_stretches,
    survey,
)
from training.audio.synth.rendering import (
    LEAD_S,
    TAIL_S,
    RenderPlan,
    plan_renderings,
    render_performances,
)
from training.audio.synth.room import MICS
from training.errors import InputError
from training.manifest import Event, read_records
from training.taxonomy import load_components

RATE = 16_000
Row = dict[str, Any]


def row(onset_s: float, *labels: str, take: str = "t1", drummer: str = "d1", **more: Any) -> Row:
    """One event of a manifest without audio."""
    return {
        "sample_id": f"{drummer}:{take}:{onset_s}:{'+'.join(labels)}",
        "session_id": f"{drummer}/s",
        "track_id": take,
        "drummer_id": drummer,
        "source_set": "groove",
        "onset_time": onset_s,
        "components": [{"label": label, "velocity": 0.8} for label in labels],
        "split": "train",
    } | more


def apart(take: str, drummer: str = "d1", **more: Any) -> list[Row]:
    """Every voice once, far enough apart to be heard alone, at times of no grid."""
    return [
        row(1.0 + 0.731 * index, label, take=take, drummer=drummer, **more)
        for index, label in enumerate(sorted(VOICES))
    ]


PLAN = RenderPlan(kits=4, sample_rate=RATE, seed=5)
TAKES = [
    *apart("t1"),
    *apart("t2", "d2"),
    row(0.20, "kick", "hihat_closed", take="t3", drummer="d2"),
    row(0.2120, "crash", take="t3", drummer="d2"),
    row(0.26, "snare", take="t3", drummer="d2", techniques=["rimshot"]),
]


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("played") / "events.jsonl", TAKES)


@pytest.fixture(scope="module")
def made(manifest: Path) -> Path:
    target = manifest.parent / "rendered"
    render_performances(manifest, target, PLAN)
    return target


@pytest.fixture(scope="module")
def events(made: Path) -> list[Event]:
    return read_records(made / "annotations" / "events.jsonl", Event).rows


def test_the_voices_are_the_classes() -> None:
    assert set(load_components().targets) == VOICES


def test_bytes_depend_on_manifest_and_plan_alone(
    manifest: Path, made: Path, tmp_path: Path
) -> None:
    render_performances(manifest, tmp_path / "again", PLAN, jobs=3)
    assert digest(tmp_path / "again") == digest(made)


def test_the_manifest_says_what_was_played(made: Path, events: list[Event]) -> None:
    assert len({event.sample_id for event in events}) == len(events)
    by_take = {take: [e for e in events if e.track_id == take] for take in ("t1", "t2", "t3")}
    for take in ("t1", "t2"):
        rows = by_take[take]
        assert [event.labels for event in rows] == [(label,) for label in sorted(VOICES)]
        # The times are those of the source, moved by one shift, and late by the way to the mics.
        late = [event.onset_time - (0.731 * index + LEAD_S) for index, event in enumerate(rows)]
        assert all(0.0 < each < 0.008 for each in late)
        assert all(event.components[0].velocity == 0.8 for event in rows)
    # Within 30 ms: one event of three instruments. The snare comes too late for that.
    assert sorted(by_take["t3"][0].labels) == ["crash", "hihat_closed", "kick"]
    assert by_take["t3"][1].labels == ("snare",)
    assert by_take["t3"][1].techniques == ("rimshot",)
    for event in events:
        assert event.is_synthetic is True
        assert event.source_set == "groove_rendered"
        assert event.split == "train"
        assert event.session_id == f"{event.drummer_id}/s"
    lines = (made / "annotations" / "events.jsonl").read_text().splitlines()
    assert {json.loads(line)["attribution"] for line in lines} == {
        "Groove MIDI Dataset (Gillick et al. 2019), CC BY 4.0"
    }


def test_what_the_manifest_says_is_heard(made: Path, events: list[Event]) -> None:
    """Each stroke rises out of what rings on within 5 ms of its onset, and not before it."""
    for event in events:
        if event.track_id not in ("t1", "t2"):
            continue
        audio, rate = soundfile.read(made / str(event.audio_path), dtype="float32")
        assert rate == RATE
        at = round(event.onset_time * rate)
        high = np.abs(np.diff(audio, 2, prepend=[0, 0]))  # what rings on is low
        before = high[at - rate // 50 : at - rate // 1000].max()
        after = high[at - rate // 1000 : at + rate // 200].max()
        assert after > 1.5 * before, (event.track_id, event.labels)


def test_recordings_last_from_a_little_before_to_the_ring_after(
    made: Path, events: list[Event]
) -> None:
    for path in sorted((made / "audio").iterdir()):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        mine = [e.onset_time for e in events if e.audio_path == f"audio/{path.name}"]
        assert info.duration == pytest.approx(max(mine) + TAIL_S, abs=0.01)
        peak = np.abs(soundfile.read(path)[0]).max()
        assert 0.15 < peak < 0.97


def test_metadata_says_what_was_rendered(made: Path, events: list[Event], manifest: Path) -> None:
    metadata = json.loads((made / "metadata.json").read_text())
    assert metadata["events_total"] == len(events)
    assert metadata["renderings"] == metadata["performances"] == 3
    assert metadata["inputs"]["performances"]["sha256"] == (
        hashlib.sha256(manifest.read_bytes()).hexdigest()
    )
    seconds = sum(soundfile.info(path).duration for path in (made / "audio").iterdir())
    assert metadata["durations_s"]["train"]["groove_rendered"] == pytest.approx(seconds, abs=0.01)
    assert metadata["label_counts"]["train"]["snare"] == 3


# What a component leaves open


def played(*rows: Row) -> list[PlayedEvent]:
    import msgspec

    return [msgspec.convert(each, PlayedEvent) for each in rows]


def read(*rows: Row, shut: float = 0.1, seed: int = 0) -> list[Any]:
    reading = Reading(shut=shut, cymbals=("crash_right", "crash_left"))
    kit = make_kits(2, 0)[0]
    pairs = notes_of(
        played(*rows), np.random.default_rng(seed), kit=kit, reading=reading, shift_s=2.0
    )
    return [note for note, _ in pairs]


def hat(onset_s: float, label: str, **more: Any) -> Row:
    return row(onset_s, components=[{"label": label, "velocity": 0.5, **more}])


def test_openness_agrees_with_the_label_whatever_the_pedal_said() -> None:
    notes = read(
        hat(0.0, "hihat_closed", openness=0.0),
        hat(1.0, "hihat_closed", openness=0.27),
        hat(2.0, "hihat_closed", openness=0.9),
        hat(3.0, "hihat_closed"),
        hat(4.0, "hihat_open", openness=0.55),
        hat(5.0, "hihat_open", openness=0.0),
        hat(6.0, "hihat_open"),
        hat(7.0, "hihat_pedal", openness=0.0),
    )
    assert [note.openness for note in notes[:4]] == pytest.approx([0.1, 0.29, 0.1, 0.1])
    assert notes[4].openness == 0.55
    assert all(0.45 <= note.openness <= 1.0 for note in notes[5:7])
    assert notes[7].openness is None
    # An open hi-hat rings until the foot or a closed stroke shuts it.
    assert notes[4].stop_s == notes[7].strike_s == 9.0
    assert notes[0].stop_s == notes[1].strike_s
    assert all((note.openness >= HAT_OPEN_AT) == (note.label == "hihat_open") for note in notes[:7])


def test_velocity_comes_from_the_bucket_where_there_is_none() -> None:
    rows = [
        row(float(k), components=[{"label": "snare", "dynamic_bucket": bucket}])
        for k, bucket in enumerate(("ghost", "accent"))
    ]
    ghost, accent = read(*rows)
    assert ghost.velocity < 0.45 < 0.7 < accent.velocity
    assert 0 < read(row(0.0, components=[{"label": "kick", "velocity": 0.0}]))[0].velocity < 0.1


def test_a_flam_gets_its_grace_note_once() -> None:
    flam = {"techniques": ["flam"]}
    (alone,) = read(row(1.0, "snare", **flam))
    assert len(alone.graces) == 1
    assert 0.018 <= alone.strike_s - alone.graces[0][0] <= 0.034
    assert alone.graces[0][1] < alone.velocity
    # Two strokes in the manifest: the grace note is there already.
    first, second = read(row(1.0, "snare", **flam), row(1.025, "snare", **flam))
    assert len(first.graces) == 1
    assert second.graces == ()
    (drag,) = read(row(1.0, "snare", techniques=["drag"]))
    assert len(drag.graces) == 2
    (kick,) = read(row(1.0, "kick", **flam))
    assert (kick.graces, kick.techniques) == ((), ())


def test_techniques_that_are_not_heard_are_not_claimed() -> None:
    notes = read(
        row(0.0, "snare", techniques=["rimshot", "metric_modulation", "cross_stick"]),
        row(1.0, "side_stick", techniques=["rimshot", "cross_stick"]),
        row(2.0, components=[{"label": "crash", "velocity": 1, "choke": True}]),
        row(3.0, components=[{"label": "ride", "velocity": 1, "choke": True}]),
    )
    assert [note.techniques for note in notes] == [
        ("rimshot",),
        ("cross_stick",),
        ("cymbal_choke",),
        (),
    ]
    assert notes[2].stop_s is not None
    assert 0.15 <= notes[2].stop_s - notes[2].strike_s <= 0.6
    (choked,) = read(
        row(2.0, components=[{"label": "crash", "velocity": 1, "choke": True}], offset_time=2.5)
    )
    assert choked.stop_s == pytest.approx(4.5)


def test_crashes_are_played_on_the_plates_of_the_kit() -> None:
    kit = make_kits(2, 0)[0]
    other = "china" if kit.effect == "splash" else "splash"
    names = ["crash_1", "crash_2", "crash_left", kit.effect, other, None]
    rows = [
        row(
            float(k),
            components=[{"label": "crash", "velocity": 1, "instrument_variant": name}],
        )
        for k, name in enumerate(names)
    ]
    assert [note.variant for note in read(*rows)] == [
        "crash_right",
        "crash_left",
        "crash_left",
        kit.effect,
        "crash_right",
        "crash_right",
    ]
    drawn = {draw_reading(np.random.default_rng(seed), kit).cymbals for seed in range(60)}
    assert {name for pair in drawn for name in pair} == {"crash_left", "crash_right", kit.effect}
    assert all(first != second for first, second in drawn)


def test_aliases_are_played_by_their_label() -> None:
    assert {note.label for note in read(row(0.0, "bd", "CHH"))} == {"hihat_closed", "kick"}


def test_a_rim_shot_is_not_a_plain_stroke(tmp_path: Path) -> None:
    rows = [row(0.0, "snare"), row(0.0, "snare", techniques=["rimshot"])]
    sound = []
    for number, each in enumerate(rows):
        path = write(tmp_path / f"{number}.jsonl", [each])
        render_performances(path, tmp_path / str(number), PLAN)
        sound.append(soundfile.read(tmp_path / str(number) / "audio" / "00001.flac")[0])
    assert sound[0].shape == sound[1].shape
    assert np.abs(sound[0] / sound[0].std() - sound[1] / sound[1].std()).max() > 0.1


# Who plays what


def pieces(*given: tuple[str, str, str | None]) -> list[Piece]:
    """Pieces by (drummer, take, split), of ten strokes a second apart."""
    return [
        Piece(
            key=("groove", f"{drummer}/s", take),
            drummer_id=drummer,
            split=split,
            onsets=[float(k) for k in range(10)],
        )
        for drummer, take, split in given
    ]


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_every_plan_keeps_its_promises(data: st.DataObject, seed: int) -> None:
    counts = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    mine = pieces(
        *((f"d{d}", f"t{t}", "train") for d, count in enumerate(counts) for t in range(count))
    )
    plan = RenderPlan(
        kits=data.draw(st.integers(len(counts), 20)),
        renderings=data.draw(st.integers(1, 3)),
        excerpt_s=data.draw(st.sampled_from([None, 0.5, 3.3, 100.0])),
        limit=data.draw(st.sampled_from([None, 1, 4, 1000])),
        val_drummers=data.draw(st.sampled_from([(), ("d1",)])),
        seed=seed,
    )
    planned = plan_renderings(mine, plan)
    assert len(planned) == min(plan.limit or len(mine), len(mine)) * plan.renderings
    assert [each.number for each in planned] == list(range(1, len(planned) + 1))
    owner: dict[str, str] = {}
    for each in planned:
        assert owner.setdefault(each.kit.kit_id, each.piece.player) == each.piece.player
        low, high = each.stretch_s
        assert any(low <= onset <= high for onset in each.piece.onsets)
        assert plan.excerpt_s is None or high - low <= plan.excerpt_s + 1e-9
        assert 0.0 <= low <= high <= 9.0
        if plan.val_drummers:
            assert each.split == ("val" if each.piece.drummer_id == "d1" else "train")
    assert plan_renderings(mine, plan) == planned
    if plan.limit is None and plan.renderings == 3 and plan.kits >= 3 * len(mine):
        for piece in mine:
            assert len({e.kit.kit_id for e in planned if e.piece is piece}) == 3


def test_kits_go_to_those_who_play_most() -> None:
    mine = pieces(*(("many", f"t{k}", "train") for k in range(30)), ("one", "t", "train"))
    planned = plan_renderings(mine, RenderPlan(kits=8, seed=1))
    kits = {name: {e.kit.kit_id for e in planned if e.piece.player == name} for name in ("many",)}
    assert len(kits["many"]) == 7


def test_splits_of_the_source_are_kept_unless_drummers_divide_anew() -> None:
    mine = pieces(("a", "1", "train"), ("a", "2", "val"), ("b", "3", "train"), ("c", "4", None))
    kept = plan_renderings(mine, RenderPlan(kits=4))
    assert [each.split for each in kept] == ["train", "val", "train", None]
    assert rendering.sessions_in_several_splits(kept) == ["a/s"]
    anew = plan_renderings(mine, RenderPlan(kits=4, val_drummers=("a",)))
    assert [each.split for each in anew] == ["val", "val", "train", "train"]
    assert rendering.sessions_in_several_splits(anew) == []


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"kits": 2}, "--kits: must be at least 3: every drummer has kits of their own (got 2)"),
        ({"val_drummers": ("z",)}, "--val-drummer: plays nothing here; there are a, b, c"),
        ({"val_drummers": ("a", "b", "c")}, "leaves no drummer to train on"),
        ({"val_drummers": ("a",)}, "the source's test split; add --splits train,val"),
    ],
)
def test_plans_that_do_not_fit(plan: dict[str, Any], said: str) -> None:
    mine = pieces(("a", "1", "train"), ("b", "2", "test"), ("c", "3", "train"))
    with pytest.raises(InputError) as caught:
        plan_renderings(mine, RenderPlan(**({"kits": 3} | plan)))
    assert said in str(caught.value)


def test_an_excerpt_holds_the_strokes_of_its_stretch(tmp_path: Path) -> None:
    rows = [row(0.5 * k, "kick" if k % 2 else "snare") for k in range(40)]
    path = write(tmp_path / "events.jsonl", rows)
    plan = RenderPlan(kits=2, renderings=2, excerpt_s=3.0, sample_rate=RATE, seed=3)
    render_performances(path, tmp_path / "out", plan)
    found = read_records(tmp_path / "out" / "annotations" / "events.jsonl", Event).rows
    for number in (1, 2):
        mine = [event for event in found if event.audio_path == f"audio/{number:05d}.flac"]
        assert len(mine) == 7
        assert mine[0].onset_time == pytest.approx(LEAD_S, abs=0.01)
        assert mine[-1].onset_time == pytest.approx(LEAD_S + 3.0, abs=0.01)
        assert len({event.labels for event in mine}) == 2


def test_only_the_stretches_wanted_are_kept_in_memory(manifest: Path) -> None:
    key = ("groove", "d2/s", "t3")
    assert [e.onset_time for e in read_stretches(manifest, {key: [(0.2, 0.212)]})[key]] == [
        0.2,
        0.212,
    ]
    assert survey(manifest, splits=("train",)).pieces[0].onsets[0] == 1.0


# The desk


def sine(hertz: float, amplitude: float = 0.1, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


def middle_rms(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(signal[RATE // 4 : -RATE // 4].astype(np.float64) ** 2)))


@pytest.mark.parametrize("band", range(1, len(EQ_HZ) - 1))
def test_the_equaliser_gives_each_band_its_gain(band: int) -> None:
    gains = tuple(4.0 if k == band else -3.0 for k in range(len(EQ_HZ)))
    tone = sine(EQ_HZ[band])
    change_db = 20 * np.log10(middle_rms(equalise(tone, gains, RATE)) / middle_rms(tone))
    assert change_db == pytest.approx(4.0, abs=0.1)
    flat = equalise(tone, (0.0,) * len(EQ_HZ), RATE)
    np.testing.assert_allclose(flat, tone, atol=1e-6)


def test_the_compressor_follows_its_ratio() -> None:
    """Two levels 20 dB apart, both above the threshold, come out 20 / ratio dB apart."""
    signal = np.concatenate([sine(1000, 0.05), sine(1000, 0.5)])
    out = compress(signal, RATE, ratio=4.0, threshold_db=-40.0, attack_s=0.01)
    difference = 20 * np.log10(middle_rms(out[RATE:]) / middle_rms(out[:RATE]))
    assert difference == pytest.approx(5.0, abs=0.05)
    np.testing.assert_array_equal(
        compress(signal, RATE, ratio=1.0, threshold_db=-40.0, attack_s=0.01), signal
    )
    np.testing.assert_array_equal(
        compress(signal, RATE, ratio=4.0, threshold_db=40.0, attack_s=0.01), signal
    )


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_no_desk_moves_an_onset_or_clips(seed: int) -> None:
    rng = np.random.default_rng(seed)
    click = np.zeros(RATE // 2, np.float32)
    click[RATE // 4 :] = rng.standard_normal(RATE // 4) * np.exp(-np.arange(RATE // 4) / 400)
    click[RATE // 4] = np.abs(click).max()
    desk = draw_desk(rng)
    out = mix(desk, dict.fromkeys(MICS, click / np.abs(click).max()), RATE)
    assert np.abs(out).max() == pytest.approx(10 ** (desk.peak_db / 20), rel=1e-4)
    loud = np.flatnonzero(np.abs(out) > 0.2 * np.abs(out).max())
    assert abs(loud[0] - RATE // 4) < 0.001 * RATE
    # What a filter of zero phase rings before the onset is little, 5 ms before it and earlier.
    assert np.abs(out[: RATE // 4 - RATE // 200]).max() < 0.12 * np.abs(out).max()
    silent = mix(desk, dict.fromkeys(MICS, np.zeros(100, np.float32)), RATE)
    np.testing.assert_array_equal(silent, 0.0)
    assert all(abs(each) <= 6.0 for each in faders_db(rng, ("kick", "snare")).values())


def test_desks_differ() -> None:
    desks = [draw_desk(np.random.default_rng(seed)) for seed in range(20)]
    for name in Desk.__slots__:
        assert len({getattr(desk, name) for desk in desks}) == 20


@pytest.mark.parametrize("seed", range(5))
def test_wide_kits_stay_kits(seed: int) -> None:
    kits = make_kits(50, seed, spread=rendering.KIT_SPREAD)
    for kit in kits:
        assert all(kit[name] > 0 for name, (low, _) in RANGES.items() if low > 0)
    assert min(k["tom_high_f0_hz"] for k in kits) > max(k["tom_mid_f0_hz"] for k in kits)
    assert min(k["tom_mid_f0_hz"] for k in kits) > max(k["tom_low_f0_hz"] for k in kits)
    low, high = RANGES["snare_f0_hz"]
    assert min(k["snare_f0_hz"] for k in kits) < low
    assert max(k["snare_f0_hz"] for k in kits) > high


# Bad input


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(0.0, "cowbell")], ":1: components: the synthesiser has no voice for it"),
        ([row(0.0, "nonsense")], '(--skip-voiceless leaves such strokes out) (got "nonsense")'),
        ([row(0.0)], "holds nothing to play"),
        ([row(-1.0, "kick")], ":1: onset_time"),
        ([row(0.0, "kick"), row(1.0, "kick", split="val")], ":2: split: differs within"),
        ([row(0.0, "kick"), row(1.0, "kick", drummer_id=None)], ":2: drummer_id: differs within"),
        ([{"onset_time": 0.0}], ":1: session_id"),
        ([row(0.0, "kick"), row(1e9, "kick")], "--excerpt-s: is needed for a performance of more"),
    ],
)
def test_manifests_that_cannot_be_played(rows: list[Row], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", rows)
    with pytest.raises(InputError) as caught:
        render_performances(path, tmp_path / "out", PLAN)
    assert said in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["events.jsonl"]


def test_all_problems_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", [row(float(k), "gong") for k in range(30)])
    with pytest.raises(InputError, match=r"… and 10 more"):
        survey(path)


def test_strokes_without_a_voice_can_be_left_out(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    rows = [row(0.0, "kick", "cowbell"), row(0.5, "clap"), row(1.0, "snare")]
    path = write(tmp_path / "events.jsonl", rows)
    out = tmp_path / "out"
    done = drumgate(f"render-performances {path} {out} --sample-rate 16000 --skip-voiceless")
    assert done.exit_code == 0, done.stderr
    assert "no voice for them: clap 1, cowbell 1" in done.stderr
    found = read_records(out / "annotations" / "events.jsonl", Event).rows
    assert [event.labels for event in found] == [("kick",), ("snare",)]


def test_splits_are_chosen_and_crossing_sessions_named(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    rows = [
        row(0.0, "kick", take="a"),
        row(0.0, "kick", take="b", split="validation"),
        row(0.0, "kick", take="c", split="test"),
    ]
    path = write(tmp_path / "events.jsonl", rows)
    command = f"render-performances {path} {tmp_path}/out --sample-rate 16000"
    done = drumgate(f"{command} --splits train,val")
    assert done.exit_code == 0, done.stderr
    assert "1 sessions lie in more than one split" in done.stderr
    assert "2 renderings of 2 performances, 2 events" in done.stdout
    refused = drumgate(f"{command} --force --splits dev")
    assert refused.exit_code == 2
    assert "holds nothing to play in dev (its splits: test, train, val)" in refused.stderr
    again = drumgate(f"{command} --splits train")
    assert again.exit_code == 2
    assert "holds a set of renderings already; --force replaces it" in again.stderr


def test_a_failure_leaves_nothing_behind(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(rendering, "write_flac", failing)
    with pytest.raises(RuntimeError, match="disk on fire"):
        render_performances(manifest, tmp_path / "new", PLAN, jobs=2)
    assert list(tmp_path.iterdir()) == []


def test_a_real_performance_is_rendered(
    shared_data: Path, tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    """Two takes of Groove, from MIDI to audio: every stroke of the MIDI is in the manifest."""
    root = shared_data / "groove"
    lines = (root / "info.csv").read_text().splitlines()
    chosen = [line for line in lines if ",fill," in line][:2]
    (tmp_path / "info.csv").write_text("\n".join([lines[0], *chosen]) + "\n")
    for line in chosen:
        name = line.split(",")[7]
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((root / name).read_bytes())
    events, normal = tmp_path / "events.jsonl", tmp_path / "normal.jsonl"
    assert drumgate("ingest-groove", tmp_path, "--output", events, "--merge-ms", 0).exit_code == 0
    assert drumgate("normalize-openness", "--events", events, "--output", normal).exit_code == 0
    done = drumgate("render-performances", normal, tmp_path / "out", "--sample-rate", RATE)
    assert done.exit_code == 0, done.stderr
    strokes = sum(len(e.components) for e in read_records(normal, Event).rows)
    rendered = read_records(tmp_path / "out" / "annotations" / "events.jsonl", Event).rows
    assert sum(len(event.components) for event in rendered) == strokes
