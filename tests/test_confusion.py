"""What was said where a class was missed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics.confusion import said_instead


def matrix(*rows: str) -> np.ndarray:
    return np.array([[cell == "1" for cell in row] for row in rows], dtype=bool).reshape(
        len(rows), -1
    )


def test_by_hand() -> None:
    # A is missed three times: B is said once, B and C once, and once nothing wrong.
    truth = matrix("100", "100", "110", "100", "001")
    predicted = matrix("010", "011", "010", "100", "001")
    found = said_instead(truth, predicted, np.ones_like(truth), "ABC").as_metrics()
    assert found == {
        "A": {"n_events": 4, "missed": 3, "nothing": 1, "said": {"B": 2, "C": 1}},
        "B": {"n_events": 1, "missed": 0, "nothing": 0, "said": {}},
        "C": {"n_events": 1, "missed": 0, "nothing": 0, "said": {}},
    }


def test_what_is_not_annotated_is_neither_missed_nor_wrong() -> None:
    truth, predicted = matrix("10", "10"), matrix("01", "01")
    annotated = matrix("10", "01")
    found = said_instead(truth, predicted, annotated, "AB").as_metrics()
    assert found == {"A": {"n_events": 1, "missed": 1, "nothing": 1, "said": {}}}


def test_without_clips_there_is_nothing() -> None:
    none = np.zeros((0, 2), dtype=bool)
    assert said_instead(none, none, none, "AB").as_metrics() == {}


def test_shapes_must_fit() -> None:
    one, two = matrix("10"), matrix("10", "01")
    with pytest.raises(ValueError, match="shapes differ"):
        said_instead(one, two, one, "AB")
    with pytest.raises(ValueError, match="shapes differ"):
        said_instead(one, one, one, "ABC")


def test_many_clips_are_counted_in_blocks() -> None:
    generator = np.random.default_rng(0)
    truth, predicted, annotated = generator.random((3, 150_000, 3)) < 0.5
    found = said_instead(truth, predicted, annotated, "ABC")
    wrong = predicted & ~truth & annotated
    missed = truth & annotated & ~predicted
    assert found.said[0, 1] == (missed[:, 0] & wrong[:, 1]).sum()
    assert found.said[2, 0] == (missed[:, 2] & wrong[:, 0]).sum()


@given(st.lists(st.lists(st.tuples(*[st.booleans()] * 3), min_size=3, max_size=3), max_size=12))
def test_against_counting_clip_by_clip(cells: list[list[tuple[bool, bool, bool]]]) -> None:
    data = np.array(cells, dtype=bool).reshape(len(cells), 3, 3)
    truth, predicted, annotated = (data[:, :, k] for k in range(3))
    found = said_instead(truth, predicted, annotated, "ABC")
    for a in range(3):
        missed = [c for c in cells if c[a][0] and c[a][2] and not c[a][1]]
        wrong = [{b for b in range(3) if c[b][1] and not c[b][0] and c[b][2]} for c in missed]
        assert found.missed[a] == len(missed)
        assert found.nothing[a] == sum(not each for each in wrong)
        assert [found.said[a, b] for b in range(3)] == [
            sum(b in w for w in wrong) for b in range(3)
        ]
        assert found.said[a, a] == 0
