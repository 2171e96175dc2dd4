"""Feeding: whichever tier the audio comes from, the batches are the same, and every clip is met."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import clip_makers
import numpy as np
import pytest
import torch
from clip_makers import FEATURES
from hypothesis import given, settings
from hypothesis import strategies as st

from training.dataset.samplers import Blocks, EpochSampler
from training.dataset.store import StoreSplit
from training.errors import DrumgateError, InputError
from training.loop import placement, tiers
from training.loop.config import TrainingConfig
from training.loop.distributed import Shard, World
from training.loop.feed import Batch, ClipFeed
from training.loop.placement import available_memory, choose_tier, open_tiers
from training.loop.tiers import DeviceTier, DiskTier, MemoryTier, Tier, ahead, file_of
from training.loop.trainer import Trainer
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.losses import DrumLoss

N = 60


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> StoreSplit:
    """A split whose blob is a file; its rows are not in the order of the blob."""
    made = clip_makers.split(N)
    path = tmp_path_factory.mktemp("blob") / "train.pcm"
    made.blob.astype("<i2").tofile(path)
    mixed = np.random.default_rng(1).permutation(N)
    return dataclasses.replace(
        made,
        blob=np.memmap(path, dtype="<i2", mode="r"),
        onset=made.onset[mixed],
        labels=made.labels[mixed],
        velocity=made.velocity[mixed],
    )


MAKERS: dict[str, Callable[[StoreSplit], Tier]] = {
    "memory": lambda split: MemoryTier(split.blob, load=True),
    "device": lambda split: DeviceTier(split.blob, device="cpu"),
    "disk": lambda split: DiskTier(Path(split.blob.filename), len(split.blob)),  # type: ignore
}


def equal(one: Batch, other: Batch) -> bool:
    audio, targets = one
    again, same = other
    return (
        audio.dtype == again.dtype == torch.int16
        and torch.equal(audio.cpu(), again.cpu())
        and targets.keys() == same.keys()
        and all(
            torch.equal(torch.nan_to_num(targets[k].cpu(), -1), torch.nan_to_num(same[k].cpu(), -1))
            for k in targets
        )
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_all_tiers_give_the_same_batches_from_wherever_a_run_goes_on(split, data):
    batch_size = data.draw(st.integers(1, 25))
    epoch = data.draw(st.integers(0, 3))
    start = data.draw(st.integers(0, -(-N // batch_size)))
    weights = data.draw(st.sampled_from([None, np.arange(1.0, N + 1)]))
    blocks = data.draw(st.sampled_from([None, Blocks(positions=split.onset, block_rows=7)]))
    if blocks is not None:
        blocks = dataclasses.replace(blocks, window_rows=data.draw(st.integers(7, 40)))
    size = data.draw(st.sampled_from([1, 5_000, 1 << 27]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiers, "JOINED_SAMPLES", data.draw(st.sampled_from([0, 100, 1 << 15])))
        patch.setattr("training.loop.feed.CHUNK_BYTES", size)
        found: dict[str, list[Batch]] = {}
        for name, make in MAKERS.items():
            sampler = EpochSampler(N, batch_size, 3, weights, blocks=blocks)
            feed = ClipFeed(
                split, FEATURES, batch_size=batch_size, sampler=sampler, jitter_ms=5.0, margin=9,
                seed=3, tier=make(split),
            )  # fmt: skip
            found[name] = list(feed.batches(epoch, start))
            if name == "memory":
                whole = list(feed.batches(epoch))[start:]
    for batches in (found["device"], found["disk"], whole):
        assert len(batches) == len(found["memory"]) == -(-N // batch_size) - start
        assert all(equal(a, b) for a, b in zip(batches, found["memory"], strict=True))


@pytest.mark.parametrize("tier", MAKERS)
def test_clips_are_those_of_the_blob(split, tier):
    feed = ClipFeed(split, FEATURES, batch_size=7, tier=MAKERS[tier](split))
    clips = torch.cat([audio for audio, _ in feed]).numpy()
    first = split.onset - FEATURES.read_before
    expected = np.stack([split.blob[at : at + FEATURES.read_samples] for at in first])
    np.testing.assert_array_equal(clips, expected)
    rows = np.array([5, 5, 59, 0])
    audio, targets = feed.batch(rows)
    np.testing.assert_array_equal(audio.numpy(), expected[rows])
    np.testing.assert_array_equal(targets["labels"].numpy(), split.labels[rows])
    assert targets["row"].tolist() == rows.tolist()
    empty, _ = feed.batch(np.array([], dtype=np.int64))
    assert empty.shape == (0, FEATURES.read_samples)


@given(
    n=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    block_rows=st.integers(1, 60),
    more_rows=st.integers(0, 200),
    epoch=st.integers(0, 3),
)
def test_in_blocks_every_clip_is_met_once_an_epoch(n, batch_size, block_rows, more_rows, epoch):
    window_rows = block_rows + more_rows
    positions = np.random.default_rng(n).permutation(n) * 1000
    blocks = Blocks(positions=positions, block_rows=block_rows, window_rows=window_rows)
    sampler = EpochSampler(n, batch_size, 5, blocks=blocks)
    order = sampler.order(epoch)
    assert sorted(order.tolist()) == list(range(n))
    # a window holds the rows of as many whole blocks as fit, and at most parts of two more
    rank = np.argsort(np.argsort(positions)) // block_rows
    window = blocks.window_batches(batch_size) * batch_size
    for first in range(0, n, window):
        held = np.unique(rank[order[first : first + window]])
        assert len(held) <= -(-window // block_rows) + 2
    start = n // batch_size // 2
    resumed = list(EpochSampler(n, batch_size, 5, blocks=blocks).batches(epoch, start))
    np.testing.assert_array_equal(
        np.concatenate([*resumed, np.array([], int)]), order[start * batch_size :]
    )
    assert n < 20 or not np.array_equal(order, sampler.order(epoch + 1))


def test_weighted_draws_in_blocks_are_the_draws_without_blocks():
    weights = np.array([0.0, 1.0, 5.0, 0.0, 2.0] * 40)
    blocks = Blocks(positions=np.arange(200), block_rows=10, window_rows=40)
    drawn = EpochSampler(200, 8, 1, weights, blocks=blocks).order(2)
    assert sorted(drawn) == sorted(EpochSampler(200, 8, 1, weights).order(2))


def test_blocks_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Blocks(positions=np.arange(3), block_rows=0)
    with pytest.raises(ValueError, match="at least as many"):
        Blocks(positions=np.arange(3), block_rows=3, window_rows=2)
    with pytest.raises(ValueError, match="positions must have the shape"):
        EpochSampler(4, 2, 0, blocks=Blocks(positions=np.arange(3)))


def test_in_blocks_a_disk_is_read_in_long_runs(split, monkeypatch):
    reads: list[tuple[int, int]] = []
    preadv = os.preadv

    def noted(file: int, buffers: list[memoryview], at: int) -> int:
        reads.append((at, buffers[0].nbytes))
        return preadv(file, buffers, at)

    monkeypatch.setattr(os, "preadv", noted)
    counts = {}
    for blocks in (None, Blocks(positions=split.onset, block_rows=20, window_rows=20)):
        reads.clear()
        monkeypatch.setattr(tiers, "JOINED_SAMPLES", 4000)
        monkeypatch.setattr("training.loop.feed.CHUNK_BYTES", 20 * 2 * FEATURES.read_samples)
        sampler = EpochSampler(N, 5, 0, blocks=blocks)
        tier = MAKERS["disk"](split)
        assert len(list(ClipFeed(split, FEATURES, batch_size=5, sampler=sampler, tier=tier))) == 12
        counts[blocks is None] = len(reads)
    assert counts[False] == 3  # three blocks of 20 neighbours, a read each
    assert counts[True] > 10


def test_a_blob_that_is_missing_or_cut_short_is_named(split, tmp_path):
    path = tmp_path / "train.pcm"
    with pytest.raises(InputError, match="cannot be read"):
        DiskTier(path, 10)
    whole = split.blob.tobytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(InputError, match=r"is damaged: \d+ bytes where \d+ were written"):
        DiskTier(path, len(split.blob))
    path.write_bytes(whole)
    feed = ClipFeed(split, FEATURES, batch_size=4, tier=DiskTier(path, len(split.blob)))
    os.truncate(path, 20_000)
    with pytest.raises(InputError, match=r"it ends at byte 20000, while it is being read"):
        list(feed)
    with pytest.raises(InputError, match="while it is being read"):
        feed.batch(np.array([0]))
    mapped = np.memmap(path, dtype="<i2", mode="r")
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        MemoryTier(mapped, load=True)


def test_reading_ahead_is_bounded_ordered_and_ends_with_who_takes():
    begun: list[int] = []

    def count() -> Iterator[int]:
        for number in range(100):
            begun.append(number)
            yield number

    taken = ahead(count(), depth=2)
    assert [next(taken) for _ in range(5)] == [0, 1, 2, 3, 4]
    taken.close()
    assert len(begun) <= 8
    assert not [t for t in threading.enumerate() if t.name.startswith("feed")]
    assert list(ahead(iter([]))) == []

    def failing() -> Iterator[int]:
        yield 1
        raise InputError.at("x", "is damaged")

    taken = ahead(failing())
    assert next(taken) == 1
    with pytest.raises(InputError, match="is damaged"):
        next(taken)


@pytest.mark.parametrize("tier", MAKERS)
@pytest.mark.parametrize("size", [2, 3])
def test_the_parts_of_several_processes_are_the_batches_of_one(split, tier, size):
    def feed(rank: int | None) -> list[Batch]:
        sampler = EpochSampler(N, 8, 1)
        shard = sampler if rank is None else Shard(sampler, World(rank=rank, size=size))
        made = ClipFeed(
            split, FEATURES, batch_size=8, sampler=shard, jitter_ms=5.0, seed=1,
            tier=MAKERS[tier](split),
        )  # fmt: skip
        return list(made.batches(1))

    whole, parts = feed(None), [feed(rank) for rank in range(size)]
    for index, (audio, targets) in enumerate(whole):
        for rank in range(size):
            mine, labels = parts[rank][index]
            assert torch.equal(mine, audio[rank::size])
            assert torch.equal(labels["row"], targets["row"][rank::size])


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_from_another_tier(split, tmp_path):
    def trainer(tier: str) -> Trainer:
        torch.manual_seed(0)
        model = DrumClassifier(FEATURES, ModelConfig(n_classes=3))
        feed = ClipFeed(
            split, FEATURES, batch_size=16, sampler=EpochSampler(N, 16, 2), jitter_ms=5.0, seed=2,
            tier=MAKERS[tier](split),
        )  # fmt: skip
        config = TrainingConfig(epochs=2, batch_size=16, seed=2)
        return Trainer(model, feed, None, config, DrumLoss())

    def weights(trainer: Trainer) -> list[torch.Tensor]:
        return list(trainer.model.state_dict().values())

    whole = trainer("memory")
    whole.train()
    path, other = tmp_path / "run.pth", trainer("disk")
    other.train_epoch()
    other.save_checkpoint(path)
    for name in MAKERS:
        resumed = trainer(name)
        resumed.load_checkpoint(path)
        resumed.train()
        assert all(map(torch.equal, weights(whole), weights(resumed)))


GIB = 1 << 30


@pytest.mark.parametrize(
    ("size", "on_device", "in_memory", "expected"),
    [
        (10, 20, 0, "device"),
        (10, 19, 20, "memory"),
        (10, 19, 19, "disk"),
        (10, None, 20, "memory"),
        (10, None, 19, "disk"),
        (0, None, 0, "memory"),
    ],
)
def test_the_fastest_tier_with_room_is_chosen(size, on_device, in_memory, expected):
    device = None if on_device is None else on_device * GIB
    assert choose_tier(size * GIB, device, in_memory * GIB, fraction=0.5) == expected


def test_the_choice_is_said(split, monkeypatch):
    monkeypatch.setattr(placement, "available_memory", lambda: 3 * GIB)
    cpu = torch.device("cpu")
    opened, said = open_tiers([split, split], cpu)
    assert [tier.name for tier in opened] == ["memory", "memory"]
    size = 2 * split.blob.nbytes / 1024
    assert said == (
        f"{size:.1f} KiB of audio are fed from memory (3.0 GiB of memory are free; at most 50% "
        "may be taken)"
    )
    monkeypatch.setattr(placement, "available_memory", lambda: 1000)
    opened, said = open_tiers([split], cpu)
    assert (opened[0].name, "fed from disk" in said) == ("disk", True)
    opened, said = open_tiers([split], cpu, wanted="memory")
    assert (opened[0].name, "as asked" in said) == ("memory", True)
    in_memory = clip_makers.split(4)
    assert file_of(in_memory) is None
    assert open_tiers([in_memory], cpu)[0][0].name == "memory"
    with pytest.raises(DrumgateError, match="lie in memory, not on disk"):
        open_tiers([in_memory], cpu, wanted="disk")
    with pytest.raises(DrumgateError, match="there is no device beside the cpu"):
        open_tiers([split], cpu, wanted="device")


def test_free_memory_is_what_the_system_and_the_container_leave(tmp_path, monkeypatch):
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory() <= total
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 400\n")
    files = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"), "inactive_file")
    monkeypatch.setattr(placement, "_CGROUPS", (files,))
    assert available_memory() == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > 1000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_tiers_on_a_gpu_give_the_batches_of_the_cpu(split):
    def batches(tier: Tier | None) -> list[Batch]:
        sampler = EpochSampler(N, 7, 3)
        feed = ClipFeed(
            split, FEATURES, batch_size=7, sampler=sampler, jitter_ms=5.0, seed=3, tier=tier
        )
        return [batch for epoch in range(5) for batch in feed.batches(epoch)]

    expected = batches(None)
    for name in ("device", "memory", "disk"):
        (tier,), _ = open_tiers([split], torch.device("cuda"), wanted=name)  # type: ignore[arg-type]
        found = batches(tier)
        assert all(audio.is_cuda and targets["labels"].is_cuda for audio, targets in found)
        assert all(equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_mapped_blob_that_is_cut_short_ends_the_run_and_not_the_process(split, tmp_path):
    """What lies beyond the end must not be touched: the system would end the process."""
    path = tmp_path / "train.pcm"
    path.write_bytes(split.blob.tobytes())
    mapped = np.memmap(path, dtype="<i2", mode="r")
    tier = MemoryTier(mapped, load=True)
    feed = ClipFeed(split, FEATURES, batch_size=4, tier=tier)
    batches = iter(feed)
    next(batches)
    os.truncate(path, 20_000)
    why = f"train.pcm: is damaged: 20000 bytes where {split.blob.nbytes} were written"
    with pytest.raises(InputError, match=why):
        next(batches)
    with pytest.raises(InputError, match=why):
        feed.batch(np.array([0]))
    with pytest.raises(InputError, match=why):
        MemoryTier(mapped, load=True)
    # A file that has grown, or an array that is no file, is none the worse.
    path.write_bytes(split.blob.tobytes() + b"more")
    feed.batch(np.array([0]))
    MemoryTier(np.array(split.blob), load=True)
