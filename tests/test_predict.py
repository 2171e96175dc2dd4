"""Predicting from the command line: the same as training sees, windows, order, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip_makers
import numpy as np
import pytest
import soundfile
import torch
from click.testing import Result
from jsonl import read as rows_of

from training.checks import predict
from training.checks.calibration_file import load_calibration
from training.dataset.store import ClipStore
from training.errors import InputError
from training.loop.config import load_recipe
from training.loop.feed import ClipFeed
from training.loop.run import MODEL_FILE, TrainOptions, train_classifier
from training.manifest import Prediction, read_records
from training.model.inference import Predictor

Run = Callable[..., Result]
FEATURES = clip_makers.FEATURES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A manifest, its store, and a model trained on it."""
    folder = tmp_path_factory.mktemp("made")
    manifest, store = clip_makers.build_store(folder, {"train": 80, "val": 40, "test": 20})
    (folder / "tiny.toml").write_text(clip_makers.CONFIG)
    recipe = load_recipe("fast", folder / "tiny.toml", {"epochs": 12, "batch_size": 16})
    options = TrainOptions(
        dataset=store, output=folder / "models", recipe=recipe, device="cpu", allow_unready=True
    )
    train_classifier(options)
    return manifest, store, folder / "models" / MODEL_FILE


def test_it_says_what_the_model_says_of_the_stores_clips(
    made: tuple[Path, Path, Path], tmp_path: Path, drumgate: Run
) -> None:
    manifest, store, model = made
    out = tmp_path / "predictions.jsonl"
    result = drumgate(
        "predict", "--model", model, "--events", manifest, "--audio-root", manifest.parent,
        "--output", out, "--report", tmp_path / "report.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "real-time factor" in result.stdout
    records = read_records(out, Prediction)
    events = rows_of(manifest)
    assert [row.sample_id for row in records] == [event["sample_id"] for event in events]

    split = ClipStore.open(store).split("test")
    predictor = Predictor.load(model)
    feed = ClipFeed(split, FEATURES, batch_size=64)
    audio, _ = next(iter(feed))
    said = predictor.predict(audio)
    by_id = {row.sample_id: row for row in records}
    for number, sample_id in enumerate(split.sample_ids):
        row = by_id[sample_id]
        scores = [row.label_scores[label] for label in predictor.labels]
        np.testing.assert_allclose(scores, said.scores[number], atol=1e-5)
        assert row.velocity_pred == pytest.approx(float(said.velocity[number]), abs=1e-5)
        assert row.unknown_score == pytest.approx(float(said.unknown[number]), rel=1e-3, abs=1e-2)
        assert row.openness_pred is None  # no training clip had one
    right = np.mean(
        [
            {
                label
                for label, score in by_id[event["sample_id"]].label_scores.items()
                if score > 0.5
            }
            == {component["label"] for component in event["components"]}
            for event in events
        ]
    )
    assert right > 0.7
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["metrics"]["rows_predicted"] == 140
    assert report["metrics"]["recordings"] == 3
    assert report["provenance"]["rtf"] > 0


def test_the_order_of_rows_and_the_batch_size_do_not_matter(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    manifest, _, model = made
    events = rows_of(manifest)
    mixed = manifest.parent / "mixed.jsonl"
    order = np.random.default_rng(0).permutation(len(events))
    mixed.write_text("".join(json.dumps(events[i]) + "\n" for i in order))
    found = []
    for name, batch_size in ((manifest, 64), (mixed, 7)):
        out = tmp_path / f"{name.stem}.jsonl"
        predict.run(predict.Options(model=model, events=name, output=out, batch_size=batch_size))
        found.append({row["sample_id"]: row for row in rows_of(out)})
    assert found[0].keys() == found[1].keys()
    for sample_id, row in found[0].items():
        for label, score in row["scores"].items():
            assert found[1][sample_id]["scores"][label] == pytest.approx(score, abs=1e-4)


def pack_row(window_start_s: float, window_ms: float, onset_s: float) -> dict[str, Any]:
    return {
        "sample_id": f"w{window_start_s}",
        "audio_path": "test.wav",
        "window_start_s": window_start_s,
        "window_size_ms": window_ms,
        "onset_ms": round((onset_s - window_start_s) * 1000, 6),
    }


def test_a_pack_hears_nothing_outside_its_window(
    made: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _, model = made
    heard: list[torch.Tensor] = []
    original = Predictor.predict

    def listen(self: Predictor, audio: torch.Tensor, **kwargs: Any) -> Any:
        heard.append(audio)
        return original(self, audio, **kwargs)

    monkeypatch.setattr(Predictor, "predict", listen)
    onset = rows_of(manifest)[-5]["onset_time"]
    rows = [
        pack_row(onset - 0.002, 500.0, onset),  # near the start
        pack_row(onset - 0.480, 500.0, onset),  # near the end: 20 ms are left
        pack_row(onset - 0.250, 500.0, onset),  # in the middle
    ]
    pack = manifest.parent / "pack.jsonl"
    pack.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predict.run(predict.Options(model=model, pack=pack, output=tmp_path / "p.jsonl"))
    clips = torch.cat(heard).numpy()

    samples, _ = soundfile.read(manifest.parent / "test.wav", dtype="int16")
    start = round(onset * clip_makers.RATE) - FEATURES.read_before
    whole = samples[start : start + FEATURES.read_samples]
    np.testing.assert_array_equal(clips[2], whole)
    at_start = FEATURES.read_before - round(0.002 * clip_makers.RATE)
    assert not clips[0][:at_start].any()
    np.testing.assert_array_equal(clips[0][at_start:], whole[at_start:])
    at_end = FEATURES.read_before + round(0.020 * clip_makers.RATE)
    assert not clips[1][at_end:].any()
    np.testing.assert_array_equal(clips[1][:at_end], whole[:at_end])


def test_audio_of_another_rate_is_resampled(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    manifest, _, model = made
    from training.audio.reading import resample

    samples, rate = soundfile.read(manifest.parent / "test.wav", dtype="float32")
    soundfile.write(tmp_path / "test.wav", resample(samples, rate, 44_100), 44_100)
    rows = [row for row in rows_of(manifest) if row["audio_path"] == "test.wav"]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for folder in (manifest.parent, tmp_path):
        out = tmp_path / f"{folder.name}.jsonl"
        options = predict.Options(
            model=model, events=tmp_path / "events.jsonl", audio_root=folder, output=out
        )
        predict.run(options)
        found.append([[*row["scores"].values()] for row in rows_of(out)])
    difference = np.abs(np.array(found[0]) - np.array(found[1]))
    assert np.median(difference) < 0.02


def test_rows_without_audio_are_an_error_unless_left_out(
    made: tuple[Path, Path, Path], tmp_path: Path, drumgate: Run
) -> None:
    manifest, _, model = made
    rows = rows_of(manifest)[:3]
    del rows[1]["audio_path"]
    rows[2]["audio_path"] = "elsewhere.wav"
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "predictions.jsonl"
    arguments = ["predict", "--model", model, "--events", events, "--audio-root", manifest.parent,
                 "--output", out]  # fmt: skip
    result = drumgate(*arguments)
    assert result.exit_code == 2
    assert "events.jsonl:2: audio_path: is missing" in result.stderr
    assert "events.jsonl:3: audio_path: no such file" in result.stderr
    assert not out.exists()
    result = drumgate(*arguments, "--skip-missing-audio")
    assert result.exit_code == 0
    assert "2 rows have no audio" in result.stderr
    assert len(rows_of(out)) == 1


def test_bad_rows_are_named(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    manifest, _, model = made
    row = rows_of(manifest)[0]
    events = tmp_path / "events.jsonl"
    out = tmp_path / "predictions.jsonl"
    for change, message in (
        ({"onset_time": 1e6}, r"events\.jsonl:1: onset_time: lies past the end of train\.wav"),
        ({"onset_time": "0.5"}, r"events\.jsonl:1: onset_time: must be a number"),
        ({"audio_path": "../../etc/passwd"}, r"leads outside|no such file"),
        ({"audio_path": "events.jsonl"}, "not readable audio"),
    ):
        events.write_text(json.dumps(row | change) + "\n")
        options = predict.Options(
            model=model, events=events, audio_root=manifest.parent, output=out
        )
        with pytest.raises(InputError, match=message):
            predict.run(options)
        assert not out.exists()


def test_an_onset_outside_its_window_is_refused(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    manifest, _, model = made
    pack = tmp_path / "pack.jsonl"
    pack.write_text(json.dumps(pack_row(0.0, 100.0, 0.2)) + "\n")
    options = predict.Options(
        model=model, pack=pack, audio_root=manifest.parent, output=tmp_path / "p.jsonl"
    )
    with pytest.raises(InputError, match=r"pack\.jsonl:1: onset_ms: lies outside its window"):
        predict.run(options)


def test_exactly_one_manifest_is_wanted(tmp_path: Path, drumgate: Run) -> None:
    for more in ([], ["--events", "a", "--pack", "b"]):
        result = drumgate("predict", "--model", "m", "--output", tmp_path / "o", *more)
        assert result.exit_code == 2
        assert "either --events or --pack" in result.stderr


def test_a_calibration_scales_the_scores_and_marks_each_row(
    made: tuple[Path, Path, Path], tmp_path: Path, drumgate: Run
) -> None:
    manifest, _, model = made
    raw, file, out = tmp_path / "raw.jsonl", tmp_path / "c.json", tmp_path / "done.jsonl"
    predict.run(predict.Options(model=model, events=manifest, output=raw))
    labels = Predictor.load(model).labels
    classes = {label: {"slope": 0.5, "intercept": -1.0, "threshold": 0.3} for label in labels}
    file.write_text(json.dumps({"schema_version": 1, "classes": classes}))
    asked = (
        "predict", "--model", model, "--events", manifest, "--output", out, "--calibration", file,
    )  # fmt: skip
    result = drumgate(*asked)
    assert result.exit_code == 0, result.stderr
    identity = load_calibration(file).id
    for before, after in zip(rows_of(raw), rows_of(out), strict=True):
        assert "calibration" not in before
        assert after["calibration"] == identity
        for label in labels:
            p = min(max(before["scores"][label], 1e-7), 1 - 1e-7)
            z = 0.5 * np.log(p / (1 - p)) - 1.0
            assert after["scores"][label] == pytest.approx(1 / (1 + np.exp(-z)), abs=1e-5)
        assert after["unknown_score"] == before["unknown_score"]

    del classes[labels[0]]
    file.write_text(json.dumps({"schema_version": 1, "classes": classes}))
    out.unlink()
    result = drumgate(*asked)
    assert result.exit_code == 2
    assert f"has no entry for {labels[0]}, which the model predicts" in result.stderr
    assert not out.exists()


def test_logits_and_features_go_where_openset_eval_reads_them(
    made: tuple[Path, Path, Path], tmp_path: Path, drumgate: Run
) -> None:
    manifest, _, model = made
    out, archive = tmp_path / "predictions.jsonl", tmp_path / "features.npz"
    result = drumgate(
        "predict", "--model", model, "--events", manifest, "--audio-root", manifest.parent,
        "--output", out, "--write-logits", "--write-features", archive,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    records = read_records(out, Prediction)
    predictor = Predictor.load(model)
    with np.load(archive, allow_pickle=False) as read:
        arrays = dict(read)
    assert arrays["sample_id"].tolist() == [row.sample_id for row in records]
    assert arrays["classes"].tolist() == list(predictor.labels)
    # In evaluation the class layer sees the features as they are.
    logits = arrays["features"] @ arrays["weight"].T + arrays["bias"]
    for row, expected in zip(records, logits, strict=True):
        assert row.logits is not None
        np.testing.assert_allclose(
            [row.logits[label] for label in predictor.labels], expected, atol=1e-3
        )

    truth = tmp_path / "truth.jsonl"
    lines = [
        {**event, "is_known": number % 2 == 0} for number, event in enumerate(rows_of(manifest))
    ]
    truth.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = tmp_path / "openset.json"
    result = drumgate(
        "openset-eval", "--ground-truth", truth, "--predictions", out, "--method", "all",
        "--features", archive, "--statistics", archive, "--iterations", 10, "--report", report,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    metrics = json.loads(report.read_text())["metrics"]
    ranking = {row["method"]: row["auroc"] for row in metrics["ranking"]}
    # The unknown score of predict is the relative Mahalanobis distance.
    assert ranking["relative_mahalanobis"] == pytest.approx(ranking["explicit"], abs=0.01)
    assert {"energy", "knn"} <= set(ranking)
