"""What a run is made of: usable splits, feeds, the model with its first statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.audio.logmel import LogMel
from training.dataset.samplers import Blocks, EpochSampler
from training.dataset.store import ClipStore, StoreSplit, manifest_name
from training.dataset.weights import split_weights
from training.errors import InputError
from training.loop.augment import SpectralAugment
from training.loop.config import Recipe
from training.loop.distributed import Shard, World
from training.loop.feed import ClipFeed, draw_weights
from training.loop.tiers import Tier
from training.manifest import InputFile, describe_file
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.inference import OpenSet, fit_openset

__all__ = [
    "drawn_by",
    "feature_statistics",
    "make_feeds",
    "make_model",
    "manifest_hash",
    "openset_statistics",
    "positive_weights",
    "prior_logits",
    "usable_splits",
]

STATISTICS_CLIPS: Final = 4096
OPENSET_CLIPS: Final = 8192


def usable_splits(store: ClipStore, recipe: Recipe) -> tuple[StoreSplit, StoreSplit]:
    """Return the training and the validation split.

    Raises:
        InputError: one is missing or empty, or is of another sample rate than the recipe's.
    """
    metadata = store.directory / "metadata.json"
    if store.sample_rate != recipe.features.sample_rate:
        why = (
            f"is not the preset's {recipe.features.sample_rate} Hz: build the dataset with "
            f"--sample-rate {recipe.features.sample_rate}, or set features.sample_rate"
        )
        raise InputError.at(metadata, why, field="sample_rate", got=store.sample_rate)
    for name in ("train", "val"):
        if name not in store.split_names:
            why = f"has no {name} split; build the dataset with --val-ratio above 0"
            raise InputError.at(metadata, why, field="splits", got=list(store.split_names))
    train, val = store.split("train"), store.split("val")
    for split, name in ((train, "train"), (val, "val")):
        if len(split.labels) == 0:
            raise InputError.at(metadata, "holds no clip", field=f"splits.{name}")
    if not (val.labels > 0).any():
        why = "holds no event of any class: macro F1 is not defined"
        raise InputError.at(metadata, why, field="splits.val")
    return train, val


def manifest_hash(store: ClipStore) -> str:
    """Return the SHA-256 of the manifest that a store was built from.

    Raises:
        InputError: the store does not say.
    """
    inputs = store.metadata.get("inputs")
    events = inputs.get("events") if isinstance(inputs, dict) else None
    digest = events.get("sha256") if isinstance(events, dict) else None
    if not isinstance(digest, str):
        path = store.directory / "metadata.json"
        raise InputError.at(path, "is missing: rebuild the dataset", field="inputs.events.sha256")
    return digest


def drawn_by(
    path: Path | None, recipe: Recipe, store: ClipStore, train: StoreSplit, manifest: str
) -> tuple[NDArray[np.float64] | None, InputFile | None]:
    """Return what each training clip is drawn in proportion to (None: all alike), and from what.

    `path` is an artefact of derive-sampling-weights; None: the recipe's `balance` decides.

    Raises:
        InputError: the artefact is not usable, or is of another manifest.
    """
    if path is None:
        return draw_weights(train.labels, recipe.training.balance), None
    events = manifest_name(train.name)
    outputs = store.metadata["outputs"]
    of_split = outputs[events]["sha256"] if events in outputs else manifest
    weights = split_weights(path, store.directory / events, hashes=(manifest, of_split))
    if len(weights) != len(train.labels):
        why = f"holds {len(weights)} events where the index holds {len(train.labels)}"
        raise InputError.at(store.directory / events, why)
    return weights, describe_file(path)


def make_feeds(
    train: StoreSplit,
    val: StoreSplit,
    recipe: Recipe,
    weights: NDArray[np.float64] | None,
    *,
    margin: int,
    tiers: Sequence[Tier],
    notes: tuple[str, ...],
    world: World,
) -> tuple[ClipFeed, ClipFeed]:
    """Return the feeds of training, this process's part of it, and of validation.

    `notes` say of the first where it reads from; `tiers` are those of both.
    """
    config = recipe.training
    blocks = Blocks(positions=train.onset) if config.shuffle == "blocks" else None
    sampler = EpochSampler(
        len(train.labels), config.batch_size, config.seed, weights, blocks=blocks
    )
    train_tier, val_tier = tiers
    return (
        ClipFeed(
            train,
            recipe.features,
            batch_size=config.batch_size,
            sampler=sampler if world.size == 1 else Shard(sampler, world),
            jitter_ms=recipe.augment.jitter_ms,
            margin=margin,
            seed=config.seed,
            tier=train_tier,
            notes=notes,
        ),
        ClipFeed(val, recipe.features, batch_size=max(64, config.batch_size), tier=val_tier),
    )


def make_model(
    store: ClipStore,
    feed: ClipFeed,
    recipe: Recipe,
    device: torch.device,
    weights: NDArray[np.float64] | None,
) -> DrumClassifier:
    """Return the model on the device, with the features' statistics and its first biases."""
    config, split = recipe.training, feed.split
    torch.manual_seed(config.seed)
    model = DrumClassifier(
        recipe.features,
        ModelConfig(
            n_classes=len(store.labels),
            dropout=config.dropout,
            velocity_head=config.velocity_weight > 0 and bool(np.isfinite(split.velocity).any()),
            openness_head=config.openness_weight > 0 and bool(np.isfinite(split.openness).any()),
        ),
        augment=SpectralAugment(recipe.augment),
        channels_last=config.channels_last,
    ).to(device)
    model.logmel.set_statistics(*feature_statistics(feed, model.logmel, seed=config.seed))
    if config.task == "multilabel":
        with torch.no_grad():
            model.cnn.classes.bias.copy_(prior_logits(split, config.balance, weights))
    return model


def prior_logits(
    split: StoreSplit, balance: float, weights: NDArray[np.float64] | None = None
) -> Tensor:
    """Return the log-odds of each class among the clips as they are drawn [shape=(n_classes,)].

    `weights` are those of the clips [shape=(n_clips,)]; None: those that `balance` gives.

    As first biases they spare the model the steps in which it would only learn how rare each class
    is (Lin et al. 2017). Odds are held to 1:100 and 1:1.
    """
    if weights is None:
        weights = draw_weights(split.labels, balance)
    known = split.annotated > 0
    weight = known * (np.ones(len(known)) if weights is None else weights)[:, None]
    share = ((split.labels > 0) * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-12)
    share = np.clip(share, 1 / 101, 0.5)
    return torch.from_numpy(np.log(share / (1.0 - share)).astype(np.float32))


@torch.no_grad()
def feature_statistics(feed: ClipFeed, logmel: LogMel, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of (at most 4,096) training clips, the same for every mel band.

    One mean for all bands keeps the spectral tilt of the input. It tells the convolutions where on
    the mel axis they are, which global pooling would otherwise forget: telling toms and kicks apart
    needs it. A deviation below 1 dB is raised to 1 dB.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(feed.n_clips)[:STATISTICS_CLIPS]).astype(np.int64)
    total = squares = 0.0
    for first in range(0, len(rows), 256):
        audio, _ = feed.batch(rows[first : first + 256])
        decibels = logmel.decibels(audio.to(logmel.mean.device)).double()
        total += float(decibels.sum())
        squares += float(decibels.square().sum())
    count = len(rows) * logmel.config.frames * logmel.config.n_mels
    mean = total / count
    std = max(1.0, squares / count - mean**2) ** 0.5
    return torch.full_like(logmel.mean, mean), torch.full_like(logmel.std, std)


def positive_weights(train: StoreSplit, largest: float) -> Tensor | None:
    """Return negatives / positives of each class, in 1..largest; None where that would be all 1."""
    if largest <= 1.0:
        return None
    known = train.annotated > 0
    positives = ((train.labels > 0) & known).sum(axis=0)
    negatives = known.sum(axis=0) - positives
    ratio = np.clip(negatives / np.maximum(positives, 1), 1.0, largest)
    return torch.from_numpy(ratio.astype(np.float32))


@torch.no_grad()
def openset_statistics(
    model: DrumClassifier, feed: ClipFeed, device: torch.device
) -> OpenSet | None:
    """Fit the open-set statistics on (at most 8,192) training clips, as they are.

    None with fewer than two label sets or clips.
    """
    model.eval()
    count = min(feed.n_clips, OPENSET_CLIPS)
    rows = np.linspace(0, feed.n_clips - 1, count).astype(np.int64)
    parts = []
    for first in range(0, len(rows), 128):
        audio, _ = feed.batch(rows[first : first + 128])
        parts.append(model(audio.to(device))["features"].float().cpu().numpy())
    return fit_openset(np.concatenate(parts), feed.split.labels[rows])
