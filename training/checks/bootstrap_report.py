"""The bootstrap check's report: figures, comparison and warnings in the form that is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from training.checks import bootstrap_input as inputs
from training.checks.bootstrap_input import LISTED, Clusters, Joined, Truth, Vocabulary
from training.checks.bootstrap_onsets import OnsetTotals
from training.metrics.bootstrap import Estimates
from training.metrics.calibration_scores import BUCKET_METRICS
from training.metrics.confusion import said_instead
from training.metrics.resampling import holm
from training.metrics.scores import BUCKETS, Clips

if TYPE_CHECKING:
    from training.checks.bootstrap import Options

# In simulation expanded intervals of 95 % cover 93 % or more from here on (docs/tools).
_COVERS_FROM: Final = 8


def _overall(found: Estimates) -> dict[str, Any]:
    return {
        name: estimate.as_metrics()
        for name, estimate in found.overall.items()
        if name not in BUCKET_METRICS
    }


def _per_bucket(found: Estimates, clips: Clips) -> dict[str, Any]:
    """ECE and Brier score of each dynamic bucket that has clips."""
    n_clips = {name: int((clips.bucket == row).sum()) for row, name in enumerate(BUCKETS)}
    return {
        bucket: {
            "n_clips": n_clips[bucket],
            **{
                figure: found.overall[f"{figure}_{bucket}"].as_metrics()
                for figure in ("ece", "brier")
                if f"{figure}_{bucket}" in found.overall
            },
        }
        for bucket in BUCKETS
        if n_clips[bucket] and any(f"{f}_{bucket}" in found.overall for f in ("ece", "brier"))
    }


def _onsets(totals: OnsetTotals) -> dict[str, int]:
    return {
        "without_onset_pred": totals.without_pred,
        "extra_onsets_total": totals.extra,
        "unplaced_onsets_total": totals.unplaced,
    }


def figures(
    found: Estimates,
    truth: Truth,
    vocabulary: Vocabulary,
    model: Joined,
    clusters: Clusters,
    options: Options,
    onsets: OnsetTotals | None,
) -> dict[str, Any]:
    """Give all figures of the candidate, and what they rest on, in the report's form."""
    clips = model.clips
    events = (clips.truth & clips.annotated).sum(axis=0)
    named = dict(zip(vocabulary.classes, events.tolist(), strict=True))
    expected = vocabulary.classes if vocabulary.closed else vocabulary.taxonomy.targets
    return {
        **_overall(found),
        "per_dynamic_bucket": _per_bucket(found, clips),
        "per_class": {
            label: {
                "n_events": named[label],
                "n_clusters": each["f1"].n_clusters,
                **{
                    name: estimate.as_metrics()
                    for name, estimate in each.items()
                    if onsets or not name.startswith("onset_")
                },
            }
            for label, each in found.per_class.items()
        },
        "said_instead": said_instead(
            clips.truth, clips.predicted, clips.annotated, vocabulary.classes
        ).as_metrics(),
        "n_clips": len(clips),
        "n_clusters": found.n_clusters,
        "cluster_field": options.cluster_field,
        "clips_per_cluster_max": (
            None if clusters.reason else int(np.bincount(clusters.index).max())
        ),
        "classes_without_reference": [
            label
            for label in dict.fromkeys((*expected, *vocabulary.classes))
            if not named.get(label)
        ],
        "resamples_missing_a_class": found.resamples_missing_a_class,
        "missing_predictions": model.missing[:LISTED],
        "missing_predictions_total": len(model.missing),
        "surplus_predictions_total": model.surplus,
        "without_openness_pred": model.without_value["openness"],
        "without_velocity_pred": model.without_value["velocity"],
        **({} if onsets is None else _onsets(onsets)),
        "background_labels_left_out": inputs.background_events(truth, vocabulary),
    }


def comparison(
    change: Estimates, models: list[Joined], truth: Truth, options: Options
) -> dict[str, Any]:
    """Candidate - baseline: figures, F1 per class with Holm's correction, clips that flipped."""
    f1 = {label: figures["f1"] for label, figures in change.per_class.items() if "f1" in figures}
    adjusted = holm({name: e.p_value for name, e in f1.items() if e.p_value is not None})
    right = [
        ~((clips.predicted != clips.truth) & clips.annotated).any(axis=1)
        for clips in (model.clips for model in models)
    ]
    ids = np.array([row.sample_id for row in truth.records.rows], dtype=object)
    fixed, broken = ids[right[0] & ~right[1]], ids[~right[0] & right[1]]
    return {
        "baseline": str(options.baseline_predictions),
        "difference": _overall(change),
        "per_dynamic_bucket": _per_bucket(change, models[0].clips),
        "per_class_f1": {
            label: {**estimate.as_metrics(), "p_holm": adjusted.get(label)}
            for label, estimate in f1.items()
        },
        "clips_fixed_total": len(fixed),
        "clips_broken_total": len(broken),
        "clips_fixed": fixed[:LISTED].tolist(),
        "clips_broken": broken[:LISTED].tolist(),
        "baseline_missing_predictions_total": len(models[1].missing),
    }


def warnings(
    found: Estimates, truth: Truth, vocabulary: Vocabulary, models: list[Joined]
) -> list[str]:
    """Say what a reader should know before trusting the figures."""
    n_clips = len(truth.records)
    strangers = sorted(set(vocabulary.classes) - vocabulary.taxonomy.known)
    said: list[tuple[int, str]] = []
    for model in models:
        whose = f"in {model.source.path}" if len(models) > 1 else ""
        said += [
            (
                len(model.missing),
                f"of {n_clips} clips have no prediction {whose}and count as missed",
            ),
            (model.surplus, f"predictions {whose}are of no clip in the ground truth; left out"),
            (
                model.labels_only,
                f"predictions {whose}give labels without scores, which count as 1 and 0 in "
                "lrap, coverage_error, map, ece and brier",
            ),
        ]
    clips = models[0].clips
    said.append(
        (
            int((clips.truth & ~clips.annotated).any(axis=1).sum()),
            "clips have a label that their own annotated_labels leave out; it counts nowhere",
        )
    )
    said_so = [f"{count} {' '.join(text.split())}" for count, text in said if count]
    if strangers and not vocabulary.closed:
        said_so.append(f"classes that the taxonomy does not know: {', '.join(strangers)}")
    if found.resamples_missing_a_class:
        said_so.append(
            f"in {found.resamples_missing_a_class} resamples some class has no reference event and "
            "is left out of the macro mean"
        )
    macro_f1 = found.overall["macro_f1"]
    if macro_f1.lower is not None and macro_f1.n_clusters < _COVERS_FROM:
        said_so.append(
            f"the intervals rest on {macro_f1.n_clusters} sessions; below {_COVERS_FROM} they are "
            "too narrow"
        )
    if macro_f1.lower is not None and macro_f1.lower == macro_f1.upper:
        said_so.append(
            "macro_f1 is the same in every resample: its interval has no width, which says that "
            "these clips hold no error to resample, not that there is none"
        )
    return said_so
