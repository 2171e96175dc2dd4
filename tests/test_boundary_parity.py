"""Streaming parity: hand-computed, against loops over single cells, and by laying the windows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import recall_score

from training.metrics import boundary_overlap as overlap
from training.metrics import boundary_parity as parity

CLASSES = ("a", "b", "c")
WINDOW = 100.0


@dataclass
class Clips:
    """Rows of a pack with what two runs of a model gave."""

    truth: np.ndarray
    whole: np.ndarray
    window: np.ndarray
    weight: np.ndarray
    annotated: np.ndarray
    event: np.ndarray
    index: np.ndarray
    edge: list[str | None]
    distance: np.ndarray

    @property
    def cells(self) -> parity.Cells:
        return parity.cells(
            self.truth, self.whole, self.window, weights=self.weight, annotated=self.annotated
        )

    def take(self, rows: np.ndarray) -> Clips:
        return Clips(
            **{
                name: [value[i] for i in rows] if isinstance(value, list) else value[rows]
                for name, value in vars(self).items()
            }
        )

    def figures(self) -> dict[str, Any]:
        """Everything that is measured, as plain values."""
        twice = overlap.find_duplicates(
            self.cells, self.event, self.index, self.distance, self.edge
        )
        guards = [
            overlap.guard(self.cells, edge, self.edge, self.distance, WINDOW)
            for edge in ("start", "end")
        ]
        return {
            "loss": asdict(parity.loss(self.cells, twice)),
            "bins": [
                asdict(each)
                for each in parity.losses_by_distance(
                    self.cells, self.distance, (5.0, 10.0, 20.0), twice
                )
            ],
            "classes": [asdict(each) for each in parity.class_losses(self.cells, CLASSES, twice)],
            "guards": [(each.guard_ms, each.farthest_lost_ms) for each in guards],
            "overlap": overlap.smallest_overlap(guards, WINDOW)[0],
            "merged": asdict(
                overlap.merge_windows(self.cells, self.event, np.ones(len(self.edge), bool))
            ),
        }


def random_clips(seed: int, n: int) -> Clips:
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 3)) < 0.5
    whole = np.where(rng.random((n, 3)) < 0.8, truth, ~truth)
    # few places, so that ties, several windows an event and two edges a window all happen
    return Clips(
        truth=truth,
        whole=whole,
        window=np.where(rng.random((n, 3)) < 0.8, whole, ~whole),
        weight=rng.choice([0.0, 0.5, 1.0, 2.0], n, p=[0.1, 0.2, 0.5, 0.2]),
        annotated=rng.random((n, 3)) < 0.9,
        event=rng.integers(0, max(n // 3, 1), n),
        index=rng.integers(0, 4, n),
        edge=[str(x) for x in rng.choice(["start", "end"], n)],
        distance=rng.integers(0, 60, n) / 2.0,
    )


def plain_duplicates(c: Clips) -> set[tuple[int, int]]:
    """Cells of duplicates, by a walk over events, windows and labels."""
    windows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in range(len(c.edge)):
        windows[int(c.event[row]), int(c.index[row])].append(row)
    marked = set()
    for event in sorted({e for e, _ in windows}):
        mine = [(index, rows) for (e, index), rows in windows.items() if e == event]
        ranked = sorted(mine, key=lambda item: (-min(c.distance[r] for r in item[1]), item[0]))
        for label in range(3):
            seen = False
            for _, rows in ranked:
                counted = [
                    r
                    for r in rows
                    if c.truth[r, label]
                    and c.window[r, label]
                    and c.annotated[r, label]
                    and c.weight[r] > 0
                ]
                if counted and seen:
                    marked.add(
                        (
                            min(
                                rows,
                                key=lambda r: (
                                    c.distance[r],
                                    c.edge[r] != "start",
                                    -c.weight[r],
                                    r,
                                ),
                            ),
                            label,
                        )
                    )
                seen = seen or bool(counted)
    return marked


def plain_guard(c: Clips, edge: str) -> float | None:
    """Try every distance, nearest first, until nothing is lost from there on."""
    cells = [
        (float(c.distance[r]), bool(c.window[r, k]))
        for r in range(len(c.edge))
        for k in range(3)
        if c.edge[r] == edge
        and c.distance[r] <= WINDOW / 2
        and c.truth[r, k]
        and c.whole[r, k]
        and c.annotated[r, k]
        and c.weight[r] > 0
    ]
    if not cells:
        return None
    for place in [0.0, *sorted({d for d, found in cells if found})]:
        rest = [found for d, found in cells if d >= place]
        if rest and all(rest):
            return place
    return None


def test_a_hand_computed_pack() -> None:
    # a: kick, found by the whole recording always; b: snare, of which it misses row 3
    truth = [[1, 0], [1, 0], [1, 1], [0, 1], [0, 1]]
    whole = [[1, 0], [1, 0], [1, 1], [0, 0], [0, 1]]
    window = [[0, 0], [1, 0], [1, 0], [0, 1], [1, 1]]
    these = parity.cells(truth, whole, window, weights=[1, 1, 1, 1, 2])
    found = parity.loss(these, timing_error_ms=[1.0, -3.0, np.nan, 2.0, 0.0])
    assert (found.lost, found.gained, found.added_false_alarms) == (2.0, 1.0, 2.0)
    assert found.n_ref == 7.0
    # kick: 3 of 3 whole, 2 of 3 in windows; snare: weights 1, 1, 2: 3 of 4, then 3 of 4
    assert found.whole_macro.recall == pytest.approx((1 + 3 / 4) / 2)
    assert found.macro_recall_lost == pytest.approx((1 / 3 + 0) / 2)
    assert found.micro_recall_lost == pytest.approx((2 - 1) / 7)
    assert found.duplicates is None
    assert asdict(found.timing) == {
        "n": 4,
        "median_ms": 0.5,
        "median_abs_ms": 1.5,
        "p95_abs_ms": pytest.approx(2.85),
        "max_abs_ms": 3.0,
    }
    kick, snare = parity.class_losses(these, ("kick", "snare"))
    assert (kick.lost, kick.gained, kick.recall_lost) == (1.0, 0.0, pytest.approx(1 / 3))
    assert (snare.lost, snare.gained, snare.recall_lost) == (1.0, 1.0, 0.0)
    assert kick.added_false_alarms == 2.0


def test_a_hand_computed_guard_and_overlap() -> None:
    distance = [2.0, 8.0, 12.0, 30.0, 3.0, 6.0]
    edges = ["start", "start", "start", "start", "end", "end"]
    ones = np.ones((6, 1), bool)
    these = parity.cells(ones, ones, [[1], [0], [1], [1], [0], [1]])
    start = overlap.guard(these, "start", edges, distance, 100.0)
    # lost at 8 ms, found at 12 and 30: from 12 ms on nothing is lost, and two cells say so
    assert (start.guard_ms, start.farthest_lost_ms, start.n_beyond) == (12.0, 8.0, 2)
    end = overlap.guard(these, "end", edges, distance, 100.0)
    assert (end.guard_ms, end.farthest_lost_ms, end.n_beyond) == (6.0, 3.0, 1)
    assert overlap.smallest_overlap([start, end], 100.0) == (18.0, "")
    assert overlap.smallest_overlap([start, end], 18.0)[0] is None
    assert "near the end" in overlap.smallest_overlap([start], 100.0)[1]
    # a window of 20 ms: what lies 12 or 30 ms from its start is nearer to its end
    short = overlap.guard(these, "start", edges, distance, 20.0)
    assert short.guard_ms is None
    assert "still lost 8 ms from the start" in short.reason
    fine = parity.cells(ones, ones, ones)
    assert overlap.guard(fine, "start", edges, distance, 100.0).guard_ms == 0.0
    deaf = parity.cells(ones, ~ones, ones)
    assert "was found by the whole" in overlap.guard(deaf, "end", edges, distance, 100.0).reason
    assert overlap.smallest_overlap(
        [overlap.guard(deaf, e, edges, distance, 100.0) for e in ("start", "end")], 100.0
    ) == (None, "no event near the start of a window was found by the whole recording")


NEAR = [10.0, 40.0, 30.0, 30.0, 10.0]
EDGES = ["start", "start", "end", "end", "start"]


def test_hand_computed_duplicates() -> None:
    # one event in windows 3 (10 ms from a seam), 4 (30 ms, two rows) and 5 (30 ms); a second event
    ones = np.ones((5, 1), bool)
    these = parity.cells(ones, ones, ones)
    marked = overlap.find_duplicates(these, [0, 0, 0, 0, 1], [3, 4, 4, 5, 3], NEAR, EDGES)
    # window 4 keeps it (30 ms, lower index); 3 and 5 are duplicates; the other event is alone
    assert marked[:, 0].tolist() == [True, False, False, True, False]
    deaf = parity.cells(ones, ones, [[1], [0], [0], [1], [1]])
    marked = overlap.find_duplicates(deaf, [0, 0, 0, 0, 1], [3, 4, 4, 5, 3], NEAR, EDGES)
    assert marked[:, 0].tolist() == [True, False, False, False, False]
    assert parity.loss(deaf, marked).duplicate_rate == pytest.approx(1 / 3)


def test_windows_put_together() -> None:
    truth = np.ones((4, 1), bool)
    these = parity.cells(truth, [[1], [1], [1], [1]], [[0], [1], [0], [0]], weights=[1, 1, 2, 2])
    merged = overlap.merge_windows(these, [0, 0, 1, 1], [True] * 4)
    # event 0 is found by its second window; event 1, of weight 2, by none
    assert asdict(merged) == {
        "n_events": 2,
        "n_ref": 3.0,
        "whole_recall": 1.0,
        "any_window_recall": pytest.approx(1 / 3),
        "lost": 2.0,
    }
    assert overlap.merge_windows(these, [0, 0, 1, 1], [False] * 4).n_events == 0


def test_nothing_gives_nothing() -> None:
    none = np.zeros((0, 2), bool)
    these = parity.cells(none, none, none)
    found = parity.loss(these, overlap.find_duplicates(these, [], [], [], []), [])
    assert found.macro_recall_lost is None
    assert found.duplicate_rate is None
    assert found.timing.n == 0
    assert found.timing.median_ms is None
    assert parity.losses_by_distance(these, [], (5.0,)) == ()
    assert parity.lost_interval(these, []).reason.startswith("an interval needs")
    assert overlap.guard(these, "start", [], [], 100.0).guard_ms is None


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(1, 40))
def test_equals_loops_over_single_cells(seed: int, n: int) -> None:
    c = random_clips(seed, n)
    twice = overlap.find_duplicates(c.cells, c.event, c.index, c.distance, c.edge)
    assert {(int(r), int(k)) for r, k in np.argwhere(twice)} == plain_duplicates(c)
    for edge in ("start", "end"):
        assert overlap.guard(c.cells, edge, c.edge, c.distance, WINDOW).guard_ms == plain_guard(
            c, edge
        )
    found = parity.loss(c.cells, twice)
    lost = gained = alarms = ref = 0.0
    for r in range(n):
        for k in range(3):
            if not c.annotated[r, k]:
                continue
            w = float(c.weight[r])
            ref += w * c.truth[r, k]
            lost += w * (c.truth[r, k] and c.whole[r, k] and not c.window[r, k])
            gained += w * (c.truth[r, k] and c.window[r, k] and not c.whole[r, k])
            alarms += w * (not c.truth[r, k] and c.window[r, k] and not c.whole[r, k])
    assert (found.lost, found.gained, found.added_false_alarms, found.n_ref) == pytest.approx(
        (lost, gained, alarms, ref), abs=1e-12
    )
    if ref:
        assert found.micro_recall_lost == pytest.approx((lost - gained) / ref, abs=1e-12)
    parts = parity.losses_by_distance(c.cells, c.distance, (5.0, 10.0, 20.0), twice)
    assert sum(each.loss.lost for each in parts) == pytest.approx(lost)
    assert sum(each.loss.duplicates or 0 for each in parts) == pytest.approx(found.duplicates)
    assert sum(each.loss.n_clips for each in parts) == n


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(1, 40))
def test_windows_put_together_equal_loops_over_events(seed: int, n: int) -> None:
    c = random_clips(seed, n)
    complete = c.event % 2 == 0
    ref = whole = window = lost = 0.0
    for event in {int(e) for e in c.event if e % 2 == 0}:
        rows = [r for r in range(n) if c.event[r] == event]
        weight = max(float(c.weight[r]) for r in rows)
        for k in range(3):
            named = [r for r in rows if c.truth[r, k] and c.annotated[r, k] and c.weight[r] > 0]
            in_whole = any(c.whole[r, k] for r in named)
            in_window = any(c.window[r, k] for r in named)
            ref += weight * bool(named)
            whole += weight * in_whole
            window += weight * in_window
            lost += weight * (in_whole and not in_window)
    found = overlap.merge_windows(c.cells, c.event, complete)
    assert found.n_events == len({int(e) for e in c.event if e % 2 == 0})
    assert (found.n_ref, found.lost) == pytest.approx((ref, lost))
    if ref:
        assert (found.whole_recall, found.any_window_recall) == pytest.approx(
            (whole / ref, window / ref)
        )
    else:
        assert found.whole_recall is None


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(1, 50))
def test_macro_recalls_equal_scikit_learn(seed: int, n: int) -> None:
    c = random_clips(seed, n)
    c.annotated = np.ones_like(c.annotated)
    found = parity.loss(c.cells)
    labels = np.flatnonzero((c.truth * c.weight[:, None]).sum(axis=0) > 0)
    if not labels.size:
        assert found.macro_recall_lost is None
        return
    whole, window = (
        recall_score(
            c.truth,
            each,
            labels=labels,
            average="macro",
            sample_weight=c.weight,
            zero_division=0,
        )
        for each in (c.whole, c.window)
    )
    assert found.macro_recall_lost == pytest.approx(whole - window, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(2, 40), data=st.data())
def test_the_order_of_rows_changes_nothing(seed: int, n: int, data: st.DataObject) -> None:
    c = random_clips(seed, n)
    c.weight = np.round(c.weight)  # sums of halves are exact, of any weights only nearly so
    order = np.array(data.draw(st.permutations(range(n))))
    before = c.figures()
    after = c.take(order).figures()
    assert after == before


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(1, 40), times=st.integers(2, 4))
def test_copies_of_all_events_change_no_rate(seed: int, n: int, times: int) -> None:
    c = random_clips(seed, n)
    copies = c.take(np.tile(np.arange(n), times))
    copies.event = copies.event + np.repeat(np.arange(times), n) * 1000
    before, after = c.figures(), copies.figures()
    for name in ("guards", "overlap"):
        assert after[name] == before[name]
    for name, value in before["loss"].items():
        if name in ("n_clips", "n_ref", "lost", "gained", "added_false_alarms", "duplicates"):
            assert after["loss"][name] == pytest.approx(times * value)
        elif isinstance(value, float):
            assert after["loss"][name] == pytest.approx(value, abs=1e-12)
    assert after["merged"]["n_events"] == times * before["merged"]["n_events"]
    assert after["merged"]["any_window_recall"] == pytest.approx(
        before["merged"]["any_window_recall"]
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(1, 40), hops=st.integers(0, 10**6))
def test_a_shift_by_whole_hops_changes_nothing(seed: int, n: int, hops: int) -> None:
    c = random_clips(seed, n)
    before = c.figures()
    c.index = c.index + hops  # the event moves by hops * hop, and so do all its windows
    assert c.figures() == before


def test_the_interval_is_of_the_paired_difference() -> None:
    rng = np.random.default_rng(0)
    sessions = np.repeat(np.arange(20), 30)
    truth = np.ones((600, 1), bool)
    whole = (rng.random((600, 1)) < 0.6) | (sessions % 2 == 0)[:, None]
    same = parity.lost_interval(parity.cells(truth, whole, whole), sessions)
    assert (same.lower, same.upper) == (0.0, 0.0)  # unpaired draws would spread
    window = whole & (rng.random((600, 1)) < 0.9)
    these = parity.cells(truth, whole, window)
    found = parity.lost_interval(these, sessions, iterations=4000)
    point = parity.loss(these).macro_recall_lost
    assert found.lower is not None
    assert found.upper is not None
    assert point is not None
    assert found.lower < point < found.upper
    # Monte-Carlo: the same by hand, one session at a time
    per = np.array([(whole & ~window)[sessions == s].sum() for s in range(20)]) / 30
    draws = rng.integers(0, 20, (20_000, 20))
    lower, upper = np.quantile(per[draws].mean(axis=1), [0.025, 0.975])
    assert found.lower == pytest.approx(lower, abs=0.004)
    assert found.upper == pytest.approx(upper, abs=0.004)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    deaf_start=st.integers(0, 20),
    deaf_end=st.integers(0, 20),
)
def test_windows_laid_with_the_smallest_overlap_lose_nothing_and_with_less_they_do(
    seed: int, deaf_start: int, deaf_end: int
) -> None:
    """A model that is deaf beside the seams, heard through every window that there could be."""
    rng = np.random.default_rng(seed)
    # an event at every distance from either seam, to half a window; a window of 100 ms
    distance = np.r_[np.arange(0, 51), np.arange(1, 51)].astype(float)
    edges = ["start"] * 51 + ["end"] * 50
    deaf = np.where(np.arange(101) < 51, distance < deaf_start, distance <= deaf_end)
    ones = np.ones((101, 1), bool)
    these = parity.cells(ones, ones, ~deaf[:, None])
    guards = [overlap.guard(these, e, edges, distance, 100.0) for e in ("start", "end")]
    smallest, reason = overlap.smallest_overlap(guards, 100.0)
    assert reason == ""
    # the end is deaf up to and with its last distance, the start is not
    assert smallest == deaf_start + (deaf_end + 1 if deaf_end else 0)

    def heard(onset: Fraction, laid: int) -> bool:
        hop = 100 - laid
        last = onset // hop
        return any(
            deaf_start <= onset - k * hop < 100
            and (deaf_end == 0 or k * hop + 100 - onset > deaf_end)
            for k in range(max(0, int(last) - 3), int(last) + 1)
            if k >= 0
        )

    # whole milliseconds, as in the pack, from the second window on
    onsets = [Fraction(int(x)) for x in rng.integers(200, 2000, 300)] + [
        Fraction(x) for x in range(200, 500)
    ]
    assert smallest is not None
    laid = int(smallest)
    assert all(heard(onset, laid) for onset in onsets)
    # the pack knows the deaf stretch at the end to the next millisecond: at most 1 ms too much
    if deaf_start + deaf_end:
        assert not all(heard(onset, deaf_start + deaf_end - 1) for onset in onsets)
