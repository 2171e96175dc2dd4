"""Where the windows lie, which events are near a seam, and what the caps keep."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics import boundary_pack as bp


def layout(window: float, hop: float, margin: float, *offsets: float) -> bp.WindowLayout:
    return bp.layout_from_ms(
        window_ms=window, hop_ms=hop, margin_ms=margin, offsets_ms=offsets or (0.0,)
    )


def found(onset_s: float, lay: bp.WindowLayout) -> list[tuple[int, str, float]]:
    return [(p.window_index, p.edge, p.distance_us / 1000) for p in bp.placements(onset_s, lay)]


def test_hand_computed_windows_of_2048_hop_512() -> None:
    lay = layout(2048, 512, 40)
    # 2.060 s: window 4 starts at 2.048 (12 ms before); window 0 ended at 2.048.
    assert found(2.060, lay) == [(4, "start", 12.0)]
    # 2.040 s: the end of window 0 is 8 ms away.
    assert found(2.040, lay) == [(0, "end", 8.0)]
    # 2.300 s: nearest starts 2.048 (252 ms), nearest end 2.560 (260 ms).
    assert found(2.300, lay) == []
    assert list(bp.windows_containing(2_300_000, 0, lay)) == [1, 2, 3, 4]


def test_an_onset_on_a_seam_is_in_the_window_that_starts_there_only() -> None:
    lay = layout(1000, 1000, 40)
    assert found(3.0, lay) == [(3, "start", 0.0)]
    # the sum of thirty 0.1 s steps is 2.9999999999999996: the same microsecond
    assert found(sum([0.1] * 30), lay) == [(3, "start", 0.0)]
    # 1.001 * 1e6 is 1000999.9999999999: cut instead of rounded, it would leave its window
    assert found(1.001, layout(1001, 1001, 40)) == [(1, "start", 0.0)]
    assert found(2.999999, lay) == [(2, "end", 0.001)]


def test_one_event_near_several_edges_of_several_windows_and_offsets() -> None:
    lay = layout(100, 25, 40)
    near = found(1.010, lay)
    # starts at 1.000 and 0.975 are within 40 ms; ends at 1.025 and 1.050
    assert near == [(37, "end", 15.0), (38, "end", 40.0), (39, "start", 35.0), (40, "start", 10.0)]
    shifted = layout(2048, 512, 40, 0, 256)
    assert [(p.offset_us, p.window_index, p.edge) for p in bp.placements(0.260, shifted)] == [
        (256_000, 0, "start")
    ]


def test_a_window_shorter_than_two_margins_lists_both_edges() -> None:
    assert found(0.030, layout(50, 50, 40)) == [(0, "start", 30.0), (0, "end", 20.0)]


def test_nothing_lies_before_the_first_window() -> None:
    assert found(0.1, layout(100, 300, 40, 200)) == []
    assert found(0.0, layout(100, 100, 40)) == [(0, "start", 0.0)]


def test_keys_are_distinct_within_an_event() -> None:
    keys = [p.key for p in bp.placements(1.010, layout(100, 25, 40, 0, 12.5))]
    assert len(keys) == len(set(keys)) > 4


@settings(max_examples=200, deadline=None)
@given(
    onset_us=st.integers(0, 4_000_000),
    window=st.integers(1, 400),
    hop=st.integers(1, 500),
    margin=st.integers(0, 300),
    offset=st.integers(0, 499),
)
def test_equals_a_plain_walk_over_all_windows_in_exact_arithmetic(
    onset_us: int, window: int, hop: int, margin: int, offset: int
) -> None:
    offset = min(offset, hop - 1)
    lay = layout(window, hop, margin, offset)
    onset = Fraction(onset_us, 1000)
    expected = []
    k = 0
    while offset + k * hop <= onset:
        start = Fraction(offset + k * hop)
        if start <= onset < start + window:
            if onset - start <= margin:
                expected.append((k, "start", float(onset - start)))
            if start + window - onset <= margin:
                expected.append((k, "end", float(start + window - onset)))
        k += 1
    assert found(onset_us / 1e6, lay) == expected


@settings(max_examples=50, deadline=None)
@given(onset_us=st.integers(0, 2_000_000), shift=st.integers(0, 50))
def test_moving_an_onset_by_whole_hops_moves_the_windows_only(onset_us: int, shift: int) -> None:
    lay = layout(300, 100, 30)
    late = onset_us + 300_000  # far enough in that no window is missing before the first
    base = found(late / 1e6, lay)
    moved = found((late + shift * 100_000) / 1e6, lay)
    assert [(k - shift, edge, d) for k, edge, d in moved] == base


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"window_ms": 0}, "longer than 0"),
        ({"hop_ms": -1}, "longer than 0"),
        ({"margin_ms": -1}, "negative"),
        ({"offsets_ms": (512,)}, "shorter than the hop"),
        ({"offsets_ms": (-1,)}, "at least 0"),
        ({"offsets_ms": (0, 0)}, "distinct"),
        ({"offsets_ms": ()}, "at least one"),
        ({"edges": ("middle",)}, "edges"),
        ({"edges": ()}, "edges"),
        ({"window_ms": float("nan")}, "finite"),
        ({"hop_ms": 5.80498866}, "whole number of microseconds"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(arguments: dict[str, object], why: str) -> None:
    good: dict[str, object] = {"window_ms": 2048, "hop_ms": 512, "margin_ms": 40}
    with pytest.raises(ValueError, match=why):
        bp.layout_from_ms(**{**good, **arguments})  # type: ignore[arg-type]


def offer(
    rows: list[tuple[str, str, tuple[str, ...]]], cap: int, seed: int
) -> list[tuple[str, str, tuple[str, ...]]]:
    sample: bp.CappedSample[tuple[str, str, tuple[str, ...]]] = bp.CappedSample(cap=cap, seed=seed)
    for row in rows:
        sample.add(*row, row)
    return sample.selected()


row_lists = st.lists(
    st.tuples(
        st.sampled_from(["start", "end"]),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
    ),
    max_size=60,
).map(lambda rows: [(f"s{i}", edge, tuple(labels)) for i, (edge, labels) in enumerate(rows)])


@settings(max_examples=80, deadline=None)
@given(rows=row_lists, cap=st.integers(1, 8), seed=st.integers(0, 5), data=st.data())
def test_caps_hold_and_the_choice_does_not_depend_on_file_order(
    rows: list[tuple[str, str, tuple[str, ...]]], cap: int, seed: int, data: st.DataObject
) -> None:
    kept = offer(rows, cap, seed)
    counts = Counter((edge, label) for _, edge, labels in kept for label in labels)
    assert all(count <= cap for count in counts.values())
    assert [rows.index(row) for row in kept] == sorted(rows.index(row) for row in kept)
    shuffled = data.draw(st.permutations(rows))
    assert sorted(offer(shuffled, cap, seed)) == sorted(kept)
    offered = Counter((edge, label) for _, edge, labels in rows for label in labels)
    if all(count <= cap for count in offered.values()):
        assert kept == rows
    if all(count <= bp.RESERVE * cap for count in offered.values()):
        # nothing could be added: each row left out has a full stratum
        for _, edge, labels in set(rows) - set(kept):
            assert any(counts[edge, label] == cap for label in labels)


def test_single_label_strata_are_filled_to_the_cap() -> None:
    rows = [(f"s{i}", "start", ("kick" if i % 3 else "ride",)) for i in range(300)]
    counts = Counter(labels[0] for _, _, labels in offer(rows, 20, 1))
    assert counts == {"kick": 20, "ride": 20}


def test_the_sample_is_uniform_over_the_file_and_changes_with_the_seed() -> None:
    rows = [(f"s{i}", "end", ("kick",)) for i in range(100)]
    hits: Counter[int] = Counter()
    for seed in range(400):
        hits.update(int(row[0][1:]) // 25 for row in offer(rows, 10, seed))
    # each quarter of the file is expected 1000 times; sd about 26
    assert all(900 < hits[quarter] < 1100 for quarter in range(4))
    assert offer(rows, 10, 1) != offer(rows, 10, 2)
    assert offer(rows, 10, 1) == offer(rows, 10, 1)


def test_memory_is_bounded_by_the_cap_not_by_the_file() -> None:
    sample: bp.CappedSample[int] = bp.CappedSample(cap=5, seed=0)
    for i in range(5000):
        sample.add(f"s{i}", "start", ("kick", "ride"), i)
    assert len(sample._rows) <= 2 * bp.RESERVE * 5
    assert len(sample._held_by) <= 2 * bp.RESERVE * 5


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        bp.CappedSample(cap=0, seed=0)
