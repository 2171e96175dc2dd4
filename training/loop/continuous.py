"""How a model does on the validation recordings as they are: false alarms an hour, and recall.

Onsets are found once in each recording (`training.audio.onsets`); at every evaluation the model
names them, and what it says is matched with what is annotated (`training.metrics.false_alarms`).
So a recipe can ask for "FA/h, then recall"::

    [training]
    monitor = "onset_recall"
    limit_figure = "fa_per_hour"
    limit = 60.0

An onset that is not found counts as missed, whatever the model would say there: the recall has a
ceiling, which is the same for every epoch.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.audio.logmel import FeatureConfig
from training.audio.onsets import DEFAULT_SENSITIVITY, detect_onsets
from training.dataset.store import FULL_SCALE, StoreSplit
from training.loop.metrics import predict_labels
from training.metrics.false_alarms import Onsets, false_alarms

__all__ = ["CONTINUOUS_FIGURES", "ContinuousValidation"]

CONTINUOUS_FIGURES: Final = ("fa_per_hour", "onset_recall")
TOLERANCE_S: Final = 0.05
BATCH: Final = 256


class ContinuousValidation:
    """Judges models on the whole recordings of a split.

    Args:
        split: its recordings and what is annotated in them.
        features: what the models hear.
        task: ``multilabel`` or ``multiclass``.
        sensitivity: of the search for onsets.

    Labels that are annotated for no clip of a recording count neither as hits nor as alarms there.
    """

    def __init__(
        self,
        split: StoreSplit,
        features: FeatureConfig,
        *,
        task: str = "multilabel",
        sensitivity: float = DEFAULT_SENSITIVITY,
    ) -> None:
        self.features = features
        self.task = task
        self.n_classes = int(split.labels.shape[1])
        self._blob = split.blob
        starts, first, of_row = np.unique(
            split.segment_start, return_index=True, return_inverse=True
        )
        stops = np.asarray(split.segment_stop)[first]
        rate = split.sample_rate
        self.hours = float((stops - starts).sum()) / rate / 3600.0
        self._known = np.zeros((len(starts), self.n_classes), dtype=np.bool_)
        np.logical_or.at(self._known, of_row, np.asarray(split.annotated) > 0)
        row, label = np.nonzero((np.asarray(split.labels) > 0) & (np.asarray(split.annotated) > 0))
        self.reference = Onsets(
            recording=of_row[row].astype(np.intp),
            label=label.astype(np.intp),
            seconds=(np.asarray(split.onset)[row] - starts[of_row[row]]) / rate,
            score=np.ones(len(row)),
        )
        found = [
            detect_onsets(
                np.asarray(split.blob[start:stop], dtype=np.float32) / FULL_SCALE,
                rate,
                sensitivity=sensitivity,
            )
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        ]
        self._recording = np.repeat(np.arange(len(found)), [len(each) for each in found])
        self._seconds = np.concatenate([np.zeros(0), *found]).astype(np.float64)
        self._place = starts[self._recording] + np.round(self._seconds * rate).astype(np.int64)

    def figures(self, model: nn.Module, device: torch.device | str = "cpu") -> dict[str, float]:
        """Return ``fa_per_hour`` and, where something is annotated, ``onset_recall``.

        The model says a class where its score reaches 0.5, before thresholds are chosen.
        """
        row, label = np.nonzero(self._said(model, torch.device(device)))
        kept = self._known[self._recording[row], label]
        row, label = row[kept], label[kept]
        predicted = Onsets(
            recording=self._recording[row].astype(np.intp),
            label=label.astype(np.intp),
            seconds=self._seconds[row],
            score=np.ones(len(row)),
        )
        counts = false_alarms(
            self.reference,
            predicted,
            n_classes=self.n_classes,
            hours=self.hours,
            tolerance_s=TOLERANCE_S,
        )
        figures = {"fa_per_hour": counts.fa_per_hour}
        if counts.recall is not None:
            figures["onset_recall"] = counts.recall
        return figures

    @torch.no_grad()
    def _said(self, model: nn.Module, device: torch.device) -> NDArray[Any]:
        """What the model says at each onset that was found [shape=(n_onsets, n_classes)]."""
        was_training = model.training
        model.eval()
        span = np.arange(self.features.read_samples)
        parts = [np.zeros((0, self.n_classes), dtype=np.float32)]
        for first in range(0, len(self._place), BATCH):
            starts = self._place[first : first + BATCH] - self.features.read_before
            audio = torch.from_numpy(np.asarray(self._blob[starts[:, None] + span]))
            parts.append(model(audio.to(device))["logits"].float().cpu().numpy())
        model.train(was_training)
        logits = np.concatenate(parts)
        if not len(logits):
            return np.zeros(logits.shape, dtype=np.bool_)
        return predict_labels(logits, task=self.task)
