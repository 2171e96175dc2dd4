"""Hard negatives: who is mined, why, in which order, and how the caps spread them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics import hard_negatives as hn

VOCABULARY = frozenset({"kick", "snare", "ride"})


def example(sample_id: str, *labels: str, **fields: object) -> hn.Example:
    return hn.Example(sample_id=sample_id, labels=frozenset(labels), **fields)  # type: ignore[arg-type]


def mine(
    rows: list[tuple[hn.Example, dict[str, float]]], **criteria: object
) -> list[hn.HardNegative]:
    settled = hn.Criteria(vocabulary=VOCABULARY, **criteria)  # type: ignore[arg-type]
    return list(hn.mine([row[0] for row in rows], [row[1] for row in rows], settled).negatives)


def test_the_hardest_come_first_whatever_the_order_of_the_file() -> None:
    rows = [
        (example("a", "kick"), {"kick": 0.9, "snare": 0.7}),
        (example("b", "kick"), {"kick": 0.9, "snare": 0.95, "ride": 0.69}),
        (example("c"), {"ride": 0.8}),
        (example("d", "kick"), {"kick": 0.9, "ride": 0.8}),
    ]
    found = mine(rows)
    assert [(n.example.sample_id, n.label, n.score) for n in found] == [
        ("b", "snare", 0.95),
        ("c", "ride", 0.8),
        ("d", "ride", 0.8),
        ("a", "snare", 0.7),
    ]
    assert mine(rows[::-1]) == found


def test_true_excluded_and_unannotated_labels_are_never_mined() -> None:
    rows = [
        (example("a", "kick", annotated=frozenset({"kick"})), {"kick": 1.0, "snare": 0.99}),
        (example("b", "kick", annotated=frozenset({"kick", "snare"})), {"snare": 0.9}),
        (example("c", "kick"), {"ride": 0.99}),
    ]
    mined = hn.mine(
        [row[0] for row in rows],
        [row[1] for row in rows],
        hn.Criteria(exclude_labels=frozenset({"ride"})),
    )
    assert [(n.example.sample_id, n.label) for n in mined.negatives] == [("b", "snare")]
    assert mined.unannotated == {"snare": 1}


def test_each_reason() -> None:
    rows = [
        (example("fp", "kick", session_id="s", onset_s=1.0), {"kick": 0.9, "snare": 0.8}),
        (example("late", "kick", session_id="s", onset_s=4.97), {"kick": 0.9, "snare": 0.99}),
        (example("true", "snare", session_id="s", onset_s=5.0), {"snare": 0.9}),
        (example("wrong", "kick", session_id="s", onset_s=9.0), {"kick": 0.1, "snare": 0.99}),
        (example("both", "kick", session_id="s", onset_s=11.0), {"kick": 0.9, "snare": 0.99}),
        (example("none", session_id="s", onset_s=13.0), {"snare": 0.99}),
        (example("bell", "cowbell", session_id="s", onset_s=15.0), {"snare": 0.99}),
        (example("odd", "kick", is_known=False), {"snare": 0.75}),
        (example("foreign", "kick"), {"kick": 0.9, "gong": 0.75}),
    ]
    reasons = {n.example.sample_id: n for n in mine(rows)}
    assert {name: n.reason for name, n in reasons.items()} == {
        "fp": "confident_false_positive",
        "late": "timing_miss",
        "wrong": "likely_label_error",
        "both": "confident_false_positive",
        "none": "likely_label_error",
        "bell": "out_of_vocabulary",
        "odd": "out_of_vocabulary",
        "foreign": "out_of_vocabulary",
    }
    assert reasons["late"].nearest_event_id == "true"
    assert reasons["late"].nearest_distance_ms == 30.0
    assert reasons["late"].detail == "a true snare lies 30 ms later"
    assert reasons["wrong"].nearest_distance_ms == -4000.0
    assert reasons["odd"].nearest_event_id is None


def test_an_extreme_score_below_the_labels_own_mean_is_no_label_error() -> None:
    rows = [
        (example("true", "snare"), {"snare": 0.999}),
        (example("x", "kick"), {"kick": 0.1, "snare": 0.985}),
    ]
    assert mine(rows)[0].reason == "confident_false_positive"
    assert mine([rows[1]])[0].reason == "likely_label_error"


def test_the_nearest_event_is_of_the_same_session_and_label() -> None:
    rows = [
        (example("x", "kick", session_id="s", onset_s=2.0), {"snare": 0.8}),
        (example("far", "snare", session_id="s", onset_s=1.0), {}),
        (example("near", "snare", session_id="s", onset_s=2.3), {}),
        (example("other_session", "snare", session_id="t", onset_s=2.0), {}),
        (example("other_label", "ride", session_id="s", onset_s=2.0), {}),
    ]
    (found,) = mine(rows)
    assert (found.nearest_event_id, found.nearest_distance_ms) == ("near", 300.0)
    assert mine(rows, tolerance_ms=300.0)[0].reason == "timing_miss"
    assert mine(rows, tolerance_ms=299.9)[0].reason == "confident_false_positive"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=15), st.integers(0, 40))
def test_nearest_equals_a_plain_search(onsets: list[int], at: int) -> None:
    rows = [(example("x", session_id="s", onset_s=at / 8), {"snare": 0.8})]
    rows += [
        (example(f"e{i:02}", "snare", session_id="s", onset_s=onset / 8), {})
        for i, onset in enumerate(onsets)
    ]
    (found,) = mine(rows)
    assert found.nearest_distance_ms is not None
    assert abs(found.nearest_distance_ms) == min(abs(onset - at) for onset in onsets) * 125


def test_spread_by_hand() -> None:
    ranked = list("aaaaaabbcd")
    # a quarter of what is taken: 2 a, 2 b, c, d are 6 and 2 > 1.5; so one of each
    assert hn.spread(ranked, None, 0.25) == [0, 6, 8, 9]
    assert hn.spread(ranked, None, 0.5) == [0, 1, 2, 3, 6, 7, 8, 9]
    assert hn.spread(ranked, 3, 1.0) == [0, 1, 2]
    # one session only: the share cannot be kept to, the cap can
    assert hn.spread(list("aaaa"), 3, 0.25) == [0, 1, 2]
    # two sessions: balanced
    assert hn.spread(list("aaaab"), None, 0.25) == [0, 4]
    assert hn.spread([], 3, 0.5) == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from("abcdefgh"), max_size=80),
    st.none() | st.integers(1, 40),
    st.sampled_from([0.1, 0.25, 0.34, 0.5, 1.0]),
)
def test_spread_keeps_the_cap_and_the_share(
    groups: list[str], cap: int | None, share: float
) -> None:
    taken = hn.spread(groups, cap, share)
    assert taken == sorted(set(taken))
    assert cap is None or len(taken) <= cap
    counts = Counter(groups[i] for i in taken)
    if counts:
        effective = max(share, 1 / len(set(groups)))
        assert max(counts.values()) <= max(1, effective * len(taken) + 1e-6)
    # within a session the best are taken
    for group in counts:
        own = [i for i, g in enumerate(groups) if g == group]
        assert [i for i in taken if groups[i] == group] == own[: counts[group]]
    # the best item of all is always there
    assert not groups or taken[0] == 0
    if share == 1.0:
        assert taken == list(range(len(groups) if cap is None else min(cap, len(groups))))


def test_select_applies_caps_by_rank_per_label_then_in_all() -> None:
    rows = [
        (example(f"e{i:02}", "kick", session_id=f"s{i % 5}"), {"snare": 0.99 - i / 100})
        for i in range(20)
    ] + [(example("r", "kick", session_id="s9"), {"ride": 0.71})]
    found = mine(rows)
    kept = hn.select(found, max_per_label=10, max_session_share=0.5)
    assert [n.example.sample_id for n in kept] == [f"e{i:02}" for i in range(10)] + ["r"]
    assert len(hn.select(found, max_per_label=10, max_total=4, max_session_share=0.5)) == 4
    assert len(hn.select(found, max_per_label=None, max_session_share=1.0)) == 21
    crowded = [(example(f"e{i}", session_id="s"), {"ride": 0.9}) for i in range(30)]
    crowded += [(example(f"f{i}", session_id=f"t{i}"), {"ride": 0.8}) for i in range(9)]
    sessions = Counter(
        n.example.session_id for n in hn.select(mine(crowded), max_session_share=0.25)
    )
    assert sessions["s"] == 3  # of 12
    assert sum(sessions.values()) == 12


def test_caps_and_shares_that_make_no_sense_are_refused() -> None:
    found = mine([(example("a"), {"ride": 0.9})])
    for bad in ({"max_per_label": 0}, {"max_session_share": 0.0}, {"max_session_share": 1.1}):
        with pytest.raises(ValueError, match="must be"):
            hn.select(found, **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="score maps"):
        hn.mine([example("a")], [], hn.Criteria())
