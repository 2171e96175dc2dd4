"""Command line of the open-set check; the work is done in `training.checks.openset`."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


@options.command(
    example="python training/openset_eval.py --ground-truth test_ood_unknown/labels.jsonl"
    " --predictions outputs/test_ood_unknown_preds.jsonl --strict"
)
@click.option(
    "--ground-truth",
    type=options.INPUT_FILE,
    required=True,
    help="Truth records with is_known (and unknown_group, where the unknown sounds have kinds).",
)
@click.option(
    "--predictions",
    type=options.INPUT_FILE,
    required=True,
    help="Predictions with unknown_score, higher = more unknown.",
)
@click.option("--min-auroc", type=click.FloatRange(0, 1), help="Gate: the AUROC must reach this.")
@click.option(
    "--max-fpr-at-95tpr",
    type=click.FloatRange(0, 1),
    help="Gate: of the known sounds, at most this share may be rejected with 95 % of the unknown.",
)
@options.report_options()
def main(
    ground_truth: Path,
    predictions: Path,
    min_auroc: float | None,
    max_fpr_at_95tpr: float | None,
    outputs: options.ReportOutputs,
) -> None:
    """Judge whether a model knows what it does not know.

    Ranks known and unknown sounds by their unknown score and reports AUROC, AUPR and FPR@95TPR,
    with unknown as the positive class. Judges always; blocks with --strict.
    """
    from training.checks import openset

    report = openset.run(
        openset.Options(
            ground_truth=ground_truth,
            predictions=predictions,
            min_auroc=min_auroc,
            max_fpr_at_95tpr=max_fpr_at_95tpr,
            gates=outputs.gates,
        )
    )
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
