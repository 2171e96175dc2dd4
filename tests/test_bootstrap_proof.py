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
from training.metrics.resampling import Resampling, draw_clusters, interval, p_value, summarise
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


def means(rng: np.random.Generator, trials: int, strata: np.ndarray, iterations: int) -> np.ndarray:
    """Means of clusters drawn from a standard normal, and the means of their resamples."""
    n = len(strata)
    drawn = np.concatenate(
        list(draw_clusters(n, Resampling(iterations=iterations, seed=3), strata))
    )
    values = rng.standard_normal((trials, n))
    return np.column_stack([values.mean(axis=1), values @ drawn.T / n])


@pytest.mark.parametrize("n_clusters", [5, 8, 15])
def test_the_paired_test_alarms_as_often_as_it_says(n_clusters: int) -> None:
    """Differences of nothing but noise: one in twenty may be below 0.05, hardly more."""
    n, trials = n_clusters, 2000
    figures = means(np.random.default_rng(0), trials, np.zeros(n, dtype=int), 800)
    how = Resampling(iterations=800)
    found = [summarise(row[0], row[1:], None, n, how, paired=True) for row in figures]
    alarms = np.mean([each.p_value < 0.05 for each in found])
    assert alarms <= 0.065
    assert n < 8 or alarms >= 0.03
    # What the percentiles alone would say, too sure of so few clusters.
    plain = Resampling(iterations=800, method="percentile")
    naive = [p_value(row[0], row[1:], None, n, plain) < 0.05 for row in figures]
    assert np.mean(naive) > 1.2 * max(alarms, 0.05)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shift=st.floats(-0.6, 0.6),
    method=st.sampled_from(["expanded", "percentile", "bca"]),
    strata=st.sampled_from([1, 2, 4]),
)
def test_a_p_value_is_where_the_interval_touches_zero(
    seed: int, shift: float, method: str, strata: int
) -> None:
    rng = np.random.default_rng(seed)
    data = shift + rng.gamma(2.0, size=12) - 2.0
    resamples = data[rng.integers(12, size=(4000, 12))].mean(axis=1)
    jackknife = (data.sum() - data) / 11

    def bounds(confidence: float) -> tuple[float, float]:
        how = Resampling(iterations=4000, confidence=confidence, method=method)
        return interval(data.mean(), resamples, jackknife, 12, how, n_strata=strata)

    how = Resampling(iterations=4000, method=method)
    p = p_value(data.mean(), resamples, jackknife, 12, how, n_strata=strata)
    if 0.05 < p < 0.95:  # deeper in the tails the grain of the resamples shows
        low, high = bounds(1.0 - 0.85 * p)
        assert low <= 0.0 <= high
        low, high = bounds(1.0 - min(1.15 * p, 0.999))
        assert not low <= 0.0 <= high
    elif p < 0.04:
        low, high = bounds(0.95)
        assert not low <= 0.0 <= high


@pytest.mark.parametrize("method", ["expanded", "percentile", "bca"])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_difference_beyond_all_resamples_has_a_p_value(method: str, sign: float) -> None:
    resamples = sign * np.linspace(0.5, 1.5, 999)
    jackknife = sign * np.linspace(0.9, 1.1, 12) ** 3
    how = Resampling(iterations=999, method=method)
    assert 0.0 <= p_value(sign, resamples, jackknife, 12, how) < 0.02


def test_strata_of_few_clusters_get_the_width_that_they_lose() -> None:
    """Of two clusters a stratum, half of the variance is lost in the resamples."""
    how = Resampling(iterations=1)
    spread = np.sqrt(0.5)
    resamples = scipy.stats.norm.ppf((np.arange(1_000_000) + 0.5) / 1_000_000) * spread
    low, high = interval(0.0, resamples, None, 8, how, n_strata=4)
    expected = scipy.stats.t.ppf(0.975, 4)
    assert (low, high) == pytest.approx((-expected, expected), abs=2e-3)


@pytest.mark.parametrize(("n_strata", "size"), [(15, 2), (5, 3), (2, 10)])
def test_intervals_of_strata_hold_the_truth(n_strata: int, size: int) -> None:
    strata = np.repeat(np.arange(n_strata), size)
    n = len(strata)
    figures = means(np.random.default_rng(1), 1500, strata, 800)
    how = Resampling(iterations=800, min_clusters=2)
    inside = {}
    for said in (1, n_strata):
        found = [
            summarise(row[0], row[1:], None, n, how, paired=False, n_strata=said) for row in figures
        ]
        inside[said] = np.mean([each.lower <= 0.0 <= each.upper for each in found])
    assert 0.925 <= inside[n_strata] <= 0.975
    assert inside[1] < inside[n_strata]


def test_strata_of_one_cluster_leave_nothing_to_draw() -> None:
    clips = make_clips(2)
    cluster = np.arange(len(clips)) % 10
    found = {
        name: bootstrap(
            clips, cluster, settings=Resampling(iterations=50), strata=strata, metrics=("macro_f1",)
        ).overall["macro_f1"]
        for name, strata in (("each", np.arange(10)), ("pairs", np.arange(10) // 2))
    }
    assert found["each"].lower is None
    assert found["each"].reason == "10 clusters in 10 strata, an interval needs 14"
    assert found["pairs"].lower is not None
