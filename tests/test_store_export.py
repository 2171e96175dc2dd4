"""Exported clips: the context of their class, silence past their recording, a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from jsonl import read as rows
from jsonl import write
from test_build_training_dataset import RATE, dataset

from training.checks.build_dataset import Options, run
from training.dataset.export import load_windows
from training.dataset.store import ClipStore
from training.errors import InputError
from training.manifest import Component, ContextMs, Event, read_records
from training.taxonomy import load_components

WINDOWS = """
[default]
pre_ms = 20.0
post_ms = 100.0

[labels.snare]
post_ms = 300.0

[labels.crash]
pre_ms = 50.0
"""


def event(*labels: str, context: ContextMs | None = None) -> Event:
    return Event(
        sample_id="x",
        session_id="s",
        onset_time=0.0,
        components=tuple(Component(label=label) for label in labels),
        context_ms=context,
    )


def test_the_longest_context_of_the_labels_counts_and_the_events_own_goes_before(tmp_path):
    taxonomy = load_components()
    path = tmp_path / "windows.toml"
    path.write_text(WINDOWS)
    windows = load_windows(path, taxonomy)
    assert windows.of(event(), taxonomy) == (20.0, 100.0)
    assert windows.of(event("kick"), taxonomy) == (20.0, 100.0)
    assert windows.of(event("sd", "kick"), taxonomy) == (20.0, 300.0)
    assert windows.of(event("snare", "crash"), taxonomy) == (50.0, 300.0)
    own = ContextMs(pre=5.0)
    assert windows.of(event("snare", context=own), taxonomy) == (5.0, 300.0)
    own = ContextMs(pre=5.0, post=1e9)
    assert windows.of(event("snare", context=own), taxonomy) == (5.0, 60_000.0)


def test_the_shipped_windows_are_those_of_the_default_preset_where_nothing_rings(tmp_path):
    taxonomy = load_components()
    shipped = load_windows(None, taxonomy)
    assert sum(shipped.of(event("kick"), taxonomy)) == pytest.approx(576, abs=0.1)
    assert set(shipped.labels) <= set(taxonomy.targets)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x", "not TOML"),
        ("", "required field `default`"),
        ("[default]\npre_ms = 1.0\n", "default: must have pre_ms and post_ms"),
        ("[default]\npre_ms = -1.0\npost_ms = 1.0\n", "default: needs 0 <= pre_ms"),
        ("[default]\npre_ms = nan\npost_ms = 1.0\n", "default: needs 0 <= pre_ms"),
        ("[default]\npre_ms = 1.0\npost_ms = inf\n", "default: needs 0 <= pre_ms"),
        (WINDOWS + "[labels.gong]\npre_ms = 1.0\n", r"labels\.gong: is not in the taxonomy"),
        (WINDOWS + "[labels.sd]\npre_ms = 1.0\n", r"labels\.sd: names snare a second time"),
        (WINDOWS + "[labels.kick]\nlength = 1.0\n", "unknown field `length`"),
        (WINDOWS + '[labels.kick]\npre_ms = "1"\n', "Expected `float"),
    ],
)
def test_windows_that_are_wrong_are_refused(tmp_path, content, message):
    path = tmp_path / "windows.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_windows(path, load_components())


def test_clips_are_the_samples_of_the_recordings(tmp_path, drumgate):
    data = dataset(tmp_path / "data", offset_time=0.35)
    lines = rows(data)
    for index, line in enumerate(lines):
        line["offset_time"] = line["onset_time"] + 0.05
        line["sample_id"] = f"../{index} é"
    write(data, lines)
    (tmp_path / "windows.toml").write_text(WINDOWS)
    out, clips = tmp_path / "out", tmp_path / "clips"
    build = ["build-training-dataset", data, out, "--sample-rate", RATE]
    export = ["--export-wavs", clips, "--clip-windows", tmp_path / "windows.toml"]
    result = drumgate(*build, *export, "--summary-json", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["metrics"]["exported_wavs"]["clips"] == 32
    found = read_records(clips / "clips.jsonl", Event).rows
    assert len(found) == 32
    before = {line["sample_id"]: line for line in lines}
    for each in found:
        raw = before[each.sample_id]
        source, _ = soundfile.read(data.parent / str(raw["audio_path"]), dtype="int16")
        clip, rate = soundfile.read(clips / str(each.audio_path), dtype="int16")
        assert rate == RATE == each.sample_rate
        label = raw["components"][0]["label"]
        pre, post = {"snare": (20, 300), "crash": (50, 100)}.get(label, (20, 100))
        assert len(clip) == (pre + post) * RATE // 1000
        assert each.onset_time == pre / 1000
        assert each.offset_time == pytest.approx(pre / 1000 + 0.05)
        padded = np.concatenate([np.zeros(RATE, np.int16), source, np.zeros(RATE, np.int16)])
        start = RATE + round(float(raw["onset_time"]) * RATE) - pre * RATE // 1000
        np.testing.assert_array_equal(clip, padded[start : start + len(clip)])
        assert (clips / str(each.audio_path)).resolve().is_relative_to(clips)
        assert (each.context_ms.pre, each.context_ms.post) == (pre, post)
    # the folder is a data set of its own
    again = drumgate("build-training-dataset", clips / "clips.jsonl", tmp_path / "two")
    assert again.exit_code == 0, again.output


def test_an_export_of_a_store_that_stands_decodes_nothing(tmp_path):
    data, out = dataset(tmp_path / "data"), tmp_path / "out"
    run(Options(events=data, out=out, sample_rate=RATE))
    report = run(
        Options(events=data, out=out, sample_rate=RATE, resume=True, export_wavs=tmp_path / "clips")
    )
    assert report.metrics["resumed"]["recordings_decoded"] == 0
    assert len(list((tmp_path / "clips").rglob("*.wav"))) == len(
        [i for n in ("train", "val", "test") for i in ClipStore.open(out).split(n).sample_ids]
    )


def test_other_folders_are_not_written_to(tmp_path):
    data, out = dataset(tmp_path / "data"), tmp_path / "out"
    with pytest.raises(InputError, match="something else in it"):
        run(Options(events=data, out=out, sample_rate=RATE, export_wavs=tmp_path / "data"))
    assert not Path(out).exists()
    for inside in (out, out / "clips", tmp_path):
        with pytest.raises(InputError, match="must not lie in the store"):
            run(Options(events=data, out=out, sample_rate=RATE, export_wavs=inside))
    with pytest.raises(InputError, match="does not go with --verify-only"):
        run(Options(events=data, out=out, verify_only=True, export_wavs=tmp_path / "clips"))
