"""The alignment check's verdicts: lag, drift, jumps, support and polarity of one mic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from training.checks.alignment_session import Mic, Session
from training.gates import Interval, Measurement, Verdict, judge
from training.gates.model import Threshold
from training.metrics.alignment import LostStretch, PairLag

# As many hits as a jump needs on either side.
_HITS_AT_AN_END: Final = 4
# No drum of a kit is so many metres nearer to one mic than another drum is.
_NO_DRUM_MS: Final = 10.0


def judge_pair(
    session: Session, mic: Mic, lag: PairLag, thresholds: Mapping[str, Threshold]
) -> list[Verdict]:
    """Judge what was measured of one mic; what was not measured has not passed."""
    subject = f"{session.session_id}/{mic.name}"
    return [
        judge(measurement, thresholds[measurement.name], subject=subject)
        for measurement in _measurements(lag, mic, thresholds)
    ]


def _measurements(
    lag: PairLag, mic: Mic, thresholds: Mapping[str, Threshold]
) -> Sequence[Measurement]:
    names = ("min_support", "max_delay_ms", "max_drift_samples_per_min", "max_jump_ms")
    if not lag.measured:
        return [
            Measurement(name=name, value=None, n=lag.n_windows, detail=lag.reason) for name in names
        ]
    residual = lag.residual_ms
    against = "expected" if mic.declared else "expected, since none is declared"
    where = f"lag {lag.median_delay_ms:.3f} ms, {lag.expected_delay_ms:.3f} ms {against}"
    if lag.jumps:
        where += "; it jumps, so mend the jump first and measure again"
    return [
        Measurement(name="min_support", value=lag.support, unit="hits", n=lag.n_windows),
        Measurement(
            name="max_delay_ms",
            value=None if residual is None else abs(residual),
            n=lag.support,
            ci=_absolute(lag.median_ci_ms, lag.expected_delay_ms),
            detail=where,
        ),
        _drift(lag, thresholds),
        _jump(lag, thresholds),
        Measurement(
            name="polarity_inverted", value=float(bool(lag.polarity_inverted)), n=lag.support
        ),
    ]


def lost_stretches(lag: PairLag, min_support: float) -> tuple[list[LostStretch], list[LostStretch]]:
    """Divide the stretches that do not support the lag into those that count and those that warn.

    As many hits count as must support a lag; at an end of the recording, where one step explains
    all, as many as a jump needs on either side. A step that no other drum explains always counts.
    """
    counts = [
        s
        for s in lag.lost
        if s.hits >= (_HITS_AT_AN_END if s.at_end else min_support)
        or (s.step_ms is not None and abs(s.step_ms) > _NO_DRUM_MS)
    ]
    return counts, [s for s in lag.lost if s not in counts]


def told(stretch: LostStretch) -> str:
    """Say where a stretch lies and what became of the lag there."""
    where = f"the {stretch.hits} hits from {stretch.start_s:.2f} to {stretch.stop_s:.2f} s"
    if stretch.step_ms is None:
        return f"{where} are not found"
    return f"{where} fit {stretch.step_ms:+.3f} ms beside the lag of the others"


def _jump(lag: PairLag, thresholds: Mapping[str, Threshold]) -> Measurement:
    """The largest jump; none where a stretch of the recording supports no lag, or another one.

    A stretch at an end that fits another lag is what a jump leaves, one in the middle may also be
    another drum, and one that fits none a mic that went dead or a jump too large to follow.
    """
    name = "max_jump_ms"
    found = [
        f"{jump.delay_ms:+.3f} ms between {jump.earliest_s:.2f} and {jump.latest_s:.2f} s"
        for jump in lag.jumps
    ]
    counts, _ = lost_stretches(lag, thresholds["min_support"].value)
    ends = [abs(s.step_ms) for s in counts if s.at_end and s.step_ms is not None]
    value = max([lag.max_jump_ms or 0.0, *ends])
    detail = "; ".join([*found, *map(told, counts)]) or "no jump"
    if len(ends) == len(counts) or value > thresholds[name].value:
        return Measurement(name=name, value=value, n=lag.support, detail=detail)
    first = min(stretch.start_s for stretch in counts)
    fix = (
        f"Listen to the mic from {first:.1f} s on: cut it where it went dead or lost its place, or "
        "leave the session out; if it hears another drum there, choose another anchor mic."
    )
    return Measurement(name=name, value=None, n=lag.support, detail=detail, fix=fix)


def _drift(lag: PairLag, thresholds: Mapping[str, Threshold]) -> Measurement:
    """Size of the drift with its interval; none when the recording is too short to tell.

    Too short means: the interval reaches beyond the limit, and a drift that large would have moved
    the mic further over the recording than a lag may be.
    """
    name = "max_drift_samples_per_min"
    drift, ci = lag.drift_samples_per_min, _absolute(lag.drift_ci, 0.0)
    minutes = float(lag.times_s[-1] - lag.times_s[0]) / 60.0
    detail = f"{drift:+.2f} samples/min over {minutes:.2f} min"
    limit = thresholds[name].value
    worst_ms = np.inf if ci is None else ci.upper * minutes * 1000.0 / lag.sample_rate
    straddles = ci is None or ci.lower <= limit < ci.upper
    if drift is None or (straddles and worst_ms > thresholds["max_delay_ms"].value):
        told = "not bounded" if ci is None else f"only known to lie below {ci.upper:.2f}"
        why = f"too few hits to tell the drift: {detail}, {told} samples/min"
        return Measurement(name=name, value=None, n=lag.support, detail=why)
    return Measurement(name=name, value=abs(drift), n=lag.support, ci=ci, detail=detail)


def _absolute(bounds: tuple[float, float] | None, centre: float) -> Interval | None:
    """Interval of |figure - centre| from that of the figure; None when it is unbounded."""
    if bounds is None or not np.all(np.isfinite(bounds)):
        return None
    low, high = bounds[0] - centre, bounds[1] - centre
    nearest_zero = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
    return Interval(lower=nearest_zero, upper=max(abs(low), abs(high)))
