"""Whole recordings: onsets are found, rows are events of a manifest, false alarms are counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip_makers
import mir_eval
import numpy as np
import pytest
import soundfile
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from jsonl import read as rows_of
from model_makers import write_model

from training.audio.onsets import detect_onsets, onset_strength
from training.checks import predict, predict_recordings
from training.errors import DrumgateError, InputError
from training.manifest import Event, Prediction, read_records
from training.metrics.false_alarms import Onsets, false_alarms, recall_at

Run = Callable[..., Result]
RATE = clip_makers.RATE


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A model that nobody trained, two recordings, and what was struck in each."""
    folder = tmp_path_factory.mktemp("takes")
    struck = {}
    for name, n in (("one", 8), ("two", 12)):
        samples, events = clip_makers.recording(n, np.random.default_rng(n))
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="PCM_16")
        struck[name] = [event["onset"] / RATE for event in events]
    return write_model(folder / "m.pth"), folder, struck


# --------------------------------------------------------------------------------------- onsets


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_onsets_are_found_on_time_at_any_rate_and_level(rate: int, level: float) -> None:
    rng = np.random.default_rng(rate)
    times = np.arange(0.2, 9.0, 0.31) + rng.uniform(0, 0.02, 29)
    samples = 1e-4 * rng.standard_normal(10 * rate)
    for number, time in enumerate(times):
        start, n = int(time * rate), int(0.1 * rate)
        decay = np.exp(-np.arange(n) / (0.02 * rate))
        tone = np.sin(2 * np.pi * 120 * np.arange(n) / rate)
        sound = rng.standard_normal(n) * 0.3 if number % 2 else tone
        samples[start : start + n] += sound * decay * rng.uniform(0.3, 1.0)
    found = detect_onsets(level * samples, rate)
    assert len(found) == len(times)
    assert np.abs(found - times).max() < 0.012
    assert abs(np.median(found - times)) < 0.004


def test_nothing_is_found_in_nothing() -> None:
    assert len(onset_strength(np.zeros(0), RATE)) == 0
    for n in (0, 1, 10, RATE):
        assert len(detect_onsets(np.zeros(n), RATE)) == 0
    assert len(detect_onsets(np.sin(np.arange(RATE) * 0.3) * 0.5, RATE)) <= 2  # where it begins
    with pytest.raises(ValueError, match="sensitivity"):
        detect_onsets(np.zeros(10), RATE, sensitivity=1.0)
    with pytest.raises(ValueError, match="sample_rate"):
        detect_onsets(np.zeros(10), 4000)


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_more_sensitivity_finds_no_less(one: float, other: float) -> None:
    samples, _ = clip_makers.recording(6, np.random.default_rng(3))
    few, many = (len(detect_onsets(samples, RATE, sensitivity=s)) for s in sorted((one, other)))
    assert few <= many


# ------------------------------------------------------------------------------------ recordings


def test_rows_are_events_that_predict_takes_again(
    takes: tuple[Path, Path, dict[str, Any]], tmp_path: Path, drumgate: Run
) -> None:
    model, folder, struck = takes
    out = tmp_path / "found.jsonl"
    result = drumgate(
        "predict", "--model", model, "--audio", folder / "*.wav", "--output", out,
        "--report", tmp_path / "report.json", "--write-logits",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "real-time factor" in result.stdout
    rows = rows_of(out)
    report = json.loads((tmp_path / "report.json").read_text())
    figures = report["metrics"]
    assert figures["rows_predicted"] == len(rows) > 0
    assert figures["onsets"] == figures["rows_predicted"] + figures["onsets_without_a_class"]
    assert figures["recordings"] == 2
    assert {row["session_id"] for row in rows} <= {"one", "two"}
    for row in rows:
        nearest = np.abs(np.array(struck[row["session_id"]]) - row["onset_time"]).min()
        assert nearest < 0.015
        over = {label for label, score in row["scores"].items() if score >= 0.5}
        assert {part["label"] for part in row["components"]} == over
        for part in row["components"]:
            assert part["velocity"] == row["velocity_pred"]
            assert ("openness" in part) == (part["label"] == "hihat_closed")
    assert len(read_records(out, Event).rows) == len(read_records(out, Prediction).rows)

    again = tmp_path / "again.jsonl"
    predict.run(predict.Options(model=model, events=out, audio_root=folder, output=again))
    for one, other in zip(rows, rows_of(again), strict=True):
        assert one["sample_id"] == other["sample_id"]
        for label, score in one["scores"].items():
            assert other["scores"][label] == pytest.approx(score, abs=1e-4)


def test_a_reference_gives_false_alarms_and_recall(
    takes: tuple[Path, Path, dict[str, Any]], tmp_path: Path, drumgate: Run
) -> None:
    model, folder, _ = takes
    out, truth = tmp_path / "found.jsonl", tmp_path / "truth.jsonl"
    asked = (
        "predict", "--model", model, "--audio", folder / "*.wav", "--output", out,
        "--reference", truth, "--report", tmp_path / "report.json",
    )  # fmt: skip
    # What the model says of recording "one" is taken for the truth; "two" is not annotated.
    predict_recordings.run(
        predict_recordings.Options(model=model, audio=(folder / "one.wav",), output=truth)
    )
    rows = rows_of(truth)
    n_said = sum(len(row["components"]) for row in rows)
    result = drumgate(*asked)
    assert result.exit_code == 0, result.stderr
    assert "0.0 false alarms an hour, recall 1.000 (1 recordings, 0.001 h)" in result.stdout
    assert "1 recordings have no event" in result.stderr
    figures = json.loads((tmp_path / "report.json").read_text())["metrics"]["continuous"]
    hours = 9 * 0.25 / 3600
    assert figures["hours"] == pytest.approx(hours)
    assert sum(row["hits"] for row in figures["per_class"].values()) == n_said
    assert [row["max_fa_per_hour"] for row in figures["at_limits"]] == [6.0, 60.0, 600.0]
    assert all(row["recall"] == 1.0 for row in figures["at_limits"])

    # Half of the truth is gone, and one label is not annotated at all.
    left = [{**row, "annotated_labels": ["kick", "snare"]} for row in rows[::2]]
    left[0]["components"] = [*left[0]["components"], {"label": "cowbell"}]
    truth.write_text("".join(json.dumps(row) + "\n" for row in left))
    result = drumgate(*asked)
    assert result.exit_code == 0, result.stderr
    assert "labels that the model does not know: cowbell" in result.stderr
    figures = json.loads((tmp_path / "report.json").read_text())["metrics"]["continuous"]
    assert figures["per_class"]["hihat_closed"]["n_ref"] == 0
    assert figures["per_class"]["hihat_closed"]["false_alarms"] == 0
    alarms = sum(
        part["label"] in ("kick", "snare") for row in rows[1::2] for part in row["components"]
    )
    assert figures["fa_per_hour"] == pytest.approx(alarms / hours)

    truth.write_text('{"sample_id": "a"}\n')
    out.unlink()
    result = drumgate(*asked)
    assert result.exit_code == 2
    assert "truth.jsonl:1: " in result.stderr
    assert not out.exists()


def test_the_batch_size_changes_nothing(
    takes: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    model, folder, _ = takes
    found = []
    for size in (1, 5, 64):
        out = tmp_path / f"{size}.jsonl"
        predict_recordings.run(
            predict_recordings.Options(
                model=model, audio=(folder / "two.wav",), output=out, batch_size=size
            )
        )
        found.append(rows_of(out))
    for other in found[1:]:
        assert [row["sample_id"] for row in other] == [row["sample_id"] for row in found[0]]
        for one, two in zip(found[0], other, strict=True):
            assert one["scores"] == pytest.approx(two["scores"], abs=1e-4)


def test_silence_is_no_event_and_is_said(
    takes: tuple[Path, Path, dict[str, Any]], tmp_path: Path, drumgate: Run
) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(RATE), RATE)
    out = tmp_path / "found.jsonl"
    result = drumgate(
        "predict", "--model", takes[0], "--audio", tmp_path / "none.wav", "--output", out
    )
    assert result.exit_code == 0
    assert "no event was found" in result.stderr
    assert out.read_text() == ""


def test_recordings_of_one_name_need_a_root(
    takes: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    model, folder, _ = takes
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.wav").write_bytes((folder / "one.wav").read_bytes())
    both = (tmp_path / "a" / "one.wav", tmp_path / "b" / "one.wav")
    out = tmp_path / "found.jsonl"
    asked = predict_recordings.Options(model=model, audio=both, output=out)
    with pytest.raises(DrumgateError, match="give --audio-root"):
        predict_recordings.run(asked)
    assert not out.exists()
    predict_recordings.run(
        predict_recordings.Options(model=model, audio=both, output=out, audio_root=tmp_path)
    )
    assert {row["audio_path"] for row in rows_of(out)} == {"a/one.wav", "b/one.wav"}
    assert {row["session_id"] for row in rows_of(out)} == {"a/one", "b/one"}
    with pytest.raises(InputError, match="does not lie below"):
        predict_recordings.run(
            predict_recordings.Options(
                model=model, audio=both, output=out, audio_root=tmp_path / "a"
            )
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--audio", "none.wav"], "none.wav: no such file"),
        (["--audio", "*.none"], "matches no file"),
        (["--audio", "text.wav"], "text.wav: "),
        (["--audio", "one.wav", "--events", "e.jsonl"], "give either --events or --pack or"),
        (["--events", "e.jsonl", "--reference", "r.jsonl"], "--reference goes with --audio"),
        (["--audio", "one.wav", "--skip-missing-audio"], "does not go with --audio"),
        (["--audio", "one.wav", "--sensitivity", "1"], "--sensitivity"),
        (["--audio", "one.wav", "--preset", "fast"], "other features than --preset fast: "),
    ],
)
def test_bad_input_is_named(
    takes: tuple[Path, Path, dict[str, Any]],
    tmp_path: Path,
    drumgate: Run,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.wav").write_text("no audio")
    Path("one.wav").write_bytes((takes[1] / "one.wav").read_bytes())
    result = drumgate("predict", "--model", takes[0], "--output", "out.jsonl", *flags)
    assert result.exit_code == 2, result.stdout
    assert message in result.stderr
    assert not Path("out.jsonl").exists()


def test_a_model_of_the_named_features_is_taken(tmp_path: Path) -> None:
    from training.audio.logmel import FEATURE_PRESETS
    from training.checks.predict_model import load_predictor

    model = write_model(tmp_path / "m.pth", features=FEATURE_PRESETS["fast"])
    assert load_predictor(model, "cpu", "energy", None, "fast").features.hop == 140
    with pytest.raises(InputError, match=r"features: was trained with.*hop 140 \(not 200\)"):
        load_predictor(model, "cpu", "energy", None, "default")


# ---------------------------------------------------------------------------------- false alarms


def onsets(*rows: tuple[int, int, float, float]) -> Onsets:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    return Onsets(
        recording=np.array(columns[0], dtype=np.intp),
        label=np.array(columns[1], dtype=np.intp),
        seconds=np.array(columns[2], dtype=np.float64),
        score=np.array(columns[3], dtype=np.float64),
    )


def test_false_alarms_by_hand() -> None:
    reference = onsets((0, 0, 1.0, 1), (0, 0, 2.0, 1), (0, 1, 1.0, 1), (1, 0, 1.0, 1))
    predicted = onsets(
        (0, 0, 1.04, 0.9),  # found
        (0, 0, 1.05, 0.8),  # again: an alarm
        (0, 0, 2.06, 0.7),  # too late: an alarm
        (1, 1, 1.0, 0.6),  # another class: an alarm
    )
    found = false_alarms(reference, predicted, n_classes=2, hours=0.5)
    assert found.hits.tolist() == [1, 0]
    assert found.false_alarms.tolist() == [2, 1]
    assert found.fa_per_hour == 6.0
    assert found.recall == 0.25
    rows = found.as_metrics(("kick", "snare"))["per_class"]
    assert rows == {
        "kick": {"fa_per_hour": 4.0, "recall": 1 / 3, "hits": 1, "false_alarms": 2, "n_ref": 3},
        "snare": {"fa_per_hour": 2.0, "recall": 0.0, "hits": 0, "false_alarms": 1, "n_ref": 1},
    }
    assert recall_at(reference, predicted, n_classes=2, hours=0.5, max_fa_per_hour=0.0) == (
        0.25, 0.0, pytest.approx(0.81),
    )  # fmt: skip


def test_empty_input() -> None:
    nothing, one = onsets(), onsets((0, 0, 1.0, 1.0))
    assert false_alarms(nothing, nothing, n_classes=1, hours=1.0).recall is None
    found = false_alarms(one, nothing, n_classes=1, hours=1.0)
    assert (found.recall, found.fa_per_hour) == (0.0, 0.0)
    with pytest.raises(ValueError, match="hours"):
        false_alarms(one, one, n_classes=1, hours=0.0)
    with pytest.raises(ValueError, match="tolerance_s"):
        false_alarms(one, one, n_classes=1, hours=1.0, tolerance_s=-1)
    with pytest.raises(ValueError, match="one length"):
        Onsets(recording=np.zeros(2), label=np.zeros(1), seconds=np.zeros(1), score=np.zeros(1))
    recall, alarms, threshold = recall_at(
        one, onsets((0, 0, 5.0, 1.0)), n_classes=1, hours=1.0, max_fa_per_hour=0.5
    )
    assert (recall, alarms) == (0.0, 0.0)
    assert threshold > 1.0


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 60))),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 60))),
)
def test_hits_are_those_of_mir_eval(
    there: list[tuple[int, int, int]], said: list[tuple[int, int, int]]
) -> None:
    def made(rows: list[tuple[int, int, int]]) -> Onsets:
        return onsets(*((recording, label, 0.03 * at, 1.0) for recording, label, at in set(rows)))

    reference, predicted = made(there), made(said)
    found = false_alarms(reference, predicted, n_classes=3, hours=2.0, tolerance_s=0.05)
    expected = np.zeros(3, dtype=int)
    for recording in (0, 1):
        for label in range(3):
            own, theirs = (
                np.sort(each.seconds[(each.recording == recording) & (each.label == label)])
                for each in (reference, predicted)
            )
            expected[label] += len(mir_eval.util.match_events(own, theirs, 0.05))
    assert found.hits.tolist() == expected.tolist()
    assert found.hits.sum() + found.false_alarms.sum() == len(predicted.seconds)


def test_what_is_heard_can_be_judged_by_when(
    takes: tuple[Path, Path, dict[str, Any]], tmp_path: Path, drumgate: Run
) -> None:
    """Rows say when a sound was heard, and of which session, as the onset figures need it."""
    model, folder, struck = takes
    truth = [
        {
            "sample_id": f"{name}-{number}",
            "session_id": f"evening {name}",
            "onset_time": onset,
            "audio_path": f"{name}.wav",
            "components": [{"label": "kick"}],
        }
        for name, onsets in struck.items()
        for number, onset in enumerate(onsets)
    ]
    reference, out = tmp_path / "truth.jsonl", tmp_path / "found.jsonl"
    reference.write_text("".join(json.dumps(row) + "\n" for row in truth))
    words = ("predict", "--model", model, "--audio", folder / "*.wav", "--output", out)
    assert drumgate(*words, "--reference", reference).exit_code == 0
    rows = rows_of(out)
    assert {row["session_id"] for row in rows} == {"evening one", "evening two"}
    for row in rows:
        assert row["onset_pred"] == row["onset_time"]
        assert row["sample_id"].startswith(Path(row["audio_path"]).stem + "_")
    report = tmp_path / "onsets.json"
    result = drumgate(
        "bootstrap-eval", "--ground-truth", reference, "--predictions", out, "--iterations", 20,
        "--report", report,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    figures = json.loads(report.read_text())["metrics"]
    assert figures["extra_onsets_total"] == len(rows)
    assert figures["unplaced_onsets_total"] == 0

    assert drumgate(*words).exit_code == 0
    assert {row["session_id"] for row in rows_of(out)} == {"one", "two"}
