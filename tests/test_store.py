"""The clip store: what comes out is what was recorded, and nothing of another recording."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from training.checks.build_dataset import Options, run
from training.dataset.blobs import to_int16
from training.dataset.build import STORE
from training.dataset.store import ClipStore
from training.errors import InputError
from training.manifest import Event, read_records

RATE = 8000
SESSIONS = 6
SECONDS = 2.0
ONSETS = (0.0, 0.01, 0.5, 1.25, 1.99)
NAMES = ("kick", "bd", "hihat_open", "aux_percussion", "crash")


def level(session: int) -> int:
    """Every session is recorded as a constant of its own, so that a leak is seen at once."""
    return 1000 * (session + 1)


def event(session: int, index: int, **fields: object) -> dict[str, object]:
    return {
        "sample_id": f"s{session}-{index}",
        "session_id": f"s{session}",
        "onset_time": ONSETS[index],
        "components": [{"label": NAMES[index], "velocity": 0.1 * (index + 1)}],
        "audio_path": f"s{session}.wav",
        "source_set": "even" if session % 2 == 0 else "odd",
        **fields,
    }


def write_dataset(folder: Path, events: list[dict[str, object]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for session in range(SESSIONS):
        samples = np.full(int(RATE * SECONDS), level(session), dtype=np.int16)
        soundfile.write(folder / f"s{session}.wav", samples, RATE, subtype="PCM_16")
    if events is None:
        events = [event(session, i) for session in range(SESSIONS) for i in range(len(ONSETS))]
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in events))
    return path


def options(path: Path, out: Path, **fields: object) -> Options:
    return Options(**({"events": path, "out": out, "sample_rate": RATE} | fields))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    folder = tmp_path_factory.mktemp("store")
    run(options(write_dataset(folder / "data"), folder / "out", seed=1))
    return ClipStore.open(folder / "out")


def test_a_store_opens_with_its_labels_and_splits(store):
    assert store.split_names == ("train", "val", "test")
    assert store.sample_rate == RATE
    assert len(store.labels) == 12
    assert store.labels[0] == "kick"
    assert sum(len(store.split(name)) for name in store.split_names) == SESSIONS * len(ONSETS)


def test_rows_say_what_the_manifest_says(store):
    for name in store.split_names:
        split = store.split(name)
        manifest = read_records(store.directory / "splits" / f"{name}.jsonl", Event)
        assert split.sample_ids == [each.sample_id for each in manifest]
        assert split.session_ids == [each.session_id for each in manifest]
        assert split.sources == [each.source_set for each in manifest]
        assert all(each.split == name for each in manifest)
        for row, each in enumerate(manifest):
            index = int(each.sample_id[-1])
            expected = {"bd": "kick", "aux_percussion": None}.get(NAMES[index], NAMES[index])
            got = [store.labels[i] for i in np.flatnonzero(split.labels[row])]
            assert got == ([expected] if expected else [])
            assert split.is_background[row] == (expected is None)
            assert split.velocity[row] == np.float32(0.1 * (index + 1))
            assert np.isnan(split.openness[row])
            offset = split.onset[row] - split.segment_start[row]
            assert offset == round(each.onset_time * RATE)
        assert split.annotated.all()
        assert split.labels.dtype == split.annotated.dtype == np.uint8
        assert split.blob.dtype == np.int16
        assert split.onset.dtype == np.int64
        assert split.velocity.dtype == split.openness.dtype == np.float32


def test_a_window_never_hears_another_recording(store):
    guard = int(1.5 * RATE)
    for name in store.split_names:
        split = store.split(name)
        rows = np.arange(len(split))
        for pre, length in ((guard, 2 * guard), (0, guard), (guard, guard), (100, 4000)):
            clips = split.gather(rows, pre=pre, length=length)
            assert clips.shape == (len(split), length)
            assert clips.dtype == np.int16
            for row in rows.tolist():
                own = level(int(split.session_ids[row][1:]))
                assert set(np.unique(clips[row]).tolist()) <= {0, own}
                first = split.onset[row] - pre
                inside = np.arange(first, first + length)
                inside = (inside >= split.segment_start[row]) & (inside < split.segment_stop[row])
                np.testing.assert_array_equal(clips[row] == own, inside)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_clip_is_the_slice_of_the_blob_that_the_contract_names(store, data):
    split = store.split(data.draw(st.sampled_from(store.split_names)))
    rows = np.array(
        data.draw(st.lists(st.integers(0, len(split) - 1), min_size=1, max_size=9)), dtype=np.int64
    )
    pre, length = data.draw(st.integers(0, 4000)), data.draw(st.integers(1, 8000))
    jitter = np.array(
        data.draw(st.lists(st.integers(-900, 900), min_size=len(rows), max_size=len(rows)))
    )
    clips = split.gather(rows, pre=pre, length=length, jitter=jitter)
    for clip, row, moved in zip(clips, rows, jitter, strict=True):
        start = split.onset[row] - pre + moved
        np.testing.assert_array_equal(clip, split.blob[start : start + length])
    out = np.empty_like(clips)
    assert split.gather(rows, pre=pre, length=length, jitter=jitter, out=out) is out
    np.testing.assert_array_equal(out, clips)


def test_windows_beyond_the_guard_are_an_error_whichever_rows_are_asked_for(store):
    split, guard = store.split("train"), int(1.5 * RATE)
    rows = np.arange(2)
    for pre, length, jitter in (
        (guard + 1, guard, 0),
        (0, guard + 1, 0),
        (guard, 10, -1),
        (0, guard, 1),
    ):
        with pytest.raises(ValueError, match="no window may reach further"):
            split.gather(rows, pre=pre, length=length, jitter=np.full(2, jitter))
    assert split.gather(np.array([], dtype=np.int64), pre=0, length=5).shape == (0, 5)


@pytest.mark.parametrize(
    ("rows", "fields", "error"),
    [
        ([-1], {}, IndexError),
        ([10_000], {}, IndexError),
        ([[0]], {}, ValueError),
        ([0], {"pre": -1}, ValueError),
        ([0], {"length": 0}, ValueError),
        ([0], {"jitter": np.zeros(2, dtype=np.int64)}, ValueError),
        ([0], {"out": np.zeros((1, 10), dtype=np.int32)}, ValueError),
        ([0], {"out": np.zeros((2, 10), dtype=np.int16)}, ValueError),
    ],
)
def test_arguments_that_make_no_sense_are_refused(store, rows, fields, error):
    with pytest.raises(error, match=r"must|has shape"):
        store.split("train").gather(np.array(rows), **({"pre": 0, "length": 10} | fields))


def test_the_blob_cannot_be_written_to(store):
    with pytest.raises(ValueError, match="read-only"):
        store.split("train").blob[0] = 1


def test_metadata_say_what_is_in_the_store(store):
    metadata = store.metadata
    total = sum(sum(by_source.values()) for by_source in metadata["durations_s"].values())
    assert total == pytest.approx(SESSIONS * SECONDS)
    for name in store.split_names:
        split = store.split(name)
        assert metadata["splits"][name]["events"] == len(split)
        assert metadata["splits"][name]["sessions"] == len(set(split.session_ids))
        assert metadata["label_counts"][name] == dict(
            zip(store.labels, split.labels.sum(axis=0).tolist(), strict=True)
        )
        sources = {split.sources[row] for row in range(len(split))}
        assert set(metadata["durations_s"][name]) == sources
        for recording in metadata["recordings"][name]:
            own = split.blob[recording["start"] : recording["stop"]]
            assert set(np.unique(own).tolist()) == {level(int(recording["audio_path"][1]))}
    assert "No session and no recording is in two splits." in metadata["split_policy"]["statement"]
    assert metadata["split_policy"]["isolation"]["shared_sessions"] == 0
    assert set(metadata["outputs"]) == {
        "components.json",
        *(f"{n}.pcm" for n in store.split_names),
        *(f"{n}.index.parquet" for n in store.split_names),
        *(f"splits/{n}.jsonl" for n in store.split_names),
    }


def test_sixteen_bit_audio_comes_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    path = write_dataset(tmp_path / "data")
    noise = {}
    for session in range(SESSIONS):
        noise[f"s{session}.wav"] = rng.integers(-32768, 32768, 16_000, dtype=np.int16)
        soundfile.write(tmp_path / "data" / f"s{session}.wav", noise[f"s{session}.wav"], RATE)
    run(options(path, tmp_path / "out"))
    store = ClipStore.open(tmp_path / "out")
    assert store.metadata["statistics"]["clipped_samples"] == 0
    for name in store.split_names:
        for recording in store.metadata["recordings"][name]:
            own = store.split(name).blob[recording["start"] : recording["stop"]]
            np.testing.assert_array_equal(own, noise[recording["audio_path"]])


def test_stereo_at_another_rate_is_mixed_and_resampled_and_onsets_stay_in_place(tmp_path):
    path = write_dataset(tmp_path / "data")
    at = 0.5
    for session in range(SESSIONS):
        click = np.zeros((2 * 44_100, 2), dtype=np.float32)
        click[int(at * 44_100), 0] = 1.0 - 0.01 * session
        soundfile.write(tmp_path / "data" / f"s{session}.wav", click, 44_100, subtype="FLOAT")
    run(options(path, tmp_path / "out", sample_rate=16_000))
    store = ClipStore.open(tmp_path / "out")
    split = store.split("train")
    row = next(i for i, name in enumerate(split.sample_ids) if name.endswith("-2"))
    clip = split.gather(np.array([row]), pre=800, length=1600)[0].astype(np.int32)
    assert abs(int(np.argmax(np.abs(clip))) - 800) <= 1
    assert store.metadata["statistics"]["recordings_resampled"] == SESSIONS


def test_what_passes_full_scale_is_cut_off_and_counted():
    samples, clipped = to_int16(np.array([0.0, 1.0, 1.5, -1.0, -1.2, 0.5], dtype=np.float32))
    assert samples.tolist() == [0, 32767, 32767, -32768, -32768, 16384]
    assert clipped == 3


def test_labels_a_source_does_not_annotate_are_unknown_there_not_absent(tmp_path):
    events = [
        event(s, i, annotated_labels=["snare", "aux_percussion", "bd"])
        for s in range(SESSIONS)
        for i in range(5)
    ]
    run(options(write_dataset(tmp_path / "data", events), tmp_path / "out"))
    store = ClipStore.open(tmp_path / "out")
    split = store.split("train")
    at = {label: index for index, label in enumerate(store.labels)}
    assert split.annotated[:, at["kick"]].all()
    assert split.annotated[:, at["snare"]].all()
    assert not split.annotated[:, at["tom_low"]].any()
    # a label that is there is annotated there, whatever the list says
    np.testing.assert_array_equal(split.annotated[:, at["crash"]], split.labels[:, at["crash"]])


def test_the_loudest_component_and_the_openness_of_the_hihat_are_kept(tmp_path):
    both = [
        {"label": "kick", "velocity": 0.9},
        {"label": "hihat_open", "velocity": 0.4, "openness": 0.7},
        {"label": "snare"},
    ]
    events = [event(s, 2, components=both) for s in range(SESSIONS)]
    events += [event(s, 3, components=[]) for s in range(SESSIONS)]
    run(options(write_dataset(tmp_path / "data", events), tmp_path / "out"))
    store = ClipStore.open(tmp_path / "out")
    split = store.split("train")
    full = split.labels.any(axis=1)
    assert set(split.velocity[full].tolist()) == {np.float32(0.9)}
    assert set(split.openness[full].tolist()) == {np.float32(0.7)}
    assert np.isnan(split.velocity[~full]).all()
    assert np.isnan(split.openness[~full]).all()
    assert store.metadata["splits"]["train"]["negative_events"] == int((~full).sum())


def copy_of(store: ClipStore, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(store.directory, folder / "copy"))


def test_what_is_no_store_is_refused(tmp_path, store):
    with pytest.raises(InputError, match="no such folder"):
        ClipStore.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not a clip store"):
        ClipStore.open(tmp_path)
    (tmp_path / "metadata.json").write_text("{}")
    with pytest.raises(InputError, match="format: is not the metadata"):
        ClipStore.open(tmp_path)
    with pytest.raises(InputError, match="has no split 'dev'"):
        store.split("dev")


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("format_version", 2, "format_version: is a version"),
        ("labels", [], "labels: must be a list"),
        ("labels", None, "labels: is missing"),
        ("sample_rate", "44100", "sample_rate: must be of type int"),
        ("sample_rate", 0, "sample_rate: must be positive"),
        ("guard_samples", -1, "guard_samples: must be positive"),
        ("splits", [], "splits: must be of type dict"),
        ("outputs", None, "outputs: is missing"),
    ],
)
def test_damaged_metadata_are_refused(tmp_path, store, field, value, match):
    copy = copy_of(store, tmp_path)
    (copy / "metadata.json").write_text(json.dumps({**store.metadata, field: value}))
    with pytest.raises(InputError, match=match):
        ClipStore.open(copy)


@pytest.mark.parametrize("name", ["train.pcm", "val.index.parquet", "splits/test.jsonl"])
def test_files_that_are_missing_or_cut_short_are_refused(tmp_path, store, name):
    copy = copy_of(store, tmp_path)
    file = copy / name
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(InputError, match="is damaged"):
        ClipStore.open(copy)
    file.unlink()
    with pytest.raises(InputError, match="is missing from the store"):
        ClipStore.open(copy)


def test_a_table_that_is_garbage_or_points_outside_is_refused(tmp_path, store):
    import pyarrow.parquet as pq

    copy = copy_of(store, tmp_path)
    path = copy / "train.index.parquet"
    size = path.stat().st_size
    table = pq.read_table(path)
    opened = ClipStore.open(copy)
    path.write_bytes(b"x" * size)
    with pytest.raises(InputError, match="not a readable index"):
        opened.split("train")
    moved = table.set_column(4, "onset", [np.asarray(table["onset"]) + 10**9])
    pq.write_table(moved, path)
    with pytest.raises(InputError, match="outside its recording"):
        opened.split("train")
    pq.write_table(table.drop_columns(["velocity"]), path)
    with pytest.raises(InputError, match="column velocity"):
        opened.split("train")


def test_a_build_that_fails_leaves_nothing(tmp_path):
    target = tmp_path / "out"

    def fail() -> None:
        with STORE.writing(target, force=False) as work:
            (work / "half").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_keeps_the_old_store(tmp_path):
    target = tmp_path / "out"
    path = write_dataset(tmp_path / "data")
    run(options(path, target))
    before = (target / "metadata.json").read_bytes()

    def interrupted(items, description):
        for item in items:
            if description == "decoding recordings":
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        run(options(path, target, force=True), track=interrupted)
    assert (target / "metadata.json").read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "out"]
