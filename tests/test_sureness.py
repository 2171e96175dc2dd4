"""Which passes are said to rest on the point alone."""

from __future__ import annotations

import pytest

from training.checks.sureness import unsure_passes
from training.gates import Interval, Measurement, Threshold, Verdict, judge

AT_LEAST = Threshold(name="x.min", comparator=">=", value=0.9)
AT_MOST = Threshold(name="x.max", comparator="<=", value=0.1)


def verdict(value: float, ends: tuple[float, float] | None, threshold: Threshold) -> Verdict:
    bounds = None if ends is None else Interval(lower=ends[0], upper=ends[1])
    return judge(Measurement(name="x", value=value, ci=bounds), threshold)


@pytest.mark.parametrize(
    ("value", "ends", "threshold", "said"),
    [
        (0.95, (0.85, 0.99), AT_LEAST, True),
        (0.95, (0.90, 0.99), AT_LEAST, False),
        (0.05, (0.00, 0.20), AT_MOST, True),
        (0.05, (0.00, 0.10), AT_MOST, False),
        (0.95, None, AT_LEAST, False),
        (0.85, (0.80, 0.95), AT_LEAST, False),
    ],
)
def test_a_pass_is_unsure_where_its_interval_reaches_beyond(
    value: float, ends: tuple[float, float] | None, threshold: Threshold, said: bool
) -> None:
    assert bool(unsure_passes([verdict(value, ends, threshold)])) is said


def test_a_gate_that_decides_on_a_bound_is_sure() -> None:
    by_upper = Threshold(name="x.max", comparator="<=", value=0.1, decide_on="upper")
    by_lower = Threshold(name="x.max", comparator="<=", value=0.1, decide_on="lower")
    assert unsure_passes([verdict(0.05, (0.0, 0.2), by_lower)]) == []
    assert unsure_passes([verdict(0.05, (0.0, 0.09), by_upper)]) == []
    assert unsure_passes([]) == []
