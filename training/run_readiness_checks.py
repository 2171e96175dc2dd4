"""Command line of the readiness wrapper; the work is done in `training.checks.readiness`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from training import options

CHECKS = ("alignment", "health", "boundary", "openset", "bootstrap")
FILE: dict[str, Any] = {"type": options.INPUT_FILE}
MANY: dict[str, Any] = {"multiple": True}
TOOLS = {check: f"{check}-eval" for check in CHECKS}
TOOLS |= {"alignment": "align-qc", "health": "dataset-health"}
PAIR = ("ground-truth", "predictions")

# The flags of each check, named --<check>-<flag>; their meaning is that of the check's own command.
CHECK_FLAGS: dict[str, dict[str, dict[str, Any]]] = {
    "alignment": {
        "manifest": FILE | MANY | {"help": "Session manifest for align-qc; may be repeated."},
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
}
# A flag that may be repeated fills a field with a plural name.
PLURALS = {
    "require_technique": "require_techniques",
    "require_techniques_file": "require_techniques_files",
    "require_label": "require_labels",
    "require_labels_file": "require_labels_files",
}


def check_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of every check, and `--<check>-report` for its JSON report."""
    for check, flags in reversed(CHECK_FLAGS.items()):
        report = {"type": options.OUTPUT_FILE, "help": f"Write the {check} report here."}
        for name, settings in reversed((flags | {"report": report}).items()):
            same = {"help": f"As --{name} of {TOOLS[check]}."}
            function = click.option(f"--{check}-{name}", **same | settings)(function)
    return function


@options.command(
    example="python training/run_readiness_checks.py --checks alignment,health"
    " --alignment-manifest sessions/session_001.json --health-events annotations/events.jsonl"
    " --health-max-unknown-labels 0 --report reports/readiness.json"
    " --html-output reports/index.html"
)
@click.option(
    "--checks",
    multiple=True,
    default=CHECKS,
    callback=options.split_commas,
    show_default=",".join(CHECKS),
    help="The checks to run, separated by commas; one that has no input blocks.",
)
@click.option("--halt-on-first-failure", is_flag=True, help="Run no further check once one blocks.")
@check_flags
@options.report_options(strict=False)
def main(
    checks: tuple[str, ...],
    halt_on_first_failure: bool,
    outputs: options.ReportOutputs,
    **flags: Any,
) -> None:
    """Run the gates and say whether the dataset, or the release, is ready.

    Blocks (exit 1) when a gate fails or could not be measured, or a selected check has no input.
    With --html-output, a page for every check is written beside it. The JSON report is what
    train_classifier.py asks for.
    """
    from training.checks import readiness

    for name in set(checks) - set(CHECKS):
        raise click.BadParameter(f"{name!r} is none of {', '.join(CHECKS)}", param_hint="--checks")
    reports = {check: flags.pop(f"{check}_report") for check in CHECKS}
    report, outcomes = readiness.run(
        readiness.Options(
            checks=checks,
            given={check: _given(check, flags) for check in CHECKS},
            halt_on_first_failure=halt_on_first_failure,
            gates=outputs.gates,
        )
    )
    for outcome in outcomes:
        _write_parts(outcome, reports[outcome.check], outputs.html_output)
    options.finish(report, outputs)


def _given(check: str, flags: dict[str, Any]) -> dict[str, Any]:
    names = {name: name.replace("-", "_") for name in CHECK_FLAGS[check]}
    return {PLURALS.get(key, key): flags[f"{check}_{key}"] for key in names.values()}


def _write_parts(outcome: Any, report: Path | None, index: Path | None) -> None:
    """Write the report and the page of one check."""
    from training.manifest import write_text
    from training.render import RENDERERS

    if outcome.trace:
        options.debug(outcome.trace)
    if outcome.report is None:
        return
    data = outcome.report.to_dict()
    if report:
        write_text(report, RENDERERS["json"](data))
    if index:
        write_text(index.parent / f"{outcome.check}.html", RENDERERS["html"](data))


if __name__ == "__main__":
    main()
