"""What comes out of a training run: the model file, its card, its history, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.dataset.samplers import EpochSampler
from training.gates import Report
from training.loop import runtime
from training.loop.callbacks import Callback
from training.loop.card import judge_model, model_card, write_card_page
from training.loop.confusion import confusions
from training.loop.distributed import Shard
from training.loop.draws import class_draws
from training.loop.metrics import Evaluation
from training.loop.prepare import Prepared
from training.loop.run_options import CARD_FILE, HISTORY_FILE, MODEL_FILE, PAGE_FILE
from training.loop.setup import openset_statistics
from training.loop.trainer import Trainer
from training.manifest import describe_file, write_json
from training.model.checkpoint import MODEL_FORMAT, save_checkpoint

__all__ = ["write_outcome"]


def write_outcome(run: Prepared, trainer: Trainer, callbacks: Sequence[Callback]) -> Report:
    """Judge the model, write it with its card and its history, and return the report.

    Raises:
        InputError: a file cannot be written.
    """
    options, model, store = run.options, run.model, run.store
    recipe = options.recipe
    # As it is saved: what compiled code returns may lie where the next call writes.
    with runtime.as_written(trainer.compiled):
        evaluation = trainer.evaluate(model)
        judged = judge_model(model, run.feeds, evaluation, store.labels, recipe, floors=run.floors)
        openset = openset_statistics(model, run.feeds[0], trainer.device)
    card = model_card(
        model,
        recipe,
        judged,
        data=_data(run),
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


def _data(run: Prepared) -> dict[str, Any]:
    """What the model was trained on: hashes, and numbers of clips."""
    return {
        "manifest_sha256": run.manifest,
        "store_sha256": run.store.metadata.get("content_sha256"),
        "sampling_weights_sha256": run.weights_file.sha256 if run.weights_file else None,
        "train_clips": run.feeds[0].n_clips,
        "val_clips": run.feeds[1].n_clips,
    }


def _report(
    run: Prepared, trainer: Trainer, card: Mapping[str, Any], evaluation: Evaluation
) -> Report:
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


def _draws(run: Prepared, trainer: Trainer) -> dict[str, Any]:
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
