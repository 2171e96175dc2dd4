"""The state of one microphone's recording: silent, clipped, or with a DC offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from training.metrics.alignment_types import FloatArray

__all__ = ["ChannelState", "inspect_channel"]

SILENCE_DBFS: Final = -80.0
DC_LIMIT: Final = 0.01
TOP: Final = 0.999  # of the peak
FLAT_SAMPLES: Final = 3
MIN_CLIPS: Final = 10
MIN_CLIPPED_PEAK: Final = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelState:
    """What a recording's samples say about it.

    `peak_dbfs` is 20 log10 of the largest deviation from the mean (None for a constant), `dc` the
    mean, `clips` the number of flat tops: runs of at least 3 equal samples at the peak.
    """

    peak_dbfs: float | None
    dc: float
    clips: int

    @property
    def silent(self) -> bool:
        """Never further than -80 dBFS from its mean."""
        return self.peak_dbfs is None or self.peak_dbfs < SILENCE_DBFS

    @property
    def clipped(self) -> bool:
        """More flat tops than a loud low note could have by chance."""
        return self.clips >= MIN_CLIPS

    @property
    def offset(self) -> bool:
        """A mean of more than 1 % of full scale."""
        return abs(self.dc) > DC_LIMIT


def inspect_channel(samples: FloatArray) -> ChannelState:
    """Inspect samples of shape (n,) or (channels, n); nothing at all counts as silence."""
    if samples.size == 0:
        return ChannelState(peak_dbfs=None, dc=0.0, clips=0)
    low, high = float(samples.min()), float(samples.max())
    dc = float(np.mean(samples, dtype=np.float64))
    swing = max(high - dc, dc - low)
    clips = 0
    for row in np.atleast_2d(samples):
        clips += _flat_tops(row, high) + _flat_tops(row, low)
    return ChannelState(
        peak_dbfs=20.0 * float(np.log10(swing)) if swing > 0.0 else None, dc=dc, clips=clips
    )


def _flat_tops(row: FloatArray, peak: float) -> int:
    """Count the runs of at least three equal samples near `peak`, the highest or the lowest."""
    if abs(peak) < MIN_CLIPPED_PEAK:
        return 0
    at = np.flatnonzero(row >= TOP * peak if peak > 0.0 else row <= TOP * peak)
    if len(at) < FLAT_SAMPLES:
        return 0
    same = (np.diff(at) == 1) & (np.diff(row[at]) == 0.0)
    # A run of k equal samples is k - 1 true values in a row.
    edges = np.diff(np.concatenate(([0], same.astype(np.int8), [0])))
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1) + 1
    return int(np.sum(lengths >= FLAT_SAMPLES))
