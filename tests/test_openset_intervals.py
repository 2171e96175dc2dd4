"""Resampled open-set figures against `openset.measure` on clips written out, and against DeLong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics import openset
from training.metrics import openset_intervals as oi
from training.metrics.resampling import Resampling, draw_clusters


@st.composite
def sessions(draw: st.DrawFn) -> tuple[openset.Floats, openset.Bools, np.ndarray]:
    """Scores with ties, a truth that holds both classes, and the session of each clip."""
    n = draw(st.integers(2, 40))
    scores = draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n))
    truth = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda t: len({*t}) == 2))
    of = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    return np.array(scores, dtype=float) / 4, np.array(truth), np.array(of)


def made(
    n_sessions: int, a_session: int, seed: int
) -> tuple[openset.Floats, openset.Bools, np.ndarray]:
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(n_sessions), a_session)
    unknown = rng.random(session.size) < 0.4
    # How far unknown sounds stand out differs from session to session.
    gap = rng.normal(1.5, 0.5, n_sessions)[session]
    return rng.normal(0, 1, session.size) + gap * unknown, unknown, session


@given(sessions(), st.integers(0, 2**16))
@settings(deadline=None)
def test_a_resample_is_measured_as_if_written_out(
    case: tuple[openset.Floats, openset.Bools, np.ndarray], seed: int
) -> None:
    scores, truth, session = case
    draws = Resampling(iterations=5, seed=seed, min_clusters=2)
    index, holds, strata = oi._clusters(truth, session, draws)
    _, place = np.unique(-scores, return_inverse=True)
    ranked = oi._Ranked(
        unknown=oi._table(place[truth], index[truth], place.max() + 1, len(holds)),
        known=oi._table(place[~truth], index[~truth], place.max() + 1, len(holds)),
    )
    drawn = np.concatenate(list(draw_clusters(len(holds), draws, strata)))
    values = ranked.values(drawn, tpr_floor=0.95)
    for row, counts in enumerate(drawn):
        clips = np.repeat(np.arange(scores.size), counts[index].astype(int))
        whole = openset.measure(scores[clips], truth[clips])
        for name in oi.FIGURES:
            expected = getattr(whole, name)
            if expected is None:
                assert math.isnan(values[name][row])
            else:
                assert values[name][row] == pytest.approx(expected, abs=1e-12)


@given(sessions(), st.integers(0, 2**16))
@settings(deadline=None)
def test_points_are_those_of_measure_and_the_order_does_not_matter(
    case: tuple[openset.Floats, openset.Bools, np.ndarray], seed: int
) -> None:
    scores, truth, session = case
    draws = Resampling(iterations=20, min_clusters=2)
    found = oi.estimate(scores, truth, session, settings=draws)
    whole = openset.measure(scores, truth)
    for name in oi.FIGURES:
        assert found[name].point == pytest.approx(getattr(whole, name), abs=1e-12)
    order = np.random.default_rng(seed).permutation(scores.size)
    assert oi.estimate(scores[order], truth[order], session[order], settings=draws) == found


@given(sessions())
@settings(deadline=None)
def test_swapping_the_classes_swaps_the_conventions(
    case: tuple[openset.Floats, openset.Bools, np.ndarray],
) -> None:
    scores, truth, _ = case
    one, other = openset.measure(scores, truth), openset.measure(-scores, ~truth)
    assert one.auroc == pytest.approx(other.auroc or 0.0, abs=1e-12)
    assert (one.aupr_in, one.fpr_at_95tpr_known_positive) == (other.aupr_out, other.fpr_at_95tpr)
    assert one.fpr_at_95tpr == other.fpr_at_95tpr_known_positive
    kept = scores <= (one.threshold_at_95tpr_known_positive or 0.0)
    assert kept[~truth].mean() >= 0.95
    assert kept[truth].mean() == pytest.approx(one.fpr_at_95tpr_known_positive, abs=1e-12)


def delong_error(scores: openset.Floats, truth: openset.Bools) -> float:
    """Standard error of AUROC after DeLong, DeLong and Clarke-Pearson (1988)."""
    unknown, known = scores[truth][:, None], scores[~truth][None, :]
    wins = (unknown > known) + 0.5 * (unknown == known)
    by_unknown, by_known = wins.mean(axis=1), wins.mean(axis=0)
    return math.sqrt(
        by_unknown.var(ddof=1) / by_unknown.size + by_known.var(ddof=1) / by_known.size
    )


def test_the_error_of_auroc_is_delongs_where_clips_are_independent() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(600) < 0.3
    scores = np.round(rng.normal(size=600) + 1.2 * truth, 1)
    found = oi.estimate(
        scores, truth, np.arange(600), settings=Resampling(iterations=4000, seed=2)
    )["auroc"]
    assert found.standard_error == pytest.approx(delong_error(scores, truth), rel=0.05)


def test_sessions_make_the_interval_wider_than_clips_do() -> None:
    scores, truth, session = made(20, 40, seed=5)
    draws = Resampling(iterations=500)
    by_session = oi.estimate(scores, truth, session, settings=draws)["auroc"]
    by_clip = oi.estimate(scores, truth, np.arange(scores.size), settings=draws)["auroc"]
    assert by_session.n_clusters == 20
    width = (by_session.upper or 0) - (by_session.lower or 0)
    assert width > (by_clip.upper or 0) - (by_clip.lower or 0)


def test_clips_are_drawn_within_known_and_unknown() -> None:
    # 8 unknown of 300: without strata a resample may well hold 2, with them always 8.
    truth = np.arange(300) < 8
    _, holds, strata = oi._clusters(truth, np.arange(300), Resampling())
    for drawn in draw_clusters(300, Resampling(iterations=50), strata):
        assert (drawn @ holds == [292, 8]).all()


def test_a_stratified_resample_never_lacks_a_class() -> None:
    # Drawn from all 200 clips alike, about one resample in 150 would hold none of the 5 unknown.
    truth = np.arange(200) < 5
    scores = np.random.default_rng(0).normal(size=200)
    found = oi.estimate(scores, truth, np.arange(200), settings=Resampling(iterations=2000))
    assert {each.n_undefined for each in found.values()} == {0}


def test_too_few_sessions_of_a_kind_join_the_mixed() -> None:
    settings_ = Resampling(min_clusters=5)
    # sessions 0-5 mixed, 6-7 known only, 8-13 unknown only
    session = np.concatenate([np.repeat(np.arange(6), 2), np.arange(6, 14)])
    truth = np.array([False, True] * 6 + [False] * 2 + [True] * 6)
    _, _, strata = oi._clusters(truth, session, settings_)
    assert strata.tolist() == [3] * 8 + [2] * 6
    apart = oi._clusters(np.arange(9) < 2, np.arange(9), settings_)[2]
    assert apart.tolist() == [2] * 2 + [1] * 7


def test_too_few_sessions_give_no_interval() -> None:
    scores, truth, session = made(4, 30, seed=1)
    found = oi.estimate(scores, truth, session, settings=Resampling(iterations=50))["auroc"]
    assert found.point is not None
    assert (found.lower, found.reason) == (None, "4 clusters, an interval needs 5")
    # Many sessions with known clips, three with unknown ones: three is what counts.
    session = np.arange(120)
    truth = session < 3
    found = oi.estimate(scores, truth, session, settings=Resampling(iterations=50))["auroc"]
    assert (found.n_clusters, found.lower) == (3, None)


def test_one_class_and_no_clip() -> None:
    ones = np.ones(6, dtype=bool)
    found = oi.estimate(np.arange(6.0), ones, np.arange(6), settings=Resampling(iterations=5))
    assert {each.point for each in found.values()} == {None}
    with pytest.raises(ValueError, match="no clips"):
        oi.estimate(np.empty(0), np.empty(0, dtype=bool), np.empty(0, int), settings=Resampling())


def test_rates_by_hand() -> None:
    rejected = np.array([True, True, False, True, False, False])
    part = np.array([True, True, True, True, False, False])
    found = oi.estimate_rates(
        rejected,
        {"part": part, "none": np.zeros(6, dtype=bool)},
        np.arange(6),
        settings=Resampling(iterations=200, min_clusters=2),
    )
    assert found["part"].point == 0.75
    assert 0.0 <= (found["part"].lower or 0.0) < 0.75 < (found["part"].upper or 0.0) <= 1.0
    assert (found["none"].point, found["none"].lower) == (None, None)


@given(sessions(), st.floats(0.01, 1.0))
def test_the_threshold_rejects_what_it_says_and_is_the_highest(
    case: tuple[openset.Floats, openset.Bools, np.ndarray], tpr: float
) -> None:
    scores, truth, _ = case
    threshold = openset.threshold_at(scores, truth, tpr)
    assert (scores[truth] >= threshold).mean() >= tpr
    higher = scores[truth][scores[truth] > threshold]
    if higher.size:
        assert (scores[truth] >= higher.min()).mean() < tpr


def test_a_threshold_needs_unknown_examples_and_a_rate() -> None:
    with pytest.raises(ValueError, match="needs unknown"):
        openset.threshold_at(np.zeros(2), np.zeros(2, dtype=bool), 0.95)
    for tpr in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="tpr must lie"):
            openset.threshold_at(np.zeros(2), np.ones(2, dtype=bool), tpr)
