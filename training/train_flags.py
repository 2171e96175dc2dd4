"""Options of train-classifier for logs and for starting from another model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import click

from training import options

Function = Callable[..., Any]

LOGS: Final = (
    click.option(
        "--log-dir",
        type=options.OUTPUT_DIR,
        help="Folder for train_log.jsonl, history.png and .svg, and what else is asked for."
        "  [default: --output]",
    ),
    click.option(
        "--plots/--no-plots", default=True, show_default=True, help="Draw the history at the end."
    ),
    click.option("--tensorboard", is_flag=True, help="Write event files below --log-dir."),
    click.option("--wandb-project", metavar="NAME", help="Log to this project on W&B."),
    click.option("--wandb-entity", metavar="NAME", help="Owner of the project."),
    click.option(
        "--wandb-tags",
        multiple=True,
        metavar="TAG,…",
        callback=options.split_commas,
        help="Tags of the run: --wandb-tags prod retrain, or prod,retrain.",
    ),
    click.argument("more_tags", nargs=-1, metavar="[TAG]...", callback=options.split_commas),
    click.option(
        "--wandb-mode",
        type=click.Choice(["online", "offline", "disabled"]),
        default="online",
        show_default=True,
        help="offline writes to disk and sends nothing.",
    ),
)
USE: Final = (
    click.option(
        "--init-from",
        type=options.INPUT_FILE,
        help="Start from the weights of this model file, where they fit; says which did not.",
    ),
    click.option(
        "--freeze",
        multiple=True,
        metavar="PREFIX",
        help="Leave the parameters and batch norms below this name as they are; repeatable.",
    ),
    click.option("--profile", is_flag=True, help="Time the sections of a step; profile.json."),
    click.option("--trace", is_flag=True, help="--profile, and a few steps for Perfetto."),
)
NAMES: Final = ("log_dir", "plots", "tensorboard")


def run_options(function: Function) -> Function:
    """Add them all; the command gets those of the logs as one dict, `logs`."""

    @functools.wraps(function)
    def collect(**kwargs: Any) -> Any:
        logs = {
            name: kwargs.pop(name)
            for name in list(kwargs)
            if name in NAMES or name.startswith("wandb_")
        }
        more = kwargs.pop("more_tags")
        if more and not logs["wandb_tags"]:
            raise click.UsageError(f"Got unexpected extra argument ({more[0]})")
        logs["wandb_tags"] = (*logs["wandb_tags"], *more)
        return function(logs=logs, **kwargs)

    wrapped: Function = collect
    for option in reversed((*LOGS, *USE)):
        wrapped = option(wrapped)
    return wrapped
