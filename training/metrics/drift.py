"""How far a distribution moved from a baseline to a candidate, both given as counts.

Effect sizes:
    ``psi``, the population stability index: the sum over values of ``(q - p) ln(q / p)`` with the
    shares p of the baseline and q of the candidate (Jeffreys' divergence; Siddiqi 2006, "Credit
    Risk Scorecards", ch. 8). It is symmetric, never negative, and has no upper end. A value that
    one side lacks would make it infinite: the empty side counts there as half an observation, at
    least as the share `FLOOR` and at most as the share of the other side. No other share is
    touched, so that equal shares give 0 whatever the numbers behind them.
    ``js_distance``, the Jensen-Shannon distance, base 2: 0 for equal shares, 1 for nothing in
    common (Endres and Schindelin 2003); its square is the divergence in bits (Lin 1991), defined
    where a value occurs on one side only. Taken from `scipy.spatial.distance.jensenshannon`.

Chance:
    Two samples of one distribution differ as well. Without any drift, PSI over K values is about
    chi-squared with K - 1 degrees of freedom times ``1/n + 1/m`` (Yurdakul and Naranjo 2020,
    "Statistical properties of the population stability index", J. Risk Model Validation 14(4)).
    ``psi_by_chance`` is the 95 % point of that, and ``psi_beyond_chance`` what is left above it:
    the figure that is graded and judged. With many observations it is PSI itself.

Tests (advice, never a verdict):
    Unordered values: Pearson's chi-squared test of homogeneity on the 2 x K table, without
    Yates' correction (`scipy.stats.chi2_contingency`).
    Ordered bins: the two-sample Kolmogorov-Smirnov test, its distance taken at the bin edges and
    its p-value from `scipy.stats.kstwo`, as `scipy.stats.ks_2samp` does with ties. Binning can
    only hide distance, so that this p-value errs upwards.
    Both take every observation for an independent one. Hits of one session are not, so the same
    test is made again with sessions for observations: ``p_value_sessions`` is what would hold if
    all hits of a session were copies of each other. The truth lies between the two.
    Holm's correction covers all the distributions of one report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from training.metrics.resampling import holm

FLOOR: Final = 1e-4
"""Least share that an empty value counts as: below it PSI would grow with the sample."""

MODERATE: Final = 0.1
LARGE: Final = 0.25
"""From which PSI on a shift is called moderate, and above which it is called large."""

LISTED_VALUES: Final = 50
"""How many values of a distribution are listed, those that moved most."""

_CHANCE: Final = 0.95
_DECIMALS: Final = 9
_LIMITING: Final = 1_000_000

Shift = Literal["small", "moderate", "large"]
Test = Literal["chi_squared", "kolmogorov_smirnov"]
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueShare:
    """One value: its share of either side (0..1), and what it adds to PSI (0 or more)."""

    value: str
    baseline: float
    candidate: float
    psi: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """How far one distribution moved; every figure is None when a side holds nothing.

    Attributes:
        name: what is distributed, such as "dynamics".
        divergence_bits: Jensen-Shannon divergence, 0..1.
        js_distance: its square root, the Jensen-Shannon distance, 0..1.
        psi: population stability index, 0 or more.
        psi_by_chance: what PSI stays below in 95 of 100 pairs of samples without drift.
        psi_beyond_chance: how much PSI exceeds that; 0 where it does not.
        shift: `psi_beyond_chance` in a word: "small" below 0.1, "large" above 0.25.
        test: which test, see the module.
        statistic: chi-squared, or the Kolmogorov-Smirnov distance.
        p_value, p_holm: of the observations, as they are and corrected for the number of tests.
        p_value_sessions, p_holm_sessions: the same with sessions for observations; None when the
            number of sessions is not known.
        baseline_n, candidate_n: observations on each side.
        largest: the value whose share changed most; None when no share changed.
        largest_change: candidate share minus baseline share of that value.
        values: the shares, in their order when the bins have one, else the largest part of PSI
            first; at most `LISTED_VALUES`.
        values_total: how many values there are.
        detail: why there is no figure; empty when there is one.
    """

    name: str
    divergence_bits: float | None
    baseline_n: int
    candidate_n: int
    js_distance: float | None = None
    psi: float | None = None
    psi_by_chance: float | None = None
    psi_beyond_chance: float | None = None
    shift: Shift | None = None
    test: Test | None = None
    statistic: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    p_value_sessions: float | None = None
    p_holm_sessions: float | None = None
    largest: str | None = None
    largest_change: float | None = None
    values: tuple[ValueShare, ...] = ()
    values_total: int = 0
    detail: str = ""


def drift(
    name: str,
    baseline: Mapping[str, int],
    candidate: Mapping[str, int],
    *,
    ordered: bool = False,
    sessions: tuple[int, int] | None = None,
) -> Drift:
    """Compare two distributions given as counts (0 or more) by value.

    Args:
        name: what is distributed.
        baseline: value → observations; a value that a side lacks counts 0.
        candidate: the same of the other side.
        ordered: the values are bins in the order in which the mappings give them (both the same
            bins); otherwise their order does not matter.
        sessions: how many sessions either side was drawn from.

    Returns:
        The drift before any correction for several tests (see `corrected`). A side without
        observations gives no figure but `detail`.
    """
    names = list(dict.fromkeys([*baseline, *candidate]))
    names = names if ordered else sorted(names)
    before = np.array([baseline.get(value, 0) for value in names], dtype=np.float64)
    after = np.array([candidate.get(value, 0) for value in names], dtype=np.float64)
    counts = (sum(baseline.values()), sum(candidate.values()))
    if not all(counts):
        sides = zip(("baseline", "candidate"), counts, strict=True)
        empty = " and ".join(side for side, n in sides if not n)
        return not_compared(name, counts, f"nothing to compare in the {empty}")
    p, q = before / counts[0], after / counts[1]
    parts = psi_parts(p, q, counts)
    psi, chance = float(parts.sum()), psi_by_chance(p, q, counts)
    beyond = max(_rounded(psi) - _rounded(chance), 0.0)
    statistic, p_value = _test(p, q, counts, ordered=ordered)
    clusters = _clusters(sessions, counts)
    # In steps of 1e-9, so that rounding noise makes no value the one that moved most.
    changes = np.round(q - p, _DECIMALS)
    largest = int(np.abs(changes).argmax())
    distance = js_distance(p, q)
    return Drift(
        name=name,
        divergence_bits=_rounded(distance**2),
        js_distance=_rounded(distance),
        psi=_rounded(psi),
        psi_by_chance=_rounded(chance),
        psi_beyond_chance=_rounded(beyond),
        shift=grade(beyond),
        test="kolmogorov_smirnov" if ordered else "chi_squared",
        statistic=statistic,
        p_value=p_value,
        p_value_sessions=_test(p, q, clusters, ordered=ordered)[1] if clusters else None,
        baseline_n=counts[0],
        candidate_n=counts[1],
        largest=names[largest] if changes[largest] else None,
        largest_change=float(changes[largest]) if changes[largest] else None,
        values=_shares(names, p, q, parts, ordered=ordered),
        values_total=len(names),
    )


def _clusters(sessions: tuple[int, int] | None, counts: tuple[int, int]) -> tuple[int, int] | None:
    """Give how many sessions can stand for observations; there are no more of them than those."""
    if sessions is None or not all(sessions):
        return None
    return min(sessions[0], counts[0]), min(sessions[1], counts[1])


def not_compared(name: str, counts: tuple[int, int], why: str) -> Drift:
    """Give the row of a distribution that could not be compared."""
    return Drift(
        name=name, divergence_bits=None, baseline_n=counts[0], candidate_n=counts[1], detail=why
    )


def psi_parts(p: FloatArray, q: FloatArray, counts: tuple[int, int]) -> FloatArray:
    """Give what each value adds to PSI; shares (K,) and their totals in, (K,) out, all >= 0."""
    p_filled, q_filled = _filled(p, q, counts[0]), _filled(q, p, counts[1])
    parts = np.zeros_like(p)
    some = (p > 0) | (q > 0)
    parts[some] = (q_filled[some] - p_filled[some]) * np.log(q_filled[some] / p_filled[some])
    return parts


def _filled(shares: FloatArray, other: FloatArray, n: int) -> FloatArray:
    """Fill the zeros of one side: half an observation, but no more than the other side has."""
    return np.where(shares > 0, shares, np.minimum(max(0.5 / n, FLOOR), other))


def psi_by_chance(p: FloatArray, q: FloatArray, counts: tuple[int, int]) -> float:
    """Give what PSI stays below in 95 of 100 pairs of samples of one distribution."""
    from scipy.stats import chi2

    degrees = int(((p > 0) | (q > 0)).sum()) - 1
    return float(chi2.ppf(_CHANCE, degrees)) * (1 / counts[0] + 1 / counts[1]) if degrees else 0.0


def js_distance(p: FloatArray, q: FloatArray) -> float:
    """Give the Jensen-Shannon distance of two distributions, base 2, in 0..1."""
    from scipy.spatial.distance import jensenshannon

    # Of equal distributions SciPy takes the square root of rounding noise: 1e-9 or NaN.
    if np.allclose(p, q, rtol=1e-12, atol=0.0):
        return 0.0
    return min(float(jensenshannon(p, q, base=2)), 1.0)


def grade(psi: float) -> Shift:
    """Put a PSI into a word."""
    return "small" if psi < MODERATE else "moderate" if psi <= LARGE else "large"


def corrected(drifts: Sequence[Drift]) -> tuple[Drift, ...]:
    """Fill in the p-values corrected for the number of tests, largest shift first.

    Those that could not be compared come last; equals are sorted by name.
    """
    whole = holm({row.name: row.p_value for row in drifts if row.p_value is not None})
    sessions = holm(
        {row.name: row.p_value_sessions for row in drifts if row.p_value_sessions is not None}
    )
    filled = [
        replace(row, p_holm=whole.get(row.name), p_holm_sessions=sessions.get(row.name))
        for row in drifts
    ]
    return tuple(sorted(filled, key=_by_size))


def _by_size(row: Drift) -> tuple[bool, float, float, str]:
    return row.psi is None, -(row.psi_beyond_chance or 0.0), -(row.psi or 0.0), row.name


def _test(
    p: FloatArray, q: FloatArray, counts: tuple[int, int], *, ordered: bool
) -> tuple[float, float]:
    """Test whether two samples of so many observations come of one distribution."""
    from scipy.special import kolmogorov
    from scipy.stats import chi2_contingency, kstwo

    if ordered:
        distance = min(float(np.abs(np.cumsum(q) - np.cumsum(p)).max()), 1.0)
        size = max(round(counts[0] * counts[1] / (counts[0] + counts[1])), 1)
        # Of very large sizes kstwo makes NaN; its limit differs by less than a thousandth there.
        large = size >= _LIMITING
        p_value = kolmogorov(distance * size**0.5) if large else kstwo.sf(distance, size)
        return _rounded(distance), _short(float(p_value))
    some = (p > 0) | (q > 0)
    if some.sum() < 2:
        return 0.0, 1.0
    table = np.stack([p[some] * counts[0], q[some] * counts[1]])
    found = chi2_contingency(table, correction=False)
    return _rounded(float(found.statistic)), _short(float(found.pvalue))


def _shares(
    names: Sequence[str], p: FloatArray, q: FloatArray, parts: FloatArray, *, ordered: bool
) -> tuple[ValueShare, ...]:
    # Shares decide among values that moved alike, and then the name.
    order = sorted(
        range(len(names)), key=lambda i: (-round(float(parts[i]), _DECIMALS), -p[i], names[i])
    )[:LISTED_VALUES]
    if ordered:
        order.sort()
    return tuple(
        ValueShare(
            value=names[i],
            baseline=_rounded(float(p[i])),
            candidate=_rounded(float(q[i])),
            psi=_rounded(float(parts[i])),
        )
        for i in order
    )


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)


def _short(value: float) -> float:
    """Six significant digits: p-values are read for their size."""
    return float(f"{value:.6g}")
