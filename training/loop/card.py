"""The finished model, judged: at its operating points, beside the floors, with what stands behind.

The model card is the JSON that travels with a model, in the model file and beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training import __version__
from training.dataset.store import StoreSplit
from training.gates import Report
from training.loop.card_intervals import intervals
from training.loop.config import Recipe
from training.loop.feed import ClipFeed
from training.loop.floors import honest_floors
from training.loop.metrics import (
    ClassSupport,
    Evaluation,
    class_support,
    dead_classes,
    predict_labels,
)
from training.loop.readiness import Readiness
from training.manifest import read_json, to_json, write_text
from training.metrics.classification import Summary, clip_counts, summarise
from training.model.cnn import DrumClassifier, count_parameters
from training.model.inference import Calibration, fit_calibration

__all__ = ["Judged", "judge_model", "model_card", "summary_table", "write_card_page"]

FEW_EVENTS: Final = 10
INTENDED_USE: Final = (
    "Saying which drum components are struck at a known onset, how hard, and how open the hi-hat "
    "is. It finds no onsets, and is not meant for identifying players."
)
LIMITS: Final = (
    "The epoch and the thresholds were chosen on the validation clips, so the figures here flatter "
    "the model a little: judge it on the test split with predict and bootstrap-eval.",
    "An interval says how far a figure may be from that of other sessions of the same kind; of "
    "kits, rooms and music unlike those in the data it says nothing.",
    "A score is a decision with a margin (0.5 is the operating point), not a probability.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The finished model on the validation set, beside the floors."""

    evaluation: Evaluation
    calibration: Calibration
    operating_point: Summary
    """With the thresholds that were chosen on these very clips: a little flattering."""
    floors: dict[str, Summary]
    support: tuple[ClassSupport, ...]
    intervals: dict[str, Any]
    """Of the figures at the operating points: see `training.loop.card_intervals`."""
    remarks: tuple[str, ...] = ()
    """What the clips could not teach, or cannot show."""


def judge_model(
    model: DrumClassifier,
    feeds: tuple[ClipFeed, ClipFeed],
    evaluation: Evaluation,
    names: tuple[str, ...],
    recipe: Recipe,
    *,
    floors: dict[str, Summary] | None = None,
) -> Judged:
    """Calibrate a model on the validation clips, and judge it and the floors there.

    `feeds` are those of training and validation; `evaluation` is the model's on the latter; floors
    that were judged there already may be given.
    """
    val = feeds[1].split
    logits = evaluation.outputs["logits"]
    task = recipe.training.task
    calibration = fit_calibration(logits, val.labels, val.annotated, task=task)
    shifted = logits / calibration.temperature - calibration.shift
    said = predict_labels(shifted, task=task)
    counts = clip_counts(val.labels > 0, said, annotated=val.annotated > 0)
    if floors is None:
        floors = honest_floors(*feeds, model.logmel, names, seed=recipe.training.seed)
    return Judged(
        evaluation=evaluation,
        calibration=calibration,
        operating_point=summarise(counts, names),
        floors=floors,
        support=class_support(val.labels, recordings_of(val), names),
        intervals=intervals(val, said, _sigmoid(shifted), names, seed=recipe.training.seed),
        remarks=_one_sided(feeds[0].split, val, names),
    )


def _one_sided(train: StoreSplit, val: StoreSplit, names: tuple[str, ...]) -> tuple[str, ...]:
    """Name the classes that validation asks for and training lacks, and those in every clip."""
    taught = ((train.labels > 0) & (train.annotated > 0)).any(axis=0)
    asked = (val.labels > 0) & (val.annotated > 0)
    never = ((val.labels == 0) & (val.annotated > 0)).any(axis=0)
    found = (
        ("validated, but in no training clip", asked.any(axis=0) & ~taught),
        ("in every validation clip, so that always saying it is right", asked.any(axis=0) & ~never),
    )
    return tuple(
        f"{what}: {', '.join(names[column] for column in np.flatnonzero(which))}"
        for what, which in found
        if which.any()
    )


def recordings_of(split: StoreSplit) -> list[int]:
    """Return a number for the recording of each clip: where it starts in the blob."""
    starts: list[int] = split.segment_start.tolist()
    return starts


def model_card(
    model: DrumClassifier,
    recipe: Recipe,
    judged: Judged,
    *,
    data: Mapping[str, Any],
    readiness: Readiness,
    history: Sequence[Mapping[str, Any]],
    transfer: Mapping[str, Any] | None = None,
    frozen: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the card as plain values.

    Args:
        model: the finished model.
        recipe: how it was trained.
        judged: how it came out.
        data: what it was trained on: hashes and numbers of clips.
        readiness: what is known of the data's readiness.
        history: a line an evaluation.
        transfer: what it was started from, where it was.
        frozen: what of it was frozen, where something was.
    """
    best = next((line for line in reversed(history) if line.get("best")), None)
    features = recipe.features
    card = {
        "model": "drumgate four-block drum CNN",
        "version": __version__,
        "intended_use": INTENDED_USE,
        "limits": list(LIMITS),
        "labels": [row.label for row in judged.support],
        "task": recipe.training.task,
        "parameters": {
            "trunk_and_class_head": count_parameters(model, heads=False, frozen=True),
            "with_heads": count_parameters(model, frozen=True),
        },
        "heads": [name for name in ("velocity", "openness") if getattr(model.cnn, name)],
        "recipe": recipe.as_dict(),
        "recipe_signature": recipe.signature,
        "features": {
            "window_ms": round(features.window_ms, 3),
            "heard_ms": round(1000.0 * features.read_samples / features.sample_rate, 3),
            "shape": [features.n_mels, features.frames],
        },
        "data": dict(data),
        "readiness": readiness.as_dict(),
        "gates": _gates(readiness),
        "transfer": None if transfer is None else dict(transfer),
        "frozen": None if frozen is None else dict(frozen),
        "selected_epoch": best["epoch"] if best else None,
        "steps": history[-1]["step"] if history else 0,
        "validation": _validation(judged),
        "floors": {name: floor.as_metrics() for name, floor in judged.floors.items()},
        "calibration": judged.calibration.as_dict(),
        "warnings": _warnings(judged, readiness, model),
    }
    # The card in the model file and the one beside it are to be the same, tuples or not.
    plain: dict[str, Any] = json.loads(to_json(card))
    return plain


def _validation(judged: Judged) -> dict[str, Any]:
    summary = judged.evaluation.summary
    return {
        "figures": judged.evaluation.figures,
        "operating_point": judged.operating_point.as_metrics(),
        "at_0.5": summary.as_metrics() if summary else None,
        "support": {
            row.label: {"events": row.events, "recordings": row.recordings}
            for row in judged.support
        },
        "dead_classes": list(dead_classes(judged.operating_point)),
        "intervals": judged.intervals,
    }


def write_card_page(path: Path, card: Mapping[str, Any]) -> None:
    """Write a card as an HTML page, whole or not at all; no request leaves the page.

    Raises:
        InputError: the page cannot be written there.
    """
    from training.render.page import render_template

    per_class = card["validation"]["intervals"].get("per_class", {})
    points = [
        {
            "label": label,
            "point": row["f1"]["point_estimate"],
            "lower": row["f1"]["ci_lower"],
            "upper": row["f1"]["ci_upper"],
        }
        for label, row in per_class.items()
        if card["validation"]["support"][label]["events"]
    ]
    write_text(path, render_template("card.html.j2", card=card, points=points))


def summary_table(report: Report) -> str:
    """Return the validation figures beside the floors and their support, as text."""
    validation, floors = report.metrics["validation"], report.metrics["floors"]
    judged = validation["operating_point"]
    rows = [
        ("the model", judged),
        ("logistic regression, 7 bands", floors["band_energy"]),
        ("most frequent label set", floors["most_frequent"]),
    ]
    lines = [f"{'validation':<30}{'macro F1':>10}{'micro F1':>10}"]
    lines += [
        f"{name:<30}{_figure(each['macro']['f1'])}{_figure(each['micro']['f1'])}"
        for name, each in rows
    ]
    lines += ["", f"{'class':<16}{'F1':>10}{'floor F1':>10}{'events':>8}{'recordings':>12}"]
    lines += [
        f"{label:<16}{_figure(judged['per_class'][label]['f1'])}"
        f"{_figure(floors['band_energy']['per_class'][label]['f1'])}"
        f"{support['events']:>8}{support['recordings']:>12}"
        for label, support in validation["support"].items()
    ]
    return "\n".join(lines)


def _sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -60.0, 60.0)))


def _gates(readiness: Readiness) -> dict[str, Any] | None:
    """What the readiness report judged; None where there is no report that can be read."""
    path = Path(readiness.report_path)
    if readiness.report_sha256 is None or not path.exists():
        return None
    rows = read_json(path, dict[str, Any]).get("gating_results")
    rows = [row for row in (rows if isinstance(rows, list) else []) if isinstance(row, Mapping)]
    named = ("name", "status", "observed", "comparator", "threshold", "unit", "detail")
    waived = [row for row in rows if isinstance(row.get("waiver"), Mapping)]
    return {
        "judged": len(rows),
        "passed": sum(row.get("status") == "pass" for row in rows),
        "not_passed": [
            {name: row.get(name) for name in named} for row in rows if row.get("status") != "pass"
        ],
        "waived": [{"name": row.get("name"), **row["waiver"]} for row in waived],
    }


def _figure(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:>10.3f}"


def _warnings(judged: Judged, readiness: Readiness, model: DrumClassifier) -> list[str]:
    warnings = []
    if readiness.allowed_unready:
        warnings.append(f"trained on a dataset not known to be ready: {readiness.why}")
    warnings += readiness.remarks
    warnings += judged.remarks
    dead = dead_classes(judged.operating_point)
    if dead:
        warnings.append(f"dead classes (events, but F1 = 0): {', '.join(dead)}")
    few = [row.label for row in judged.support if 0 < row.events < FEW_EVENTS]
    if few:
        warnings.append(f"fewer than {FEW_EVENTS} validation events: {', '.join(few)}")
    for name in ("velocity", "openness"):
        if getattr(model.cnn, name) is None:
            warnings.append(f"no {name} head: it is switched off, or no training clip has a value")
    model_f1, floor_f1 = judged.operating_point.macro.f1, judged.floors["band_energy"].macro.f1
    if model_f1 is not None and floor_f1 is not None and model_f1 <= floor_f1:
        warnings.append(
            f"the model (macro F1 {model_f1:.3f}) does not beat a logistic regression on seven "
            f"band energies ({floor_f1:.3f})"
        )
    return warnings
