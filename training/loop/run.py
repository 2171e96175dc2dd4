"""One training run of the drum model, from a clip store to a model file, a card and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.audio.logmel import LogMel
from training.dataset.samplers import EpochSampler
from training.dataset.store import ClipStore, StoreSplit, manifest_name
from training.dataset.weights import split_weights
from training.errors import InputError
from training.gates import Report
from training.loop.augment import SpectralAugment, WaveAugment
from training.loop.callbacks import Callback
from training.loop.card import judge_model, model_card
from training.loop.config import Recipe
from training.loop.feed import ClipFeed, draw_weights
from training.loop.metrics import Evaluation, evaluate_model
from training.loop.readiness import require_readiness
from training.loop.trainer import Trainer
from training.manifest import InputFile, describe_file, write_json
from training.model.checkpoint import MODEL_FORMAT, save_checkpoint
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.inference import OpenSet, fit_openset, resolve_device
from training.model.losses import DrumLoss

__all__ = ["MODEL_FILE", "TrainOptions", "train_classifier"]

MODEL_FILE: Final = "best_drum_classifier.pth"
RUN_FILE: Final = "last_run.pth"
HISTORY_FILE: Final = "history.json"
CARD_FILE: Final = "model_card.json"
READINESS_FILE: Final = "readiness.json"
STATISTICS_CLIPS: Final = 4096
OPENSET_CLIPS: Final = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """What a run reads and writes; how it trains is in the recipe."""

    dataset: Path
    output: Path
    recipe: Recipe
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    readiness: Path | None = None
    """By default `readiness.json` within the dataset."""
    allow_unready: bool = False
    sampling_weights: Path | None = None
    """Artefact of derive-sampling-weights; training clips are then drawn by it, not by
    `recipe.training.balance`."""
    resume: bool = False


def train_classifier(options: TrainOptions, callbacks: Sequence[Callback] = ()) -> Report:
    """Train as the options say; write the model, its card and its history; return the report.

    Raises:
        InputError: the dataset or a file is not usable.
        DrumgateError: the device is not there, or the loss became NaN.
        BlockedError: the dataset is not known to be ready.
        KeyboardInterrupt: the run was interrupted, and saved.
    """
    recipe, config = options.recipe, options.recipe.training
    device = resolve_device(options.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    store = ClipStore.open(options.dataset)
    train, val = _splits(store, recipe)
    manifest = _manifest_hash(store)
    readiness = require_readiness(
        options.readiness or options.dataset / READINESS_FILE,
        (manifest,),
        allow_unready=options.allow_unready,
    )
    augment = WaveAugment(recipe.augment, recipe.features)
    weights, weights_file = _draw_weights(options, store, train, manifest)
    feeds = _feeds(train, val, recipe, weights, margin=augment.margin)
    model = _model(store, feeds[0], recipe, device, weights)
    criterion = DrumLoss(
        task=config.task,
        label_smoothing=config.label_smoothing,
        velocity_weight=config.velocity_weight,
        openness_weight=config.openness_weight,
        pos_weight=_pos_weight(train, config.pos_weight_max),
    )

    def evaluate(candidate: nn.Module) -> Evaluation:
        return evaluate_model(
            candidate, feeds[1], criterion, device=device, labels=store.labels, task=config.task
        )

    trainer = Trainer(
        model,
        feeds[0],
        feeds[1],
        config,
        criterion,
        device=device,
        augment=augment,
        evaluate=evaluate,
        callbacks=callbacks,
        run_file=options.output / RUN_FILE,
        identity={
            "recipe": _identity(recipe),
            "manifest_sha256": manifest,
            "sampling_weights_sha256": weights_file.sha256 if weights_file else None,
        },
        sample_names=train.sample_ids,
    )
    if options.resume:
        trainer.load_checkpoint(options.output / RUN_FILE)
    trainer.train()

    judged = judge_model(model, feeds, evaluate(model), store.labels, recipe)
    openset = _openset(model, feeds[0], device)
    data = {
        "manifest_sha256": manifest,
        "store_sha256": store.metadata.get("content_sha256"),
        "sampling_weights_sha256": weights_file.sha256 if weights_file else None,
        "train_clips": feeds[0].n_clips,
        "val_clips": feeds[1].n_clips,
    }
    card = model_card(
        model, recipe, judged, data=data, readiness=readiness, history=trainer.history
    )
    content = {
        "labels": list(store.labels),
        "task": config.task,
        "features": recipe.features.as_dict(),
        "model": model.cnn.config.as_dict(),
        "weights": {name: value.cpu() for name, value in model.state_dict().items()},
        "calibration": judged.calibration.as_dict(),
        "openset": None if openset is None else openset.as_dict(),
        "card": card,
    }
    save_checkpoint(options.output / MODEL_FILE, content, format=MODEL_FORMAT)
    trainer.export_history(options.output / HISTORY_FILE)
    write_json(options.output / CARD_FILE, card)
    return Report(
        tool="train-classifier",
        inputs=[
            describe_file(options.dataset / "metadata.json"),
            *([weights_file] if weights_file else []),
        ],
        parameters={
            "dataset": options.dataset,
            "output": options.output,
            "device": str(device),
            "readiness": readiness.report_path,
            "allow_unready": options.allow_unready,
            "sampling_weights": options.sampling_weights,
            "resume": options.resume,
            **recipe.as_dict(),
        },
        metrics={
            **{name: card[name] for name in ("validation", "floors", "parameters", "data")},
            "selected_epoch": card["selected_epoch"],
            "steps": card["steps"],
            "history": trainer.history,
        },
        warnings=card["warnings"],
        seed=config.seed,
    )


def _splits(store: ClipStore, recipe: Recipe) -> tuple[StoreSplit, StoreSplit]:
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
        why = "holds no event of any class: macro-F1 is not defined"
        raise InputError.at(metadata, why, field="splits.val")
    return train, val


def _manifest_hash(store: ClipStore) -> str:
    inputs = store.metadata.get("inputs")
    events = inputs.get("events") if isinstance(inputs, dict) else None
    digest = events.get("sha256") if isinstance(events, dict) else None
    if not isinstance(digest, str):
        path = store.directory / "metadata.json"
        raise InputError.at(path, "is missing: rebuild the dataset", field="inputs.events.sha256")
    return digest


def _draw_weights(
    options: TrainOptions, store: ClipStore, train: StoreSplit, manifest: str
) -> tuple[NDArray[np.float64] | None, InputFile | None]:
    """Return what each training clip is drawn in proportion to (None: all alike), and from what."""
    path = options.sampling_weights
    if path is None:
        return draw_weights(train.labels, options.recipe.training.balance), None
    events = manifest_name(train.name)
    outputs = store.metadata["outputs"]
    of_split = outputs[events]["sha256"] if events in outputs else manifest
    weights = split_weights(path, store.directory / events, hashes=(manifest, of_split))
    if len(weights) != len(train.labels):
        why = f"holds {len(weights)} events where the index holds {len(train.labels)}"
        raise InputError.at(store.directory / events, why)
    return weights, describe_file(path)


def _feeds(
    train: StoreSplit,
    val: StoreSplit,
    recipe: Recipe,
    weights: NDArray[np.float64] | None,
    *,
    margin: int,
) -> tuple[ClipFeed, ClipFeed]:
    config = recipe.training
    sampler = EpochSampler(len(train.labels), config.batch_size, config.seed, weights)
    return (
        ClipFeed(
            train,
            recipe.features,
            batch_size=config.batch_size,
            sampler=sampler,
            jitter_ms=recipe.augment.jitter_ms,
            margin=margin,
            seed=config.seed,
        ),
        ClipFeed(val, recipe.features, batch_size=max(64, config.batch_size)),
    )


def _model(
    store: ClipStore,
    feed: ClipFeed,
    recipe: Recipe,
    device: torch.device,
    weights: NDArray[np.float64] | None,
) -> DrumClassifier:
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


def _pos_weight(train: StoreSplit, largest: float) -> Tensor | None:
    if largest <= 1.0:
        return None
    known = train.annotated > 0
    positives = ((train.labels > 0) & known).sum(axis=0)
    negatives = known.sum(axis=0) - positives
    ratio = np.clip(negatives / np.maximum(positives, 1), 1.0, largest)
    return torch.from_numpy(ratio.astype(np.float32))


@torch.no_grad()
def _openset(model: DrumClassifier, feed: ClipFeed, device: torch.device) -> OpenSet | None:
    model.eval()
    count = min(feed.n_clips, OPENSET_CLIPS)
    rows = np.linspace(0, feed.n_clips - 1, count).astype(np.int64)
    parts = []
    for first in range(0, len(rows), 128):
        audio, _ = feed.batch(rows[first : first + 128])
        parts.append(model(audio.to(device))["features"].float().cpu().numpy())
    return fit_openset(np.concatenate(parts), feed.split.labels[rows])


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What a resumed run must share beside its training settings."""
    return {"features": recipe.features.as_dict(), "augment": asdict(recipe.augment)}
