"""Drift of distributions: by hand, against SciPy, and what must hold for any counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from training.metrics.drift import (
    FLOOR,
    LISTED_VALUES,
    Drift,
    corrected,
    drift,
    grade,
    not_compared,
)

NAMES = "abcdef"
counts = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 1000)).filter(
    lambda made: sum(made.values()) > 0
)
many = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2**53))
bins = st.lists(st.integers(0, 200), min_size=6, max_size=6).filter(any)


def aligned(before: dict[str, int], after: dict[str, int]) -> tuple[list[int], list[int]]:
    """Both sides over the values that either has."""
    names = sorted(name for name in {*before, *after} if before.get(name) or after.get(name))
    return [before.get(name, 0) for name in names], [after.get(name, 0) for name in names]


def sure(value: float | None) -> float:
    assert value is not None
    return value


def test_psi_by_hand() -> None:
    # (0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5)
    found = drift("x", {"a": 50, "b": 50}, {"a": 60, "b": 40})
    assert found.psi == pytest.approx(0.1 * math.log(1.2) - 0.1 * math.log(0.8), abs=1e-9)
    assert found.psi == pytest.approx(0.040546511, abs=1e-9)
    # One degree of freedom; 3.841459 (1/100 + 1/100): within chance.
    assert found.psi_by_chance == pytest.approx(0.0768292, abs=1e-6)
    assert (found.psi_beyond_chance, found.shift) == (0, "small")
    # Pearson: 4 * 5^2 / 55 ... = 2.02020 by the formula n (ad - bc)^2 / (row and column sums)
    assert found.statistic == pytest.approx(200 * (50 * 40 - 50 * 60) ** 2 / (100**2 * 110 * 90))
    assert (found.largest, found.largest_change) == ("a", 0.1)


def test_what_a_side_lacks_counts_as_half_an_observation() -> None:
    found = drift("x", {"a": 8, "b": 2}, {"a": 10})
    half = 0.5 / 10
    expected = (1 - 0.8) * math.log(1 / 0.8) + (half - 0.2) * math.log(half / 0.2)
    assert found.psi == pytest.approx(expected, abs=1e-9)
    # With many observations the floor holds, so that PSI does not grow with the sample.
    for n in (10**6, 10**9):
        found = drift("x", {"a": 8 * n, "b": 2 * n}, {"a": 10 * n})
        expected = (1 - 0.8) * math.log(1 / 0.8) + (FLOOR - 0.2) * math.log(FLOOR / 0.2)
        assert found.psi == pytest.approx(expected, abs=1e-9)


def test_a_rare_value_beside_a_small_sample_is_no_shift() -> None:
    """Half of four observations would be an eighth; the other side has one in a million."""
    found = drift("x", {"a": 4}, {"a": 10**6 - 1, "b": 1})
    assert found.psi == pytest.approx(0, abs=1e-9)
    assert found.shift == "small"


def test_divergence_by_hand() -> None:
    assert drift("x", {"a": 5, "b": 5}, {"a": 50, "b": 50}).divergence_bits == 0
    apart = drift("x", {"a": 5}, {"b": 7})
    assert (apart.divergence_bits, apart.js_distance) == (1, 1)
    # p = (1, 0), q = (1/2, 1/2): H(3/4, 1/4) - H(1/2, 1/2) / 2 = 0.811278 - 0.5
    assert drift("x", {"a": 7}, {"a": 3, "b": 3}).divergence_bits == pytest.approx(
        0.311278, abs=1e-6
    )


@pytest.mark.parametrize(
    ("psi", "word"), [(0.0, "small"), (0.0999, "small"), (0.1, "moderate"), (0.25, "moderate")]
)
def test_grades(psi: float, word: str) -> None:
    assert grade(psi) == word
    assert grade(0.2501) == "large"


@given(before=counts, after=counts)
def test_against_scipy(before: dict[str, int], after: dict[str, int]) -> None:
    found = drift("x", before, after)
    p, q = aligned(before, after)
    if p != q:
        assert found.js_distance == pytest.approx(
            np.nan_to_num(jensenshannon(p, q, base=2)), abs=1e-7
        )
    if len(p) > 1:
        expected = stats.chi2_contingency([p, q], correction=False)
        assert found.statistic == pytest.approx(expected.statistic, rel=1e-6, abs=1e-8)
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-5, abs=1e-300)
    else:
        assert (found.statistic, found.p_value) == (0, 1)


@given(before=bins, after=bins)
def test_ordered_bins_against_ks_2samp(before: list[int], after: list[int]) -> None:
    size = sum(before) * sum(after) / (sum(before) + sum(after))
    assume(size >= 1)  # below it SciPy has no p-value to give
    sides = [dict(zip(NAMES, side, strict=True)) for side in (before, after)]
    found = drift("x", *sides, ordered=True)
    values = [np.repeat(np.arange(6), side) for side in (before, after)]
    expected = stats.ks_2samp(*values, method="asymp")
    assert found.test == "kolmogorov_smirnov"
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-9)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-4, abs=1e-12)


@given(before=counts, after=counts)
def test_what_holds_for_any_counts(before: dict[str, int], after: dict[str, int]) -> None:
    there, back = drift("x", before, after), drift("x", after, before)
    for name in ("psi", "js_distance", "psi_by_chance", "statistic", "p_value"):
        assert getattr(there, name) == pytest.approx(getattr(back, name), rel=1e-5, abs=1e-9), name
    assert sure(there.psi) >= 0
    assert 0 <= sure(there.js_distance) <= 1
    assert 0 <= sure(there.p_value) <= 1
    assert 0 <= sure(there.psi_beyond_chance) <= sure(there.psi)
    assert sum(value.baseline for value in there.values) == pytest.approx(1, abs=1e-6)
    assert sum(value.psi for value in there.values) == pytest.approx(there.psi, abs=1e-6)


@given(before=counts, times=st.integers(1, 10**6))
def test_equal_shares_have_not_moved(before: dict[str, int], times: int) -> None:
    found = drift("x", before, {name: times * n for name, n in before.items()})
    assert found.psi == found.js_distance == found.psi_beyond_chance == 0
    assert (found.largest, found.shift) == (None, "small")
    assert found.p_value == pytest.approx(1)


@given(before=counts, after=counts, order=st.permutations(NAMES))
def test_the_order_of_the_names_does_not_matter(
    before: dict[str, int], after: dict[str, int], order: list[str]
) -> None:
    turned = [{name: side[name] for name in order if name in side} for side in (before, after)]
    assert drift("x", *turned) == drift("x", before, after)


@given(before=many, after=many, sessions=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)))
def test_every_figure_is_a_number_or_none(
    before: dict[str, int], after: dict[str, int], sessions: tuple[int, int]
) -> None:
    for ordered in (False, True):
        same = [{name: side.get(name, 0) for name in NAMES} for side in (before, after)]
        found = drift("x", *same, ordered=ordered, sessions=sessions)
        figures = [getattr(found, name) for name in Drift.__slots__]
        assert all(math.isfinite(value) for value in figures if isinstance(value, float))
        empty = not sum(before.values()) or not sum(after.values())
        assert (found.psi is None) == empty == bool(found.detail)


def test_an_empty_side() -> None:
    assert drift("x", {}, {"a": 1}).detail == "nothing to compare in the baseline"
    assert drift("x", {"a": 1}, {"a": 0}).detail == "nothing to compare in the candidate"
    found = drift("x", {}, {})
    assert found.detail == "nothing to compare in the baseline and candidate"
    assert (found.psi, found.p_value, found.shift, found.values) == (None, None, None, ())


def test_chance_is_what_two_samples_of_one_distribution_give() -> None:
    """95 of 100 pairs of samples without drift stay below `psi_by_chance`; size is no excuse."""
    generator = np.random.default_rng(7)
    shares = [0.3, 0.2, 0.2, 0.1, 0.1, 0.1]
    for n, m in ((200, 150), (5000, 3000)):
        draws = [generator.multinomial(size, shares, 400) for size in (n, m)]
        above = 0
        for one, other in zip(*draws, strict=True):
            sides = [dict(zip(NAMES, map(int, side), strict=True)) for side in (one, other)]
            above += sure(drift("x", *sides).psi_beyond_chance) > 0
        assert 0.02 <= above / 400 <= 0.09


def test_few_sessions_make_a_shift_unsure() -> None:
    """The same shares: thousands of hits leave no doubt, the sessions that they come from do."""
    before, after = {"a": 5000, "b": 5000}, {"a": 6000, "b": 4000}
    found = drift("x", before, after, sessions=(10, 10))
    assert sure(found.p_value) < 1e-40
    five = stats.chi2_contingency([[5, 5], [6, 4]], correction=False)
    assert found.p_value_sessions == pytest.approx(five.pvalue, rel=1e-5)
    assert drift("x", before, after).p_value_sessions is None
    assert drift("x", before, after, sessions=(0, 10)).p_value_sessions is None
    # There cannot be more independent sessions with a value than there are hits.
    one, other = {"a": 3, "b": 1}, {"a": 1, "b": 3}
    few = drift("x", one, other, sessions=(10**6, 10**6))
    assert few.p_value_sessions == few.p_value


def test_millions_of_observations_have_a_p_value() -> None:
    """SciPy's finite distribution gives NaN for some sizes above 2^31."""
    before = {"1": 2, "2": 4_292_968_034}
    found = drift("x", before, {"1": 4_296_968_417, "2": 0}, ordered=True)
    assert (found.statistic, found.p_value) == (1, 0)
    # Either side of where the limit takes over, much the same comes out.
    sizes = [1_999_990, 2_000_010]
    values = [
        drift("x", {"1": n, "2": n}, {"1": n + 2000, "2": n - 2000}, ordered=True).p_value
        for n in (size // 2 for size in sizes)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-3)
    assert 0 < sure(values[0]) < 1


def test_a_shift_in_its_order_and_out_of_it() -> None:
    """Neighbours that trade places: chi-squared sees it all, the distance of the sums half."""
    before, after = {"1": 30, "2": 10, "3": 60}, {"1": 10, "2": 30, "3": 60}
    assert drift("x", before, after, ordered=True).statistic == pytest.approx(0.2)
    assert sure(drift("x", before, after).statistic) == pytest.approx(20)


def test_correction_and_order() -> None:
    rows = [
        drift("still", {"a": 50, "b": 50}, {"a": 50, "b": 50}),
        drift("lot", {"a": 900, "b": 100}, {"a": 500, "b": 500}),
        not_compared("none", (0, 3), "why"),
        drift("some", {"a": 500, "b": 500}, {"a": 550, "b": 450}, sessions=(50, 50)),
    ]
    found = corrected(rows)
    assert [row.name for row in found] == ["lot", "some", "still", "none"]
    assert found[0].p_holm == pytest.approx(3 * sure(found[0].p_value))
    assert found[1].p_holm == pytest.approx(2 * sure(found[1].p_value))
    assert (found[2].p_holm, found[3].p_holm) == (1, None)
    assert found[0].p_holm_sessions is None
    assert found[1].p_holm_sessions == found[1].p_value_sessions
    assert corrected([]) == ()


def test_a_large_shift_of_few_hits_comes_after_a_smaller_one_that_is_sure() -> None:
    few = drift("few", {"a": 2, "b": 2}, {"a": 3, "b": 1})
    many = drift("many", {"a": 500, "b": 500}, {"a": 600, "b": 400})
    assert sure(few.psi) > sure(many.psi)
    assert [row.name for row in corrected([few, many])] == ["many", "few"]


def test_many_values_are_listed_by_what_moved() -> None:
    before = {f"v{index:03}": 10 for index in range(LISTED_VALUES + 30)}
    after = before | {"v070": 500}
    found = drift("x", before, after)
    assert (len(found.values), found.values_total) == (LISTED_VALUES, LISTED_VALUES + 30)
    assert found.values[0].value == "v070"
    ordered = drift("x", before, after, ordered=True)
    assert [value.value for value in ordered.values] == sorted(v.value for v in ordered.values)
    assert "v070" in {value.value for value in ordered.values}
