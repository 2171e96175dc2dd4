"""Multi-label figures: hand-computed, against scikit-learn, and by property."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import precision_recall_fscore_support

from training.metrics import classification as cl

CLASSES = ("kick", "snare", "ride")


def test_hand_computed_counts_and_figures() -> None:
    reference = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
    predicted = [[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]]
    summary = cl.summarise(cl.clip_counts(reference, predicted), CLASSES)
    kick, snare, ride = summary.per_class
    assert (kick.tp, kick.fp, kick.fn, kick.n_ref) == (1, 1, 1, 2)
    assert (kick.precision, kick.recall, kick.f1) == (0.5, 0.5, 0.5)
    assert (snare.precision, snare.recall, snare.f1) == (1, 1, 1)
    assert (ride.precision, ride.recall, ride.f1) == (0, None, None)
    assert summary.classes_without_reference == ("ride",)
    assert summary.macro == cl.Averages(precision=0.75, recall=0.75, f1=0.75)
    # pooled: tp 3, fp 2, fn 1
    assert summary.micro == cl.Averages(precision=0.6, recall=0.75, f1=6 / 9)


def test_a_class_never_predicted_has_precision_zero_in_the_macro_mean() -> None:
    counts = cl.clip_counts([[1, 0], [0, 1]], [[1, 0], [0, 0]])
    summary = cl.summarise(counts, ("kick", "snare"))
    assert summary.per_class[1].precision is None
    assert summary.macro.precision == 0.5


def test_an_unannotated_cell_counts_nowhere() -> None:
    counts = cl.clip_counts([[1, 1]], [[1, 0]], annotated=[[True, False]]).total()
    assert counts.n_ref.tolist() == [1, 0]
    # even where the truth names a label that its source does not annotate
    both = cl.clip_counts([[1, 1]], [[1, 1]], annotated=[[True, False]]).total()
    assert both.tp.tolist() == [1, 0]
    fp = cl.clip_counts([[0, 0]], [[1, 1]], annotated=[[True, False]]).total().fp
    assert fp.tolist() == [1, 0]


def test_no_clips_and_no_references_are_undefined_not_zero() -> None:
    empty = cl.summarise(cl.clip_counts(np.zeros((0, 3)), np.zeros((0, 3))), CLASSES)
    assert empty.n_clips == 0
    assert empty.macro == empty.micro == cl.Averages(precision=None, recall=None, f1=None)
    assert empty.classes_without_reference == CLASSES
    false_alarm = cl.summarise(cl.clip_counts([[0]], [[1]]), ("kick",))
    assert false_alarm.macro.recall is None
    assert false_alarm.micro.precision == 0.0
    assert false_alarm.micro.recall is None


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            hnp.arrays(bool, (n, 4)),
            hnp.arrays(bool, (n, 4)),
            hnp.arrays(np.float64, n, elements=st.sampled_from([0.25, 0.5, 1.0, 3.0])),
        )
    )
)
def test_equals_scikit_learn(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    reference, predicted, weights = data
    total = cl.clip_counts(reference, predicted, weights=weights).total()
    ours = cl.rates(total)
    present = total.n_ref > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p, r, f, _ = precision_recall_fscore_support(
            reference, predicted, sample_weight=weights, zero_division=0
        )
        mp, mr, mf, _ = precision_recall_fscore_support(
            reference, predicted, sample_weight=weights, average="micro", zero_division=0
        )
    np.testing.assert_allclose(np.nan_to_num(ours.precision), p, atol=1e-12)
    np.testing.assert_allclose(np.nan_to_num(ours.recall), r, atol=1e-12)
    np.testing.assert_allclose(ours.f1[present], f[present], atol=1e-12)
    pooled = cl.micro(total)
    np.testing.assert_allclose(
        [np.nan_to_num(v) for v in (pooled.precision, pooled.recall, pooled.f1)],
        [mp, mr, mf],
        atol=1e-12,
    )
    if present.any():
        mean = cl.macro(total)
        np.testing.assert_allclose(
            [mean.precision, mean.recall, mean.f1],
            [p[present].mean(), r[present].mean(), f[present].mean()],
            atol=1e-12,
        )


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(bool, (12, 3)), hnp.arrays(bool, (12, 3)), st.permutations(range(12)))
def test_order_of_clips_does_not_matter_and_doubling_changes_no_rate(
    reference: np.ndarray, predicted: np.ndarray, order: list[int]
) -> None:
    once = cl.summarise(cl.clip_counts(reference, predicted), CLASSES)
    moved = cl.summarise(cl.clip_counts(reference[order], predicted[order]), CLASSES)
    assert moved == once
    twice = cl.summarise(
        cl.clip_counts(np.tile(reference, (2, 1)), np.tile(predicted, (2, 1))), CLASSES
    )
    assert (twice.macro, twice.micro) == (once.macro, once.micro)
    weighted = cl.summarise(cl.clip_counts(reference, predicted, weights=np.full(12, 2)), CLASSES)
    assert weighted.per_class == twice.per_class


def test_groups_and_resamples_are_sums() -> None:
    rng = np.random.default_rng(0)
    reference, predicted = rng.random((2, 40, 3)) < 0.4
    counts = cl.clip_counts(reference, predicted)
    group = rng.integers(0, 5, 40)
    grouped = counts.by_group(group, 5)
    np.testing.assert_allclose(grouped.tp[2], counts.take(group == 2).total().tp)
    np.testing.assert_allclose(grouped.total().fn, counts.total().fn)
    drawn = grouped.resampled([[1, 1, 1, 1, 1], [0, 0, 3, 0, 2]])
    np.testing.assert_allclose(drawn.fp[0], counts.total().fp)
    np.testing.assert_allclose(drawn.fp[1], 3 * grouped.fp[2] + 2 * grouped.fp[4])
    assert cl.macro(drawn).recall.shape == (2,)


def test_decide_threshold_top_k_ties_and_missing_scores() -> None:
    scores = [[0.9, 0.5, 0.7], [0.5, 0.5, 0.5], [np.nan, 0.2, np.nan]]
    assert cl.decide(scores).tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    assert cl.decide(scores, top_k=1).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert cl.decide(scores, top_k=2).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert cl.decide(scores, threshold=0, top_k=2)[2].tolist() == [False, True, False]
    assert cl.decide(scores, threshold=[0.95, 0.5, 0.1])[0].tolist() == [False, True, True]


def test_matrices_from_labels_scores_and_annotated_sets() -> None:
    assert cl.label_matrix([{"ride", "zurna"}, ()], CLASSES).tolist() == [[0, 0, 1], [0, 0, 0]]
    scores = cl.score_matrix([{"kick": 0.3}, None], CLASSES, missing=-1)
    assert scores.tolist() == [[0.3, -1, -1], [-1, -1, -1]]
    assert cl.annotated_matrix([None, ["kick"], []], CLASSES).tolist() == [
        [True, True, True],
        [True, False, False],
        [False, False, False],
    ]
    assert cl.annotated_matrix([], CLASSES).shape == (0, 3)


def test_wrong_shapes_and_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="must both be"):
        cl.clip_counts([[1, 0]], [[1]])
    with pytest.raises(ValueError, match="annotated"):
        cl.clip_counts([[1]], [[1]], annotated=[[1, 1]])
    for bad in ([-1.0], [np.nan], [np.inf], [1.0, 1.0]):
        with pytest.raises(ValueError, match="weights"):
            cl.clip_counts([[1]], [[1]], weights=bad)
    with pytest.raises(ValueError, match="group_index"):
        cl.clip_counts([[1]], [[1]]).by_group([3], 2)
    with pytest.raises(ValueError, match="distinct"):
        cl.label_matrix([()], ("kick", "kick"))
    with pytest.raises(ValueError, match="top_k"):
        cl.decide([[0.1]], top_k=0)
    with pytest.raises(ValueError, match="classes"):
        cl.summarise(cl.clip_counts([[1]], [[1]]), CLASSES)
    with pytest.raises(ValueError, match="n_clips"):
        cl.decide([0.1])
