"""One training run of the drum model, from a clip store to a model file, a card and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.dataset.samplers import EpochSampler
from training.dataset.store import ClipStore
from training.errors import InputError
from training.gates import Report
from training.loop import runtime
from training.loop.augment import WaveAugment
from training.loop.callbacks import Callback
from training.loop.card import judge_model, model_card, write_card_page
from training.loop.config import Recipe
from training.loop.confusion import confusions
from training.loop.continuous import CONTINUOUS_FIGURES, ContinuousValidation
from training.loop.distributed import Shard, World, joined
from training.loop.draws import class_draws
from training.loop.feed import ClipFeed
from training.loop.floors import FLOOR_FIGURE, honest_floors
from training.loop.loggers.build import make_profiler
from training.loop.metrics import Evaluation, evaluate_model
from training.loop.placement import open_tiers
from training.loop.readiness import Readiness, require_readiness
from training.loop.setup import (
    drawn_by,
    feature_statistics,
    make_feeds,
    make_model,
    manifest_hash,
    openset_statistics,
    positive_weights,
    prior_logits,
    usable_splits,
)
from training.loop.signals import termination_interrupts
from training.loop.trainer import Trainer
from training.loop.transfer import Frozen, Transfer, freeze, start_from
from training.manifest import InputFile, describe_file, write_json
from training.metrics.classification import Summary
from training.model.checkpoint import MODEL_FORMAT, clear_leftovers, save_checkpoint
from training.model.cnn import DrumClassifier
from training.model.inference import resolve_device
from training.model.losses import DrumLoss

__all__ = ["MODEL_FILE", "TrainOptions", "feature_statistics", "prior_logits", "train_classifier"]

MODEL_FILE: Final = "best_drum_classifier.pth"
RUN_FILE: Final = "last_run.pth"
HISTORY_FILE: Final = "history.json"
CARD_FILE: Final = "model_card.json"
READINESS_FILE: Final = "readiness.json"
PAGE_FILE: Final = "model_card.html"


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
    init_from: Path | None = None
    """A model file to start from."""
    freeze: tuple[str, ...] = ()
    """Names of the parts of the model that are left as they are."""
    resume: bool = False
    finish: bool = False
    """Train no further: write the model with the best weights of the run that is resumed."""
    profile: Path | None = None
    """Folder for the times of the sections of a step; None measures none."""
    trace: bool = False
    """With `profile`: record a few steps with torch.profiler, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
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


def train_classifier(options: TrainOptions, callbacks: Sequence[Callback] = ()) -> Report | None:
    """Train as the options say; write the model, its card and its history; return the report.

    Under ``torchrun`` each process calls this; all but rank 0 get None.

    Raises:
        InputError: the dataset or a file is not usable.
        DrumgateError: the device is not there.
        BlockedError: the dataset is not known to be ready, or the loss became NaN.
        KeyboardInterrupt: the run was interrupted, and saved.
    """
    runtime.prepare(options.recipe.training)
    with termination_interrupts(), joined(resolve_device(options.device)) as (world, device):
        report = _train(options, device, world, callbacks)
        # Rank 0 calibrates and writes; the others wait, so that all end together.
        world.from_lead(None, device)
        return report


def _train(
    options: TrainOptions, device: torch.device, world: World, callbacks: Sequence[Callback]
) -> Report | None:
    try:
        run = _set_up(options, device, world)
        trainer = _trainer(run, device, world, callbacks)
        if options.resume or options.finish:
            trainer.load_checkpoint(options.output / RUN_FILE)
        if options.finish:
            _restore(trainer, options.output / RUN_FILE)
        else:
            trainer.train()
        return _finish(run, trainer, callbacks) if world.leads else None
    finally:
        for callback in callbacks:
            callback.close()


def _restore(trainer: Trainer, run_file: Path) -> None:
    if trainer.best_weights is None:
        raise InputError.at(run_file, "holds no validated weights: there is nothing to finish")
    trainer.restore_best()


def _set_up(options: TrainOptions, device: torch.device, world: World) -> _Run:
    """Read the data and make the model: all that has to be there before a trainer can be."""
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
    transfer = None
    if options.init_from is not None:
        transfer = start_from(
            model, options.init_from, store.labels, features=recipe.features.as_dict()
        )
    frozen = freeze(model, options.freeze)
    feeds[0].notes += (*(transfer.lines() if transfer else ()), *frozen.lines())
    floors = {}
    if world.leads:
        floors = honest_floors(*feeds, model.logmel, store.labels, seed=config.seed)
    return _Run(
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


def _trainer(
    run: _Run, device: torch.device, world: World, callbacks: Sequence[Callback]
) -> Trainer:
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


def _finish(run: _Run, trainer: Trainer, callbacks: Sequence[Callback]) -> Report:
    """Judge the model, write it with its card and its history, and return the report."""
    options, model, store = run.options, run.model, run.store
    recipe = options.recipe
    evaluation = trainer.evaluate(model)
    judged = judge_model(model, run.feeds, evaluation, store.labels, recipe, floors=run.floors)
    openset = openset_statistics(model, run.feeds[0], trainer.device)
    weights_sha256 = run.weights_file.sha256 if run.weights_file else None
    data = {
        "manifest_sha256": run.manifest,
        "store_sha256": store.metadata.get("content_sha256"),
        "sampling_weights_sha256": weights_sha256,
        "train_clips": run.feeds[0].n_clips,
        "val_clips": run.feeds[1].n_clips,
    }
    card = model_card(
        model,
        recipe,
        judged,
        data=data,
        readiness=run.readiness,
        history=trainer.history,
        transfer=None if run.transfer is None else run.transfer.as_dict(),
        frozen=run.frozen.as_dict() if run.frozen.prefixes else None,
    )
    content = {
        "labels": list(store.labels),
        "task": recipe.training.task,
        "features": recipe.features.as_dict(),
        "model": model.cnn.config.as_dict(),
        "weights": {name: value.cpu() for name, value in model.state_dict().items()},
        "calibration": judged.calibration.as_dict(),
        "openset": None if openset is None else openset.as_dict(),
        "card": card,
    }
    files = {
        "model": options.output / MODEL_FILE,
        "card": options.output / CARD_FILE,
        "page": options.output / PAGE_FILE,
        "history": options.output / HISTORY_FILE,
    }
    save_checkpoint(files["model"], content, format=MODEL_FORMAT)
    trainer.export_history(files["history"])
    write_json(files["card"], card)
    write_card_page(files["page"], card)
    for callback in callbacks:
        callback.on_files(files)
    return _report(run, trainer, card, evaluation)


def _report(run: _Run, trainer: Trainer, card: Mapping[str, Any], evaluation: Evaluation) -> Report:
    options, weights_file = run.options, run.weights_file
    return Report(
        tool="train-classifier",
        inputs=[
            describe_file(options.dataset / "metadata.json"),
            *([weights_file] if weights_file else []),
            *([describe_file(options.init_from)] if options.init_from else []),
        ],
        parameters={
            "dataset": options.dataset,
            "output": options.output,
            "device": str(trainer.device),
            "processes": trainer.world.size,
            "readiness": run.readiness.report_path,
            "allow_unready": options.allow_unready,
            "sampling_weights": options.sampling_weights,
            "init_from": options.init_from,
            "freeze": list(options.freeze),
            "resume": options.resume,
            "finish": options.finish,
            **options.recipe.as_dict(),
        },
        metrics={
            **{name: card[name] for name in ("validation", "floors", "parameters", "data")},
            "average_precision": evaluation.average_precision,
            "confusion": confusions(evaluation, task=options.recipe.training.task),
            "draws": _draws(run, trainer),
            "selected_epoch": card["selected_epoch"],
            "steps": card["steps"],
            "history": trainer.history,
        },
        warnings=card["warnings"],
        seed=options.recipe.training.seed,
    )


def _draws(run: _Run, trainer: Trainer) -> dict[str, Any]:
    feed, config = run.feeds[0], run.options.recipe.training
    order = feed.sampler.order if isinstance(feed.sampler, Shard) else feed.sampler
    assert isinstance(order, EpochSampler)
    return class_draws(
        feed.split.labels,
        run.store.labels,
        order,
        run.weights,
        trainer.history,
        accumulate_steps=config.accumulate_steps,
    )
