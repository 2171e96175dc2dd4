"""Drawing clusters with replacement, and the intervals that come of it; knows no metric.

Task:
    Each resample draws as many clusters (sessions, usually) as there are, independently and with
    replacement; a cluster brings all its clips each time it is drawn. With one clip a cluster
    this is the ordinary bootstrap. Where clusters are many, their counts are drawn as independent
    Poisson numbers that add up to a little less, and the rest one by one: given their sum, such
    counts are multinomial, so the outcome has the same distribution, four times as fast.

Intervals:
    ``percentile``: the (1-c)/2 and (1+c)/2 quantiles of the resamples, linearly interpolated.
    ``expanded`` (the default): the same further out in the tails, at ``Phi(-t sqrt(n/(n-L)))`` with
    Student's t of n-L degrees of freedom, n clusters and L strata (1 unless asked for), which mends
    that resamples of n clusters spread too little: within each stratum the mean is lost. It
    approaches ``percentile`` as n grows.
    ``bca``: the same with bias and acceleration corrected, the acceleration from the jackknife.

P-values:
    Of a difference, two-sided against none: the confidence at which an end of the interval touches
    0, taken from 1. So it is below 0.05 where the 95 % interval leaves 0 out, and not elsewhere but
    for the grain of the resamples, which are counted with one more on the side of no difference.

Undefined and too few:
    A resample in which a figure is undefined (a class without reference events, say) is counted
    in `Estimate.n_undefined`. It could lie anywhere, so no interval is given once the share of
    such resamples exceeds (1-c)/2. Fewer contributing clusters than `Resampling.min_clusters` give
    no interval either; with L strata, L - 1 more are needed. `Estimate.reason` says why; the point
    estimate stays.

Sources:
    Davison and Hinkley (1997), "Bootstrap Methods and their Application", ch. 3.8 (clusters);
    Hesterberg (2015), "What teachers should know about the bootstrap", The American Statistician
    69(4) (expanded); Efron (1987), "Better bootstrap confidence intervals", JASA 82(397) (BCa);
    Holm (1979), "A simple sequentially rejective multiple test procedure". Checked against
    ``scipy.stats.bootstrap`` and by simulated coverage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, pdtr, stdtr, stdtrit

from training.metrics.classification import FloatArray, finite_or_none
from training.metrics.scores import DrawArray, IndexArray
from training.steps import steps

Method = Literal["expanded", "percentile", "bca"]
DRAWS_PER_BLOCK: Final = 4_000_000
"""Cells of a block of draws: 16 MB."""
_MANY: Final = 4_096
"""From as many clusters on, draws are made from Poisson counts."""
_CELLS: Final = 65_536
_OPEN: Final = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How to draw, and what to make of the draws."""

    iterations: int = 1000
    confidence: float = 0.95
    method: Method = "expanded"
    seed: int = 0
    min_clusters: int = 5
    """Fewer clusters than this give no interval."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence must lie between 0 and 1, got {self.confidence}")
        if self.min_clusters < 2:
            raise ValueError(f"min_clusters must be at least 2, got {self.min_clusters}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """One figure, or one difference of figures, and its interval."""

    point: float | None
    """The figure on the clips as they are; None = undefined."""
    lower: float | None
    upper: float | None
    """Bounds of the interval; None = no interval, see `reason`."""
    n_clusters: int
    """Clusters that contribute to this figure."""
    n_undefined: int
    """Resamples in which the figure is undefined."""
    standard_error: float | None
    """Standard deviation of the resamples; also given where clusters are too few to trust it."""
    p_value: float | None = None
    """Of a difference: two-sided, against no difference."""
    reason: str = ""
    """Why there is no interval."""

    def as_metrics(self) -> dict[str, float | int | str | None]:
        """Return the report form."""
        entry: dict[str, float | int | str | None] = {
            "point_estimate": self.point,
            "ci_lower": self.lower,
            "ci_upper": self.upper,
            "standard_error": self.standard_error,
            "n_clusters": self.n_clusters,
            "n_undefined": self.n_undefined,
        }
        if self.p_value is not None:
            entry["p_value"] = self.p_value
        if self.reason:
            entry["reason"] = self.reason
        return entry


def draw_clusters(
    n_clusters: int, settings: Resampling, strata: IndexArray | None = None
) -> Iterator[DrawArray]:
    """Yield the draws in blocks [shape=(n_in_block, n_clusters)], `iterations` rows in all.

    A row says how often each cluster was drawn; it sums to the number of clusters, and within
    each stratum to the size of that stratum. Blocks are float32, which holds counts exactly.
    """
    rng = np.random.default_rng(settings.seed)
    groups: list[slice | IndexArray] = (
        [slice(None)]
        if strata is None
        else [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    )
    sizes = [n_clusters] if strata is None else [len(group) for group in groups]  # type: ignore[arg-type]
    tables = {size: _poisson_table(size) for size in sizes if size >= _MANY}
    step = max(1, DRAWS_PER_BLOCK // n_clusters)
    for start in steps(range(0, settings.iterations, step), "resampling"):
        n_rows = min(step, settings.iterations - start)
        drawn = np.empty((n_rows, n_clusters), dtype=np.float32)
        for row in drawn:
            for members, size in zip(groups, sizes, strict=True):
                if size in tables:
                    row[members] = _draw_many(size, rng, *tables[size])
                else:
                    row[members] = np.bincount(rng.integers(size, size=size), minlength=size)
        yield drawn


def _poisson_table(size: int) -> tuple[NDArray[np.uint8], FloatArray]:
    """Poisson counts by the first 16 bits of a uniform number, and their distribution function.

    A cell in which the count still depends on the further bits holds `_OPEN`. The mean lies six
    standard deviations below 1, so that `size` counts sum to more than `size` almost never.
    """
    at_most = pdtr(np.arange(100.0), 1.0 - 6.0 / math.sqrt(size))
    edges = np.arange(_CELLS + 1) / _CELLS
    low = np.searchsorted(at_most, edges[:-1], side="right")
    high = np.searchsorted(at_most, edges[1:], side="left")
    return np.where(low == high, low, _OPEN).astype(np.uint8), at_most


def _draw_many(
    size: int, rng: np.random.Generator, table: NDArray[np.uint8], at_most: FloatArray
) -> NDArray[np.uint8]:
    """Draw `size` times from `size` clusters and count [shape=(size,)]."""
    while True:
        # Four cells of 16 bits from each random number.
        bits = rng.integers(0, 2**64, size=-(-size // 4), dtype=np.uint64)
        cells = bits.view(np.uint16)[:size]
        counts = table.take(cells)
        unsettled = np.flatnonzero(counts == _OPEN)
        uniform = (cells[unsettled] + rng.random(len(unsettled))) / _CELLS
        counts[unsettled] = np.searchsorted(at_most, uniform, side="right")
        short = size - int(counts.sum(dtype=np.int64))
        if short >= 0:
            np.add.at(counts, rng.integers(size, size=short), np.uint8(1))
            return counts


def interval(
    point: float,
    resamples: FloatArray,
    jackknife: FloatArray | None,
    n_clusters: int,
    settings: Resampling,
    *,
    n_strata: int = 1,
) -> tuple[float, float] | None:
    """Bounds from the values of the resamples (all defined) [shape=(n_resamples,)].

    Args:
        point: the figure on the data as they are.
        resamples: its values on the resamples.
        jackknife: its values with one cluster left out; needed for ``bca``.
        n_clusters: clusters that contribute to it; ``expanded`` depends on it.
        settings: confidence and method.
        n_strata: strata that these clusters lie in, fewer than there are clusters.

    Returns:
        (lower, upper), or None where BCa breaks down (every resample on one side of the point).
    """
    tails = np.array([(1.0 - settings.confidence) / 2.0, (1.0 + settings.confidence) / 2.0])
    if settings.method == "expanded":
        free = n_clusters - n_strata
        tails = ndtr(stdtrit(free, tails) * math.sqrt(n_clusters / free))
    elif settings.method == "bca":
        corrections = _corrections(point, resamples, jackknife)
        if corrections is None:
            return None
        bias, acceleration = corrections
        shifted = bias + ndtri(tails)
        tails = ndtr(bias + shifted / (1.0 - acceleration * shifted))
    lower, upper = np.quantile(resamples, tails)
    return float(lower), float(upper)


def _corrections(
    point: float, resamples: FloatArray, jackknife: FloatArray | None
) -> tuple[float, float] | None:
    """Bias and acceleration of BCa; None where every resample lies on one side of the point."""
    if jackknife is None:
        raise ValueError("BCa needs the jackknife")
    below = ((resamples < point).mean() + (resamples <= point).mean()) / 2.0
    bias = float(ndtri(below))
    if not np.isfinite(bias):
        return None
    spread = jackknife.mean() - jackknife
    scale = float((spread**2).sum() ** 1.5)
    return bias, float((spread**3).sum()) / (6.0 * scale) if scale > 0 else 0.0


def p_value(
    point: float,
    resamples: FloatArray,
    jackknife: FloatArray | None,
    n_clusters: int,
    settings: Resampling,
    *,
    n_strata: int = 1,
) -> float:
    """Two-sided p-value of a difference: see the module. Arguments are those of `interval`."""
    n = len(resamples)
    # How deep 0 lies in the tail, seen from below and from above, as a normal quantile: finite,
    # since no share of n resamples is told from 0 or from 1.
    below, above = int((resamples <= 0.0).sum()), int((resamples >= 0.0).sum())
    depths = ndtri(np.minimum([below + 1, above + 1], n) / (n + 1))
    if settings.method == "expanded":
        free = n_clusters - n_strata
        tails = stdtr(free, depths * math.sqrt(free / n_clusters))
    elif settings.method == "bca" and (found := _corrections(point, resamples, jackknife)):
        bias, acceleration = found
        away = np.array([depths[0], -depths[1]]) - bias
        # Beyond the deepest quantile that any confidence reaches, the tail is empty.
        reached = np.maximum(1.0 + acceleration * away, 1e-12)
        tails = ndtr(np.array([1.0, -1.0]) * (away / reached - bias))
    else:
        tails = ndtr(depths)
    return min(1.0, 2.0 * float(np.min(tails)))


def more_clusters_needed(
    estimate: Estimate, threshold: float, *, settings: Resampling
) -> int | None:
    """Say about how many more clusters would settle on which side of a threshold a figure lies.

    The standard error falls with the square root of the number of clusters, so the interval clears
    the threshold at about ``n * (z * standard_error / |point - threshold|)²``. At least what
    `min_clusters` asks for. None where nothing can be said: an undefined figure, or one that
    stands on the threshold.
    """
    missing = max(0, settings.min_clusters - estimate.n_clusters)
    if estimate.point is None or estimate.n_clusters == 0:
        return missing or None
    if estimate.standard_error is None or estimate.n_clusters < 2:
        return missing
    margin = abs(estimate.point - threshold)
    if margin == 0.0:
        return None
    z = float(ndtri((1.0 + settings.confidence) / 2.0))
    needed = estimate.n_clusters * (z * estimate.standard_error / margin) ** 2
    return max(missing, math.ceil(needed - 1e-9) - estimate.n_clusters, 0)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values: the chance of any false alarm among all of them is kept."""
    adjusted: dict[str, float] = {}
    worst = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = worst
    return adjusted


def summarise(
    point: float,
    resamples: FloatArray,
    jackknife: FloatArray | None,
    n_clusters: int,
    settings: Resampling,
    *,
    paired: bool,
    n_strata: int = 1,
) -> Estimate:
    """Make an estimate from the values of one figure.

    Args:
        point: the figure on the data as they are; NaN = undefined.
        resamples: its values on the resamples, NaN where undefined [shape=(n_resamples,)].
        jackknife: its values with one cluster left out; needed for ``bca``.
        n_clusters: clusters that contribute to it.
        settings: how the draws were made.
        paired: the figure is a difference, and gets a p-value.
        n_strata: strata that these clusters lie in.
    """
    defined = resamples[np.isfinite(resamples)]
    n_undefined = len(resamples) - len(defined)
    bounds: tuple[float, float] | None = None
    left_out = None if jackknife is None else jackknife[np.isfinite(jackknife)]
    reason = ""
    needed = settings.min_clusters + max(n_strata, 1) - 1
    if not np.isfinite(point):
        reason = "undefined on these clips"
    elif n_clusters < needed:
        have = f"{n_clusters} cluster{'' if n_clusters == 1 else 's'}"
        where = f" in {n_strata} strata" if n_strata > 1 else ""
        reason = f"{have}{where}, an interval needs {needed}"
    elif n_undefined > len(resamples) * (1.0 - settings.confidence) / 2.0:
        reason = f"undefined in {n_undefined} of {len(resamples)} resamples"
    else:
        bounds = interval(float(point), defined, left_out, n_clusters, settings, n_strata=n_strata)
        if bounds is None:
            reason = "every resample lies on one side of the point estimate, BCa breaks down"
    p = None
    if paired and bounds is not None:
        p = p_value(float(point), defined, left_out, n_clusters, settings, n_strata=n_strata)
    return Estimate(
        point=finite_or_none(point),
        lower=bounds[0] if bounds else None,
        upper=bounds[1] if bounds else None,
        n_clusters=n_clusters,
        n_undefined=n_undefined,
        standard_error=float(defined.std(ddof=1)) if len(defined) > 1 else None,
        p_value=p,
        reason=reason,
    )
