"""What missed events were taken for, of a multi-label model."""

from __future__ import annotations

import numpy as np

from training.loop.metrics import Evaluation, predict_labels

__all__ = ["confusions"]


def confusions(evaluation: Evaluation, *, task: str = "multilabel") -> dict[str, dict[str, int]]:
    """Count, for each class that was missed, what was said in its stead.

    A clip counts for (a, b) where a is there and was not said, and b was said and is not there;
    several may be so at once. Pairs that do not occur are left out, and so are labels that are not
    annotated for the clip. Without logits or labels the result is empty.
    """
    logits = evaluation.outputs.get("logits")
    labels, annotated = (evaluation.targets.get(name) for name in ("labels", "annotated"))
    if evaluation.summary is None or logits is None or labels is None or annotated is None:
        return {}
    names = [row.label for row in evaluation.summary.per_class]
    said = predict_labels(logits, task=task)
    there, known = labels > 0.5, annotated > 0.5
    missed = (there & ~said & known).astype(np.int64)
    wrong = (said & ~there & known).astype(np.int64)
    counts = missed.T @ wrong
    return {
        names[row]: {names[column]: int(counts[row, column]) for column in np.flatnonzero(line)}
        for row, line in enumerate(counts)
        if line.any()
    }
