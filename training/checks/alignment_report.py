"""The alignment check's report: recordings and pairs of mics in the form that is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from training.checks.alignment_session import Mic, Session
from training.manifest import InputFile
from training.metrics.alignment import PairLag
from training.metrics.alignment_channel import ChannelState
from training.metrics.alignment_types import FloatArray

SERIES_POINTS: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One mic's recording, mixed to one channel, with what was found out about it."""

    samples: FloatArray
    sample_rate: int
    channels: int
    duration_s: float
    state: ChannelState
    file: InputFile


def pair_row(session: Session, mic: Mic, lag: PairLag) -> dict[str, Any]:
    """Return what was measured of one mic, and up to `SERIES_POINTS` points of its lag."""
    shown = np.unique(np.linspace(0, len(lag.times_s) - 1, SERIES_POINTS).round().astype(int))
    points = shown if len(lag.times_s) > SERIES_POINTS else np.arange(len(lag.times_s))
    return {
        "session_id": session.session_id,
        "anchor": session.anchor.name,
        "target": mic.name,
        "median_delay_ms": _rounded(lag.median_delay_ms),
        "expected_delay_ms": _rounded(lag.expected_delay_ms),
        "expected_declared": mic.declared,
        "residual_ms": _rounded(lag.residual_ms),
        "max_abs_delay_ms": _rounded(lag.max_abs_delay_ms),
        "spread_ms": _rounded(lag.spread_ms),
        "drift_samples_per_min": _rounded(lag.drift_samples_per_min),
        "support": lag.support,
        "windows": lag.n_windows,
        "edge_rejected": lag.edge_rejected,
        "confidence": _rounded(lag.confidence),
        "evidence": _rounded(lag.evidence),
        "polarity_inverted": lag.polarity_inverted,
        "jumps": [{name: _rounded(v) for name, v in asdict(jump).items()} for jump in lag.jumps],
        "lost": [
            {
                name: _rounded(value) if isinstance(value, float) else value
                for name, value in asdict(stretch).items()
            }
            for stretch in lag.lost
        ],
        "reason": lag.reason,
        "series": [
            {"time_s": _rounded(lag.times_s[k]), "delay_ms": _rounded(lag.delays_ms[k])}
            for k in points
        ],
    }


def mic_row(mic: Mic, found: Recording) -> dict[str, Any]:
    """Return what was found out about one recording."""
    return {
        "name": mic.name,
        "path": str(mic.path),
        "sample_rate": found.sample_rate,
        "channels": found.channels,
        "duration_s": _rounded(found.duration_s),
        "peak_dbfs": _rounded(found.state.peak_dbfs),
        "dc": _rounded(found.state.dc),
        "clips": found.state.clips,
    }


def _rounded(value: float | None) -> float | None:
    """Round to a millionth: far below what is measured, and the same on every machine."""
    return None if value is None else round(float(value), 6)
