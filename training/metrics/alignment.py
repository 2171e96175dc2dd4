"""How late is one microphone behind another, does that drift, and did it ever jump?

Task: two recordings of the same drumming, made at the same time by an anchor mic and a target mic.
The lag is how much later the target hears the hits of the anchor's drum (ms, positive = late).
Drift is the slope of the lag (samples a minute at the anchor's rate): two clocks of unequal speed.
A jump is a sudden change of the lag: a dropped or repeated buffer.

Conventions: audio is one-dimensional floating point at one sample rate, both arrays starting at the
same moment; lengths may differ. What cannot be measured is None, with a reason, never 0 and never
NaN: silence, no hits in the anchor, or too few hits that agree.

How: `alignment_windows` finds the anchor's hits over the whole recording, `alignment_gcc` measures
the lag of each, `alignment_trend` fits drift and jumps, `alignment_lost` finds where hits in a row
support nothing of it. References: Knapp and Carter, "The
generalized correlation method for estimation of time delay", IEEE ASSP 24 (1976); Sen, "Estimates
of the regression coefficient based on Kendall's tau", JASA 63 (1968).
"""

from __future__ import annotations

import numpy as np
import scipy.signal

from training.metrics.alignment_gcc import WindowLags, window_lags
from training.metrics.alignment_lost import find_lost
from training.metrics.alignment_trend import Trend, fit_trend, median_interval
from training.metrics.alignment_types import (
    AlignmentConfig,
    FloatArray,
    Jump,
    LostStretch,
    PairLag,
)
from training.metrics.alignment_windows import AnchorWindows, loudness_rise, prepare_anchor

__all__ = [
    "SPEED_OF_SOUND_M_PER_S",
    "AlignmentConfig",
    "AnchorWindows",
    "Jump",
    "LostStretch",
    "PairLag",
    "measure_pair",
    "measure_prepared",
    "prepare_anchor",
    "rough_lag_ms",
]

SPEED_OF_SOUND_M_PER_S = 343.0


def measure_pair(
    anchor: FloatArray,
    target: FloatArray,
    sample_rate: int,
    *,
    expected_delay_ms: float = 0.0,
    config: AlignmentConfig | None = None,
) -> PairLag:
    """Measure the lag of `target` (m,) behind `anchor` (n,), both at `sample_rate` Hz.

    `expected_delay_ms` is where the search is centred, and what `residual_ms` is taken from.
    Empty or silent audio gives a PairLag that is not measured. Raises ValueError when an array is
    not one-dimensional or holds a value that is not finite, or the rate is too low for the band.
    """
    config = config or AlignmentConfig()
    windows = prepare_anchor(anchor, sample_rate, config)
    return measure_prepared(windows, target, expected_delay_ms=expected_delay_ms, config=config)


def measure_prepared(
    windows: AnchorWindows,
    target: FloatArray,
    *,
    expected_delay_ms: float = 0.0,
    config: AlignmentConfig | None = None,
) -> PairLag:
    """As `measure_pair`, with the anchor prepared once for several targets."""
    config = config or AlignmentConfig()
    if target.ndim != 1:
        raise ValueError(f"target must have one dimension, got shape {target.shape}")
    if not np.isfinite(expected_delay_ms):
        raise ValueError(f"expected_delay_ms must be finite, got {expected_delay_ms}")
    lags = window_lags(windows, target, expected_delay_ms, config)
    reason = _reason(windows, target, lags, expected_delay_ms, config)
    if reason:
        return _not_measured(windows, lags, expected_delay_ms, reason)
    trend = fit_trend(lags.times_s, lags.lags_ms, config)
    support = int(trend.keep.sum())
    if support < config.min_support:
        reason = f"only {support} of {lags.n_windows} hits agree on a lag"
        return _not_measured(windows, lags, expected_delay_ms, reason)
    if trend.residual_sigma_ms > config.max_spread_ms:
        reason = (
            f"the lags of {support} hits scatter by {trend.residual_sigma_ms:.2f} ms: "
            "the target does not hear the anchor's drum"
        )
        return _not_measured(windows, lags, expected_delay_ms, reason)
    delays, confidence = lags.lags_ms[trend.keep], lags.confidence[trend.keep]
    per_minute = 60.0 * windows.sample_rate / 1000.0
    low, high = trend.interval
    return PairLag(
        sample_rate=windows.sample_rate,
        expected_delay_ms=expected_delay_ms,
        n_windows=lags.n_windows,
        support=support,
        evidence=lags.evidence,
        confidence=float(np.median(confidence)),
        edge_rejected=lags.edge_rejected,
        median_delay_ms=float(np.median(delays)),
        median_ci_ms=median_interval(delays),
        max_abs_delay_ms=float(np.max(np.abs(delays))),
        spread_ms=trend.residual_sigma_ms,
        drift_samples_per_min=trend.slope_ms_per_s * per_minute,
        drift_ci=(low * per_minute, high * per_minute),
        polarity_inverted=lags.inverted,
        jumps=trend.jumps,
        lost=_lost(windows, target, lags, trend, config),
        times_s=lags.times_s[trend.keep],
        delays_ms=delays,
        window_confidence=confidence,
    )


def rough_lag_ms(
    anchor: FloatArray, target: FloatArray, sample_rate: int, *, reach_s: float = 5.0
) -> float | None:
    """Find about how late `target` (m,) is behind `anchor` (n,), to a few ms and up to `reach_s`.

    Correlates where the loudness rises. For a hint to the user only: None when nothing stands out.
    """
    rises = [loudness_rise(audio, sample_rate)[1] for audio in (anchor, target)]
    if min(len(rise) for rise in rises) < 2:
        return None
    ours, theirs = (np.maximum(rise, 0.0) - np.maximum(rise, 0.0).mean() for rise in rises)
    likeness = scipy.signal.correlate(theirs, ours, mode="full", method="fft")
    lags = np.arange(-len(ours) + 1, len(theirs))
    within = np.abs(lags) <= round(reach_s * 1000)
    likeness, lags = likeness[within], lags[within]
    best = int(np.argmax(likeness))
    if likeness[best] < 6.0 * float(np.std(likeness)):
        return None
    return float(lags[best])


def _reason(
    windows: AnchorWindows,
    target: FloatArray,
    lags: WindowLags,
    expected_delay_ms: float,
    config: AlignmentConfig,
) -> str:
    """Say why there is no lag to fit; empty when there is."""
    need = config.min_support
    if len(windows.onsets) == 0:
        return "the anchor holds no hit"
    if not np.any(target):
        return "the target is silent"
    if lags.n_windows < need:
        return f"only {lags.n_windows} hits of the anchor can be compared, {need} are needed"
    if lags.edge_rejected > len(lags.times_s):
        return (
            f"{lags.edge_rejected} of {lags.n_windows} hits fit best at the very end of the search "
            f"range of ±{config.max_shift_ms:g} ms: the true lag is probably larger"
        )
    if lags.better_lag_ms is not None:
        return (
            f"the hits fit best at a lag of {lags.better_lag_ms:.2f} ms, outside the search range "
            f"of ±{config.max_shift_ms:g} ms about the expected {expected_delay_ms:g} ms"
        )
    if lags.evidence < config.min_evidence_sigmas:
        return (
            f"the anchor's hits are not found in the target within ±{config.max_shift_ms:g} ms of "
            f"the expected lag ({lags.n_windows} hits compared)"
        )
    if len(lags.times_s) < need:
        return (
            f"only {len(lags.times_s)} of {lags.n_windows} hits are recognisable in the target "
            f"within ±{config.max_shift_ms:g} ms of the expected lag, {need} are needed"
        )
    return ""


def _lost(
    windows: AnchorWindows,
    target: FloatArray,
    lags: WindowLags,
    trend: Trend,
    config: AlignmentConfig,
) -> tuple[LostStretch, ...]:
    lags_ms = np.zeros(len(lags.hits))
    lags_ms[lags.usable] = lags.lags_ms
    supported = lags.usable.copy()
    supported[lags.usable] = trend.keep
    return find_lost(
        windows,
        target,
        lags.hits,
        supported,
        lags_ms,
        inverted=bool(lags.inverted),
        config=config,
    )


def _not_measured(
    windows: AnchorWindows, lags: WindowLags, expected_delay_ms: float, reason: str
) -> PairLag:
    empty = np.empty(0)
    return PairLag(
        sample_rate=windows.sample_rate,
        expected_delay_ms=expected_delay_ms,
        n_windows=lags.n_windows,
        reason=reason,
        support=len(lags.times_s),
        edge_rejected=lags.edge_rejected,
        evidence=lags.evidence,
        times_s=empty,
        delays_ms=empty,
        window_confidence=empty,
    )
