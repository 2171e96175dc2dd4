"""Boundary figures: hand-computed, against scikit-learn and scipy, and by property."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import precision_recall_fscore_support

from training.metrics import boundary
from training.metrics import classification as cl

CLASSES = ("kick", "snare")


def small() -> cl.Counts:
    reference = [[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [1, 0]]
    predicted = [[1, 0], [0, 0], [0, 1], [0, 0], [1, 1], [1, 0]]
    return cl.clip_counts(reference, predicted)


EDGES = ["start", "start", "end", "end", "end", None]
DISTANCES = [0.0, 5.0, 5.001, 40.0, 40.001, np.nan]


def test_figures_per_edge_and_by_distance_by_hand() -> None:
    figures = boundary.boundary_figures(small(), CLASSES, edges=EDGES, distances_ms=DISTANCES)
    assert figures.summary.n_clips == 6
    assert figures.summary.macro.recall == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert [(e.edge, e.summary.n_clips) for e in figures.per_edge] == [("start", 2), ("end", 3)]
    start, end = figures.per_edge
    assert start.summary.macro.recall == 0.5
    assert start.summary.classes_without_reference == ("snare",)
    assert end.summary.macro.recall == pytest.approx((1 + 2 / 3) / 2)
    # 5.0 belongs to (0, 5], 40.0 to (20, 40], 40.001 to the open bin; the empty bin is left out
    assert [(b.lower_ms, b.upper_ms, b.summary.n_clips) for b in figures.by_distance] == [
        (0.0, 5.0, 2),
        (5.0, 10.0, 1),
        (20.0, 40.0, 1),
        (40.0, None, 1),
    ]
    assert [(b.lower_ms, b.summary.micro.recall) for b in end.by_distance] == [
        (5.0, 1.0),
        (20.0, 0.0),
        (40.0, 1.0),
    ]


def test_an_empty_pack_has_no_figures() -> None:
    counts = cl.clip_counts(np.zeros((0, 2)), np.zeros((0, 2)))
    figures = boundary.boundary_figures(counts, CLASSES, edges=[], distances_ms=[])
    assert figures.summary.macro.recall is None
    assert figures.per_edge == ()
    assert figures.by_distance == ()
    assert boundary.session_interval(counts, []).reason.startswith("an interval needs")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
def test_each_edge_equals_scikit_learn_on_its_rows(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    reference, predicted = rng.random((2, n, 4)) < 0.5
    weights = rng.choice([0.5, 1.0, 2.0], n)
    edges = rng.choice(["start", "end"], n)
    distance = rng.uniform(0, 60, n)
    counts = cl.clip_counts(reference, predicted, weights=weights)
    figures = boundary.boundary_figures(
        counts, tuple("abcd"), edges=list(edges), distances_ms=distance
    )
    for part in figures.per_edge:
        rows = edges == part.edge
        labels = np.flatnonzero(reference[rows].any(axis=0))
        if not labels.size:
            assert part.summary.macro.recall is None
            continue
        expected = precision_recall_fscore_support(
            reference[rows],
            predicted[rows],
            labels=labels,
            average="macro",
            sample_weight=weights[rows],
            zero_division=0,
        )
        ours = part.summary.macro
        np.testing.assert_allclose([ours.precision, ours.recall, ours.f1], expected[:3], atol=1e-12)
    # the parts make up the whole
    n_ref = sum(c.n_ref for e in figures.per_edge for c in e.summary.per_class)
    assert n_ref == pytest.approx(sum(c.n_ref for c in figures.summary.per_class))
    assert sum(b.summary.n_clips for b in figures.by_distance) == n


def test_the_interval_equals_scipy_over_sessions_within_monte_carlo_error() -> None:
    rng = np.random.default_rng(3)
    sessions = np.repeat(np.arange(25), 12)
    quality = np.repeat(rng.uniform(0.5, 1.0, 25), 12)
    reference = rng.random((300, 2)) < 0.6
    predicted = reference & (rng.random((300, 2)) < quality[:, None])
    counts = cl.clip_counts(reference, predicted)
    ours = boundary.session_interval(counts, sessions, iterations=20_000, seed=1)
    grouped = counts.by_group(sessions, 25)

    def statistic(index: np.ndarray, axis: int) -> np.ndarray:
        assert axis == -1  # the sessions; the classes follow as one more axis
        tp = grouped.tp[index].sum(axis=-2)
        return (tp / grouped.n_ref[index].sum(axis=-2)).mean(axis=-1)

    # The expanded interval is the percentile interval of a confidence further out.
    tail = scipy.stats.norm.cdf(scipy.stats.t.ppf(0.025, 24) * np.sqrt(25 / 24))
    theirs = bootstrap(
        (np.arange(25),),
        statistic,
        n_resamples=20_000,
        method="percentile",
        confidence_level=1.0 - 2.0 * tail,
        rng=2,
        vectorized=True,
    ).confidence_interval
    assert ours.lower == pytest.approx(theirs.low, abs=0.004)
    assert ours.upper == pytest.approx(theirs.high, abs=0.004)
    point = cl.summarise(counts, CLASSES).macro.recall
    assert point is not None
    assert ours.lower is not None
    assert ours.upper is not None
    assert ours.lower < point < ours.upper


def test_sessions_not_clips_are_drawn() -> None:
    # ten sessions, all right or all wrong: a clip bootstrap would claim far too much
    sessions = np.repeat(np.arange(10), 50)
    reference = np.ones((500, 1), dtype=bool)
    predicted = (sessions % 2 == 0)[:, None]
    counts = cl.clip_counts(reference, predicted)
    by_session = boundary.session_interval(counts, sessions, seed=0)
    by_clip = boundary.session_interval(counts, np.arange(500), seed=0)
    assert by_session.lower is not None
    assert by_session.upper is not None
    assert by_clip.lower is not None
    assert by_clip.upper is not None
    assert by_session.upper - by_session.lower > 4 * (by_clip.upper - by_clip.lower)
    assert by_session == boundary.session_interval(counts, sessions, seed=0)


def test_one_session_gives_no_interval_and_absent_classes_are_counted() -> None:
    counts = cl.clip_counts([[1, 0], [1, 0]], [[1, 0], [0, 0]])
    alone = boundary.session_interval(counts, [0, 0])
    assert (alone.lower, alone.upper, alone.n_sessions) == (None, None, 1)
    assert "at least 5 sessions" in alone.reason
    few = boundary.session_interval(
        cl.clip_counts(np.ones((9, 1)), np.ones((9, 1))), np.arange(9) % 4
    )
    assert (few.lower, few.n_sessions) == (None, 4)
    rare = cl.clip_counts([[1, 1], [1, 0], [0, 0]], [[1, 1], [1, 0], [0, 0]])
    interval = boundary.session_interval(rare, [0, 1, 2], iterations=500, min_sessions=2)
    # the second class lives in session 0 only, which a draw of 3 misses with (2/3)^3 = 0.30
    assert 100 < interval.resamples_without_a_class < 200
    # a draw of session 2 alone, (1/3)^3 = 0.037, holds no event
    assert 5 < interval.resamples_undefined < 40
    silent = cl.clip_counts(np.zeros((4, 1)), np.ones((4, 1)))
    assert boundary.session_interval(silent, [0, 1, 2, 3]).n_sessions == 0
    assert "hold no reference event" in interval.reason, "one in thirty of the resamples"


def test_intervals_of_few_sessions_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = 0.85
    inside = 0
    for seed in range(300):
        right = rng.random((8, 40)) < np.clip(rng.normal(truth, 0.08, (8, 1)), 0.0, 1.0)
        counts = cl.clip_counts(np.ones((320, 1)), right.reshape(-1, 1))
        found = boundary.session_interval(
            counts, np.repeat(np.arange(8), 40), iterations=300, seed=seed
        )
        assert found.lower is not None
        assert found.upper is not None
        inside += found.lower <= truth <= found.upper
    assert inside >= 0.91 * 300


def test_blocks_of_draws_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    counts = cl.clip_counts(rng.random((60, 2)) < 0.7, rng.random((60, 2)) < 0.7)
    sessions = np.repeat(np.arange(6), 10)
    whole = boundary.session_interval(counts, sessions)
    monkeypatch.setattr(boundary, "_RESAMPLE_CELLS", 50)
    assert boundary.session_interval(counts, sessions) == whole


@pytest.mark.parametrize("bins", [[], [0.0, 5.0], [5.0, 5.0], [10.0, 5.0], [5.0, float("inf")]])
def test_bins_that_do_not_rise_are_refused(bins: list[float]) -> None:
    with pytest.raises(ValueError, match="bins"):
        boundary.boundary_figures(
            small(), CLASSES, edges=EDGES, distances_ms=DISTANCES, bins_ms=bins
        )


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="6 clips"):
        boundary.boundary_figures(small(), CLASSES, edges=["start"], distances_ms=[0.0])
