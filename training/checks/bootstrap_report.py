"""The bootstrap check's report: figures, comparison and warnings in the form that is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from training.checks import bootstrap_input as inputs
from training.checks.bootstrap_input import LISTED, Clusters, Joined, Truth, Vocabulary
from training.checks.bootstrap_onsets import OnsetTotals
from training.errors import printable
from training.metrics.bootstrap import Estimates
from training.metrics.calibration_scores import BUCKET_METRICS
from training.metrics.classification import Summary, clip_counts, summarise
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
    summaries = [_counted(model.clips) for model in models]
    both = [{each.label: each.f1 for each in summary.per_class} for summary in summaries]
    ids = np.array([row.sample_id for row in truth.records.rows], dtype=object)
    fixed, broken = ids[right[0] & ~right[1]], ids[~right[0] & right[1]]
    return {
        "baseline": str(options.baseline_predictions),
        "difference": _overall(change),
        "per_dynamic_bucket": _per_bucket(change, models[0].clips),
        "per_class_f1": {
            label: {
                **estimate.as_metrics(),
                "p_holm": adjusted.get(label),
                "candidate": both[0][label],
                "baseline": both[1][label],
            }
            for label, estimate in f1.items()
        },
        "baseline_macro_f1": summaries[1].macro.f1,
        "baseline_micro_f1": summaries[1].micro.f1,
        "clips_fixed_total": len(fixed),
        "clips_broken_total": len(broken),
        "clips_fixed": fixed[:LISTED].tolist(),
        "clips_broken": broken[:LISTED].tolist(),
        "baseline_missing_predictions_total": len(models[1].missing),
    }


def comparison_warnings(models: list[Joined]) -> list[str]:
    """Say when a comparison compares nothing."""
    candidate, baseline = models
    if candidate.source.sha256 == baseline.source.sha256:
        return [f"{baseline.source.path} is the candidate's own file: it is compared with itself"]
    return []


def _unseen_alarms(clips: Clips) -> list[str]:
    """Name the classes that are predicted and never there: their false alarms are in no macro."""
    counts = clips.annotated & (clips.weight > 0)[:, None]
    alarms = (clips.predicted & ~clips.truth & counts).sum(axis=0)
    there = np.any(clips.truth & counts, axis=0).tolist()
    named = [
        f"{label} ({count})"
        for label, count, seen in zip(clips.labels, alarms.tolist(), there, strict=True)
        if count and not seen
    ]
    if not named:
        return []
    return [
        "predicted without any reference event, which the macro figures leave out: "
        + ", ".join(named)
    ]


def warnings(
    found: Estimates, truth: Truth, vocabulary: Vocabulary, models: list[Joined]
) -> list[str]:
    """Say what a reader should know before trusting the figures."""
    n_clips = len(truth.records)
    strangers = sorted(set(vocabulary.classes) - vocabulary.taxonomy.known)
    said: list[tuple[int, str]] = []
    for model in models:
        whose = f" in {model.source.path}" if len(models) > 1 else ""
        said += [
            (
                len(model.missing),
                f"of {n_clips} clips have no prediction{whose} and count as missed",
            ),
            (model.surplus, f"predictions{whose} are of no clip in the ground truth; left out"),
            (
                model.labels_only,
                f"predictions{whose} give labels without scores, which count as 1 and 0 in "
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
    said_so = [f"{count} {text}" for count, text in said if count]
    said_so += _unseen_alarms(clips)
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


def comparison_table(report: Mapping[str, Any]) -> str:
    """Return a report's comparison as a table: every class's F1 beside that of the baseline."""
    figures, compared = report["metrics"], report["metrics"]["comparison"]
    rows = [
        (
            name.replace("_", " ").replace("f1", "F1"),
            figures[name]["point_estimate"],
            compared[f"baseline_{name}"],
            compared["difference"][name],
            "",
            figures["n_clusters"],
        )
        for name in ("macro_f1", "micro_f1")
        if name in figures and name in compared["difference"]
    ]
    rows += [
        (
            printable(label),
            change["candidate"],
            change["baseline"],
            change,
            f"{figures['per_class'][label]['n_events']:,}",
            figures["per_class"][label]["n_clusters"],
        )
        for label, change in compared["per_class_f1"].items()
    ]
    width = max(5, *(len(row[0]) for row in rows)) if rows else 5
    head = f"{'class':<{width}}{'F1':>8}{'baseline':>10}{'change':>9}  {'interval':<18}"
    lines = [f"{head}{'events':>8}{'sessions':>10}"]
    for name, candidate, baseline, change, events, sessions in rows:
        line = (
            f"{name:<{width}}{_shown(candidate):>8}{_shown(baseline):>10}"
            f"{_shown(change['point_estimate'], sign=True):>9}  {_between(change):<18}"
            f"{events:>8}{sessions:>10,}"
        )
        lines.append(line)
    return "\n".join(lines)


def _counted(clips: Clips) -> Summary:
    counts = clip_counts(
        clips.truth, clips.predicted, weights=clips.weight, annotated=clips.annotated
    )
    return summarise(counts, clips.labels)


def _shown(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def _between(change: Mapping[str, Any]) -> str:
    if change["ci_lower"] is None:
        return "–"
    return f"[{_shown(change['ci_lower'], sign=True)}, {_shown(change['ci_upper'], sign=True)}]"
