"""What an honest floor says of a clip store's split: predictions that a model must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from training.audio.logmel import FEATURE_PRESETS, LogMel
from training.dataset.store import ClipStore, StoreSplit
from training.errors import InputError
from training.gates import Report
from training.loop.feed import ClipFeed
from training.loop.floors import band_energy_scores, floor_summary, most_frequent_scores
from training.manifest import describe_file, write_jsonl
from training.model.inference import Predictor

TOOL = "predict-floor"
Floor = Literal["band_energy", "most_frequent"]
FLOORS: Final[tuple[Floor, ...]] = ("band_energy", "most_frequent")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which floor, fitted on the training clips of which store, says what of which split.

    `sources` (``source_set``) leaves the training clips of all other sources out; empty takes all.
    The floor hears what `model` hears, or else what a model of the `preset` would.
    """

    dataset: Path
    output: Path
    floor: Floor = "band_energy"
    split: str = "test"
    sources: tuple[str, ...] = ()
    model: Path | None = None
    preset: str = "default"
    seed: int = 0


def run(options: Options) -> Report:
    """Fit a floor, write its predictions one a line in the order of the split, and judge it.

    Raises:
        InputError: the folder is no store, has no such split or no training clip of the sources, or
            is of another sample rate than the features; or the model is none. Nothing is written.
    """
    store = ClipStore.open(options.dataset)
    train, judged = store.split("train"), store.split(options.split)
    rows = _rows_of(train, options)
    if not len(judged):
        raise InputError.at(options.dataset, f"holds no clip in split {options.split}")
    if options.floor == "most_frequent":
        scores = most_frequent_scores(train.labels[rows], len(judged))
    else:
        scores = _band_energy(store, train, judged, rows, options)
    summary = floor_summary(scores, judged.labels, judged.annotated, store.labels)
    write_jsonl(options.output, _predictions(judged.sample_ids, scores, store.labels))
    return Report(
        tool=TOOL,
        inputs=[
            describe_file(options.dataset / "metadata.json"),
            *([] if options.model is None else [describe_file(options.model)]),
        ],
        parameters=asdict(options),
        metrics={
            **summary.as_metrics(),
            "train_clips": len(rows),
            "train_sources": sorted({train.sources[row] for row in rows}),
        },
        seed=options.seed,
    )


def summary_line(report: Report) -> str:
    """Return the floor's figures on the split as a line for a person."""
    figures = report.metrics
    shown = [
        f"{name} {'–' if value is None else format(value, '.3f')}"
        for name, value in (
            ("macro F1", figures["macro"]["f1"]),
            ("micro F1", figures["micro"]["f1"]),
        )
    ]
    fitted = f"fitted on {figures['train_clips']:,} clips of {', '.join(figures['train_sources'])}"
    return f"{figures['n_clips']:,} clips: {', '.join(shown)}; {fitted}"


def _rows_of(train: StoreSplit, options: Options) -> NDArray[np.int64]:
    there = sorted(set(train.sources))
    for source in options.sources:
        if source not in there:
            why = f"has no training clip of source {source!r} (its sources: {', '.join(there)})"
            raise InputError.at(options.dataset, why)
    wanted = set(options.sources) or set(there)
    rows = [row for row, source in enumerate(train.sources) if source in wanted]
    if not rows:
        raise InputError.at(options.dataset, "holds no training clip")
    return np.array(rows, dtype=np.int64)


def _band_energy(
    store: ClipStore,
    train: StoreSplit,
    judged: StoreSplit,
    rows: NDArray[np.int64],
    options: Options,
) -> NDArray[np.float64]:
    if options.model is None:
        features, whose = FEATURE_PRESETS[options.preset], f"preset {options.preset}"
    else:
        features = Predictor.load(options.model, torch.device("cpu")).features
        whose = str(options.model)
    if store.sample_rate != features.sample_rate:
        why = f"is not the {features.sample_rate} Hz of {whose}"
        metadata = options.dataset / "metadata.json"
        raise InputError.at(metadata, why, field="sample_rate", got=store.sample_rate)
    fitted, scored = (ClipFeed(split, features, batch_size=256) for split in (train, judged))
    return band_energy_scores(fitted, scored, LogMel(features), seed=options.seed, among=rows)


def _predictions(
    names: Sequence[str], scores: NDArray[np.float64], labels: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {
            "sample_id": name,
            "scores": {label: round(float(s), 6) for label, s in zip(labels, row, strict=True)},
        }
        for name, row in zip(names, scores, strict=True)
    ]
