"""Fitting an openness curve to the strokes of one device, with what is not known about it.

Two kinds of data can tell how open the hi-hat is at a raw pedal value (CC4, 0..127):

*measured*: strokes with a raw value and an openness that came from elsewhere;
*labels*: strokes labelled closed (openness 0) or open (1). Both kinds weigh the same in total, so
that a drummer who seldom opens the hi-hat gets the same curve as one who often does. What comes
out is the balanced share of open strokes at a raw value: it rises with openness, but is no gap.

Either way the curve is the isotonic least-squares fit (Barlow, Bartholomew, Bremner and Brunk,
*Statistical Inference under Order Restrictions*, 1972), and its standard errors are those of the
delete-a-group jackknife over groups of sessions (Kott, *Journal of Official Statistics* 17, 2001):
the strokes of a session are not independent of each other, sessions are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from training.metrics.openness import MIN_STROKES, Curve, check_curve, detect_polarity

__all__ = ["GROUPS", "MIN_GROUPS", "MIN_PAIRS", "RAW_VALUES", "Fit", "NoFitError", "fit_curve"]

Floats = npt.NDArray[np.floating[Any]]
Method = Literal["measured", "labels"]

RAW_VALUES: Final = 128
GROUPS: Final = 16
"""Groups of sessions; more of them change little and cost a fit each."""
MIN_GROUPS: Final = 5
"""With fewer groups that hold strokes, the standard errors are not given."""
MIN_PAIRS: Final = 100
MIN_RAW: Final = 5
"""Different raw values that measured pairs must cover."""

# Correlation of openness with the rank of the raw value below which there is no direction to speak
# of; and the share of what the raw value explains that a curve that never turns back must explain.
_MIN_CORRELATION = 0.5
_MIN_KEPT = 0.9
_BINS = 12
_DECIMALS = 4


class NoFitError(ValueError):
    """The data do not give a curve; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A fitted curve.

    Attributes:
        curve: the curve, fit for `training.metrics.openness.check_curve`.
        method: what it was fitted to.
        n: strokes.
        raw_values: different raw values, as whole numbers.
        residual: root mean square of openness minus curve over the strokes (balanced for labels).
        groups: groups of sessions that hold strokes.
        standard_errors: of the curve at each of its points; None with too few groups.
        uncertainty: their root mean square over the strokes' raw values; None likewise.
    """

    curve: Curve
    method: Method
    n: int
    raw_values: int
    residual: float
    groups: int
    standard_errors: tuple[float, ...] | None
    uncertainty: float | None


def fit_curve(counts: Floats, curve_id: str, method: Method) -> Fit:
    """Fit a curve.

    Args:
        counts: shape (groups, 128, 3), one cell a group of sessions and raw value. For `measured`
            the count of pairs, the sum of their openness, and the sum of its squares; for `labels`
            the counts of closed and of open strokes (the third column is not read).
        curve_id: id of the curve to be made.
        method: what the counts are of.

    Raises:
        NoFitError: too few strokes or raw values, no clear direction, or openness turns back.
    """
    n = int(counts[..., 0].sum() if method == "measured" else counts[..., :2].sum())
    moments = counts if method == "measured" else _balanced(counts)
    total = moments.sum(axis=0)
    raw = np.flatnonzero(total[:, 0] > 0)
    if method == "measured" and (n < MIN_PAIRS or raw.size < MIN_RAW):
        raise NoFitError(
            f"{n} pairs of raw value and openness at {raw.size} raw values, "
            f"{MIN_PAIRS} at {MIN_RAW} are needed"
        )
    rises = _direction(total) if method == "measured" else _direction_of_labels(counts)
    _check_turns(total, rises=rises)
    heights = _isotonic(total, rises=rises)
    points = _knots(heights)
    curve = Curve(
        id=curve_id,
        polarity="high_is_open" if rises else "high_is_closed",
        points=tuple((float(at), round(float(heights[at]), _DECIMALS)) for at in points),
    )
    if why := check_curve(curve):
        raise NoFitError(f"the fitted curve {why}")
    weight, first, second = total[raw].T
    fitted = heights[raw]
    squares = second - 2.0 * fitted * first + fitted**2 * weight
    groups = int((moments[..., 0].sum(axis=1) > 0).sum())
    errors = _jackknife(moments, rises=rises) if groups >= MIN_GROUPS else None
    return Fit(
        curve=curve,
        method=method,
        n=n,
        raw_values=int(raw.size),
        residual=round(float(np.sqrt(max(0.0, squares.sum()) / weight.sum())), _DECIMALS),
        groups=groups,
        standard_errors=None
        if errors is None
        else tuple(np.round(errors[points], _DECIMALS).tolist()),
        uncertainty=None
        if errors is None
        else round(float(np.sqrt(np.average(errors[raw] ** 2, weights=weight))), _DECIMALS),
    )


def _balanced(counts: Floats) -> Floats:
    """Turn counts of closed and open strokes into weighted moments; both kinds weigh the same."""
    closed, opened = counts[..., 0], counts[..., 1]
    short = [
        f"{int(kind.sum())} {name} strokes"
        for kind, name in ((closed, "closed"), (opened, "open"))
        if kind.sum() < MIN_STROKES
    ]
    if short:
        raise NoFitError(f"{' and '.join(short)}, {MIN_STROKES} of either kind are needed")
    weighed_open = opened / (2.0 * opened.sum())
    weight = closed / (2.0 * closed.sum()) + weighed_open
    return np.stack([weight, weighed_open, weighed_open], axis=-1)


def _direction(total: Floats) -> bool:
    """Whether openness rises with the raw value, by its correlation with the rank of that."""
    weight, first, second = total.T
    through = np.cumsum(weight)
    rank = through - weight / 2.0
    n = through[-1]
    mean_rank, mean = (weight * rank).sum() / n, first.sum() / n
    covariance = (first * (rank - mean_rank)).sum() / n
    variances = (weight * (rank - mean_rank) ** 2).sum() / n * (second.sum() / n - mean**2)
    if variances <= 0.0:
        raise NoFitError("openness is the same at every raw value")
    correlation = float(covariance / np.sqrt(variances))
    if abs(correlation) < _MIN_CORRELATION:
        raise NoFitError(
            f"openness neither rises nor falls with the raw value (correlation {correlation:.2f})"
        )
    return correlation > 0


def _direction_of_labels(counts: Floats) -> bool:
    raw = np.arange(RAW_VALUES, dtype=np.float64)
    closed, opened = counts[..., 0].sum(axis=0), counts[..., 1].sum(axis=0)
    found = detect_polarity(raw, raw, closed_counts=closed, opened_counts=opened)
    if found.polarity is None:
        raise NoFitError(
            "closed and open strokes come at the same raw values "
            f"(separation {found.separation:.2f})"
        )
    return found.polarity == "high_is_open"


def _check_turns(total: Floats, *, rises: bool) -> None:
    """Refuse data whose openness turns back, rather than merely scatters.

    Compared on bins of about equal weight, whose means scatter little: what a curve explains that
    never turns back, as a share of what the raw value explains.
    """
    weight = total[:, 0]
    bins = np.minimum((_BINS * (np.cumsum(weight) - weight / 2) / weight.sum()).astype(int), 11)
    binned = np.array([total[bins == k].sum(axis=0) for k in range(_BINS)])
    binned = binned[binned[:, 0] > 0]
    share, means = binned[:, 0], binned[:, 1] / binned[:, 0]
    spread = np.average((means - np.average(means, weights=share)) ** 2, weights=share)
    fitted = IsotonicRegression(increasing=rises).fit_transform(
        np.arange(means.size), means, sample_weight=share
    )
    lost = np.average((means - fitted) ** 2, weights=share)
    if spread > 0 and lost / spread > 1.0 - _MIN_KEPT:
        raise NoFitError(
            "openness turns back as the raw value rises: a curve that does not would lose "
            f"{100 * lost / spread:.0f} % of what the raw value tells"
        )


def _isotonic(total: Floats, *, rises: bool) -> Floats:
    """Return the monotone least-squares fit at raw 0..127, straight between observed values."""
    raw = np.flatnonzero(total[:, 0] > 0)
    fit = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=rises, out_of_bounds="clip")
    fit.fit(raw, total[raw, 1] / total[raw, 0], sample_weight=total[raw, 0])
    heights: Floats = np.clip(fit.predict(np.arange(RAW_VALUES)), 0.0, 1.0)
    return heights


def _knots(heights: Floats) -> npt.NDArray[np.intp]:
    """Return the raw values at which a curve bends, and both ends."""
    bends = np.abs(np.diff(heights, n=2)) > 1e-9
    return np.concatenate(([0], np.flatnonzero(bends) + 1, [RAW_VALUES - 1]))


def _jackknife(moments: Floats, *, rises: bool) -> Floats:
    """Return the standard error of the curve at raw 0..127."""
    total = moments.sum(axis=0)
    held = [group for group in moments if group[:, 0].sum() > 0]
    # Differences of large sums may leave a trace of weight where there is none.
    left = [np.where(total - group > 1e-12, total - group, 0.0) for group in held]
    curves = np.array([_isotonic(part, rises=rises) for part in left])
    spread = ((curves - curves.mean(axis=0)) ** 2).sum(axis=0)
    errors: Floats = np.sqrt((len(held) - 1) / len(held) * spread)
    return errors
