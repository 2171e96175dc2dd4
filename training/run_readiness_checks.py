"""Command line of the readiness wrapper; the work is done in `training.checks.readiness`."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from training import options

USUAL = ("alignment", "health", "boundary", "openset", "bootstrap")
FILE: dict[str, Any] = {"type": options.INPUT_FILE}
MANY: dict[str, Any] = {"multiple": True}
TOOLS = {"alignment": "align-qc", "health": "dataset-health", "calibration": "calibrate"}
TOOLS |= {"manifest": "validate-manifest", "health-compare": "compare-health-reports"}
PAIR = ("ground-truth", "predictions")

# The flags of each check, named --<check>-<flag>; their meaning is that of the check's own command.
CHECK_FLAGS: dict[str, dict[str, dict[str, Any]]] = {
    "alignment": {
        "manifest": FILE | MANY | {"help": "Session manifest for align-qc; repeatable."},
        "max-delay-ms": {"type": float},
        "max-drift-samples-per-min": {"type": float},
    },
    "health": {
        "events": FILE | {"help": "Events manifest for dataset-health."},
        "components": FILE,
        "dataset-metadata": FILE,
        "max-duplication-rate": {"type": float},
        "min-class-count": {"type": int},
        "min-counts-json": FILE,
        "max-unknown-labels": {"type": int},
        "require-technique": MANY,
        "require-techniques-file": FILE | MANY,
        "require-label": MANY,
        "require-labels-file": FILE | MANY,
        "max-synthetic-fraction": {"type": float},
        "min-drummers": {"type": int},
        "split-isolation": MANY | {"callback": options.split_commas},
    },
    "boundary": {name: FILE for name in PAIR} | {"min-macro-recall": {"type": float}},
    "openset": {name: FILE for name in PAIR}
    | {"min-auroc": {"type": float}, "max-fpr-at-95tpr": {"type": float}},
    "bootstrap": {name: FILE for name in PAIR}
    | {"iterations": {"type": int}, "min-macro-f1": {"type": float}, "seed": {"type": int}},
    "calibration": {name: FILE for name in PAIR},
    "manifest": {"events": FILE | MANY | {"help": "Events manifest to validate; repeatable."}},
    "store": {
        "store": {"type": options.INPUT_DIR, "help": "The clip store to verify."},
        "events": FILE | {"help": "The events that the clip store was built from."},
    },
    "health-compare": {"baseline": FILE, "candidate": FILE},
}
# A flag that may be repeated fills a field with a plural name.
PLURALS = {name: f"{name}s" for name in ("manifest", "require_technique", "require_label")}
PLURALS |= {f"{name}s_file": f"{name}s_files" for name in ("require_technique", "require_label")}


def check_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of every check, and `--<check>-report` for its JSON report."""
    for check, flags in reversed(CHECK_FLAGS.items()):
        report = {"type": options.OUTPUT_FILE, "help": f"Write the {check} report here."}
        for name, settings in reversed((flags | {"report": report}).items()):
            same = {"help": f"As --{name} of {TOOLS.get(check, f'{check}-eval')}."}
            function = click.option(f"--{check}-{name}", **same | settings)(function)
    return function


def run_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that say what is run, and how."""
    commas, day = {"callback": options.split_commas}, click.DateTime(["%Y-%m-%d"])
    usual = f"all that --config has, or else {','.join(USUAL)}"
    flags: dict[str, dict[str, Any]] = {
        "--config": FILE | {"help": "TOML file with a table a check; flags go before it."},
        "--root": {
            "type": options.INPUT_DIR,
            "help": "Folder that the paths in --config belong to; by default the one it names.",
        },
        "--checks": MANY
        | commas
        | {"show_default": usual, "help": "The checks to run; one that has no input blocks."},
        "--set": MANY
        | {"metavar": "CHECK.NAME=VALUE", "help": "Any input, option or gate value of a check."},
        "--waivers": FILE | {"help": "TOML file of gates that may fail, until when and why."},
        "--allow-missing": MANY
        | commas
        | {"metavar": "CHECKS", "help": "These checks may go without input; the report says so."},
        "--today": {"type": day, "help": "Judge waivers as on this day.  [default: this day]"},
        "--jobs": {"type": click.IntRange(1), "default": lambda: min(4, os.cpu_count() or 1)}
        | {"show_default": "as many as cores, at most 4", "help": "Checks at a time."},
        "--halt-on-first-failure": {"is_flag": True}
        | {"help": "One check after the other, and no further one once one blocks."},
        "--list": {"is_flag": True, "help": "Say what can be run, and run nothing."},
        "--dry-run": {"is_flag": True, "help": "Say what would be run on what, and run nothing."},
    }
    for name, settings in reversed(flags.items()):
        function = click.option(name, **settings)(function)
    return function


@options.command(
    example="drumgate run-readiness-checks --config configs/readiness.toml"
    " --report reports/readiness.json --html-output reports/index.html"
)
@run_flags
@check_flags
@options.report_options(strict=False)
def main(outputs: options.ReportOutputs, today: datetime | None, **flags: Any) -> None:
    """Run the gates and say whether the dataset, or the release, is ready.

    Blocks (exit 1) when a gate fails or could not be measured, or a selected check has no input.
    With --html-output, a page for every check is written beside it. The JSON report is what
    train_classifier.py asks for.
    """
    from training.checks import readiness
    from training.render import readiness as pages

    reports = {_key(check): flags.pop(_key(check, "report")) for check in CHECK_FLAGS}
    given: dict[str, dict[str, Any]] = {_key(check): {} for check in CHECK_FLAGS}
    for check, names in CHECK_FLAGS.items():
        for name in map(_key, names):
            given[_key(check)][PLURALS.get(name, name)] = flags.pop(_key(check, name))
    everything, dry_run = flags.pop("list"), flags.pop("dry_run")
    asked = readiness.Options(
        given=given,
        settings=flags.pop("set"),
        checks=flags.pop("checks") or None,
        gates=outputs.gates,
        today=today.date() if today else None,
        **flags,
    )
    if everything or dry_run:
        return pages.show_plan(asked, outputs.format, everything=everything)
    report, outcomes = readiness.run(asked, track=options.track("checking"))
    for trace in filter(None, (outcome.trace for outcome in outcomes)):
        options.debug(trace)
    pages.write_parts(outcomes, reports, outputs.html_output)
    options.finish(report, outputs)


def _key(*words: str) -> str:
    return "_".join(words).replace("-", "_")


if __name__ == "__main__":
    main()
