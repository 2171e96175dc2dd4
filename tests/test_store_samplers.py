"""The sampler: every row once, weights as asked, and a position that continues exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.dataset.samplers import EpochSampler


@given(
    n=st.integers(1, 200),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 5),
)
def test_an_epoch_meets_every_row_once(n, batch_size, seed, epoch):
    sampler = EpochSampler(n, batch_size, seed)
    batches = list(sampler.batches(epoch))
    assert len(batches) == len(sampler) == -(-n // batch_size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    again = list(EpochSampler(n, batch_size, seed).batches(epoch))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


@given(n=st.integers(1, 100), batch_size=st.integers(1, 20), weighted=st.booleans(), data=st.data())
def test_a_position_continues_exactly_wherever_it_was_saved(n, batch_size, weighted, data):
    weights = np.arange(1, n + 1) if weighted else None
    whole = EpochSampler(n, batch_size, 5, weights)
    stop = data.draw(st.integers(1, len(whole)))
    met, state = [], {}
    for step, batch in enumerate(whole.batches(3), start=1):
        met.append(batch)
        if step == stop:
            state = whole.state_dict()
            break
    assert state["epoch"] == 3
    assert state["index"] == stop
    resumed = EpochSampler(n, batch_size, 99, weights)
    resumed.load_state_dict(state)
    met += list(resumed.batches(resumed.epoch, resumed.index))
    expected = list(EpochSampler(n, batch_size, 5, weights).batches(3))
    assert len(met) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(met, expected, strict=True))


def test_epochs_and_seeds_differ():
    sampler = EpochSampler(1000, 10, 0)
    assert not np.array_equal(sampler.order(0), sampler.order(1))
    assert not np.array_equal(sampler.order(0), EpochSampler(1000, 10, 1).order(0))


def test_the_order_is_pinned_so_that_old_checkpoints_stay_exact():
    assert EpochSampler(8, 3, 7).order(2).tolist() == [6, 0, 2, 3, 7, 5, 1, 4]
    weighted = EpochSampler(8, 3, 7, [0, 0, 1, 0, 0, 0, 3, 0])
    assert weighted.order(2).tolist() == [6, 6, 6, 6, 2, 6, 2, 6]


def test_weights_are_drawn_in_their_proportion():
    weights = np.array([1.0, 2.0, 0.0, 5.0])
    sampler = EpochSampler(4, 4, 0, weights)
    drawn = np.concatenate([sampler.order(epoch) for epoch in range(20_000)])
    share = np.bincount(drawn, minlength=4) / len(drawn)
    # four standard errors of a share of a half in 80,000 draws
    np.testing.assert_allclose(share, weights / weights.sum(), atol=4 * 0.5 / np.sqrt(80_000))
    assert share[2] == 0


@given(st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 1.0, 1e12]), min_size=1, max_size=30))
def test_a_row_of_weight_zero_is_never_drawn(weights):
    if not any(weights):
        return
    sampler = EpochSampler(len(weights), 3, 0, weights)
    for epoch in range(5):
        assert all(weights[row] > 0 for row in sampler.order(epoch).tolist())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, 1, 0), "n must"),
        ((1, 0, 0), "batch_size must"),
        ((1, 1, -1), "seed must"),
        ((2, 1, 0, [1.0]), "shape"),
        ((2, 1, 0, [1.0, float("nan")]), "finite"),
        ((2, 1, 0, [1.0, -1.0]), "at least 0"),
        ((2, 1, 0, [0.0, 0.0]), "not all 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        EpochSampler(*arguments)


def test_a_position_of_another_dataset_is_refused():
    state = EpochSampler(10, 2, 0).state_dict()
    with pytest.raises(ValueError, match="n 10"):
        EpochSampler(11, 2, 0).load_state_dict(state)
    with pytest.raises(ValueError, match="batch_size 2"):
        EpochSampler(10, 5, 0).load_state_dict(state)
    with pytest.raises(ValueError, match="lacks epoch"):
        EpochSampler(10, 2, 0).load_state_dict({"seed": 0, "index": 0, "n": 1, "batch_size": 1})
    with pytest.raises(ValueError, match="start must"):
        next(EpochSampler(10, 2, 0).batches(0, 6))
    with pytest.raises(ValueError, match="epoch must"):
        EpochSampler(10, 2, 0).order(-1)
    assert list(EpochSampler(10, 2, 0).batches(0, 5)) == []
