"""Onset F1: were the right instruments found at the right time, within ±20 and ±50 ms.

Task:
    A reference onset is found when a predicted onset of the same class in the same recording lies
    within the tolerance, both ends included, and each predicted onset may account for one reference
    onset only. As many pairs as possible are made. Onsets are matched once, on whole recordings;
    the counts are then booked on clips, so that they can be resampled like any other count.

Conventions:
    Seconds from the start of the recording. A match is booked on the clip of its reference onset, a
    predicted onset on the clip that it came with. F1 is 2 tp / (n_ref + n_pred), pooled over all
    classes (``onset_f1_20ms``, ``onset_f1_50ms``) or of one class. Clip weights do not matter here:
    an onset counts as one. Onsets of labels that a clip's source does not annotate count nowhere.

Empty input:
    No reference onset: NaN. No predicted onset: 0.

Sources:
    Raffel et al. (2014), "mir_eval: a transparent implementation of common MIR metrics". Checked
    against ``mir_eval.onset.f_measure``. With one tolerance for all, taking the earliest onset that
    fits, in order of time, makes as many pairs as any bipartite matching.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.metrics.classification import BoolArray, FloatArray
from training.metrics.scores import (
    N_ONSET_COUNTS,
    AdditiveScores,
    Clips,
    Figures,
    IndexArray,
    compact,
    ratio,
    sum_clusters,
)

TOLERANCES_MS: Final = (20, 50)
NAMES: Final = tuple(f"onset_f1_{tolerance}ms" for tolerance in TOLERANCES_MS)


def match_onsets(reference: FloatArray, predicted: FloatArray, tolerance_s: float) -> BoolArray:
    """Say which reference onsets are found [shape=(n_reference,)].

    Args:
        reference: seconds, ascending [shape=(n_reference,)].
        predicted: seconds, ascending [shape=(n_predicted,)].
        tolerance_s: the largest distance, included.
    """
    found = np.zeros(len(reference), dtype=np.bool_)
    # The window lies around the predicted onset, as mir_eval has it: so both round alike.
    earliest, latest = (predicted - tolerance_s).tolist(), (predicted + tolerance_s).tolist()
    times = reference.tolist()
    at = 0
    for low, high in zip(earliest, latest, strict=True):
        while at < len(times) and times[at] < low:
            at += 1
        if at < len(times) and times[at] <= high:
            found[at] = True
            at += 1
    return found


def onset_counts(
    shape: tuple[int, int],
    reference: tuple[IndexArray, IndexArray, FloatArray],
    predicted: tuple[IndexArray, IndexArray, FloatArray],
    recording: Sequence[int] | IndexArray,
) -> NDArray[np.int32]:
    """Count onsets per clip and class, for `Clips.onsets`.

    Args:
        shape: (n_clips, n_classes).
        reference: clip, class and time of each reference onset, three arrays of one length.
        predicted: the same of each predicted onset; several may belong to one clip.
        recording: the recording of each clip [shape=(n_clips,)].

    Returns:
        Reference onsets, predicted onsets, and the reference onsets found within each of
        `TOLERANCES_MS` [shape=(n_clips, n_classes, 4)].
    """
    counts = np.zeros((*shape, N_ONSET_COUNTS), dtype=np.int32)
    flat = counts.reshape(-1)
    of_clip = np.asarray(recording, dtype=np.intp)
    sides = []
    for column, (clip, label, seconds) in enumerate((reference, predicted)):
        np.add.at(flat, (clip * shape[1] + label) * N_ONSET_COUNTS + column, 1)
        stream = of_clip[clip] * shape[1] + label
        order = np.lexsort((seconds, stream))
        sides.append((stream[order], clip[order], seconds[order]))
    (stream, clip, seconds), (their_stream, _, their_seconds) = sides
    for value in np.unique(stream):
        mine = slice(*np.searchsorted(stream, [value, value + 1]))
        theirs = slice(*np.searchsorted(their_stream, [value, value + 1]))
        for column, tolerance in enumerate(TOLERANCES_MS, start=2):
            found = match_onsets(seconds[mine], their_seconds[theirs], tolerance / 1000.0)
            cell = clip[mine][found] * shape[1] + value % shape[1]
            np.add.at(flat, cell * N_ONSET_COUNTS + column, 1)
    return counts


def onset_scores(clips: Clips, cluster: IndexArray, n_clusters: int) -> AdditiveScores:
    """Prepare onset F1; see `training.metrics.scores.count_scores` for the arguments."""
    n_classes = len(clips.labels)
    flat = clips.onsets.reshape(len(clips), -1)
    sums = np.zeros((n_clusters, n_classes * N_ONSET_COUNTS))
    if flat.any():
        sums = sum_clusters(flat, cluster, n_clusters)

    def finish(totals: FloatArray) -> Figures:
        n_ref, n_pred, *found = np.moveaxis(totals.reshape(-1, n_classes, N_ONSET_COUNTS), 2, 0)
        per_class = {
            name: np.where(n_ref > 0, ratio(2.0 * tp, n_ref + n_pred), np.nan)
            for name, tp in zip(NAMES, found, strict=True)
        }
        n_all, n_said = n_ref.sum(axis=1), n_pred.sum(axis=1)
        overall = {
            name: np.where(n_all > 0, ratio(2.0 * tp.sum(axis=1), n_all + n_said), np.nan)
            for name, tp in zip(NAMES, found, strict=True)
        }
        return Figures(overall=overall, per_class=per_class)

    heard = sums.reshape(n_clusters, n_classes, N_ONSET_COUNTS)[:, :, 0].sum(axis=1) > 0
    return AdditiveScores(sums=compact(sums), finish=finish, clusters=heard)
