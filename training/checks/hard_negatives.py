"""Mining hard negatives: join truth and predictions, keep the hardest, write why each is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.checks.bootstrap_input import merged
from training.checks.calibration_file import CalibrationFile, load_calibration
from training.errors import DrumgateError, InputError
from training.gates import Report
from training.manifest import (
    GroundTruth,
    InputFile,
    Prediction,
    Records,
    read_records,
    reject_duplicates,
    write_jsonl,
    write_text,
)
from training.metrics import hard_negatives as hn
from training.taxonomy import ComponentTaxonomy, load_components

if TYPE_CHECKING:
    from training.checks.hard_negatives_audit import Audit


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is mined, from what, and how much is kept."""

    predictions: Path
    ground_truth: Path
    output: Path | None
    min_confidence: float = 0.7
    calibration: Path | None = None
    max_per_label: int | None = 150
    max_total: int | None = None
    max_session_share: float = 0.25
    exclude_labels: tuple[str, ...] = ()
    timing_tolerance_ms: float = 50.0
    label_error_score: float = 0.98
    components: Path | None = None
    dry_run: bool = False
    audit_html: Path | None = None
    audio_root: Path | None = None
    audit_clips: int = 60
    audit_max_mb: float = 25.0
    audit_context_ms: float = 600.0


def run(options: Options) -> Report:
    """Mine hard negatives and write them (unless `dry_run`), hardest first.

    A model without any gives an empty file: there was something to look at and nothing was found.
    With `audit_html`, the page is made before anything is written.

    Raises:
        DrumgateError: `output` is missing.
        InputError: an input is missing or malformed, a `sample_id` stands twice, the scores have
            been through another calibration, or no clip of the audit page can be heard.
    """
    if options.output is None and not options.dry_run:
        raise DrumgateError("--output is required unless --dry-run is given")
    taxonomy = load_components(options.components)
    truth = read_records(options.ground_truth, GroundTruth)
    predictions = read_records(options.predictions, Prediction)
    reject_duplicates(truth)
    reject_duplicates(predictions)
    calibration = load_calibration(options.calibration) if options.calibration else None
    names = _Names(taxonomy)
    by_id = _scores(predictions, calibration, names)
    mined = hn.mine(
        [_example(row, names) for row in truth],
        [by_id.get(row.sample_id, {}) for row in truth],
        hn.Criteria(
            min_confidence=options.min_confidence,
            tolerance_ms=options.timing_tolerance_ms,
            label_error_score=options.label_error_score,
            vocabulary=frozenset(taxonomy.targets),
            exclude_labels=frozenset(map(names.canonical, options.exclude_labels)),
        ),
    )
    caps = {"max_per_label": options.max_per_label, "max_total": options.max_total}
    kept = hn.select(mined.negatives, max_session_share=options.max_session_share, **caps)
    under_caps = hn.select(mined.negatives, max_session_share=1.0, **caps)
    page = None if options.dry_run else _audit(options, kept, truth, predictions.source, by_id)
    if options.output is not None and not options.dry_run:
        audio = {row.sample_id: row.audio_path for row in truth}
        write_jsonl(
            options.output,
            (_row(negative, rank, audio) for rank, negative in enumerate(kept, start=1)),
        )
    if page is not None and options.audit_html is not None:
        write_text(options.audit_html, page.html)
    ids = {row.sample_id for row in truth}
    missing = len(ids - by_id.keys())
    surplus = len(by_id.keys() - ids)
    return Report(
        tool="hard-negative-miner",
        inputs=[
            predictions.source,
            truth.source,
            *([] if calibration is None else [calibration.source]),
        ],
        parameters=asdict(options),
        metrics={
            "candidates_total": len(mined.negatives),
            "kept_total": len(kept),
            "per_label": _per_label(mined, kept),
            "reasons": _reasons(kept),
            "left_out_by_session_share": len(under_caps) - len(kept),
            "sessions": len({n.example.session_id for n in kept}),
            "unannotated_left_out": dict(mined.unannotated),
            "missing_predictions_total": missing,
            "surplus_predictions_total": surplus,
            **({} if page is None else {"audit": dict(page.figures)}),
        },
        warnings=[
            *_warnings(truth, predictions, missing, surplus, mined),
            *([] if calibration is None else calibration.warnings(_labels(by_id))),
            *_spread_warning(len(under_caps) - len(kept), options.max_session_share),
            *([] if page is None else page.warnings),
        ],
    )


def _audit(
    options: Options,
    kept: Sequence[hn.HardNegative],
    truth: Records[GroundTruth],
    predictions: InputFile,
    by_id: Mapping[str, Mapping[str, float]],
) -> Audit | None:
    """Make the audit page where one is asked for; only then is audio (and torch) imported."""
    if options.audit_html is None:
        return None
    from training.checks import hard_negatives_audit as audit

    if options.audio_root is not None and not options.audio_root.is_dir():
        raise InputError.at(options.audio_root, "no such folder")
    return audit.make(
        kept,
        truth,
        by_id,
        predictions=predictions.path,
        audio_root=options.audio_root,
        min_confidence=options.min_confidence,
        limits=audit.Limits(
            clips=options.audit_clips,
            size_bytes=round(options.audit_max_mb * 1e6),
            context_s=options.audit_context_ms / 1000,
        ),
    )


def table(report: Report) -> str:
    """Return what was found and kept, a label a line, as text."""
    metrics = report.metrics
    heads = ("false pos.", "label error", "timing", "out of voc.")
    lines = [
        f"{metrics['kept_total']} hard negatives of {metrics['candidates_total']} found",
        f"{'label':<18}{'found':>7}{'kept':>6}{'highest':>9}{'lowest':>8}{'sessions':>10}"
        + "".join(f"{head:>13}" for head in heads),
    ]
    for label, each in metrics["per_label"].items():
        scores = "".join(
            f"{'–' if each[key] is None else format(each[key], '.3f'):>{width}}"
            for key, width in (("highest", 9), ("lowest", 8))
        )
        lines.append(
            f"{label:<18}{each['found']:>7}{each['kept']:>6}{scores}{each['sessions']:>10}"
            + "".join(f"{each['reasons'][reason]:>13}" for reason in hn.REASONS)
        )
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Names:
    """What a name stands for; each is looked up once."""

    taxonomy: ComponentTaxonomy
    known: dict[str, str] = field(default_factory=dict)

    def canonical(self, name: str) -> str:
        """Return the label of the taxonomy that a name stands for, or the name itself."""
        if name not in self.known:
            self.known[name] = self.taxonomy.canonical(name) or name
        return self.known[name]


def _scores(
    predictions: Records[Prediction], calibration: CalibrationFile | None, names: _Names
) -> Mapping[str, Mapping[str, float]]:
    """Return the scores by label of each `sample_id`, calibrated where a calibration is given."""
    if calibration is not None:
        given: Mapping[str, Mapping[str, float]] = calibration.score_maps(predictions)
    else:
        given = {row.sample_id: row.label_scores for row in predictions}
    return {sample_id: merged(scores, names.canonical) for sample_id, scores in given.items()}


def _labels(by_id: Mapping[str, Mapping[str, float]]) -> set[str]:
    return {label for scores in by_id.values() for label in scores}


def _example(row: GroundTruth, names: _Names) -> hn.Example:
    annotated = row.annotated_labels
    return hn.Example(
        sample_id=row.sample_id,
        labels=frozenset(map(names.canonical, row.label_set)),
        annotated=None if annotated is None else frozenset(map(names.canonical, annotated)),
        session_id=row.session_id,
        onset_s=row.onset_time,
        is_known=row.is_known,
    )


def _row(negative: hn.HardNegative, rank: int, audio: dict[str, str | None]) -> dict[str, Any]:
    example = negative.example
    return {
        "rank": rank,
        "sample_id": example.sample_id,
        "session_id": example.session_id,
        "label": negative.label,
        "score": negative.score,
        "reason": negative.reason,
        "detail": negative.detail,
        "true_labels": sorted(example.labels),
        "nearest_event_id": negative.nearest_event_id,
        "nearest_distance_ms": negative.nearest_distance_ms,
        "onset_time": example.onset_s,
        "audio_path": audio[example.sample_id],
    }


def _per_label(mined: hn.Mined, kept: list[hn.HardNegative]) -> dict[str, dict[str, Any]]:
    found = Counter(negative.label for negative in mined.negatives)
    figures = {}
    for label in sorted(found, key=lambda name: (-found[name], name)):
        own = [negative for negative in kept if negative.label == label]
        figures[label] = {
            "found": found[label],
            "kept": len(own),
            "highest": own[0].score if own else None,
            "lowest": own[-1].score if own else None,
            "sessions": len({negative.example.session_id for negative in own}),
            "reasons": _reasons(own),
        }
    return figures


def _reasons(kept: list[hn.HardNegative]) -> dict[str, int]:
    counts = Counter(negative.reason for negative in kept)
    return {reason: counts[reason] for reason in hn.REASONS}


def _spread_warning(dropped: int, share: float) -> list[str]:
    if dropped <= 0:
        return []
    return [
        f"{dropped} more would fit under the caps if one session could give more than {share:g} of "
        "a label's rows (--max-session-share)"
    ]


def _warnings(
    truth: Records[GroundTruth],
    predictions: Records[Prediction],
    missing: int,
    surplus: int,
    mined: hn.Mined,
) -> list[str]:
    warnings = []
    if missing:
        warnings.append(
            f"{missing} of {len(truth)} examples have no prediction; nothing is mined there"
        )
    if surplus:
        warnings.append(f"{surplus} predictions are of no example in the ground truth; left out")
    if left_out := sum(mined.unannotated.values()):
        warnings.append(f"{left_out} high scores are of labels that their source does not annotate")
    untimed = sum(row.session_id is None or row.onset_time is None for row in truth)
    if untimed:
        warnings.append(
            f"{untimed} examples have no session_id or onset_time: no timing miss can be told there"
        )
    if all(row.scores is None and row.probabilities is None for row in predictions):
        warnings.append("the predictions hold labels without scores: all are equally hard")
    if not mined.negatives:
        warnings.append("no hard negative was found")
    return warnings
