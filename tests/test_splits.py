"""Splits: groups are never torn apart, sizes come near, labels are spread, and it repeats."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.dataset.leakage import check_isolation
from training.dataset.splits import SplitError, plan_splits, tie_groups
from training.dataset.stratify import _Problem, deal_groups

RATIOS = {"train": 0.8, "val": 0.1, "test": 0.1}


def plan(sessions, *, recordings=None, drummers=None, kits=None, labels=None, **options):
    n = len(sessions)
    if labels is None:
        labels = np.ones((n, 1), dtype=np.uint8)
    return plan_splits(
        sessions=sessions,
        recordings=recordings or [None] * n,
        drummers=drummers or [None] * n,
        kits=kits or [None] * n,
        labels=labels,
        **({"ratios": RATIOS, "seed": 0} | options),
    )


def splits_of(column, split):
    where: dict[str, set[int]] = {}
    for key, index in zip(column, split, strict=True):
        if key is not None:
            where.setdefault(key, set()).add(int(index))
    return where


@st.composite
def worlds(draw):
    """Events of sessions that have a drummer and a kit (or do not name them), and labels."""
    n_sessions = draw(st.integers(3, 25))
    players = st.sampled_from([None, "d1", "d2", "d3", "d4", "d5"])
    kits = st.sampled_from([None, "k1", "k2", "k3", "k4"])
    sessions, drummers, kit_column, recordings = [], [], [], []
    for session in range(n_sessions):
        events = draw(st.integers(1, 12))
        drummer, kit = draw(players), draw(kits)
        sessions += [f"s{session}"] * events
        drummers += [drummer] * events
        kit_column += [kit] * events
        recordings += [f"s{session}/{i % 2}" for i in range(events)]
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    labels = (rng.random((len(sessions), 5)) < [0.7, 0.4, 0.2, 0.05, 0.01]).astype(np.uint8)
    return sessions, drummers, kit_column, recordings, labels, seed


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_no_session_is_torn_every_event_is_assigned_once_and_it_repeats(world):
    sessions, drummers, kits, recordings, labels, seed = world
    arguments = dict(drummers=drummers, kits=kits, recordings=recordings, labels=labels, seed=seed)
    found = plan(sessions, **arguments)
    assert found.split.shape == (len(sessions),)
    assert set(found.split.tolist()) == {0, 1, 2}
    assert all(len(where) == 1 for where in splits_of(sessions, found.split).values())
    assert all(len(where) == 1 for where in splits_of(recordings, found.split).values())
    assert all(len(where) == 1 for where in splits_of(found.group.tolist(), found.split).values())
    if found.level == "drummer_or_kit":
        assert all(len(where) == 1 for where in splits_of(drummers, found.split).values())
        assert all(len(where) == 1 for where in splits_of(kits, found.split).values())
    if found.level == "drummer_kit":
        pairs = [
            None if d is None or k is None else (d, k) for d, k in zip(drummers, kits, strict=True)
        ]
        assert all(len(where) == 1 for where in splits_of(pairs, found.split).values())
    again = plan(sessions, **arguments)
    np.testing.assert_array_equal(found.split, again.split)
    assert sum(found.shares) == pytest.approx(1.0)
    assert found.considered[-1].level == found.level
    assert found.considered[-1].reason == ""


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 120), st.integers(0, 1000), st.floats(0.05, 0.3), st.floats(0.05, 0.3))
def test_with_equal_groups_the_sizes_are_within_one_group_of_what_was_asked(n, seed, val, test):
    sessions = [f"s{i}" for i in range(n) for _ in range(4)]
    ratios = {"train": 1 - val - test, "val": val, "test": test}
    found = plan(sessions, ratios=ratios, seed=seed, levels=("session",))
    for got, asked in zip(found.shares, ratios.values(), strict=True):
        assert abs(got - asked) <= 1 / n + 1e-9


def test_the_order_of_events_within_the_manifest_does_not_tear_groups():
    rng = np.random.default_rng(1)
    sessions = [f"s{i % 9}" for i in range(200)]
    shuffled = [sessions[i] for i in rng.permutation(200)]
    found = plan(shuffled)
    assert all(len(where) == 1 for where in splits_of(shuffled, found.split).values())


def test_drummers_and_kits_are_kept_apart_where_that_is_possible():
    # ten players, each with a kit of his own and two sessions
    sessions = [f"s{i}" for i in range(20) for _ in range(10)]
    drummers = [f"d{i // 2}" for i in range(20) for _ in range(10)]
    kits = [f"k{i // 2}" for i in range(20) for _ in range(10)]
    found = plan(sessions, drummers=drummers, kits=kits)
    assert found.level == "drummer_or_kit"
    assert found.shares == pytest.approx((0.8, 0.1, 0.1))
    assert [(each.level, each.groups) for each in found.considered] == [("drummer_or_kit", 10)]


def test_pairs_are_kept_apart_where_everyone_plays_the_same_kits():
    # 4 drummers x 3 kits, two sessions a pair: all are connected, 12 pairs are not
    cells = [(d, k) for d in range(4) for k in range(3) for _ in range(2)]
    sessions = [f"s{i}" for i in range(24) for _ in range(5)]
    drummers = [f"d{d}" for d, _ in cells for _ in range(5)]
    kits = [f"k{k}" for _, k in cells for _ in range(5)]
    found = plan(sessions, drummers=drummers, kits=kits)
    assert found.level == "drummer_kit"
    assert found.considered[0].groups == 1
    assert "1 group for 3 splits" in found.considered[0].reason
    pairs = list(zip(drummers, kits, strict=True))
    assert all(len(where) == 1 for where in splits_of(pairs, found.split).values())


def test_one_player_on_one_kit_is_split_by_session_and_the_answer_says_why():
    sessions = [f"s{i}" for i in range(10) for _ in range(5)]
    found = plan(sessions, drummers=["d"] * 50, kits=["k"] * 50)
    assert found.level == "session"
    assert [each.reason for each in found.considered] == [
        "1 group for 3 splits",
        "1 group for 3 splits",
        "",
    ]


def test_a_strict_level_that_would_starve_a_split_is_turned_down():
    # drummer a plays 90 % of everything: apart by drummer, val and test cannot be 10 % each
    sessions = [f"s{i}" for i in range(20) for _ in range(10)]
    drummers = [("a" if i < 18 else f"b{i}") for i in range(20) for _ in range(10)]
    found = plan(sessions, drummers=drummers, ratios={"train": 0.5, "val": 0.25, "test": 0.25})
    assert found.level == "session"
    assert "was asked" in found.considered[0].reason


def test_a_strict_level_that_would_leave_a_label_unlearned_is_turned_down():
    rng = np.random.default_rng(3)
    sessions = [f"s{i}" for i in range(30) for _ in range(10)]
    drummers = [f"d{min(i // 3, 9)}" for i in range(30) for _ in range(10)]
    labels = (rng.random((300, 3)) < 0.5).astype(np.uint8)
    found = plan(sessions, drummers=drummers, labels=labels)
    train = labels[found.split == 0]
    assert train.any(axis=0).all()


def test_a_label_of_one_group_goes_where_it_can_be_learned():
    for seed in range(10):
        sessions = [f"s{i}" for i in range(12) for _ in range(10)]
        labels = np.zeros((120, 2), dtype=np.uint8)
        labels[:, 0] = 1
        labels[seed * 10 : seed * 10 + 3, 1] = 1
        found = plan(sessions, labels=labels, seed=seed)
        assert labels[found.split == 0][:, 1].sum() == 3


def test_a_rare_label_reaches_every_split_when_it_has_groups_enough():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        sessions = [f"s{i}" for i in range(30) for _ in range(20)]
        labels = np.zeros((600, 4), dtype=np.uint8)
        labels[:, :3] = rng.random((600, 3)) < 0.5
        for session in rng.choice(30, 4, replace=False):
            labels[session * 20, 3] = 1
        found = plan(sessions, labels=labels, seed=seed)
        for split in range(3):
            assert labels[found.split == split].any(axis=0).all()


@pytest.mark.parametrize("n_groups", [3, 8, 10])
@pytest.mark.parametrize("seed", range(4))
def test_small_problems_reach_the_best_of_all_divisions(seed, n_groups):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), rng.integers(5, 60, n_groups))
    labels = (rng.random((len(group), 4)) < rng.random((n_groups, 4))[group] ** 3).astype(np.uint8)
    ratios = np.array([0.7, 0.15, 0.15])
    problem = _Problem.of(group, labels, ratios, n_groups)
    best = min(
        float(problem.cost(problem.totals(np.array(each))).sum())
        for each in itertools.product(range(3), repeat=n_groups)
    )
    dealt = deal_groups(group, labels, ratios, seed=seed)
    assert float(problem.cost(problem.totals(dealt)).sum()) <= best + 1e-9


def test_a_split_of_ratio_zero_gets_nothing():
    found = plan([f"s{i}" for i in range(5)], ratios={"train": 0.8, "val": 0.2, "test": 0.0})
    assert set(found.split.tolist()) == {0, 1}
    everything = plan(["s0", "s0"], ratios={"train": 1.0, "val": 0.0, "test": 0.0})
    assert everything.split.tolist() == [0, 0]


def test_what_cannot_be_divided_is_an_error_with_its_reason():
    with pytest.raises(SplitError, match=r"session: 2 groups for 3 splits"):
        plan(["a", "a", "b"])
    with pytest.raises(SplitError, match="no events"):
        plan([])


@pytest.mark.parametrize(
    "options",
    [
        {"ratios": {"train": 0.5, "val": 0.1}},
        {"ratios": {"train": 1.5, "val": -0.5}},
        {"ratios": {"train": float("nan")}},
        {"ratios": {}},
        {"levels": ("room",)},
        {"levels": ()},
    ],
)
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"ratios|levels"):
        plan(["a", "b", "c"], **options)


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        plan(["a", "b"], drummers=["d"])


def test_groups_are_chains_of_shared_things():
    tied = tie_groups(
        "drummer_or_kit",
        sessions=["a", "b", "c", "d"],
        recordings=[None, None, "x", "x"],
        drummers=["p", "p", None, None],
        kits=["k", None, "k", None],
    )
    assert tied.tolist() == [0, 0, 0, 0]
    by_session = tie_groups(
        "session",
        sessions=["a", "b", "c", "d"],
        recordings=[None, None, "x", "x"],
        drummers=["p"] * 4,
        kits=["k"] * 4,
    )
    assert by_session.tolist() == [0, 1, 2, 2]


def test_half_named_pairs_count_as_the_same_pair():
    tied = tie_groups(
        "drummer_kit",
        sessions=["a", "b", "c", "d"],
        recordings=[None] * 4,
        drummers=["p", "p", "p", None],
        kits=[None, None, "k", None],
    )
    assert tied.tolist() == [0, 0, 1, 2]


def test_isolation_names_everything_that_is_shared():
    found = check_isolation(
        splits=["train", "train", "val", "test", "test"],
        sessions=["a", "b", "b", "c", "d"],
        recordings=["x", None, "x", "y", "z"],
        drummers=["p", "p", "q", None, "q"],
        kits=["k", "k", "k", "m", None],
    )
    assert [(o.key, o.splits, o.events) for o in found.sessions] == [("b", ("train", "val"), 2)]
    assert [(o.key, o.splits, o.events) for o in found.recordings] == [("x", ("train", "val"), 2)]
    assert [(o.key, o.splits) for o in found.drummers] == [("q", ("test", "val"))]
    assert [(o.key, o.splits, o.events) for o in found.kits] == [("k", ("train", "val"), 3)]
    assert found.drummer_kits == ()
    assert (found.events_without_recording, found.events_without_drummer) == (1, 1)
    assert found.events_without_kit == 1
    assert {o.kind for o in found.leaks} == {"session", "recording"}


def test_isolation_of_nothing_is_nothing():
    found = check_isolation(splits=[], sessions=[], recordings=[], drummers=[], kits=[])
    assert found.leaks == ()
    assert found.events == 0
    with pytest.raises(ValueError, match="differ in length"):
        check_isolation(splits=["a"], sessions=[], recordings=[], drummers=[], kits=[])


def test_pairs_are_shared_only_when_both_halves_are_the_same():
    found = check_isolation(
        splits=["train", "val", "val"],
        sessions=["a", "b", "c"],
        recordings=[None] * 3,
        drummers=["p", "p", "p"],
        kits=["k", "k", None],
    )
    assert [(o.key, o.events) for o in found.drummer_kits] == [("p x k", 2)]
