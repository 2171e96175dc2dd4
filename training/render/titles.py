"""What tools, checks and gates are called where a person reads about them."""

from __future__ import annotations

from typing import Final

QUESTIONS: Final = {
    "align-qc": "Do all microphones of a session hear each hit at the time they should?",
    "annotate-techniques": "Which playing techniques do the rules find in this manifest?",
    "bootstrap-eval": "How well does the model find each class, and how sure is that figure?",
    "boundary-eval": "Does the model still find hits that lie beside the edge of a window?",
    "build-training-dataset": "Were clips, labels and splits stored whole and without leaks?",
    "calibrate": "Do the model's scores mean what they say?",
    "compare-health-reports": "Has the dataset lost anything since the version before it?",
    "compare-manifests": "What changed between two versions of a manifest?",
    "dataset-health": "Is there enough in this dataset, and is it clean enough, to train on?",
    "export-onnx": "Does the exported model say what the model says?",
    "generate-boundary-pack": "Which events lie beside the edges of the windows?",
    "hard-negative-miner": "Where is the model sure of a sound that the annotation does not have?",
    "normalize-openness": "How open was each hi-hat, on one scale for every device?",
    "openset-eval": "Does the model tell sounds that are none of its classes from the others?",
    "predict": "What does the model hear in these recordings?",
    "run-readiness-checks": "Is the dataset ready to train on, and the model ready to release?",
    "summarize-manifest": "What is in this manifest?",
    "validate-manifest": "Do the events contradict each other, or their audio?",
    "train-classifier": "How did training go, and what came out of it?",
}
"""What each tool is there to answer."""

CHECK_TOOLS: Final = {
    "alignment": "align-qc",
    "health": "dataset-health",
    "boundary": "boundary-eval",
    "openset": "openset-eval",
    "bootstrap": "bootstrap-eval",
    "calibration": "calibrate",
    "manifest": "validate-manifest",
    "store": "build-training-dataset",
    "health_compare": "compare-health-reports",
}
"""The tool that does by itself what a check of a readiness run does."""

_CHECKS: Final = {"calibration_test": "calibration", "dataset": "store"}

GATES: Final = {
    "alignment.max_delay_ms": "A mic is late or early",
    "alignment.max_drift_samples_per_min": "A mic drifts against the anchor",
    "alignment.max_jump_ms": "The lag of a mic jumps",
    "alignment.min_support": "Too few hits to measure a mic",
    "alignment.polarity_inverted": "The polarity of a mic is inverted",
    "boundary.min_macro_recall": "Hits beside window edges are missed",
    "boundary.min_macro_precision": "More is said beside window edges than is there",
    "boundary.max_recall_lost": "Windows lose hits that the whole recording does not",
    "openset.min_auroc": "Unknown sounds are not told from known ones",
    "openset.max_fpr_at_95tpr": "Rejecting unknown sounds costs too many known ones",
    "openset.min_calibrated_tpr": "The release threshold lets unknown sounds through",
    "openset.max_calibrated_fpr": "The release threshold rejects too many known sounds",
    "bootstrap.min_macro_f1": "Macro F1 is below its limit, or not surely above it",
    "bootstrap.max_macro_f1_drop": "The model is worse than the one before it",
    "bootstrap.max_openness_mae_rise": "Openness got worse than in the model before it",
    "health.max_duplication_rate": "Too many events stand twice",
    "health.min_class_count": "A class has too few hits",
    "health.max_unknown_labels": "Labels that the taxonomy does not know",
    "health.require_techniques": "A technique that was asked for is missing",
    "health.require_labels": "A label that was asked for is missing",
    "health.max_synthetic_fraction": "Too much of the data is synthetic",
    "health.min_drummers": "Too few drummers",
    "health.min_sessions": "Too few sessions",
    "health.min_kits": "Too few kits",
    "health.min_rooms": "Too few rooms",
    "health.min_duration_s": "Too little audio",
    "health.min_negatives": "Too few examples without a drum",
    "health.min_dynamic_count": "A dynamic has too few hits",
    "health.min_openness_hits": "Too few hits state their openness",
    "health.min_annotated_share": "A label is annotated in too little of the data",
    "health.max_contradicted_hits": "Hits that their own annotation rules out",
    "health.max_unknown_techniques": "Techniques that the catalogue does not know",
    "health.max_repeated_performances": "The same performance stands in several sessions",
    "health.max_clipping_rate": "Too many events clip",
    "health.max_outlier_rate": "Too many events that cannot be right",
    "health.min_split_class_count": "A class has too few hits in a split",
    "health.require_counts": "Too little of what was asked for",
    "health.split_isolation": "Splits share what they must not",
    "health_compare.max_drop": "A class lost hits",
    "health_compare.max_drop_pct": "A class lost too large a share of its hits",
    "health_compare.max_newly_failing_gates": "Gates fail that passed before",
    "health_compare.max_unknown_label_rises": "More labels that the taxonomy does not know",
    "health_compare.max_psi": "A distribution moved too far",
    "health_compare.max_failing_gates_blessed": "The candidate fails gates of its own",
    "dataset.max_shared_sessions": "A session lies in two splits",
    "dataset.max_untrained_labels": "Labels without an event in train",
    "dataset.max_unjudged_labels": "Labels that cannot be judged on test",
    "dataset.max_duration_mismatches": "Recordings are not as long as they should be",
    "dataset.max_store_problems": "The store is not what was written",
    "manifest_diff.added": "Events were added",
    "manifest_diff.removed": "Events were removed",
    "manifest_diff.moved": "Onsets moved",
    "manifest_diff.relabelled": "Labels changed",
    "manifest_diff.velocity": "Velocities changed",
    "manifest_diff.openness": "Openness changed",
    "manifest_diff.techniques": "Techniques changed",
    "manifest_diff.fields": "Other fields changed",
    "calibration_validation.max_ece": "Scores do not mean what they say",
    "calibration_validation.max_brier": "Scores are too far from the truth",
    "calibration_validation.min_brier_skill": "Scores hardly say more than the share of each class",
    "calibration_validation.max_class_ece": "The scores of a class do not mean what they say",
    "calibration_test.max_ece": "Scores do not mean what they say",
    "calibration_test.max_brier": "Scores are too far from the truth",
    "calibration_test.min_brier_skill": "Scores hardly say more than the share of each class",
    "calibration_test.max_class_ece": "The scores of a class do not mean what they say",
    "onnx.max_diff": "The exported model computes something else",
    "manifest.max_errors": "The manifest contradicts itself",
    "waivers.expired": "A waiver has expired",
    "waivers.unneeded": "A gate is waived that passes now",
    "waivers.unknown": "A waiver names no gate of this run",
    "waivers.refused": "A waiver cannot excuse a crash",
    "manifest.max_warnings": "The manifest has oddities",
}
"""What is wrong when a gate fails."""


_MEASURES: Final = {
    "polarity_inverted": "inverted mics:",
    "min_macro_recall": "macro recall",
    "min_macro_precision": "macro precision",
    "max_recall_lost": "macro recall lost:",
    "min_auroc": "AUROC",
    "max_fpr_at_95tpr": "FPR at 95 % TPR:",
    "min_calibrated_tpr": "share of unknown sounds rejected:",
    "max_calibrated_fpr": "share of known sounds rejected:",
    "min_macro_f1": "macro F1",
    "max_macro_f1_drop": "drop of macro F1:",
    "max_openness_mae_rise": "rise of the mean absolute error of openness:",
    "max_duplication_rate": "share of repeated events:",
    "require_counts": "counted:",
    "max_synthetic_fraction": "share of synthetic events:",
    "min_annotated_share": "share of events that annotate it:",
    "max_clipping_rate": "share of events that clip:",
    "max_outlier_rate": "share out of line:",
    "max_ece": "ECE",
    "max_brier": "Brier score",
    "min_brier_skill": "Brier skill",
    "max_class_ece": "ECE",
    "max_diff": "largest difference:",
}
"""What the figure of a gate is that has no unit."""
_HEADINGS: Final = {
    "f1": "F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "class_f1": "F1 of the class",
    "floor_macro_f1": "macro F1 of the floor",
    "map": "mAP",
    "ece": "ECE",
    "ece_classwise": "ECE, mean of the classes",
    "brier": "Brier score",
    "brier_skill": "Brier skill",
    "nll": "log loss",
    "auroc": "AUROC",
    "aupr_out": "AUPR, unknown positive",
    "aupr_in": "AUPR, known positive",
    "fpr_at_95tpr": "FPR at 95 % TPR",
    "tnr_at_95tpr": "TNR at 95 % TPR",
    "fpr_at_95tpr_known_positive": "FPR, known positive",
    "tnr_at_95tpr_known_positive": "TNR, known positive",
    "after_in_sample": "after, in-sample",
    "after_cross_fitted": "after, cross-fitted",
    "tp": "found",
    "fp": "false alarms",
    "fn": "missed",
    "n_ref": "events",
    "n_clips": "clips",
    "n_events": "events",
    "n_clusters": "clusters",
    "n_undefined": "draws without a figure",
    "p_value": "p",
    "p_holm": "p (Holm)",
    "ci_lower": "lower bound",
    "ci_upper": "upper bound",
    "point_estimate": "figure",
    "velocity_mae": "mean absolute error of velocity",
    "openness_mae": "mean absolute error of openness",
    "val_loss": "validation loss",
    "val_classes": "validation loss of the classes",
    "val_velocity": "validation loss of velocity",
    "val_openness": "validation loss of openness",
    "train_classes": "training loss of the classes",
    "train_velocity": "training loss of velocity",
    "train_openness": "training loss of openness",
    "top_1": "share right at the first guess",
    "top_3": "share right within three guesses",
    "train_loss": "training loss",
    "onset_s": "onset, s",
    "duration_s": "duration, s",
    "per_class": "each class",
}


def heading(name: object) -> str:
    """Return what a name of the JSON is called above a column, or in a list."""
    return _HEADINGS.get(str(name), str(name).replace("_", " "))


def question(name: str) -> str:
    """Return what a tool, or a check of a readiness run, is there to answer; '' if unknown."""
    return QUESTIONS.get(CHECK_TOOLS.get(name, name), "")


def check_of(gate: str) -> str:
    """Return the check of a readiness run that a gate belongs to, such as `store`."""
    table = gate.partition(".")[0]
    return _CHECKS.get(table, table)


def measure(gate: str) -> str:
    """Return what stands before the figure of a gate: `macro F1`; '' where its unit says it."""
    return _MEASURES.get(gate.partition("[")[0].rpartition(".")[2], "")


def trouble(gate: str) -> str:
    """Return what is wrong when a gate fails; '' for a gate of no known name."""
    return GATES.get(gate, "")
