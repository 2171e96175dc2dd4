"""Onset F1: matching against mir_eval, booking on clips, and the way from the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mir_eval
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.checks.bootstrap import Options, run
from training.metrics.bootstrap import bootstrap
from training.metrics.onsets import TOLERANCES_MS, match_onsets, onset_counts
from training.metrics.resampling import Resampling
from training.metrics.scores import Clips

# Whole milliseconds: many pairs lie exactly on a tolerance.
WHOLE = st.lists(st.integers(0, 600), max_size=25).map(np.sort)
TIMES = WHOLE.map(lambda ms: ms / 1000.0)


@settings(max_examples=300, deadline=None)
@given(reference=TIMES, predicted=TIMES, tolerance=st.sampled_from([0.02, 0.05]))
def test_matches_are_as_many_as_mir_eval_finds(
    reference: np.ndarray, predicted: np.ndarray, tolerance: float
) -> None:
    found = int(match_onsets(reference, predicted, tolerance).sum())
    assert found == len(mir_eval.util.match_events(reference, predicted, tolerance))


@settings(max_examples=50, deadline=None)
@given(reference=WHOLE.map(lambda n: n / 1024), predicted=WHOLE.map(lambda n: n / 1024))
def test_matching_is_symmetric_and_grows_with_the_tolerance(
    reference: np.ndarray, predicted: np.ndarray
) -> None:
    near, far = (int(match_onsets(reference, predicted, t).sum()) for t in (0.02, 0.05))
    assert near <= far <= min(len(reference), len(predicted))
    assert match_onsets(predicted, reference, 0.05).sum() == far


def test_a_hand_computed_match() -> None:
    # One prediction cannot account for two onsets, and the earlier onset must not take the
    # prediction that the later one needs.
    assert match_onsets(np.array([1.0, 1.01]), np.array([1.005]), 0.02).tolist() == [True, False]
    both = match_onsets(np.array([1.0, 1.03]), np.array([0.99, 1.015]), 0.02)
    assert both.tolist() == [True, True]
    assert match_onsets(np.array([1.0]), np.array([]), 0.05).tolist() == [False]
    assert match_onsets(np.array([]), np.array([1.0]), 0.05).tolist() == []


def make_onsets(seed: int, n_clips: int = 300, n_classes: int = 3) -> tuple[Any, Any, np.ndarray]:
    rng = np.random.default_rng(seed)
    recording = np.sort(rng.integers(0, 12, n_clips))
    seconds = np.round(rng.uniform(0, 8, n_clips), 3)
    label = rng.integers(0, n_classes, n_clips)
    heard = np.abs(np.round(seconds + rng.normal(0, 0.03, n_clips), 3))
    said = np.where(rng.random(n_clips) < 0.9, label, rng.integers(0, n_classes, n_clips))
    clip = np.arange(n_clips)
    kept = rng.random(n_clips) < 0.9
    return (clip, label, seconds), (clip[kept], said[kept], heard[kept]), recording


@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_mir_eval_recording_by_recording(seed: int) -> None:
    reference, predicted, recording = make_onsets(seed)
    shape = (300, 3)
    truth = np.zeros(shape, dtype=bool)
    truth[reference[0], reference[1]] = True
    nothing = np.full(300, np.nan)
    clips = Clips(
        labels=("a", "b", "c"),
        truth=truth,
        scores=truth.astype(float),
        predicted=truth,
        annotated=np.ones_like(truth),
        weight=np.ones(300),
        openness=nothing,
        openness_pred=nothing,
        velocity=nothing,
        velocity_pred=nothing,
        onsets=onset_counts(shape, reference, predicted, recording),
    )
    session = np.unique(recording // 2, return_inverse=True)[1]
    found = bootstrap(
        clips, session, settings=Resampling(iterations=50), metrics=("onset_f1_50ms",)
    )

    for tolerance in TOLERANCES_MS:
        matched, totals = np.zeros(3), np.zeros(3)
        for number in np.unique(recording):
            for label in range(3):
                ours, theirs = (
                    np.sort(s[(recording[c] == number) & (what == label)])
                    for c, what, s in (reference, predicted)
                )
                f1, *_ = mir_eval.onset.f_measure(ours, theirs, window=tolerance / 1000)
                # F1 = 2 tp / (n + m), so the oracle's F1 gives back its true positives.
                matched[label] += f1 * (len(ours) + len(theirs)) / 2
                totals[label] += len(ours) + len(theirs)
        name = f"onset_f1_{tolerance}ms"
        for column, label_name in enumerate(clips.labels):
            entry = found.per_class[label_name][name]
            assert entry.point == pytest.approx(2 * matched[column] / totals[column], abs=1e-12)
        if name in found.overall:
            expected = 2 * matched.sum() / totals.sum()
            assert found.overall[name].point == pytest.approx(expected, abs=1e-12)
            assert found.overall[name].lower < expected < found.overall[name].upper


@pytest.mark.parametrize("seed", range(3))
def test_the_order_and_a_shift_do_not_matter(seed: int) -> None:
    reference, predicted, recording = make_onsets(seed)
    plain = onset_counts((300, 3), reference, predicted, recording)
    order = np.random.default_rng(seed).permutation(len(predicted[0]))
    turned = onset_counts((300, 3), reference, tuple(p[order] for p in predicted), recording)
    assert (turned == plain).all()
    # 64 s is a power of two: the sums round alike.
    later = [(c, w, np.round(s * 1000) / 1024) for c, w, s in (reference, predicted)]
    shifted = [(c, w, s + 64.0) for c, w, s in later]
    assert (
        onset_counts((300, 3), *shifted, recording) == onset_counts((300, 3), *later, recording)
    ).all()


def judge(folder: Path, truth: list[dict], predictions: list[dict], **given: Any) -> Any:
    for name, rows in (("truth", truth), ("predictions", predictions)):
        folder.joinpath(f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    options = {"iterations": 100} | given
    return run(
        Options(
            ground_truth=folder / "truth.jsonl", predictions=folder / "predictions.jsonl", **options
        )
    )


def records(late_s: float = 0.0) -> tuple[list[dict], list[dict]]:
    truth, predictions = [], []
    for session in range(6):
        for hit in range(10):
            name = f"{session}_{hit}"
            where = {"session_id": f"s{session}", "audio_path": f"{session}.wav"}
            label = ("kick", "snare")[hit % 2]
            truth.append({"sample_id": name, "labels": [label], "onset_time": hit * 0.5, **where})
            predictions.append(
                {"sample_id": name, "scores": {label: 0.9}, "onset_pred": hit * 0.5 + late_s}
            )
    return truth, predictions


def test_late_onsets_are_found_at_50_ms_only(tmp_path: Path) -> None:
    metrics = judge(tmp_path, *records(late_s=0.03)).metrics
    assert metrics["onset_f1_20ms"]["point_estimate"] == 0.0
    assert metrics["onset_f1_50ms"]["point_estimate"] == 1.0
    assert metrics["onset_f1_50ms"]["n_clusters"] == 6
    assert metrics["per_class"]["kick"]["onset_f1_50ms"]["point_estimate"] == 1.0
    assert metrics["macro_f1"]["point_estimate"] == 1.0


def test_a_prediction_of_no_clip_is_a_false_alarm_in_its_recording(tmp_path: Path) -> None:
    truth, predictions = records()
    label = {"scores": {"kick": 0.9}}
    predictions += [
        {"sample_id": "more", "onset_pred": 2.25, "audio_path": "0.wav", **label},
        {"sample_id": "soft", "onset_pred": 2.3, "audio_path": "0.wav", "scores": {"kick": 0.2}},
        {"sample_id": "lost", "onset_pred": 2.25, "audio_path": "else.wav", **label},
        {"sample_id": "late", "scores": {"kick": 0.9}},
    ]
    report = judge(tmp_path, truth, predictions)
    expected = 2 * 60 / (60 + 61)
    assert report.metrics["onset_f1_20ms"]["point_estimate"] == pytest.approx(expected)
    assert report.metrics["extra_onsets_total"] == 2
    assert report.metrics["unplaced_onsets_total"] == 1
    assert report.metrics["surplus_predictions_total"] == 2


def test_an_onset_may_be_found_by_the_prediction_of_another_clip(tmp_path: Path) -> None:
    truth, predictions = records()
    first, third = predictions[0], predictions[2]
    first["onset_pred"], third["onset_pred"] = third["onset_pred"], first["onset_pred"]
    assert judge(tmp_path, truth, predictions).metrics["onset_f1_20ms"]["point_estimate"] == 1.0


def test_missing_times_count_as_missed_and_none_at_all_as_not_given(tmp_path: Path) -> None:
    truth, predictions = records()
    del predictions[0]["onset_pred"]
    metrics = judge(tmp_path, truth, predictions).metrics
    assert metrics["onset_f1_20ms"]["point_estimate"] == pytest.approx(2 * 59 / 119)
    assert metrics["without_onset_pred"] == 1
    for row in predictions:
        row.pop("onset_pred", None)
    metrics = judge(tmp_path, truth, predictions).metrics
    assert metrics["onset_f1_20ms"]["point_estimate"] is None
    assert metrics["onset_f1_20ms"]["reason"] == "undefined on these clips"
    assert "onset_f1_20ms" not in metrics["per_class"]["kick"]


def test_dynamic_buckets_are_reported_apart(tmp_path: Path) -> None:
    truth, predictions = records()
    for number, row in enumerate(truth):
        soft = number % 4 == 0
        row["components"] = [
            {"label": row.pop("labels")[0], "dynamic_bucket": "ghost" if soft else "accent"},
            {"label": "tambourine", "dynamic_bucket": "ghost"},
        ]
    for number, row in enumerate(predictions):
        label = next(iter(row["scores"]))
        other = "snare" if label == "kick" else "kick"
        row["scores"] = {label: 0.6 if number % 4 == 0 else 0.9, other: 0.0}
    found = judge(tmp_path, truth, predictions).metrics["per_dynamic_bucket"]
    assert set(found) == {"ghost", "accent"}
    assert found["ghost"]["n_clips"] == 15
    # Half the cells are right at 0; the others are 0.4 and 0.1 below the truth.
    assert found["ghost"]["ece"]["point_estimate"] == pytest.approx(0.2)
    assert found["accent"]["ece"]["point_estimate"] == pytest.approx(0.05)
    assert found["ghost"]["brier"]["point_estimate"] == pytest.approx(0.08)
    assert found["ghost"]["brier"]["ci_lower"] == pytest.approx(0.08)
