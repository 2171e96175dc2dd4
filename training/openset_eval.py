"""Command line of the open-set check; the work is done in `training.checks.openset`."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from training import options

OUTPUT_METHODS = ("max_probability", "max_logit", "energy", "entropy", "gen")
FEATURE_METHODS = ("mahalanobis", "relative_mahalanobis", "knn", "vim")
METHODS = ("explicit", *OUTPUT_METHODS, *FEATURE_METHODS, "all")
SHARE = click.FloatRange(0, 1)
shown = partial(click.option, show_default=True)
file = partial(click.option, type=options.INPUT_FILE)


@options.command(
    example="drumgate openset-eval --ground-truth test_ood_unknown/labels.jsonl"
    " --predictions outputs/test_ood_unknown_preds.jsonl --strict"
)
@file(
    "--ground-truth",
    required=True,
    help="Truth records with is_known (and unknown_group, where the unknown sounds have kinds).",
)
@file(
    "--predictions",
    required=True,
    help="Predictions with unknown_score, or with scores or logits to derive one from.",
)
@shown(
    "--method",
    type=click.Choice(METHODS),
    default="explicit",
    help="The unknown score: the rejection field, one derived from scores, logits or features, or"
    " all of them, ranked.",
)
@shown(
    "--rejection-field",
    default="unknown_score",
    help="The field of the predictions that --method explicit takes.",
)
@shown(
    "--higher-is",
    type=click.Choice(["unknown", "known"]),
    default="unknown",
    help="What a high value of the rejection field means.",
)
@shown(
    "--task",
    type=click.Choice(["multilabel", "multiclass"]),
    default="multilabel",
    help="Whether the classes have a sigmoid each or share a softmax.",
)
@shown(
    "--temperature",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    help="Logits are divided by this first.",
)
@file(
    "--features",
    help="NumPy archive with sample_id and features of the examples, for Mahalanobis, KNN, ViM.",
)
@file(
    "--statistics",
    help="NumPy archive of the training clips: features, targets or means, weight, bias.",
)
@shown(
    "--neighbours",
    type=click.IntRange(min=1),
    default=50,
    help="k of KNN; at most as many as there are training clips.",
)
@file(
    "--calibration-ground-truth",
    help="Truth records of other sessions, to choose the threshold (and of all, the method) on.",
)
@file("--calibration-predictions", help="Predictions of those examples.")
@shown(
    "--calibration-tpr",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.95,
    help="The threshold rejects at least this share of the calibration file's unknown sounds.",
)
@shown(
    "--min-examples",
    type=click.IntRange(min=1),
    default=10,
    help="With fewer known or fewer unknown examples no gate is measured.",
)
@shown(
    "--cluster-field",
    type=click.Choice(["session_id", "none"]),
    default="session_id",
    help="What the intervals resample: sessions, or (none) each clip on its own.",
)
@shown("--iterations", type=click.IntRange(min=1), default=1000, help="Resamples.")
@shown(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    help="Coverage of the intervals.",
)
@shown(
    "--min-clusters",
    type=click.IntRange(min=2),
    default=5,
    help="Fewer sessions than this give no interval.",
)
@click.option("--min-auroc", type=SHARE, help="Gate: the AUROC must reach this.")
@click.option(
    "--max-fpr-at-95tpr",
    type=SHARE,
    help="Gate: of the known sounds, at most this share may be rejected with 95 % of the unknown.",
)
@click.option(
    "--min-calibrated-tpr",
    type=SHARE,
    help="Gate: share of the test file's unknown sounds that the calibrated threshold rejects.",
)
@click.option(
    "--max-calibrated-fpr",
    type=SHARE,
    help="Gate: share of the test file's known sounds that the calibrated threshold may reject.",
)
@options.seed_option()
@options.report_options()
def main(outputs: options.ReportOutputs, **given: Any) -> None:
    """Judge whether a model knows what it does not know.

    Ranks known and unknown sounds by their unknown score and reports AUROC, AUPR and FPR@95TPR,
    with unknown as the positive class and the other way round, and intervals. A calibration file
    gives a threshold to release with. Judges always; blocks with --strict.
    """
    from training.checks import openset

    report = openset.run(openset.Options(**given, gates=outputs.gates))
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
