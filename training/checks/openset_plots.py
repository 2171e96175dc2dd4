"""What the open-set page draws: ROC, precision and recall, and histograms of the scores."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from training.checks.openset_input import Examples
from training.metrics import openset
from training.metrics.openset import Bools, Floats

CURVE_POINTS: Final = 200
HISTOGRAM_BINS: Final = 40
GROUPS_DRAWN: Final = 3


def plots(test: Examples, scores: Floats) -> dict[str, Any]:
    """Return the curves and the histogram, thinned to what a page can show.

    Both classes must be there and every score finite. There is no histogram where the scores span
    more, or less, than floating point can divide into bins.
    """
    curve = openset.roc_curve(scores, test.is_unknown)
    made: dict[str, Any] = {"roc": _thinned(fpr=curve.fpr, tpr=curve.tpr)}
    for name, ranked, positive in (
        ("pr_out", scores, test.is_unknown),
        ("pr_in", -scores, ~test.is_unknown),
    ):
        steps = openset.precision_recall_curve(ranked, positive)
        made[name] = _thinned(recall=steps.recall, precision=steps.precision)
    histogram = _histogram(test, scores)
    return made if histogram is None else {**made, "score_histogram": histogram}


def _thinned(**columns: Floats) -> dict[str, list[float]]:
    """A curve, thinned evenly to what a page can show."""
    size = next(iter(columns.values())).size
    keep = np.unique(np.linspace(0, size - 1, min(CURVE_POINTS, size)).round().astype(int))
    return {name: values[keep].tolist() for name, values in columns.items()}


def _histogram(test: Examples, scores: Floats) -> dict[str, Any] | None:
    with np.errstate(all="ignore"):
        try:
            edges = np.histogram_bin_edges(scores, bins=HISTOGRAM_BINS)
        except ValueError:
            return None
        if not np.isfinite(edges).all() or not np.isfinite(edges[-1] - edges[0]):
            return None
    groups = np.array(test.groups, dtype=object)

    def counts(rows: Bools) -> list[int]:
        found: list[int] = np.histogram(scores[rows], edges)[0].tolist()
        return found

    names = sorted(set(groups[test.is_unknown]))
    made: dict[str, Any] = {
        "edges": edges.tolist(),
        "known": counts(~test.is_unknown),
        "unknown": counts(test.is_unknown),
    }
    if 2 <= len(names) <= GROUPS_DRAWN:
        made["groups"] = {name: counts(test.is_unknown & (groups == name)) for name in names}
    return made
