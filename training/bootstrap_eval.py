"""Command line of the bootstrap check; the work is done in `training.checks.bootstrap`."""

from __future__ import annotations

from typing import Any

import click

from training import options


@options.command(
    example="drumgate bootstrap-eval --ground-truth splits/test.jsonl"
    " --predictions outputs/test_preds.jsonl --report reports/test_bootstrap.json"
    " --iterations 1000"
)
@click.option(
    "--ground-truth",
    type=options.INPUT_FILE,
    required=True,
    help="Truth records (sample_id, labels or components, session_id); an events file will do.",
)
@click.option(
    "--predictions",
    type=options.INPUT_FILE,
    required=True,
    help="Predictions (sample_id, scores), as predict.py writes them.",
)
@click.option(
    "--baseline-predictions",
    type=options.INPUT_FILE,
    help="An earlier model's predictions of the same clips: adds the paired difference.",
)
@click.option(
    "--metrics",
    metavar="NAME,…",
    callback=options.comma_names,
    help="Figures to report; all of them by default. An unknown name lists them.",
)
@options.threshold_option
@options.calibration_option
@click.option(
    "--baseline-calibration",
    type=options.INPUT_FILE,
    help="The same for the baseline's predictions, which --calibration leaves alone.",
)
@click.option(
    "--labels",
    metavar="NAME,…",
    callback=options.comma_names,
    help="The classes; any other label is an error.",
)
@click.option(
    "--components",
    type=options.INPUT_FILE,
    help="A components file whose targets are the classes; any other label is an error.",
)
@click.option(
    "--cluster-field",
    default="session_id",
    show_default=True,
    help="Clips with the same value are drawn together; none = each clip on its own.",
)
@click.option("--stratify-field", help="Draw within each value of this field.")
@click.option(
    "--iterations", type=click.IntRange(min=1), default=1000, show_default=True, help="Resamples."
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Coverage of the intervals.",
)
@click.option(
    "--method",
    type=click.Choice(["expanded", "percentile", "bca"]),
    default="expanded",
    show_default=True,
    help="Kind of interval; expanded is percentile, corrected for few sessions.",
)
@click.option(
    "--min-clusters",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Fewer sessions than this give no interval.",
)
@click.option("--min-macro-f1", type=click.FloatRange(0, 1), help="Gate: macro F1 must reach this.")
@click.option(
    "--max-macro-f1-drop",
    type=click.FloatRange(0, 1),
    help="Gate: macro F1 may be this much below the baseline's.",
)
@click.option(
    "--max-openness-mae-rise",
    type=click.FloatRange(0, 1),
    help="Gate: the error of openness may be this much above the baseline's.",
)
@options.seed_option()
@options.report_options()
def main(outputs: options.ReportOutputs, **given: Any) -> None:
    """Give a model's figures with intervals, by resampling whole sessions.

    Clips of one session are alike, so sessions are drawn, not clips. With --baseline-predictions
    also what changed since an earlier model, on the same clips. Judges always; blocks with
    --strict.
    """
    from training.checks import bootstrap, bootstrap_report

    report = bootstrap.run(bootstrap.Options(**given, gates=outputs.gates))
    if given["baseline_predictions"] and outputs.format == "text":
        options.echo(bootstrap_report.comparison_table(report.to_dict()))
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
