"""Bootstrap: draws of many clusters, the quick ways against the plain ones, further oracles."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bootstrap import make_clips, points, take

from training.metrics import calibration_scores, resampling
from training.metrics.bootstrap import METRICS, bootstrap
from training.metrics.ranking import running_sum
from training.metrics.resampling import Resampling, draw_clusters
from training.metrics.scores import Clips, compact

MANY = 4_096


def many(n_clusters: int, iterations: int, **given: int) -> np.ndarray:
    how = Resampling(iterations=iterations, **given)
    return np.concatenate(list(draw_clusters(n_clusters, how)))


def test_draws_of_many_clusters_are_multinomial() -> None:
    n = 5_000
    drawn = many(n, 400)
    assert drawn.shape == (400, n)
    assert (drawn.sum(axis=1) == n).all()
    assert (drawn == np.trunc(drawn)).all()
    # How often a cluster is drawn is binomial(n, 1/n): chi-squared over 2,000,000 counts. Counts
    # of one row are a little dependent, which makes the statistic smaller, not larger.
    expected = scipy.stats.binom.pmf(np.arange(7), n, 1 / n) * drawn.size
    expected = np.append(expected, drawn.size - expected.sum())
    seen = np.bincount(np.minimum(drawn, 7).astype(int).ravel(), minlength=8)
    assert ((seen - expected) ** 2 / expected).sum() < scipy.stats.chi2.ppf(0.9999, 7)
    # A half of the clusters: binomial(n, 1/2), which Poisson counts alone would exceed by half.
    halves = drawn[:, : n // 2].sum(axis=1)
    assert halves.std(ddof=1) == pytest.approx(np.sqrt(n / 4), rel=0.15)
    assert halves.mean() == pytest.approx(n / 2, abs=5 * np.sqrt(n / 4 / 400))
    # No cluster is favoured.
    each = drawn.sum(axis=0)
    assert ((each - 400) ** 2).sum() / 400 < scipy.stats.chi2.ppf(0.9999, n - 1)


def test_draws_of_many_clusters_keep_strata_and_follow_the_seed() -> None:
    strata = np.r_[np.zeros(5_000, dtype=int), np.ones(40, dtype=int), np.full(6_000, 2)]
    how = Resampling(iterations=5)
    drawn = np.concatenate(list(draw_clusters(len(strata), how, strata)))
    for stratum, size in enumerate((5_000, 40, 6_000)):
        assert (drawn[:, strata == stratum].sum(axis=1) == size).all()
    assert (many(MANY, 3) == many(MANY, 3)).all()
    assert (many(MANY, 3) != many(MANY, 3, seed=1)).any()


def test_both_ways_of_drawing_give_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = make_clips(0, n_clips=5_000, ties=False)
    how = Resampling(iterations=2_000, method="percentile")
    found = []
    for limit in (MANY, 10**9):
        monkeypatch.setattr(resampling, "_MANY", limit)
        names = ("macro_f1", "openness_mae")
        found.append(bootstrap(clips, np.arange(5_000), settings=how, metrics=names).overall)
    quick, plain = found
    for name, estimate in plain.items():
        assert quick[name].point == estimate.point
        # A quantile of 2,000 resamples has a standard error of about 0.06 of theirs.
        error = 0.25 * estimate.standard_error
        assert quick[name].lower == pytest.approx(estimate.lower, abs=error)
        assert quick[name].upper == pytest.approx(estimate.upper, abs=error)
        assert quick[name].standard_error == pytest.approx(estimate.standard_error, rel=0.1)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_resample_of_many_clips_equals_the_same_clips_written_out(weighted: bool) -> None:
    n = MANY + 4
    clips = make_clips(4, n_clips=n, hidden=0.1, weighted=weighted, rich=True)
    if weighted:
        arrays = {name: getattr(clips, name) for name in Clips.__dataclass_fields__}
        clips = Clips(**(arrays | {"weight": clips.weight / 3.0}))  # no longer exact in float32
    how = Resampling(iterations=2, seed=7, method="percentile")
    found = bootstrap(clips, np.arange(n), settings=how).overall
    written = [
        points(take(clips, np.repeat(np.arange(n), drawn.astype(int))))
        for drawn in many(n, 2, seed=7)
    ]
    for name in METRICS:
        low, high = np.quantile([row[name] for row in written], [0.025, 0.975])
        assert (found[name].lower, found[name].upper) == pytest.approx((low, high), abs=1e-11), name


def test_the_sparse_table_gives_what_the_full_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = make_clips(6, hidden=0.1, rich=True)
    names = ("ece", "ece_classwise", "brier", "ece_ghost", "brier_accent")
    for method in ("percentile", "bca"):
        how = Resampling(iterations=50, method=method)
        full = bootstrap(clips, np.arange(len(clips)), settings=how, metrics=names)
        monkeypatch.setattr(calibration_scores, "_DENSE_CELLS", 0)
        sparse = bootstrap(clips, np.arange(len(clips)), settings=how, metrics=names)
        monkeypatch.undo()
        for name in names:
            for end in ("point", "lower", "upper"):
                mine, theirs = (getattr(each.overall[name], end) for each in (full, sparse))
                assert mine == pytest.approx(theirs, abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 100), columns=st.integers(1, 4))
def test_running_sum_equals_cumsum(seed: int, rows: int, columns: int) -> None:
    values = np.random.default_rng(seed).integers(0, 9, (rows, columns)).astype(np.float32)
    expected = np.cumsum(values, axis=0)
    assert (running_sum(values) == expected).all()


def test_float32_holds_sums_only_where_it_is_exact() -> None:
    assert compact(np.array([[3.0], [4.0]])).dtype == np.float32
    assert compact(np.array([[3.5], [4.0]])).dtype == np.float64
    assert compact(np.array([[-1.0], [4.0]])).dtype == np.float64
    # Drawn twice, this would make 2**24.
    assert compact(np.array([[2.0**23], [0.0]])).dtype == np.float64
    assert compact(np.array([[2.0**23 - 1], [0.0]])).dtype == np.float32


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_of_an_error_equal_scipy_within_monte_carlo_error(method: str) -> None:
    clips = make_clips(5, n_clips=150)
    heard = np.flatnonzero(np.isfinite(clips.openness))
    clips = take(clips, heard)
    error = np.abs(clips.openness_pred - clips.openness)
    theirs = scipy.stats.bootstrap(
        (error,),
        np.mean,
        n_resamples=20_000,
        method="BCa" if method == "bca" else method,
        rng=np.random.default_rng(1),
    )
    ours = bootstrap(
        clips,
        np.arange(len(clips)),
        settings=Resampling(iterations=20_000, method=method, seed=2),
        metrics=("openness_mae",),
    ).overall["openness_mae"]
    assert ours.point == pytest.approx(error.mean(), abs=1e-12)
    # The quantile at 2.5 % of 20,000 resamples has a standard error of about 0.02 of theirs.
    allowed = 0.1 * theirs.standard_error
    assert ours.lower == pytest.approx(theirs.confidence_interval.low, abs=allowed)
    assert ours.upper == pytest.approx(theirs.confidence_interval.high, abs=allowed)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.03)


def test_spearman_of_a_constant_side_is_undefined() -> None:
    clips = make_clips(1)
    arrays = {name: getattr(clips, name) for name in Clips.__dataclass_fields__}
    flat = Clips(
        **(arrays | {"velocity_pred": np.full(len(clips), 0.3), "weight": clips.weight / 3})
    )
    assert points(flat)["velocity_spearman"] is None
    same = Clips(**(arrays | {"velocity_pred": clips.velocity}))
    assert points(same)["velocity_spearman"] == pytest.approx(1.0, abs=1e-12)
