"""Calibration figures, scaling and thresholds: by hand, against scikit-learn, and as laws."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from training.metrics import calibration as cal
from training.metrics.calibration import Scored
from training.metrics.calibration_fit import Recipe, apply, cross_fit, fit, folds
from training.metrics.calibration_scores import calibration_scores
from training.metrics.operating_points import Goal, candidates, choose_threshold
from training.metrics.scores import Clips


def made(n: int = 400, n_classes: int = 3, seed: int = 0, *, sharp: float = 2.5) -> Scored:
    """Make scores that say too much: their logits are `sharp` times what they should be."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, n_classes)) < 0.35
    z = rng.normal(0, 1.5, truth.shape) + np.where(truth, 1.0, -1.0)
    return Scored(
        labels=tuple("abcdefgh"[:n_classes]),
        scores=1 / (1 + np.exp(-sharp * z)),
        truth=truth,
        annotated=rng.random(truth.shape) < 0.9,
        weight=rng.integers(1, 4, n).astype(float),
    )


def one(scores: list[float], truth: list[int], weight: list[float] | None = None) -> Scored:
    """Make a set of one class."""
    return Scored(
        labels=("kick",),
        scores=np.array(scores)[:, None],
        truth=np.array(truth, dtype=bool)[:, None],
        annotated=np.ones((len(truth), 1), dtype=bool),
        weight=np.ones(len(truth)) if weight is None else np.array(weight),
    )


def test_figures_by_hand() -> None:
    figures = cal.measure(one([0.1, 0.1, 0.9, 0.9], [0, 1, 1, 1]))
    # Two bins: 0.2 said for one clip, 1.8 said for two.
    assert figures.ece == pytest.approx((0.8 + 0.2) / 4)
    assert figures.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)
    assert figures.brier_skill == pytest.approx(1 - 0.21 / (0.75 * 0.25))
    assert figures.nll == pytest.approx(-(3 * np.log(0.9) + np.log(0.1)) / 4)


def test_a_score_of_one_is_in_the_last_bin() -> None:
    found = cal.reliability(one([1.0, 0.95, 0.0], [1, 1, 0]))
    assert found.cells[0, -1] == 2
    assert found.cells[0, 0] == 1
    assert found.points("kick")[-1] == {"cells": 2.0, "mean_score": 0.975, "share_true": 1.0}


def test_figures_of_nothing_are_none() -> None:
    empty = one([], [])
    figures = cal.measure(empty)
    assert (figures.ece, figures.brier, figures.brier_skill, figures.nll) == (None,) * 4
    assert figures.class_ece == (None,)
    assert cal.fit_temperature(empty) is None
    assert cal.measure(one([0.5], [1])).brier_skill is None


def test_figures_equal_scikit_learn() -> None:
    scored = made()
    figures = cal.measure(scored)
    known = scored.annotated
    truth, scores = scored.truth[known], scored.scores[known]
    weight = np.broadcast_to(scored.weight[:, None], known.shape)[known]
    assert figures.brier == pytest.approx(
        brier_score_loss(truth, scores, sample_weight=weight), abs=1e-12
    )
    clipped = np.clip(scores, cal.SCORE_FLOOR, 1 - cal.SCORE_FLOOR)
    assert figures.nll == pytest.approx(log_loss(truth, clipped, sample_weight=weight), abs=1e-12)
    for column in range(3):
        scores, truth, weight = scored.column(column)
        assert figures.class_brier[column] == pytest.approx(
            brier_score_loss(truth, scores, sample_weight=weight), abs=1e-12
        )


def test_reliability_equals_calibration_curve() -> None:
    rng = np.random.default_rng(5)
    scores = rng.random(500)
    scored = one(scores.tolist(), (rng.random(500) < scores**2).astype(int).tolist())
    share, mean = calibration_curve(scored.truth[:, 0], scores, n_bins=15)
    points = cal.reliability(scored).points("kick")
    assert [p["share_true"] for p in points] == pytest.approx(share, abs=1e-12)
    assert [p["mean_score"] for p in points] == pytest.approx(mean, abs=1e-12)
    weights = [p["cells"] / 500 for p in points]
    assert cal.measure(scored).ece == pytest.approx(np.abs(share - mean) @ weights, abs=1e-12)


def test_ece_and_brier_are_those_of_the_bootstrap() -> None:
    scored = made()
    nothing = np.full(len(scored), np.nan)
    clips = Clips(
        labels=scored.labels,
        truth=scored.truth,
        scores=scored.scores,
        predicted=scored.truth,
        annotated=scored.annotated,
        weight=scored.weight,
        **dict.fromkeys(("openness", "openness_pred", "velocity", "velocity_pred"), nothing),
    )
    same = calibration_scores(clips, np.zeros(len(clips), dtype=np.intp), 1).values(np.ones((1, 1)))
    figures = cal.measure(scored)
    assert figures.ece == pytest.approx(same.overall["ece"][0], abs=1e-12)
    assert figures.brier == pytest.approx(same.overall["brier"][0], abs=1e-12)
    assert list(figures.class_ece) == pytest.approx(same.per_class["ece"][0], abs=1e-12)


def test_temperature_equals_logistic_regression_without_intercept() -> None:
    scored = made()
    known = scored.annotated
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(
        cal.logit(scored.scores)[known][:, None],
        scored.truth[known],
        sample_weight=np.broadcast_to(scored.weight[:, None], known.shape)[known],
    )
    found = cal.fit_temperature(scored)
    assert found is not None
    assert 1 / found == pytest.approx(oracle.coef_[0, 0], rel=1e-4)
    # The logits are 2.5 times those of the truth, which are 2·1/1.5² of z.
    assert found == pytest.approx(2.5 / (2 / 1.5**2), rel=0.15)


def test_temperature_is_where_a_fine_grid_has_its_minimum() -> None:
    scored = made(120, 2, seed=3)
    grid = np.exp(np.linspace(*np.log(cal.TEMPERATURES), 4001))
    costs = [cal.measure(apply(scored, np.full(2, 1 / t), np.zeros(2))).nll or np.inf for t in grid]
    assert cal.fit_temperature(scored) == pytest.approx(grid[int(np.argmin(costs))], rel=2e-3)


class _Logits(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose decision value is its only feature."""

    def fit(self, x: Any, y: Any) -> _Logits:
        self.classes_ = np.array([0, 1])
        return self

    def decision_function(self, x: Any) -> Any:
        return np.asarray(x)[:, 0]

    def predict(self, x: Any) -> Any:
        return (self.decision_function(x) > 0).astype(int)

    def __sklearn_is_fitted__(self) -> bool:
        return True


@pytest.mark.parametrize("seed", range(4))
def test_platt_equals_the_calibrated_classifier_of_scikit_learn(seed: int) -> None:
    scores, truth, weight = made(150 + 50 * seed, 1, seed=seed).column(0)
    x = cal.logit(scores)[:, None]
    oracle = CalibratedClassifierCV(FrozenEstimator(_Logits().fit(x, truth)), method="sigmoid")
    # A weight of 2 is a clip that stands twice.
    times = weight.astype(int)
    oracle.fit(np.repeat(x, times, axis=0), np.repeat(truth, times).astype(int))
    slope, intercept = cal.fit_platt(scores, truth, weight)
    assert cal.scale(scores, np.array(slope), np.array(intercept)) == pytest.approx(
        oracle.predict_proba(x)[:, 1], abs=1e-4
    )


def test_platt_equals_logistic_regression_on_the_smoothed_targets() -> None:
    scores, truth, weight = made(300, 1, seed=7).column(0)
    n1, n0 = weight[truth].sum(), weight[~truth].sum()
    target = np.where(truth, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    x = np.tile(cal.logit(scores), 2)[:, None]
    oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(
        x,
        np.repeat([1, 0], truth.size),
        sample_weight=np.concatenate([weight * target, weight * (1 - target)]),
    )
    slope, intercept = cal.fit_platt(scores, truth, weight)
    assert slope == pytest.approx(oracle.coef_[0, 0], rel=1e-4)
    assert intercept == pytest.approx(oracle.intercept_[0], rel=1e-4, abs=1e-4)


def test_platt_stays_finite_where_the_classes_can_be_separated() -> None:
    scores = np.concatenate([np.linspace(0.01, 0.3, 20), np.linspace(0.7, 0.99, 20)])
    truth = np.arange(40) >= 20
    slope, intercept = cal.fit_platt(scores, truth, np.ones(40))
    assert 0 < slope < 20
    assert abs(intercept) < 1
    # The smoothed targets are what the ends come near to.
    ends = cal.scale(scores[[0, -1]], np.array(slope), np.array(intercept))
    assert 0 < ends[0] < 0.05
    assert 0.95 < ends[1] < 1


def test_platt_refuses_what_it_cannot_fit() -> None:
    for scores, truth in (([0.5, 0.5], [1, 0]), ([0.1, 0.9], [1, 1]), ([], [])):
        with pytest.raises(ValueError, match="Platt scaling needs"):
            cal.fit_platt(np.array(scores), np.array(truth, dtype=bool), np.ones(len(scores)))


def brute_force(scores: Any, truth: Any, weight: Any, goal: Goal) -> tuple[float, float]:
    """Try every cut; return the best value, and the false alarms at a recall floor."""
    best = -np.inf
    for cut in [*np.unique(scores), *([2.0] if scores.max() < 1 else [])]:
        said = scores >= cut
        tp = weight[said & truth].sum()
        fp, fn = weight[said & ~truth].sum(), weight[~said & truth].sum()
        value = {
            "f1": 2 * tp / (2 * tp + fp + fn),
            "cost": -(fn + goal.false_alarm_cost * fp),
            "recall_floor": -fp if tp >= goal.min_recall * (tp + fn) - 1e-9 else -np.inf,
        }[goal.objective]
        best = max(best, value)
    threshold = choose_threshold(scores, truth, weight, goal)
    said = scores >= threshold
    tp = weight[said & truth].sum()
    fp, fn = weight[said & ~truth].sum(), weight[~said & truth].sum()
    reached = {
        "f1": 2 * tp / (2 * tp + fp + fn),
        "cost": -(fn + goal.false_alarm_cost * fp),
        "recall_floor": -fp if tp >= goal.min_recall * (tp + fn) - 1e-9 else -np.inf,
    }[goal.objective]
    return best, reached


GOALS = [
    Goal(),
    Goal(objective="cost", false_alarm_cost=0.3),
    Goal(objective="cost", false_alarm_cost=4.0),
    Goal(objective="recall_floor", min_recall=0.9),
    Goal(objective="recall_floor", min_recall=1.0),
]
columns = st.lists(
    st.tuples(st.integers(0, 12).map(lambda k: k / 12), st.booleans(), st.integers(1, 3)),
    min_size=1,
    max_size=30,
).filter(lambda rows: any(true for _, true, _ in rows))


@given(rows=columns, goal=st.sampled_from(GOALS))
def test_no_threshold_is_better_than_the_one_chosen(
    rows: list[tuple[float, bool, int]], goal: Goal
) -> None:
    scores, truth, weight = (np.array(part) for part in zip(*rows, strict=True))
    best, reached = brute_force(scores, truth, weight.astype(float), goal)
    assert reached == pytest.approx(best, abs=1e-12)


@given(rows=columns, goal=st.sampled_from(GOALS), seed=st.integers(0, 99))
def test_thresholds_do_not_depend_on_order_nor_on_how_weight_is_written(
    rows: list[tuple[float, bool, int]], goal: Goal, seed: int
) -> None:
    scores, truth, weight = (np.array(part) for part in zip(*rows, strict=True))
    found = choose_threshold(scores, truth, weight.astype(float), goal)
    order = np.random.default_rng(seed).permutation(len(scores))
    turned = choose_threshold(scores[order], truth[order], weight[order].astype(float), goal)
    repeated = choose_threshold(
        np.repeat(scores, weight), np.repeat(truth, weight), np.ones(weight.sum()), goal
    )
    assert found == turned == repeated


def test_thresholds_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.6, 0.4, 0.2, 0.1])
    truth = np.array([1, 1, 0, 1, 0, 0], dtype=bool)
    ones = np.ones(6)
    # 3 hits and 1 false alarm: F1 6/7; 2 hits alone: 4/5.
    assert choose_threshold(scores, truth, ones, Goal()) == pytest.approx(0.3)
    # 1 hit alone: F1 2/3; both hits with 3 false alarms: 4/7.
    lonely = np.array([1, 0, 0, 0, 1], dtype=bool)
    cut = choose_threshold(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), lonely, np.ones(5), Goal())
    assert cut == pytest.approx(0.85)
    dear = Goal(objective="cost", false_alarm_cost=3.0)
    assert choose_threshold(scores, truth, ones, dear) == pytest.approx(0.7)
    floor = Goal(objective="recall_floor", min_recall=0.6)
    assert choose_threshold(scores, truth, ones, floor) == pytest.approx(0.7)
    assert list(candidates(np.array([0.2, 0.6]))) == pytest.approx([0.8, 0.4, 0.1])
    assert list(candidates(np.array([1.0, 0.0]))) == [0.5, 0.0]


def test_neighbouring_floats_are_still_cut_apart() -> None:
    low = 0.3
    high = float(np.nextafter(low, 1))
    cuts = candidates(np.array([low, high]))
    assert [int((np.array([low, high]) >= cut).sum()) for cut in cuts] == [0, 1, 2]


def test_thresholds_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="holds the class"):
        choose_threshold(np.array([0.5]), np.array([False]), np.ones(1), Goal())
    with pytest.raises(ValueError, match="chooses no threshold"):
        choose_threshold(np.array([0.5]), np.array([True]), np.ones(1), Goal(objective="keep"))
    for bad in (
        {"objective": "accuracy"},
        {"false_alarm_cost": -1.0},
        {"false_alarm_cost": float("nan")},
        {"min_recall": 0.0},
    ):
        with pytest.raises(ValueError, match="must"):
            Goal(**bad)


@given(
    scores=st.lists(st.integers(0, 10**6).map(lambda k: k / 10**6), min_size=2, max_size=30),
    slope=st.floats(0.05, 20),
    intercept=st.floats(-5, 5),
)
def test_scaling_never_turns_a_ranking_round(
    scores: list[float], slope: float, intercept: float
) -> None:
    ranked = np.sort(np.array(scores))
    assert np.all(np.diff(cal.scale(ranked, np.array(slope), np.array(intercept))) >= 0)


@given(seed=st.integers(0, 50), temperature=st.floats(0.5, 2.0))
def test_a_temperature_keeps_the_ranking_whole(seed: int, temperature: float) -> None:
    scores = np.round(np.random.default_rng(seed).uniform(0.001, 0.999, 40), 6)
    scaled = cal.scale(scores, np.array(1 / temperature), np.array(0.0))
    assert np.array_equal(np.argsort(scores, kind="stable"), np.argsort(scaled, kind="stable"))
    # Nor does it move the point where a label is as likely as not.
    assert np.array_equal(scores >= 0.5, scaled >= 0.5)


def test_the_identity_changes_no_bit() -> None:
    scores = np.array([[0.0, 1.0, 0.3, 1e-9]])
    assert np.array_equal(cal.scale(scores, np.ones(4), np.zeros(4)), scores)


@given(seed=st.integers(0, 30))
def test_a_fit_does_not_depend_on_the_order_of_the_clips(seed: int) -> None:
    scored = made(80, 2)
    order = np.random.default_rng(seed).permutation(80)
    for method in ("temperature", "platt"):
        first, again = (fit(s, Recipe(method=method)) for s in (scored, scored.rows(order)))
        assert again.slope == pytest.approx(first.slope, rel=1e-6)
        assert again.intercept == pytest.approx(first.intercept, rel=1e-6, abs=1e-9)
        assert again.threshold == pytest.approx(first.threshold, rel=1e-6)


def test_what_is_not_annotated_changes_nothing() -> None:
    scored = made(200, 2)
    scores, truth = scored.scores.copy(), scored.truth.copy()
    scores[~scored.annotated] = 0.987
    truth[~scored.annotated] ^= True
    other = Scored(
        labels=scored.labels,
        scores=scores,
        truth=truth,
        annotated=scored.annotated,
        weight=scored.weight,
    )
    assert cal.measure(other) == cal.measure(scored)
    for method in ("temperature", "platt"):
        first, again = fit(scored, Recipe(method=method)), fit(other, Recipe(method=method))
        assert np.array_equal(first.slope, again.slope)
        assert np.array_equal(first.threshold, again.threshold)


@pytest.mark.parametrize(
    ("scores", "truth", "why"),
    [
        ([0.9] * 5 + [0.1] * 20, [1] * 5 + [0] * 20, "5 clips with it; fitting needs 10"),
        ([0.9] * 20 + [0.1] * 3, [1] * 20 + [0] * 3, "3 clips without it; fitting needs 10"),
        ([0.4] * 40, [1, 0] * 20, "all its scores are equal"),
        ([0.1, 0.9, 0.2] * 20, [1, 0, 1] * 20, "its scores fall as it becomes more likely"),
    ],
)
def test_a_class_that_cannot_be_fitted_is_left_as_it_is(
    scores: list[float], truth: list[int], why: str
) -> None:
    found = fit(one(scores, truth), Recipe())
    assert why in found.reasons[0]
    assert (found.slope[0], found.intercept[0], found.threshold[0]) == (1.0, 0.0, 0.5)
    assert not found.fitted[0]


def test_sharp_scores_are_mended_on_clips_that_were_not_fitted_on() -> None:
    scored = made(2000, 3, seed=11)
    cluster = np.arange(2000) % 20
    for method, share in (("temperature", 0.75), ("platt", 0.3)):
        crossed = cross_fit(scored, folds(cluster, 20, 5, seed=0), Recipe(method=method))
        before, after = cal.measure(scored), cal.measure(crossed.scored)
        assert before.ece is not None
        assert after.ece is not None
        assert after.ece < share * before.ece
        assert crossed.n_folds == 5
        assert crossed.folds_fitted.tolist() == [5, 5, 5]


def test_each_clip_is_judged_by_a_fit_without_its_fold() -> None:
    scored = made(120, 2)
    fold = np.repeat([0, 1, 2], 40)
    crossed = cross_fit(scored, fold, Recipe())
    for number in range(3):
        own = fit(scored.rows(fold != number), Recipe())
        held_out = apply(scored.rows(fold == number), own.slope, own.intercept)
        assert np.array_equal(crossed.scored.scores[fold == number], held_out.scores)
        assert np.array_equal(crossed.predicted[fold == number], held_out.scores >= own.threshold)


def test_figures_in_sample_flatter_those_that_are_cross_fitted() -> None:
    inside, outside = [], []
    for seed in range(10):
        scored = made(60, 2, seed=seed)
        fitted = fit(scored, Recipe())
        crossed = cross_fit(scored, folds(np.arange(60), 60, 5, seed=0), Recipe())
        inside.append(cal.measure(apply(scored, fitted.slope, fitted.intercept)).nll or 0.0)
        outside.append(cal.measure(crossed.scored).nll or 0.0)
    assert all(a < b for a, b in zip(inside, outside, strict=True))


def test_folds_hold_sessions_whole_and_are_even() -> None:
    cluster = np.array(list(itertools.chain.from_iterable([k] * (k + 1) for k in range(11))))
    found = folds(cluster, 11, 4, seed=3)
    sets = [set(cluster[found == number]) for number in range(4)]
    assert sorted(map(len, sets)) == [2, 3, 3, 3]
    assert sum(map(len, sets)) == 11
    assert np.array_equal(found, folds(cluster, 11, 4, seed=3))
    assert set(folds(np.array([0, 1, 1]), 2, 5, seed=0)) == {0, 1}
    for clusters, count in ((1, 5), (5, 1)):
        with pytest.raises(ValueError, match="two clusters and two folds"):
            folds(np.zeros(3, dtype=np.intp), clusters, count, seed=0)
    with pytest.raises(ValueError, match="two folds"):
        cross_fit(made(20, 1), np.zeros(20, dtype=np.intp), Recipe())


def test_hostile_input_is_refused() -> None:
    with pytest.raises(ValueError, match="must lie in"):
        one([1.5], [1])
    with pytest.raises(ValueError, match="must lie in"):
        one([float("nan")], [1])
    with pytest.raises(ValueError, match="weights"):
        one([0.5], [1], [-1.0])
    with pytest.raises(ValueError, match="must have shape"):
        one([0.5, 0.5], [1])
    with pytest.raises(ValueError, match="method"):
        Recipe(method="isotonic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        Recipe(min_examples=0)
