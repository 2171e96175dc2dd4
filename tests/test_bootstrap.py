"""Bootstrap: point values against scikit-learn, intervals against scipy, coverage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from training.metrics.bootstrap import METRICS, bootstrap, compare
from training.metrics.calibration_scores import BUCKET_METRICS
from training.metrics.onsets import NAMES as ONSET_METRICS
from training.metrics.resampling import (
    Estimate,
    Resampling,
    draw_clusters,
    holm,
    interval,
    more_clusters_needed,
)
from training.metrics.scores import BUCKETS, CALIBRATION_BINS, Clips

POINT_ONLY = Resampling(iterations=1)


def make_clips(
    seed: int = 0,
    *,
    n_clips: int = 240,
    n_classes: int = 5,
    ties: bool = True,
    hidden: float = 0.0,
    weighted: bool = False,
    rich: bool = False,
) -> Clips:
    rng = np.random.default_rng(seed)
    truth = rng.random((n_clips, n_classes)) < np.linspace(0.1, 0.5, n_classes)
    scores = np.clip(rng.normal(0.3, 0.2, truth.shape) + 0.35 * truth, 0.0, 1.0)
    if ties:
        scores = np.round(scores, 1)
    openness = np.where(rng.random(n_clips) < 0.6, rng.random(n_clips), np.nan)
    velocity = np.round(rng.random(n_clips), 1)
    more = {}
    if rich:
        others = np.random.default_rng(seed + 1)
        found = others.random((2, n_clips, n_classes)) < 0.8
        counts = [
            truth,
            others.random(truth.shape) < 0.4,
            truth & found.all(axis=0),
            truth & found[1],
        ]
        more = {
            "bucket": others.integers(-1, len(BUCKETS), n_clips),
            "onsets": np.stack(counts, axis=2).astype(np.int32),
        }
    return Clips(
        labels=tuple(f"class_{column}" for column in range(n_classes)),
        truth=truth,
        scores=scores,
        predicted=scores >= 0.5,
        annotated=rng.random(truth.shape) >= hidden,
        weight=rng.integers(1, 4, n_clips).astype(float) if weighted else np.ones(n_clips),
        openness=openness,
        openness_pred=openness + rng.normal(0, 0.1, n_clips),
        velocity=velocity,
        velocity_pred=np.round(np.clip(velocity + rng.normal(0, 0.2, n_clips), 0, 1), 1),
        **more,
    )


def take(clips: Clips, rows: np.ndarray) -> Clips:
    arrays = {
        name: getattr(clips, name)[rows] for name in Clips.__dataclass_fields__ if name != "labels"
    }
    return Clips(labels=clips.labels, **arrays)


def points(clips: Clips) -> dict[str, float | None]:
    cluster = np.arange(len(clips))
    found = bootstrap(clips, cluster, settings=POINT_ONLY)
    return {name: estimate.point for name, estimate in found.overall.items()}


def sklearn_points(clips: Clips) -> dict[str, float]:
    """The same figures by scikit-learn and scipy; every label annotated, integer weights."""
    t, p, s, w = clips.truth, clips.predicted, clips.scores, clips.weight
    expected = {}
    for average in ("macro", "micro"):
        three = sk.precision_recall_fscore_support(
            t, p, average=average, zero_division=0, sample_weight=w
        )
        names = ("precision", "recall", "f1")
        expected |= {f"{average}_{n}": v for n, v in zip(names, three, strict=False)}
    both = np.isfinite(clips.openness)
    o, o_pred, o_w = clips.openness[both], clips.openness_pred[both], w[both]
    repeat = w.astype(int)
    expected |= {
        "hamming_loss": sk.hamming_loss(t, p, sample_weight=w),
        "example_f1": sk.f1_score(t, p, average="samples", zero_division=1, sample_weight=w),
        "subset_accuracy": sk.accuracy_score(t, p, sample_weight=w),
        "lrap": sk.label_ranking_average_precision_score(t, s, sample_weight=w),
        "coverage_error": sk.coverage_error(t, s, sample_weight=w),
        "map": sk.average_precision_score(t, s, average="macro", sample_weight=w),
        "brier": np.average(((s - t) ** 2).mean(axis=1), weights=w),
        "openness_mae": sk.mean_absolute_error(o, o_pred, sample_weight=o_w),
        "openness_r2": sk.r2_score(o, o_pred, sample_weight=o_w),
        "velocity_mae": sk.mean_absolute_error(
            clips.velocity, clips.velocity_pred, sample_weight=w
        ),
        "velocity_r2": sk.r2_score(clips.velocity, clips.velocity_pred, sample_weight=w),
        "velocity_spearman": scipy.stats.spearmanr(
            np.repeat(clips.velocity, repeat), np.repeat(clips.velocity_pred, repeat)
        ).statistic,
    }
    return expected


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weighted", [False, True])
def test_points_equal_scikit_learn_to_1e_12(seed: int, weighted: bool) -> None:
    clips = make_clips(seed, ties=seed % 2 == 0, weighted=weighted)
    found, expected = points(clips), sklearn_points(clips)
    elsewhere = {"ece", "ece_classwise", *BUCKET_METRICS, *ONSET_METRICS}
    assert set(expected) | elsewhere == set(METRICS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_per_class_figures_equal_scikit_learn() -> None:
    clips = make_clips(3)
    found = bootstrap(clips, np.arange(len(clips)), settings=POINT_ONLY)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(clips.truth, clips.predicted)
    average = sk.average_precision_score(clips.truth, clips.scores, average=None)
    for column, label in enumerate(clips.labels):
        entry = found.per_class[label]
        brier = sk.brier_score_loss(clips.truth[:, column], clips.scores[:, column])
        assert entry["precision"].point == pytest.approx(precision[column], abs=1e-12)
        assert entry["recall"].point == pytest.approx(recall[column], abs=1e-12)
        assert entry["f1"].point == pytest.approx(f1[column], abs=1e-12)
        assert entry["average_precision"].point == pytest.approx(average[column], abs=1e-12)
        assert entry["brier"].point == pytest.approx(brier, abs=1e-12)


def test_calibration_error_equals_a_plain_loop() -> None:
    clips = make_clips(1, ties=False)

    def loop(scores: np.ndarray, truth: np.ndarray) -> float:
        total = 0.0
        for low in range(CALIBRATION_BINS):
            inside = np.minimum(np.floor(scores * CALIBRATION_BINS), CALIBRATION_BINS - 1) == low
            if inside.any():
                total += inside.sum() * abs(scores[inside].mean() - truth[inside].mean())
        return total / scores.size

    each = [loop(clips.scores[:, c], clips.truth[:, c]) for c in range(5)]
    found = points(clips)
    assert found["ece"] == pytest.approx(loop(clips.scores.ravel(), clips.truth.ravel()), abs=1e-12)
    assert found["ece_classwise"] == pytest.approx(np.mean(each), abs=1e-12)


def test_a_hand_computed_case() -> None:
    nothing = np.full(4, np.nan)
    clips = Clips(
        labels=("kick", "snare"),
        truth=np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=bool),
        scores=np.array([[0.9, 0.1], [0.2, 0.6], [0.1, 0.8], [0.3, 0.2]]),
        predicted=np.array([[1, 0], [0, 1], [0, 1], [0, 0]], dtype=bool),
        annotated=np.array([[1, 1], [1, 0], [1, 1], [1, 1]], dtype=bool),
        weight=np.ones(4),
        openness=nothing,
        openness_pred=nothing,
        velocity=nothing,
        velocity_pred=nothing,
    )
    found = points(clips)
    # kick: tp 1, fn 1 -> f1 2/3. snare: tp 1, its false positive lies in an unannotated cell.
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["hamming_loss"] == pytest.approx(1 / 7)
    assert found["subset_accuracy"] == pytest.approx(3 / 4)
    # The second clip knows of one label only, which is true: nothing to rank.
    assert found["lrap"] == 1.0
    assert found["openness_mae"] is None
    assert found["velocity_spearman"] is None


def test_what_is_not_annotated_changes_nothing() -> None:
    clips = make_clips(2, hidden=0.3)
    scrambled = np.random.default_rng(9).random(clips.truth.shape)
    other = Clips(
        labels=clips.labels,
        truth=np.where(clips.annotated, clips.truth, scrambled > 0.5),
        scores=np.where(clips.annotated, clips.scores, scrambled),
        predicted=np.where(clips.annotated, clips.predicted, scrambled < 0.5),
        annotated=clips.annotated,
        weight=clips.weight,
        openness=clips.openness,
        openness_pred=clips.openness_pred,
        velocity=clips.velocity,
        velocity_pred=clips.velocity_pred,
    )
    assert points(other) == pytest.approx(points(clips), abs=1e-12)


def test_a_resample_equals_the_same_clips_written_out() -> None:
    clips = make_clips(4, hidden=0.1, weighted=True, rich=True)
    cluster = np.random.default_rng(4).permutation(np.arange(len(clips)) % 12)
    how = Resampling(iterations=4, seed=7, method="percentile")
    found = bootstrap(clips, cluster, settings=how)
    written = []
    for drawn in np.concatenate(list(draw_clusters(12, how))):
        rows = np.repeat(np.arange(len(clips)), drawn[cluster].astype(int))
        written.append(points(take(clips, rows)))
    for name in METRICS:
        values = np.array([row[name] for row in written], dtype=float)
        assert found.overall[name].standard_error == pytest.approx(values.std(ddof=1), abs=1e-11)
        low, high = np.quantile(values, [0.025, 0.975])
        assert found.overall[name].lower == pytest.approx(low, abs=1e-11), name
        assert found.overall[name].upper == pytest.approx(high, abs=1e-11), name


def test_draws_keep_the_size_and_the_strata() -> None:
    strata = np.array([0, 0, 0, 1, 1, 2])
    drawn = np.concatenate(list(draw_clusters(6, Resampling(iterations=500), strata)))
    assert drawn.shape == (500, 6)
    assert (drawn[:, strata == 0].sum(axis=1) == 3).all()
    assert (drawn[:, strata == 1].sum(axis=1) == 2).all()
    assert (drawn[:, 5] == 1).all()
    assert drawn[:, 0].mean() == pytest.approx(1.0, abs=0.12)
    # Clusters are drawn independently: not copies of one choice.
    assert len(np.unique(drawn, axis=0)) > 20


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_equal_scipy_within_monte_carlo_error(method: str) -> None:
    clips = make_clips(5, n_clips=150, ties=False)
    rows = np.arange(len(clips))

    def macro_f1(index: np.ndarray) -> float:
        t, p = clips.truth[index], clips.predicted[index]
        tp = (t & p).sum(axis=0)
        return float((2 * tp / (t.sum(axis=0) + p.sum(axis=0))).mean())

    theirs = scipy.stats.bootstrap(
        (rows,),
        macro_f1,
        vectorized=False,
        n_resamples=4000,
        method="BCa" if method == "bca" else method,
        rng=np.random.default_rng(1),
    )
    ours = bootstrap(
        clips,
        rows,
        settings=Resampling(iterations=4000, method=method, seed=2),
        metrics=("macro_f1",),
    ).overall["macro_f1"]
    # The quantile at 2.5 % of 4,000 resamples has a standard error of about 0.04 of theirs.
    error = 0.2 * theirs.standard_error
    assert ours.lower == pytest.approx(theirs.confidence_interval.low, abs=error)
    assert ours.upper == pytest.approx(theirs.confidence_interval.high, abs=error)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.06)


def test_bca_formula_equals_scipy_on_the_same_resamples() -> None:
    data = np.random.default_rng(0).exponential(size=30)
    how = Resampling(iterations=999, method="bca", seed=3)
    drawn = np.concatenate(list(draw_clusters(30, how)))
    resamples = drawn @ data / 30
    jackknife = (data.sum() - data) / 29
    theirs = scipy.stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=0,
        method="BCa",
        bootstrap_result=type("Kept", (), {"bootstrap_distribution": resamples})(),
    )
    low, high = interval(data.mean(), resamples, jackknife, 30, how)
    assert low == pytest.approx(theirs.confidence_interval.low, abs=1e-12)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=1e-12)


def test_expanded_intervals_of_a_mean_are_students() -> None:
    # Where the resamples are normal, the expanded interval is the t interval.
    how = Resampling(iterations=1)
    spread = np.sqrt(7 / 8)  # of resampled means of 8 clusters, in units of the true standard error
    resamples = scipy.stats.norm.ppf((np.arange(1_000_000) + 0.5) / 1_000_000) * spread
    low, high = interval(0.0, resamples, None, 8, how)
    expected = scipy.stats.t.ppf(0.975, 7)
    assert (low, high) == pytest.approx((-expected, expected), abs=1e-3)


def clustered_clips(rng: np.random.Generator, n_sessions: int, per_session: int) -> Clips:
    """Draw sessions that are easy or hard as a whole: clips within one are alike."""
    ease = np.clip(rng.normal(0.75, 0.15, n_sessions), 0.02, 0.98).repeat(per_session)
    n_clips = len(ease)
    truth = rng.random((n_clips, 2)) < 0.5
    right = rng.random((n_clips, 2)) < ease[:, None]
    predicted = truth == right
    nothing = np.full(n_clips, np.nan)
    return Clips(
        labels=("a", "b"),
        truth=truth,
        scores=predicted.astype(float),
        predicted=predicted,
        annotated=np.ones_like(truth),
        weight=np.ones(n_clips),
        openness=nothing,
        openness_pred=nothing,
        velocity=nothing,
        velocity_pred=nothing,
    )


@pytest.mark.slow
def test_coverage_of_the_interval_on_clustered_data() -> None:
    n_sessions, per_session, trials = 15, 40, 1000
    rng = np.random.default_rng(11)
    # With right ~ ease and truth a fair coin, tp = ease/2 and fp = fn = (1 - ease)/2 on average.
    true_f1 = np.clip(np.random.default_rng(0).normal(0.75, 0.15, 2_000_000), 0.02, 0.98).mean()
    inside = {"session": 0, "clip": 0}
    for trial in range(trials):
        clips = clustered_clips(rng, n_sessions, per_session)
        session = np.repeat(np.arange(n_sessions), per_session)
        for unit, cluster in (("session", session), ("clip", np.arange(len(clips)))):
            estimate = bootstrap(
                clips,
                cluster,
                settings=Resampling(iterations=400, seed=trial),
                metrics=("macro_f1",),
            ).overall["macro_f1"]
            inside[unit] += estimate.lower <= true_f1 <= estimate.upper
    coverage = {unit: count / trials for unit, count in inside.items()}
    assert 0.93 <= coverage["session"] <= 0.97, coverage
    assert coverage["clip"] < 0.85, coverage


def test_too_few_clusters_give_no_interval_and_say_so() -> None:
    clips = make_clips(6)
    estimate = bootstrap(
        clips, np.arange(len(clips)) % 4, settings=Resampling(iterations=50)
    ).overall["macro_f1"]
    assert estimate.point is not None
    assert estimate.lower is None
    assert estimate.upper is None
    assert estimate.reason == "4 clusters, an interval needs 5"
    assert estimate.standard_error > 0


def test_a_class_in_few_sessions_has_no_interval_and_absent_resamples_are_counted() -> None:
    clips = make_clips(7)
    cluster = np.arange(len(clips)) % 10
    truth = clips.truth.copy()
    truth[:, 0] = cluster == 3
    rare = take(clips, np.arange(len(clips)))
    rare = Clips(
        **{name: getattr(rare, name) for name in Clips.__dataclass_fields__ if name != "truth"},
        truth=truth,
    )
    found = bootstrap(rare, cluster, settings=Resampling(iterations=2000))
    entry = found.per_class["class_0"]["f1"]
    absent = 2000 * (1 - 1 / 10) ** 10
    assert entry.n_clusters == 1
    assert entry.lower is None
    assert entry.n_undefined == pytest.approx(absent, rel=0.1)
    assert found.resamples_missing_a_class == entry.n_undefined
    assert found.overall["macro_f1"].lower is not None
    assert found.overall["macro_f1"].n_undefined == 0


def test_mostly_undefined_resamples_give_no_interval() -> None:
    clips = make_clips(8)
    openness = np.where(np.arange(len(clips)) % 60 == 0, 0.5, np.nan)
    openness[0] = 0.6
    arrays = {name: getattr(clips, name) for name in Clips.__dataclass_fields__}
    flat = Clips(**(arrays | {"openness": openness, "openness_pred": openness}))
    found = bootstrap(
        flat, np.arange(len(clips)), settings=Resampling(iterations=400, min_clusters=3)
    ).overall["openness_r2"]
    assert found.point == 1.0
    assert found.lower is None
    assert "undefined in" in found.reason
    assert found.n_undefined > 100


def test_a_perfect_model_has_an_interval_without_width_by_both_methods() -> None:
    clips = make_clips(9)
    arrays = {name: getattr(clips, name) for name in Clips.__dataclass_fields__}
    perfect = Clips(**(arrays | {"predicted": clips.truth}))
    for method in ("expanded", "percentile", "bca"):
        found = bootstrap(
            perfect,
            np.arange(len(clips)) % 8,
            settings=Resampling(iterations=100, method=method),
        ).overall["macro_f1"]
        assert (found.point, found.lower, found.upper) == (1.0, 1.0, 1.0)


def test_compare_is_zero_against_itself_and_signed_against_worse() -> None:
    clips = make_clips(10, ties=False)
    cluster = np.arange(len(clips)) % 20
    how = Resampling(iterations=300)
    same = compare(clips, clips, cluster, settings=how).overall["macro_f1"]
    assert (same.point, same.lower, same.upper, same.p_value) == (0.0, 0.0, 0.0, 1.0)

    arrays = {name: getattr(clips, name) for name in Clips.__dataclass_fields__}
    worse = Clips(**(arrays | {"predicted": clips.scores >= 0.75}))
    drop = compare(worse, clips, cluster, settings=Resampling(iterations=3000))
    difference = points(worse)["macro_f1"] - points(clips)["macro_f1"]
    assert drop.overall["macro_f1"].point == pytest.approx(difference, abs=1e-12)
    assert drop.overall["macro_f1"].upper < 0
    assert drop.overall["macro_f1"].p_value < 0.01
    assert drop.overall["map"].point == 0.0


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(3)
    clips = clustered_clips(rng, 30, 20)
    flipped = clips.predicted ^ (rng.random(clips.predicted.shape) < 0.02)
    arrays = {name: getattr(clips, name) for name in Clips.__dataclass_fields__}
    other = Clips(**(arrays | {"predicted": flipped}))
    cluster = np.repeat(np.arange(30), 20)
    how = Resampling(iterations=500)
    alone = bootstrap(other, cluster, settings=how).overall["macro_f1"]
    paired = compare(other, clips, cluster, settings=how).overall["macro_f1"]
    assert paired.upper - paired.lower < 0.5 * (alone.upper - alone.lower)


def test_compare_refuses_another_reference() -> None:
    with pytest.raises(ValueError, match="same reference"):
        compare(make_clips(0), make_clips(1), np.zeros(240, dtype=int), settings=POINT_ONLY)


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({}) == {}


def test_more_clusters_needed() -> None:
    how = Resampling()
    estimate = Estimate(
        point=0.90, lower=0.80, upper=0.99, n_clusters=10, n_undefined=0, standard_error=0.05
    )
    # 10 * (1.96 * 0.05 / 0.05)² = 38.4 -> 39 in all.
    assert more_clusters_needed(estimate, 0.85, settings=how) == 29
    assert more_clusters_needed(estimate, 0.90, settings=how) is None
    assert more_clusters_needed(estimate, 0.20, settings=how) == 0
    one = Estimate(
        point=0.9, lower=None, upper=None, n_clusters=1, n_undefined=0, standard_error=0.0
    )
    assert more_clusters_needed(one, 0.85, settings=how) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cluster": np.zeros(3, dtype=int)}, "must have shape"),
        ({"cluster": np.full(240, 1)}, "without holes"),
        ({"metrics": ("accuracy",)}, "unknown metrics: accuracy"),
        ({"strata": np.zeros(7, dtype=int)}, "strata"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, object], message: str) -> None:
    arguments: dict = {"cluster": np.arange(240) % 10, "settings": POINT_ONLY} | change
    with pytest.raises(ValueError, match=message):
        bootstrap(make_clips(0), arguments.pop("cluster"), **arguments)


@pytest.mark.parametrize(
    "change", [{"iterations": 0}, {"confidence": 1.0}, {"confidence": 0.0}, {"min_clusters": 1}]
)
def test_senseless_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Resampling(**change)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n_clips=st.integers(6, 60))
def test_order_of_clips_and_repetition_do_not_matter(seed: int, n_clips: int) -> None:
    clips = make_clips(seed, n_clips=n_clips, hidden=0.2, rich=True)
    cluster = np.arange(n_clips) % 6
    how = Resampling(iterations=20, seed=seed)
    first = bootstrap(clips, cluster, settings=how).overall
    order = np.random.default_rng(seed).permutation(n_clips)
    shuffled = bootstrap(take(clips, order), cluster[order], settings=how).overall
    twice = np.repeat(np.arange(n_clips), 2)
    doubled = bootstrap(take(clips, twice), cluster[twice], settings=how).overall
    for name, estimate in first.items():
        for other in (shuffled[name], doubled[name]):
            for end in ("point", "lower", "upper"):
                mine, theirs = getattr(estimate, end), getattr(other, end)
                assert (mine is None) == (theirs is None), name
                assert mine is None or mine == pytest.approx(theirs, abs=1e-9), name


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_intervals_are_ordered_and_within_range(seed: int) -> None:
    clips = make_clips(seed, n_clips=60, hidden=0.3, rich=True)
    for method in ("expanded", "percentile", "bca"):
        how = Resampling(iterations=60, method=method)
        for name, estimate in bootstrap(clips, np.arange(60) % 7, settings=how).overall.items():
            if estimate.lower is None:
                continue
            assert estimate.lower <= estimate.upper
            if name not in ("coverage_error", "openness_r2", "velocity_r2", "velocity_spearman"):
                assert estimate.lower >= 0.0
                assert estimate.upper <= 1.0 + 1e-12
