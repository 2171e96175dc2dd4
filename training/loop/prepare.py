"""From a clip store to a trainer: all that has to be there before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.dataset.store import ClipStore
from training.loop.augment import WaveAugment
from training.loop.callbacks import Callback
from training.loop.config import Recipe
from training.loop.continuous import CONTINUOUS_FIGURES, ContinuousValidation
from training.loop.distributed import World
from training.loop.feed import ClipFeed
from training.loop.floors import FLOOR_FIGURE, honest_floors
from training.loop.loggers.build import make_profiler
from training.loop.metrics import Evaluation, evaluate_model
from training.loop.placement import open_tiers
from training.loop.readiness import Readiness, require_readiness
from training.loop.run_options import HISTORY_FILE, READINESS_FILE, RUN_FILE, TrainOptions
from training.loop.setup import (
    drawn_by,
    make_feeds,
    make_model,
    manifest_hash,
    positive_weights,
    usable_splits,
)
from training.loop.trainer import Trainer
from training.loop.transfer import Frozen, Transfer, freeze, start_from
from training.manifest import InputFile
from training.metrics.classification import Summary
from training.model.checkpoint import clear_leftovers
from training.model.cnn import DrumClassifier
from training.model.losses import DrumLoss

__all__ = ["Prepared", "make_trainer", "prepare_run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What a run has at hand, once it is set up."""

    options: TrainOptions
    store: ClipStore
    feeds: tuple[ClipFeed, ClipFeed]
    model: DrumClassifier
    augment: WaveAugment
    readiness: Readiness
    manifest: str
    weights: NDArray[np.float64] | None
    weights_file: InputFile | None
    transfer: Transfer | None
    frozen: Frozen
    floors: dict[str, Summary]


def prepare_run(options: TrainOptions, device: torch.device, world: World) -> Prepared:
    """Read the data and make the model.

    Raises:
        InputError: the dataset or a file is not usable.
        BlockedError: the dataset is not known to be ready.
    """
    recipe, config = options.recipe, options.recipe.training
    store = ClipStore.open(options.dataset)
    train, val = usable_splits(store, recipe)
    manifest = manifest_hash(store)
    readiness = require_readiness(
        options.readiness or options.dataset / READINESS_FILE,
        (manifest,),
        allow_unready=options.allow_unready,
    )
    augment = WaveAugment(recipe.augment, recipe.features, task=config.task)
    weights, weights_file = drawn_by(options.sampling_weights, recipe, store, train, manifest)
    tiers, fed_from = open_tiers(
        (train, val), device, wanted=config.tier, fraction=config.memory_fraction
    )
    feeds = make_feeds(
        train,
        val,
        recipe,
        weights,
        margin=augment.margin,
        tiers=tiers,
        notes=(fed_from,),
        world=world,
    )
    model = make_model(store, feeds[0], recipe, device, weights)
    transfer, frozen = _started(model, options, store)
    feeds[0].notes += (*(transfer.lines() if transfer else ()), *frozen.lines())
    floors = {}
    if world.leads:
        floors = honest_floors(*feeds, model.logmel, store.labels, seed=config.seed)
    return Prepared(
        options=options,
        store=store,
        feeds=feeds,
        model=model,
        augment=augment,
        readiness=readiness,
        manifest=manifest,
        weights=weights,
        weights_file=weights_file,
        transfer=transfer,
        frozen=frozen,
        floors=floors,
    )


def _started(
    model: DrumClassifier, options: TrainOptions, store: ClipStore
) -> tuple[Transfer | None, Frozen]:
    """Take over another model's weights and freeze parts, where the options say so."""
    transfer = None
    if options.init_from is not None:
        features = options.recipe.features.as_dict()
        transfer = start_from(model, options.init_from, store.labels, features=features)
    return transfer, freeze(model, options.freeze)


def make_trainer(
    run: Prepared, device: torch.device, world: World, callbacks: Sequence[Callback]
) -> Trainer:
    """Return what trains the model, watched by the callbacks and, where asked for, a profiler."""
    options, store, model, feeds = run.options, run.store, run.model, run.feeds
    recipe, config = options.recipe, options.recipe.training
    criterion = DrumLoss(
        task=config.task,
        label_smoothing=config.label_smoothing,
        velocity_weight=config.velocity_weight,
        openness_weight=config.openness_weight,
        pos_weight=positive_weights(feeds[0].split, config.pos_weight_max),
    )
    sections = make_profiler(
        options.profile, trace=options.trace, device=device, features=model.logmel
    )
    run_file = options.output / RUN_FILE
    if run_file.exists() and not (options.resume or options.finish):
        feeds[0].notes += (f"{run_file} is of an earlier run and will be replaced",)
    if world.leads:
        clear_leftovers(run_file)
    return Trainer(
        model,
        feeds[0],
        feeds[1],
        config,
        criterion,
        device=device,
        augment=run.augment,
        evaluate=_evaluator(feeds[1], criterion, store, recipe, device, run.floors),
        callbacks=[*callbacks, *([sections] if sections else [])],
        run_file=run_file,
        history_file=options.output / HISTORY_FILE,
        identity={
            "recipe": {"features": recipe.features.as_dict(), "augment": asdict(recipe.augment)},
            "manifest_sha256": run.manifest,
            "sampling_weights_sha256": run.weights_file.sha256 if run.weights_file else None,
            "init_from_sha256": run.transfer.source_sha256 if run.transfer else None,
            "freeze": list(options.freeze),
        },
        about={
            "labels": list(store.labels),
            "recipe": recipe.as_dict(),
            "store_sha256": store.metadata.get("content_sha256"),
            "readiness": run.readiness.as_dict(),
        },
        sample_names=feeds[0].split.sample_ids,
        network=model.cnn,
        sections=sections,
        world=world,
    )


def _evaluator(
    feed: ClipFeed,
    criterion: nn.Module,
    store: ClipStore,
    recipe: Recipe,
    device: torch.device,
    floors: Mapping[str, Summary],
) -> Callable[[nn.Module], Evaluation]:
    """Return what measures a model on the validation clips, beside the floor."""
    config = recipe.training
    continuous = None
    if {config.monitor, config.limit_figure} & set(CONTINUOUS_FIGURES):
        continuous = ContinuousValidation(feed.split, recipe.features, task=config.task)

    def evaluate(candidate: nn.Module) -> Evaluation:
        found = evaluate_model(
            candidate, feed, criterion, device=device, labels=store.labels, task=config.task
        )
        more = continuous.figures(candidate, device) if continuous is not None else {}
        floor = floors["band_energy"].macro.f1
        if floor is not None:
            more[FLOOR_FIGURE] = floor
        return replace(found, figures=found.figures | more)

    return evaluate
