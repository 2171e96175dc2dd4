"""Options of train-classifier that say how a model is trained."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from training import options

if TYPE_CHECKING:
    from training.loop.config import Recipe

Function = Callable[..., Any]

SETTINGS: Final = (
    click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training clips."),
    click.option(
        "--max-minutes",
        type=click.FloatRange(min=0, min_open=True),
        help="Time budget: the learning-rate schedule is laid over it.",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), help="Clips of a forward pass."),
    click.option(
        "--accumulate-steps", type=click.IntRange(min=1), help="Batches that make one step."
    ),
    click.option("--lr", "learning_rate", type=float, help="Largest learning rate."),
    click.option("--task", type=click.Choice(["multilabel", "multiclass"]), help="Labels a clip."),
    click.option("--seed", type=click.IntRange(min=0), help="Seed of everything drawn at random."),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads."),
    click.option("--compile/--no-compile", default=None, help="Compile the network."),
    click.option(
        "--cuda-graphs/--no-cuda-graphs",
        default=None,
        help="Compile it to CUDA graphs (CUDA only).",
    ),
    click.option(
        "--deterministic/--no-deterministic",
        default=None,
        help="Only algorithms that give the same result every time.",
    ),
)
NAMES: Final = (
    "epochs",
    "max_minutes",
    "batch_size",
    "accumulate_steps",
    "learning_rate",
    "task",
    "seed",
    "threads",
    "compile",
    "cuda_graphs",
    "deterministic",
)
SOURCES: Final = (
    click.option(
        "--preset",
        type=click.Choice(["default", "short", "fast"]),
        default="default",
        show_default=True,
        help="Recipe to start from: 576 ms 128 x 128, 181 ms 128 x 128, or 200 ms 64 x 64.",
    ),
    click.option("--config", type=options.INPUT_FILE, help="TOML laid over the preset."),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="TABLE.KEY=VALUE",
        help="One setting, laid over all, such as training.schedule=cosine; repeatable.",
    ),
)


def recipe_options(function: Function) -> Function:
    """Add them all; the command gets `recipe`, which reads the recipe when it is called."""

    @functools.wraps(function)
    def collect(preset: str, config: Any, assignments: tuple[str, ...], **kwargs: Any) -> Any:
        overrides = {name: kwargs.pop(name) for name in NAMES}

        def recipe() -> Recipe:
            from training.loop.config import load_recipe

            return load_recipe(preset, config, overrides, assignments)

        return function(recipe=recipe, **kwargs)

    wrapped: Function = collect
    for option in reversed((*SOURCES, *SETTINGS)):
        wrapped = option(wrapped)
    return wrapped
