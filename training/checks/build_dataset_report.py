"""What the builder of clip stores says: its gates, its parameters, its warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from training.dataset.divide import Division
from training.dataset.durations import DurationCheck, compare_durations, read_expected_durations
from training.dataset.select import Selection
from training.dataset.store import ClipStore
from training.dataset.verify import recorded_audio
from training.gates import GatesSource, Measurement, Report, Verdict, judge, load_thresholds

if TYPE_CHECKING:
    from training.checks.build_dataset import Options


def judge_build(options: Options, division: Division, metadata: Mapping[str, Any]) -> list[Verdict]:
    """Judge what the splits share, and which labels cannot be learned or judged."""
    shared = len(division.isolation.sessions)
    thresholds = load_thresholds(
        "dataset",
        overlay=options.gates,
        overrides={"max_shared_sessions": shared if options.allow_session_overlap else None},
    )
    counts: Mapping[str, Mapping[str, int]] = metadata["label_counts"]
    labels = list(metadata["labels"])
    untrained = [label for label in labels if not counts["train"][label]]
    judged_on = next((name for name in ("test", "val") if name in counts), None)
    unjudged = [label for label in labels if counts["train"][label]]
    unjudged = [label for label in unjudged if not (judged_on and counts[judged_on][label])]
    measured = (
        Measurement(name="max_shared_sessions", value=shared, n=len(division.split)),
        Measurement(
            name="max_untrained_labels",
            value=len(untrained),
            n=len(labels),
            detail=", ".join(untrained),
        ),
        Measurement(
            name="max_unjudged_labels",
            value=len(unjudged),
            n=len(labels),
            detail=", ".join(unjudged),
        ),
    )
    return [judge(each, thresholds[each.name]) for each in measured]


def summary(report: Report) -> str:
    """Return where a store is and what each split holds, a line each; empty for a verification."""
    splits: Mapping[str, Mapping[str, Any]] = report.metrics.get("splits", {})
    if not splits:
        return ""
    rows = [f"{report.parameters['out']}: {report.metrics['content_sha256'][:12]}"]
    rows += [
        f"  {name:<6}{split['events']:>9,} events {split['sessions']:>7,} sessions "
        f"{split['duration_s'] / 60.0:>9,.1f} min"
        for name, split in splits.items()
    ]
    return "\n".join(rows)


def parameters_of(options: Options) -> dict[str, Any]:
    """Return what decides the content of the store, as plain JSON; where it goes does not."""
    return {
        "audio_root": str(options.audio_root or options.events.parent),
        "audio_root_map": {source: str(root) for source, root in options.audio_roots.items()},
        "val_ratio": options.val_ratio,
        "test_ratio": options.test_ratio,
        "seed": options.seed,
        "split_by": options.split_by,
        "allow_session_overlap": options.allow_session_overlap,
        "sample_rate": options.sample_rate,
        "limit": options.limit,
        "skip_missing_audio": options.skip_missing_audio,
    }


def warnings_of(selection: Selection, division: Division) -> list[str]:
    """Say what was left out, and what is not as one would want it."""
    omitted, columns = selection.omitted, selection.columns
    warnings = list(division.warnings)
    for count, what in (
        (omitted.without_audio_path, "have no audio_path"),
        (omitted.without_file, "name a file that is not there"),
    ):
        if count:
            by_source = ", ".join(f"{source}: {n}" for source, n in count.items())
            warnings.append(f"{sum(count.values())} events {what} and were left out ({by_source})")
    if omitted.by_limit:
        warnings.append(f"{omitted.by_limit} events were left out by --limit")
    if selection.copied_recordings:
        warnings.append(
            f"{selection.copied_recordings} recordings have the same content as another; "
            "copies were kept in one split"
        )
    if columns.raw_openness_only:
        warnings.append(
            f"{columns.raw_openness_only} events have openness_raw but no openness: "
            "normalize-openness turns one into the other"
        )
    for kind, offenders in (
        ("session", division.isolation.sessions),
        ("drummer x kit pair", division.isolation.drummer_kits),
    ):
        if offenders:
            names = ", ".join(offender.key for offender in offenders[:5])
            warnings.append(f"{len(offenders)} {kind}s are in more than one split ({names})")
    return warnings


def check_durations(options: Options, store: ClipStore) -> DurationCheck | None:
    """Compare a store's recordings with the list of expected durations; None without a list.

    Raises:
        InputError: the list, or the store, is damaged.
    """
    if options.expected_duration_csv is None:
        return None
    return compare_durations(
        read_expected_durations(options.expected_duration_csv),
        recorded_audio(store),
        tolerance_ms=options.duration_tolerance_ms,
    )


def judge_durations(gates: GatesSource | None, check: DurationCheck | None) -> list[Verdict]:
    """Judge how many recordings are not as long as they should be; nothing without a list."""
    if check is None:
        return []
    names = [each.get("audio_path") or each.get("session_id") for each in check.off]
    parts = [f"{len(names)} off ({', '.join(map(str, names[:3]))})"] if names else []
    parts += [f"{len(check.absent)} not in the store"] if check.absent else []
    measured = Measurement(
        name="max_duration_mismatches",
        value=check.mismatches,
        n=check.compared + len(check.absent),
        detail="; ".join(parts),
    )
    return [judge(measured, load_thresholds("dataset", overlay=gates)[measured.name])]
