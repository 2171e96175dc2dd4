"""The open-set figures against hand-computed cases and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from training.metrics import openset


@st.composite
def ranked(draw: st.DrawFn) -> tuple[openset.Floats, openset.Bools]:
    """Scores with many ties, and a truth that holds both classes."""
    n = draw(st.integers(2, 60))
    scores = draw(st.lists(st.integers(-5, 5), min_size=n, max_size=n))
    truth = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda t: len({*t}) == 2))
    return np.array(scores, dtype=float) / 4, np.array(truth)


def test_by_hand() -> None:
    # Two unknown (0.9, 0.4), three known (0.5, 0.2, 0.1): 5 of the 6 pairs are in order.
    scores = np.array([0.9, 0.4, 0.5, 0.2, 0.1])
    truth = np.array([True, True, False, False, False])
    figures = openset.measure(scores, truth)
    assert figures.auroc == pytest.approx(5 / 6)
    # The second unknown is reached once one known example of three is rejected too.
    assert figures.fpr_at_95tpr == pytest.approx(1 / 3)
    assert figures.threshold_at_95tpr == 0.4
    # Precision 1 at the first unknown and 2/3 at the second, half the recall each.
    assert figures.aupr_out == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_a_rate_that_meets_the_floor_exactly_is_enough() -> None:
    # 19 of 20 unknowns are 95 %: the threshold is the 19th, and the two below it stay out.
    scores = np.array([*range(20, 0, -1), 1.5], dtype=float)
    figures = openset.measure(scores, np.arange(21) < 20)
    assert figures.threshold_at_95tpr == 2.0
    assert figures.fpr_at_95tpr == 0.0


@given(ranked())
def test_equals_scikit_learn(case: tuple[openset.Floats, openset.Bools]) -> None:
    scores, truth = case
    figures = openset.measure(scores, truth)
    assert figures.auroc == pytest.approx(oracle.roc_auc_score(truth, scores), abs=1e-12)
    assert figures.aupr_out == pytest.approx(
        oracle.average_precision_score(truth, scores), abs=1e-12
    )
    assert figures.aupr_in == pytest.approx(
        oracle.average_precision_score(~truth, -scores), abs=1e-12
    )
    fpr, tpr, _ = oracle.roc_curve(truth, scores, drop_intermediate=False)
    assert figures.fpr_at_95tpr == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)


@given(ranked(), st.randoms(use_true_random=False))
def test_order_does_not_matter(case: tuple[openset.Floats, openset.Bools], random) -> None:
    scores, truth = case
    order = list(range(scores.size))
    random.shuffle(order)
    assert openset.measure(scores[order], truth[order]) == openset.measure(scores, truth)


@given(ranked())
def test_swapping_the_classes_mirrors_auroc(case: tuple[openset.Floats, openset.Bools]) -> None:
    scores, truth = case
    mirrored = openset.measure(scores, ~truth).auroc
    assert mirrored == pytest.approx(1 - (openset.measure(scores, truth).auroc or 0), abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ([], "there is no example"),
        ([True, True], "there is no known example"),
        ([False], "there is no unknown example"),
    ],
)
def test_one_class_is_not_measured(truth: list[bool], reason: str) -> None:
    figures = openset.measure(np.zeros(len(truth)), np.array(truth, dtype=bool))
    assert (figures.auroc, figures.fpr_at_95tpr, figures.reason) == (None, None, reason)


def test_refuses_what_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="finite"):
        openset.measure(np.array([np.nan, 1.0]), np.array([True, False]))
    with pytest.raises(ValueError, match="equal"):
        openset.measure(np.zeros(3), np.zeros(2, dtype=bool))


@pytest.mark.parametrize("n", [3, 7, 30, 49])
def test_a_perfect_separation_is_exactly_one(n: int) -> None:
    scores = np.arange(3.0 * n)
    figures = openset.measure(scores, scores >= n)
    assert (figures.auroc, figures.fpr_at_95tpr, figures.tnr_at_95tpr) == (1.0, 0.0, 1.0)
    assert (figures.fpr_at_95tpr_known_positive, figures.tnr_at_95tpr_known_positive) == (0.0, 1.0)


def test_curves_need_their_classes() -> None:
    for truth in ([], [True], [False]):
        with pytest.raises(ValueError, match="known and unknown"):
            openset.roc_curve(np.zeros(len(truth)), np.array(truth, dtype=bool))
    for truth in ([], [False]):
        with pytest.raises(ValueError, match="positive example"):
            openset.average_precision(np.zeros(len(truth)), np.array(truth, dtype=bool))


@given(ranked(), st.integers(2, 4))
def test_repeating_every_example_changes_nothing(
    case: tuple[openset.Floats, openset.Bools], times: int
) -> None:
    scores, truth = case
    once = openset.measure(scores, truth)
    often = openset.measure(np.tile(scores, times), np.tile(truth, times))
    for name in ("auroc", "aupr_out", "aupr_in", "fpr_at_95tpr", "fpr_at_95tpr_known_positive"):
        assert getattr(often, name) == pytest.approx(getattr(once, name), abs=1e-12)
    assert often.threshold_at_95tpr == once.threshold_at_95tpr


@given(ranked(), st.floats(-3, 3))
def test_only_the_order_of_the_scores_matters(
    case: tuple[openset.Floats, openset.Bools], shift: float
) -> None:
    scores, truth = case
    moved = openset.measure(np.exp(scores) * 2.0 + shift, truth)
    still = openset.measure(scores, truth)
    assert (moved.auroc, moved.aupr_out, moved.fpr_at_95tpr) == (
        still.auroc,
        still.aupr_out,
        still.fpr_at_95tpr,
    )
