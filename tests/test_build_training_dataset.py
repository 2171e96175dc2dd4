"""The command that builds a store: its splits, its errors, and that it leaves nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from jsonl import read as rows
from jsonl import write

from training.checks.build_dataset import Options, run
from training.dataset.store import ClipStore
from training.errors import InputError

RATE = 8000


def dataset(
    folder: Path, *, sessions: int = 8, hits: int = 4, seconds: float = 1.0, **fields: object
) -> Path:
    """Sessions of noise, a hit every so often; `fields` (or functions of the session) are added."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for session in range(sessions):
        samples = rng.integers(-3000, 3000, int(RATE * seconds), dtype=np.int16)
        soundfile.write(folder / f"s{session}.wav", samples, RATE)
        for hit in range(hits):
            row: dict[str, object] = {
                "sample_id": f"s{session}-{hit}",
                "session_id": f"s{session}",
                "onset_time": 0.1 * hit,
                "components": [{"label": ("kick", "snare", "ride", "crash")[hit % 4]}],
                "audio_path": f"s{session}.wav",
                "mood": {"lively": 1.50, "n": 3},
            }
            for name, value in fields.items():
                row[name] = value(session) if callable(value) else value
            lines.append({name: value for name, value in row.items() if value is not None})
    return write(folder / "events.jsonl", lines)


def built(path: Path, out: Path, **fields: object) -> ClipStore:
    run(Options(**({"events": path, "out": out, "sample_rate": RATE} | fields)))
    return ClipStore.open(out)


def refused(path: Path, out: Path, **fields: object) -> str:
    before = sorted(out.parent.iterdir())
    with pytest.raises(InputError) as caught:
        run(Options(**({"events": path, "out": out, "sample_rate": RATE} | fields)))
    assert sorted(out.parent.iterdir()) == before, "something was left behind"
    return str(caught.value)


def tree(folder: Path) -> dict[str, bytes]:
    """Every byte of a store but those that say when and where it was made."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    metadata = json.loads(found["metadata.json"])
    assert metadata.pop("run_statistics")["build_s"] > 0
    return found | {"metadata.json": json.dumps(metadata).encode()}


def test_two_builds_are_byte_identical(tmp_path):
    path = dataset(tmp_path / "data")
    built(path, tmp_path / "one", seed=4)
    built(path, tmp_path / "two", seed=4)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    one = ClipStore.open(tmp_path / "one").metadata
    assert one["content_sha256"] == ClipStore.open(tmp_path / "two").metadata["content_sha256"]


def test_manifests_keep_every_field_and_hold_every_event_once(tmp_path):
    path = dataset(tmp_path / "data")
    store = built(path, tmp_path / "out")
    kept: list[dict[str, object]] = []
    for name in store.split_names:
        lines = rows(tmp_path / "out" / "splits" / f"{name}.jsonl")
        assert {line.pop("split") for line in lines} == {name}
        kept += lines
    original = rows(path)
    key = lambda line: line["sample_id"]  # noqa: E731
    assert sorted(kept, key=key) == sorted(original, key=key)


def test_no_session_is_in_two_splits_and_the_ratios_are_met(tmp_path):
    store = built(dataset(tmp_path / "data", sessions=20), tmp_path / "out", split_by="session")
    sessions = [set(store.split(name).session_ids) for name in store.split_names]
    assert len(set().union(*sessions)) == 20
    assert [len(each) for each in sessions] == [16, 2, 2]


def test_drummer_and_kit_are_kept_apart_and_the_metadata_say_so(tmp_path):
    path = dataset(
        tmp_path / "data", sessions=20, drummer_id=lambda s: f"d{s // 2}", kit_id=lambda s: "k"
    )
    policy = built(path, tmp_path / "out").metadata["split_policy"]
    assert policy["by"] == "drummer_kit"
    assert policy["isolation"]["shared_sessions"] == 0
    assert policy["isolation"]["shared_drummer_kits"] == 0
    assert policy["isolation"]["shared_drummers"] == 0
    assert policy["isolation"]["shared_kits"] == 1
    assert policy["isolation"]["offenders"]["shared_kits"] == {"k": ["test", "train", "val"]}
    assert "No drummer x kit pair is in two splits." in policy["statement"]
    assert "Shared between splits: 1 kit (k)." in policy["statement"]
    assert policy["considered"][0]["reason"] == "1 group for 3 splits"


def test_what_cannot_be_kept_apart_is_admitted(tmp_path):
    path = dataset(tmp_path / "data", drummer_id="d", kit_id="k")
    report = run(Options(events=path, out=tmp_path / "out", sample_rate=RATE))
    policy = report.metrics["split_policy"]
    assert policy["by"] == "session"
    assert "Shared between splits: 1 drummer x kit pair (d x k)." in policy["statement"]
    assert any("drummer x kit" in warning for warning in report.warnings)
    assert "drummer_kit: 1 group for 3 splits" in refused(
        path, tmp_path / "other", split_by="drummer_kit"
    )


def test_unknown_drummers_are_not_claimed_to_be_kept_apart(tmp_path):
    policy = built(dataset(tmp_path / "data"), tmp_path / "out").metadata["split_policy"]
    assert "Of no event is the drummer known." in policy["statement"]
    path = dataset(tmp_path / "half", drummer_id=lambda s: f"d{s}" if s < 6 else None)
    policy = built(path, tmp_path / "out2").metadata["split_policy"]
    assert (
        "No drummer is in two splits among the events that name it (8 do not)."
        in (policy["statement"])
    )


def official(session: int) -> str:
    return ("train", "train", "train", "train", "validation", "validation", "test", "Test")[session]


def test_official_splits_are_honoured_whatever_they_call_val(tmp_path):
    path = dataset(tmp_path / "data", split=official)
    store = built(path, tmp_path / "out")
    assert store.metadata["split_policy"]["by"] == "official"
    assert set(store.split("val").session_ids) == {"s4", "s5"}
    assert set(store.split("test").session_ids) == {"s6", "s7"}
    by_session = built(path, tmp_path / "own", split_by="session", val_ratio=0.25)
    assert by_session.metadata["split_policy"]["by"] == "session"


def test_val_is_drawn_from_official_train_when_it_is_missing(tmp_path):
    path = dataset(tmp_path / "data", split=lambda s: "test" if s > 5 else "train")
    report = run(Options(events=path, out=tmp_path / "out", sample_rate=RATE, val_ratio=0.2))
    store = ClipStore.open(tmp_path / "out")
    assert set(store.split("test").session_ids) == {"s6", "s7"}
    assert len(set(store.split("val").session_ids)) == 1
    assert any("drawn from train" in warning for warning in report.warnings)
    without = built(path, tmp_path / "without", val_ratio=0.0)
    assert without.split_names == ("train", "test")


def test_official_splits_that_share_a_session_are_refused_unless_allowed(tmp_path):
    path = dataset(tmp_path / "data", split=official, session_id=lambda s: f"room{s // 3}")
    said = refused(path, tmp_path / "out")
    assert "events.jsonl:13: session_id: this session is in train and val" in said
    assert '(got "room1")' in said
    assert "--allow-session-overlap" in said
    report = run(
        Options(events=path, out=tmp_path / "out", sample_rate=RATE, allow_session_overlap=True)
    )
    verdict = next(v for v in report.verdicts if v.name == "dataset.max_shared_sessions")
    assert (verdict.observed, verdict.threshold, verdict.production_threshold) == (1, 1, 0)
    metadata = ClipStore.open(tmp_path / "out").metadata
    assert metadata["parameters"]["allow_session_overlap"] is True
    assert metadata["split_policy"]["isolation"]["shared_sessions"] == 1
    assert "which was allowed: 1 session (room1)" in metadata["split_policy"]["statement"]
    verified = run(Options(events=path, out=tmp_path / "out", verify_only=True))
    assert verified.metrics["problems"] == []


def test_a_recording_in_two_official_splits_is_always_refused(tmp_path):
    path = dataset(tmp_path / "data", split=official)
    shutil.copy(tmp_path / "data" / "s0.wav", tmp_path / "data" / "s7.wav")
    said = refused(path, tmp_path / "out", allow_session_overlap=True)
    assert "audio_path: this recording is in test and train" in said


def test_copies_of_a_recording_under_two_names_stay_together(tmp_path):
    path = dataset(tmp_path / "data")
    for copy in (3, 5):
        shutil.copy(tmp_path / "data" / "s0.wav", tmp_path / "data" / f"s{copy}.wav")
    report = run(Options(events=path, out=tmp_path / "out", sample_rate=RATE))
    store = ClipStore.open(tmp_path / "out")
    holding = [n for n in store.split_names if {"s0", "s3", "s5"} & set(store.split(n).session_ids)]
    assert len(holding) == 1
    assert any("2 recordings have the same content" in warning for warning in report.warnings)


def test_official_splits_that_are_incomplete_are_not_used_or_refused(tmp_path):
    path = dataset(tmp_path / "data", split=lambda s: "train" if s else None)
    report = run(Options(events=path, out=tmp_path / "out", sample_rate=RATE))
    assert report.metrics["split_policy"]["by"] == "session"
    assert any("28 of 32 events name a split" in warning for warning in report.warnings)
    said = refused(path, tmp_path / "other", split_by="official")
    assert "events.jsonl:1: split: is missing" in said
    strange = dataset(tmp_path / "strange", split="holdout")
    assert 'split: must be train, val or test (got "holdout")' in refused(
        strange, tmp_path / "other"
    )
    only_test = dataset(tmp_path / "only_test", split="test")
    assert "puts no event into train" in refused(only_test, tmp_path / "other")


def test_too_few_sessions_are_refused_and_a_ratio_of_zero_asks_for_fewer_splits(tmp_path):
    path = dataset(tmp_path / "data", sessions=2)
    assert "2 groups for 3 splits" in refused(path, tmp_path / "out")
    store = built(path, tmp_path / "out", test_ratio=0.0)
    assert store.split_names == ("train", "val")
    assert "leave nothing to train on" in refused(
        path, tmp_path / "other", val_ratio=0.5, test_ratio=0.5
    )


def test_events_without_audio_are_an_error_or_counted(tmp_path):
    path = dataset(
        tmp_path / "data",
        audio_path=lambda s: None if s == 2 else f"s{s}.wav",
        source_set=lambda s: "mdb" if s < 4 else "own",
    )
    (tmp_path / "data" / "s5.wav").unlink()
    said = refused(path, tmp_path / "out")
    assert "events.jsonl:9: audio_path: missing in 4 of 32 events, here first (mdb: 4)" in said
    assert "events.jsonl:21: audio_path: no such file" in said
    report = run(
        Options(events=path, out=tmp_path / "out", sample_rate=RATE, skip_missing_audio=True)
    )
    statistics = report.metrics["statistics"]
    assert statistics["events_in_store"] == 24
    assert statistics["events_without_audio_path"] == {"mdb": 4}
    assert statistics["events_whose_audio_is_missing"] == {"own": 4}
    assert any("4 events have no audio_path" in warning for warning in report.warnings)
    for file in (tmp_path / "data").glob("*.wav"):
        file.unlink()
    assert "no event has audio" in refused(path, tmp_path / "none", skip_missing_audio=True)


def test_an_onset_past_the_end_is_named_with_the_duration(tmp_path):
    path = dataset(tmp_path / "data")
    lines = rows(path)
    lines[6]["onset_time"] = 1.0
    said = refused(write(path, lines), tmp_path / "out")
    assert said == (f"{path}:7: onset_time: lies past the end of s1.wav (1.000 s) (got 1.0)")
    lines[6]["onset_time"] = 0.99999
    store = built(write(path, lines), tmp_path / "out", split_by="session")
    split = next(store.split(n) for n in store.split_names if "s1" in store.split(n).session_ids)
    row = split.sample_ids.index("s1-2")
    assert split.onset[row] == split.segment_stop[row] - 1


def test_labels_outside_the_taxonomy_and_ids_that_stand_twice_are_refused(tmp_path):
    path = dataset(tmp_path / "data")
    lines = rows(path)
    lines[2]["components"] = [{"label": "kick"}, {"label": "gong"}]
    lines[3]["annotated_labels"] = ["kick", "kettle"]
    said = refused(write(path, lines), tmp_path / "out")
    assert 'events.jsonl:3: components[1].label: is not in the taxonomy (got "gong")' in said
    assert 'events.jsonl:4: annotated_labels[1]: is not in the taxonomy (got "kettle")' in said
    lines = rows(dataset(tmp_path / "data"))
    lines[5]["sample_id"] = "s0-0"
    assert "sample_id: stands already in line 1" in refused(write(path, lines), tmp_path / "out")


def test_audio_that_cannot_be_read_or_lies_outside_is_refused(tmp_path):
    path = dataset(tmp_path / "data")
    (tmp_path / "data" / "s1.wav").write_bytes(b"not audio at all")
    assert "s1.wav: not readable audio" in refused(path, tmp_path / "out")
    path = dataset(tmp_path / "data", audio_path="../s0.wav")
    assert "audio_path: leads outside" in refused(path, tmp_path / "out")
    assert "audio_path: leads outside" in refused(path, tmp_path / "out", skip_missing_audio=True)


def test_audio_roots_by_source(tmp_path):
    path = dataset(tmp_path / "data", source_set=lambda s: "a" if s < 4 else "b")
    (tmp_path / "elsewhere").mkdir()
    for session in range(4, 8):
        (tmp_path / "data" / f"s{session}.wav").rename(tmp_path / "elsewhere" / f"s{session}.wav")
    assert "events.jsonl:17: audio_path: no such file" in refused(path, tmp_path / "out")
    store = built(path, tmp_path / "out", audio_roots={"b": tmp_path / "elsewhere"})
    seconds: dict[str, float] = {}
    for by_source in store.metadata["durations_s"].values():
        for source, value in by_source.items():
            seconds[source] = seconds.get(source, 0) + value
    assert seconds == {"a": 4.0, "b": 4.0}
    assert "no event is of the source" in refused(
        path, tmp_path / "other", audio_roots={"c": tmp_path}
    )
    assert "no such folder" in refused(path, tmp_path / "other", audio_root=tmp_path / "nowhere")


def test_a_limit_takes_evenly_from_the_sessions(tmp_path):
    path = dataset(tmp_path / "data", sessions=5)
    store = built(path, tmp_path / "out", limit=12)
    kept = sorted(i for name in store.split_names for i in store.split(name).sample_ids)
    assert kept == sorted([f"s{s}-{h}" for s in range(5) for h in range(2)] + ["s0-2", "s1-2"])
    assert store.metadata["statistics"]["events_left_out_by_limit"] == 8


def test_a_store_is_replaced_only_with_force_and_other_folders_never(tmp_path):
    path = dataset(tmp_path / "data")
    built(path, tmp_path / "out", seed=1)
    assert "holds a store already; --force" in refused(path, tmp_path / "out")
    built(path, tmp_path / "out", seed=2, force=True)
    assert ClipStore.open(tmp_path / "out").metadata["parameters"]["seed"] == 2
    assert "something else in it" in refused(path, tmp_path / "data", force=True)
    assert "is a file" in refused(path, path, force=True)
    (tmp_path / "empty").mkdir()
    built(path, tmp_path / "empty")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "empty", "out"]


def test_verify_passes_a_whole_store_and_names_every_kind_of_damage(tmp_path):
    path = dataset(tmp_path / "data")
    out = tmp_path / "out"
    built(path, out)
    whole = Options(events=path, out=out, verify_only=True, audio_root=tmp_path / "data")
    report = run(whole)
    assert (report.metrics["problems"], report.blocks) == ([], False)

    samples = bytearray((out / "train.pcm").read_bytes())
    samples[10] ^= 1
    (out / "train.pcm").write_bytes(samples)
    soundfile.write(tmp_path / "data" / "s0.wav", np.zeros(RATE), RATE)
    (tmp_path / "data" / "s1.wav").unlink()
    path.write_text(path.read_text() + "\n")
    report = run(whole)
    assert report.blocks
    problems = "\n".join(report.metrics["problems"])
    assert "train.pcm is not what was written" in problems
    assert "should be silent" in problems
    assert "the events have changed" in problems
    assert "s0.wav has changed" in problems
    assert "s1.wav is no longer" in problems


def test_verify_finds_a_manifest_that_was_edited_to_fit(tmp_path):
    path = dataset(tmp_path / "data")
    out = tmp_path / "out"
    store = built(path, out)
    file = out / "splits" / "train.jsonl"
    file.write_text(file.read_text().replace("0.1,", "0.9,", 1).replace('"ride"', '"kick"', 1))
    (out / "metadata.json").write_text(
        json.dumps(
            {
                **store.metadata,
                "outputs": {
                    **store.metadata["outputs"],
                    "splits/train.jsonl": {
                        "sha256": "0" * 64,
                        "bytes": file.stat().st_size,
                    },
                },
            }
        )
    )
    problems = "\n".join(run(Options(events=path, out=out, verify_only=True)).metrics["problems"])
    assert "splits/train.jsonl is not what was written" in problems
    assert "content_sha256 does not follow" in problems
    assert "train: onsets differ" in problems
    assert "train: labels differ" in problems


def test_verify_finds_a_leak(tmp_path):
    path = dataset(tmp_path / "data")
    out = tmp_path / "out"
    store = built(path, out)
    stolen = store.split("train").session_ids[0]
    file = out / "splits" / "test.jsonl"
    lines = [{**line, "session_id": stolen} for line in rows(file)]
    write(file, lines)
    recorded = {**store.metadata["outputs"]["splits/test.jsonl"], "bytes": file.stat().st_size}
    metadata = {**store.metadata}
    metadata["outputs"] = {**metadata["outputs"], "splits/test.jsonl": recorded}
    (out / "metadata.json").write_text(json.dumps(metadata))
    problems = "\n".join(run(Options(events=path, out=out, verify_only=True)).metrics["problems"])
    assert f"session {stolen} is in test and train" in problems
    assert "test: sessions differ between table and manifest" in problems


def test_gates_warn_of_labels_that_cannot_be_learned_or_judged(tmp_path):
    path = dataset(tmp_path / "data", sessions=6, components=lambda s: [{"label": "kick"}])
    lines = rows(path)
    lines[0]["components"] = [{"label": "crash"}]
    report = run(Options(events=write(path, lines), out=tmp_path / "out", sample_rate=RATE))
    verdicts = {verdict.name: verdict for verdict in report.verdicts}
    assert verdicts["dataset.max_untrained_labels"].status == "warn"
    assert verdicts["dataset.max_untrained_labels"].observed == 10
    assert verdicts["dataset.max_unjudged_labels"].status == "warn"
    assert verdicts["dataset.max_unjudged_labels"].detail == "crash"
    assert not report.blocks


def test_the_command_builds_verifies_and_blocks(tmp_path, drumgate):
    path = dataset(tmp_path / "data")
    out, summary = tmp_path / "out", tmp_path / "summary.json"
    build = ["build-training-dataset", path, out, "--audio-root", tmp_path / "data"]
    result = drumgate(*build, "--sample-rate", 8000, "--summary-json", summary, "--seed", 3)
    assert result.exit_code == 0, result.output
    report = json.loads(summary.read_text())
    assert report["tool"] == "build-training-dataset"
    assert report["seed"] == 3
    assert report["metrics"]["events_total"] == 32
    assert report["metrics"]["split_isolation"]["shared_sessions"] == 0
    assert drumgate(*build, "--verify-only").exit_code == 0
    (out / "val.pcm").write_bytes(b"\1" * (out / "val.pcm").stat().st_size)
    result = drumgate(*build, "--verify-only")
    assert result.exit_code == 1
    assert "val.pcm is not what was written" in result.output
    for bad in (["--audio-root-map", "x"], ["--val-ratio", "1"], ["--audio-root-map", "a=b"] * 2):
        assert drumgate(*build, *bad).exit_code == 2


@pytest.mark.slow
def test_a_build_killed_at_any_moment_leaves_no_half_store(tmp_path):
    path = dataset(tmp_path / "data", sessions=12, seconds=20.0)
    command = [sys.executable, "-m", "training.build_training_dataset", str(path)]
    for delay in (0.2, 0.5, 0.7, 0.9):
        out = tmp_path / f"out{delay}"
        process = subprocess.Popen(
            [*command, str(out)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if out.exists():
            assert run(Options(events=path, out=out, verify_only=True)).metrics["problems"] == []


def test_mdb_drums_builds_and_verifies(shared_data, tmp_path, drumgate):
    if not (shared_data / "mdb_drums").is_dir():
        pytest.skip("needs MDB Drums")
    events, out = tmp_path / "events.jsonl", tmp_path / "out"
    ingest = drumgate("ingest-mdb-drums", shared_data / "mdb_drums", "--output", events)
    assert ingest.exit_code == 0, ingest.output
    build = ["build-training-dataset", events, out, "--audio-root", shared_data / "mdb_drums"]
    assert drumgate(*build, "--skip-missing-audio").exit_code == 0
    assert drumgate(*build, "--verify-only").exit_code == 0
    store = ClipStore.open(out)
    assert store.metadata["split_policy"]["isolation"]["shared_sessions"] == 0
    split = store.split("train")
    clips = split.gather(np.arange(len(split)), pre=1102, length=25_400)
    assert (np.abs(clips).max(axis=1) > 0).mean() > 0.99


def test_the_command_says_what_each_split_holds(tmp_path, drumgate):
    events = dataset(tmp_path / "audio")
    build = ("build-training-dataset", events, tmp_path / "store", "--sample-rate", RATE)
    result = drumgate(*build, "--val-ratio", 0.25, "--test-ratio", 0, "--split-by", "session")
    assert result.exit_code == 0, result.stderr
    store = ClipStore.open(tmp_path / "store")
    first, train, val = result.stdout.splitlines()[:3]
    assert first == f"{tmp_path / 'store'}: {store.metadata['content_sha256'][:12]}"
    assert train.split() == ["train", "24", "events", "6", "sessions", "0.1", "min"]
    assert val.split() == ["val", "8", "events", "2", "sessions", "0.0", "min"]
    assert "events" not in drumgate(*build, "--verify-only").stdout
