"""The finished model, judged: at its operating points, beside the floors, with what stands behind.

The model card is the JSON that travels with a model, in the model file and beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from training import __version__
from training.dataset.store import StoreSplit
from training.gates import Report
from training.loop.config import Recipe
from training.loop.feed import ClipFeed
from training.loop.floors import band_energy_floor, most_frequent_floor
from training.loop.metrics import (
    ClassSupport,
    Evaluation,
    class_support,
    dead_classes,
    predict_labels,
)
from training.loop.readiness import Readiness
from training.metrics.classification import Summary, clip_counts, summarise
from training.model.cnn import DrumClassifier, count_parameters
from training.model.inference import Calibration, fit_calibration

__all__ = ["Judged", "judge_model", "model_card", "summary_table"]

FEW_EVENTS: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The finished model on the validation set, beside the floors."""

    evaluation: Evaluation
    calibration: Calibration
    operating_point: Summary
    """With the thresholds that were chosen on these very clips: a little flattering."""
    floors: dict[str, Summary]
    support: tuple[ClassSupport, ...]


def judge_model(
    model: DrumClassifier,
    feeds: tuple[ClipFeed, ClipFeed],
    evaluation: Evaluation,
    names: tuple[str, ...],
    recipe: Recipe,
) -> Judged:
    """Calibrate a model on the validation clips, and judge it and the floors there.

    `feeds` are those of training and validation; `evaluation` is the model's on the latter.
    """
    train, val = feeds[0].split, feeds[1].split
    logits = evaluation.outputs["logits"]
    task = recipe.training.task
    calibration = fit_calibration(logits, val.labels, val.annotated, task=task)
    shifted = logits / calibration.temperature - calibration.shift
    counts = clip_counts(
        val.labels > 0, predict_labels(shifted, task=task), annotated=val.annotated > 0
    )
    floors = {
        "most_frequent": most_frequent_floor(train.labels, val.labels, val.annotated, names),
        "band_energy": band_energy_floor(
            feeds[0], feeds[1], model.logmel, names, seed=recipe.training.seed
        ),
    }
    return Judged(
        evaluation=evaluation,
        calibration=calibration,
        operating_point=summarise(counts, names),
        floors=floors,
        support=class_support(val.labels, recordings_of(val), names),
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
) -> dict[str, Any]:
    """Return the card as plain values."""
    best = next((line for line in reversed(history) if line.get("best")), None)
    features, summary = recipe.features, judged.evaluation.summary
    return {
        "model": "drumgate four-block drum CNN",
        "version": __version__,
        "intended_use": (
            "Saying which drum components are struck at a known onset, how hard, and how open the "
            "hi-hat is. It finds no onsets, and is not meant for identifying players."
        ),
        "labels": [row.label for row in judged.support],
        "task": recipe.training.task,
        "parameters": {
            "trunk_and_class_head": count_parameters(model, heads=False),
            "with_heads": count_parameters(model),
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
        "selected_epoch": best["epoch"] if best else None,
        "steps": history[-1]["step"] if history else 0,
        "validation": {
            "figures": judged.evaluation.figures,
            "operating_point": judged.operating_point.as_metrics(),
            "at_0.5": summary.as_metrics() if summary else None,
            "support": {
                row.label: {"events": row.events, "recordings": row.recordings}
                for row in judged.support
            },
            "dead_classes": list(dead_classes(judged.operating_point)),
        },
        "floors": {name: floor.as_metrics() for name, floor in judged.floors.items()},
        "calibration": judged.calibration.as_dict(),
        "warnings": _warnings(judged, readiness, model),
    }


def summary_table(report: Report) -> str:
    """Return the validation figures beside the floors and their support, as text."""
    validation, floors = report.metrics["validation"], report.metrics["floors"]
    judged = validation["operating_point"]
    rows = [
        ("the model", judged),
        ("logistic regression, 7 bands", floors["band_energy"]),
        ("most frequent label set", floors["most_frequent"]),
    ]
    lines = [f"{'validation':<30}{'macro-F1':>10}{'micro-F1':>10}"]
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


def _figure(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:>10.3f}"


def _warnings(judged: Judged, readiness: Readiness, model: DrumClassifier) -> list[str]:
    warnings = []
    if readiness.allowed_unready:
        warnings.append(f"trained on a dataset not known to be ready: {readiness.why}")
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
            f"the model (macro-F1 {model_f1:.3f}) does not beat a logistic regression on seven "
            f"band energies ({floor_f1:.3f})"
        )
    return warnings
