"""The table of mutations: a key line of each metric, how it is broken, and the test that must fail.

To add one: the module below `training.metrics`, a piece of its source that stands there once, what
to put in its place, the test file, and a `-k` expression for the fastest test there that fails.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One broken line."""

    module: str
    text: str
    broken: str
    tests: str
    only: str = ""


# One row a mutation, however wide: the table is read, not the code around it.
# ruff: noqa: E501
# fmt: off
MUTATIONS = tuple(
    Mutation(*fields)
    for fields in (
        # alignment
        ("alignment", "per_minute = 60.0 *", "per_minute = 6.0 *", "test_alignment", "test_a_jump_and_a_drift_are_told_apart"),
        ("alignment", "if trend.residual_sigma_ms > config.max_spread_ms:", "if False:", "test_alignment", "test_what_is_too_weak_is_not_measured"),
        ("alignment", "if support < config.min_support:", "if False:", "test_alignment", "test_hits_that_disagree_are_no_support"),
        ("alignment_channel", "high - dc, dc - low", "high, -low", "test_alignment_parts", "test_the_state_of_a_channel"),
        ("alignment_gcc", "bend = left - 2.0 * middle", "bend = left - 9.0 * middle", "test_alignment_parts", "test_a_peak_is_found_between_points"),
        ("alignment_gcc", "sign < 0 if usable", "sign > 0 if usable", "test_alignment", "test_a_clean_pair"),
        ("alignment_gcc", "float(np.percentile(levels, 90)) - DEAD_DB", "float(np.percentile(levels, 90)) - 900.0", "test_alignment", "test_a_stretch_in_the_middle"),
        ("alignment_lost", "n * elsewhere**length * EXPECTED >= 1.0", "elsewhere**length * EXPECTED >= 1.0", "test_alignment_parts", "test_runs_too_long_for_chance_by_hand"),
        ("alignment_lost", "n, n_lost = n - length, n_lost - length", "n, n_lost = n, n_lost", "test_alignment", "test_a_stretch_in_the_middle"),
        ("alignment_lost", "else lag_ms - usual_ms", "else lag_ms", "test_alignment", "test_a_stretch_in_the_middle"),
        ("alignment_trend", "step = abs(float(np.median(right) - np.median(left)))", "step = 0.0", "test_alignment_parts", "test_slopes_do_not_reach_across_a_jump"),
        ("alignment_trend", "use = (segment[i] == segment[j]) & (gap > 0.0)", "use = gap > 0.0", "test_alignment_parts", "test_slopes_do_not_reach_across_a_jump"),
        ("alignment_types", "return self.median_delay_ms - self.expected_delay_ms", "return self.median_delay_ms", "test_alignment", "test_expected_delay_moves_the_search_not_the_lag"),
        ("alignment_windows", "return self.sample_rate * self.upsampling", "return self.sample_rate", "test_alignment", "test_a_clean_pair"),
        # classification and its scores
        ("classification", "return self.tp + self.fn", "return self.tp", "test_classification", "test_hand_computed_counts_and_figures"),
        ("classification", "2.0 * counts.tp + counts.fp + counts.fn", "2.0 * counts.tp + counts.fp", "test_classification", "test_hand_computed_counts_and_figures"),
        ("classification", "present = counts.n_ref > 0", "present = counts.n_ref >= 0", "test_classification", "test_hand_computed_counts_and_figures"),
        ("classification", "predicted = values >= np", "predicted = values > np", "test_classification", "test_decide_threshold_top_k_ties_and_missing_scores"),
        ("scores", "np.abs(error), error**2, value", "error, error**2, value", "test_bootstrap", "test_points_equal_scikit_learn_to_1e_12"),
        ("calibration_scores", "gap = clips.scores - clips.truth", "gap = clips.scores + clips.truth", "test_bootstrap", "test_calibration_error_equals_a_plain_loop"),
        ("onsets", "(predicted + tolerance_s)", "(predicted + 2 * tolerance_s)", "test_onsets", "test_matches_are_as_many_as_mir_eval_finds"),
        ("ranking", "np.argsort(-clips.scores[known, column]", "np.argsort(clips.scores[known, column]", "test_bootstrap", "test_points_equal_scikit_learn_to_1e_12"),
        ("ranking", "ranks -= 0.5 * of_y", "ranks -= 0.4 * of_y", "test_bootstrap", "test_points_equal_scikit_learn_to_1e_12"),
        ("confusion", "wrong = predicted & ~truth & annotated", "wrong = predicted & annotated", "test_confusion", "test_by_hand"),
        ("confusion", "missed = there & ~predicted", "missed = truth & ~predicted", "test_confusion", "test_what_is_not_annotated_is_neither_missed_nor_wrong"),
        ("false_alarms", "self.false_alarms.sum()) / self.hours", "self.false_alarms.sum())", "test_predict_continuous", "test_figures_by_hand"),
        # resampling
        ("bootstrap", "(n_positive[:, expected] > 0)", "(n_positive[:, expected] >= 0)", "test_bootstrap", "test_a_class_in_few_sessions"),
        ("resampling", "(1.0 - settings.confidence) / 2.0, (1.0", "(1.0 - settings.confidence) / 1.0, (1.0", "test_bootstrap", "test_a_resample_equals_the_same_clips_written_out"),
        ("resampling", "depths * math.sqrt(free / n_clusters)", "depths", "test_bootstrap_proof", "test_the_paired_test_alarms"),
        ("resampling", "free = n_clusters - n_strata\n        tails = ndtr", "free = n_clusters - 1\n        tails = ndtr", "test_bootstrap_proof", "test_strata_of_few_clusters"),
        ("resampling", "(away / reached - bias)", "(away / reached + bias)", "test_bootstrap_proof", "test_a_p_value_is_where"),
        ("resampling", "/ (6.0 * scale)", "/ (2.0 * scale)", "test_bootstrap", "test_bca_formula_equals_scipy_on_the_same_resamples"),
        # boundary
        ("boundary", "named = sorted({edge for edge in edges if edge is not None}, key=_edge_order)", "named = []", "test_boundary", "test_figures_per_edge_and_by_distance_by_hand"),
        ("boundary", "shares = np.full(n_sessions, 1.0 / max(n_sessions, 1))", "shares = np.eye(n_sessions)[0]", "test_boundary", "test_the_interval_equals_scipy_over_sessions_within_monte_carlo_error"),
        ("boundary_overlap", "at_window & (rank > 1)", "at_window & (rank > 2)", "test_boundary_parity", "test_hand_computed_duplicates"),
        ("boundary_pack", "// layout.hop_us + 1\n    return range", "// layout.hop_us + 2\n    return range", "test_boundary_pack", "test_hand_computed_windows_of_2048_hop_512"),
        ("boundary_pack", "if distance[edge] <= layout.margin_us", "if distance[edge] < layout.margin_us", "test_boundary_pack", "test_one_event_near_several_edges_of_several_windows_and_offsets"),
        ("boundary_parity", "return np.asarray(self.truth & self.known & self.whole & ~self.window)", "return np.asarray(self.truth & self.known & self.whole)", "test_boundary_parity", "test_a_hand_computed_pack"),
        ("boundary", "if n_sessions < min_sessions:", "if n_sessions < 2:", "test_boundary", "test_one_session_gives_no_interval"),
        # open set
        ("openset", "curve.precision @ np.diff(curve.recall, prepend=0.0)", "np.trapezoid(curve.precision, curve.recall)", "test_openset", "test_by_hand"),
        ("openset", "np.argmax(curve.tpr >= floor)", "np.argmax(curve.tpr >= 0.5 * floor)", "test_openset", "test_by_hand"),
        ("openset", "np.argmax(curve.tpr >= floor)", "np.argmax(curve.tpr > floor)", "test_openset", "test_a_rate_that_meets_the_floor_exactly_is_enough"),
        ("openset", "last_of_tie + 1.0 - true_positives", "last_of_tie - true_positives", "test_openset", "test_by_hand"),
        ("openset_features", "fitted.alpha * outside - free", "outside - free", "test_openset_scores", "test_vim_as_its_authors_compute_it"),
        ("openset_intervals", "below, below_known = n_unknown - above + unknown,", "below, below_known = n_unknown - above,", "test_openset_intervals", "test_a_resample_is_measured_as_if_written_out"),
        ("openset_scores", "both = entr(p) + entr(rest) if", "both = entr(p) if", "test_openset_scores", "test_multilabel_by_hand"),
        # calibration
        ("calibration", "margin * np.exp(-log_temperature)", "margin * np.exp(log_temperature)", "test_calibration", "test_temperature_is_where"),
        ("calibration", "np.log(p) - np.log1p(-p)", "np.log(p)", "test_calibration", "test_temperature_equals_logistic_regression"),
        ("calibration_fit", "if count < recipe.min_examples", "if count < 0", "test_calibration", "test_a_class_that_cannot_be_fitted"),
        ("operating_points", "value = 2.0 * hits / (hits", "value = -2.0 * hits / (hits", "test_calibration", "test_thresholds_by_hand"),
        ("operating_points", "2.0 * hits / (hits + alarms + positives)", "2.0 * hits / (hits + positives)", "test_calibration", "test_thresholds_by_hand"),
        ("operating_points", "met = hits >= goal.min_recall * positives", "met = hits >= 0.9 * positives", "test_calibration", "test_thresholds_by_hand"),
        # mining
        ("hard_negatives", "score < criteria.min_confidence or label in example.labels", "score < criteria.min_confidence", "test_hard_negatives", "test_the_hardest_come_first_whatever_the_order_of_the_file"),
        ("hard_negatives", "label not in example.annotated", "label in example.annotated", "test_hard_negatives", "test_true_excluded_and_unannotated_labels_are_never_mined"),
        ("hard_negatives", "low = middle\n", "low = high\n", "test_hard_negatives", "test_spread_by_hand"),
        ("hard_negatives", "found.sort(key=lambda n: (-n.score,", "found.sort(key=lambda n: (n.score,", "test_hard_negatives", "test_the_hardest_come_first_whatever_the_order_of_the_file"),
        ("hard_negatives", "abs(distance_ms) <= criteria.tolerance_ms", "abs(distance_ms) < criteria.tolerance_ms", "test_hard_negatives", "test_the_nearest_event_is_of_the_same_session_and_label"),
        # health
        ("health", "duplication_rate(total, [ids, places])", "duplication_rate(total, [ids])", "test_health_oracle", "test_figures_equal_a_plain_loop and on_arrow"),
        ("health_cells", "scaled.clip(upper_bound=UNIT_BINS - 1)", "scaled.clip(upper_bound=UNIT_BINS)", "test_health_oracle", "test_figures_equal_a_plain_loop and on_duckdb"),
        ("health_compare", "fate = \"newly_failing\" if old is None or old.passed", "fate = \"newly_failing\" if old is None", "test_health_compare", "test_fates_of_gates"),
        ("drift", "beyond = max(_rounded(psi) - _rounded(chance), 0.0)", "beyond = _rounded(psi)", "test_health_compare", "test_a_shift_that_chance_explains_is_not_judged"),
        ("drift", "p, q = before / counts[0], after / counts[1]", "p, q = before / counts[0], after / counts[0]", "test_drift", "test_against_scipy"),
        ("health_compare", "drop = max(before - after, 0)", "drop = max(after - before, 0)", "test_health_compare", "test_a_drop_is_never_negative"),
        ("health_frames", "return (expression + 0.5).floor()", "return (expression + 1.5).floor()", "test_health_oracle", "test_figures_equal_a_plain_loop and on_arrow"),
        ("health_labels", "entry[\"synthetic\" if synthetic else \"real\"]", "entry[\"real\" if synthetic else \"synthetic\"]", "test_health_oracle", "test_figures_equal_a_plain_loop and on_arrow"),
        ("health_outliers", "over = np.flatnonzero(within > limit)", "over = np.flatnonzero(within >= limit)", "test_health_outliers", "test_outliers_equal_a_plain_loop and on_arrow"),
        ("health_repeats", "filter(nw.col(\"rows\") > 1)", "filter(nw.col(\"rows\") > 2)", "test_health_oracle", "test_figures_equal_a_plain_loop and on_arrow"),
        ("health_spread", "(position - below) * (at[above] - at[below])", "(at[above] - at[below])", "test_health_oracle", "test_percentiles_of_values_within_one_step"),
        ("summary", "round(int(found[0]) / 60e6, 6)", "round(int(found[0]) / 50e6, 6)", "test_summarize_manifest", "test_by_hand"),
        # validating
        ("finding_rules", "id=\"duplicate-sample-id\",", "id=\"duplicate-sample\",", "test_validate_manifest", ""),
        ("findings", "climbed == \"..\" or climbed.startswith(\"../\")", "climbed == \"..\"", "test_validate_manifest", "test_paths_stay_inside"),
        ("findings_audio", "\"e.onset_time >= h.duration_s\"", "\"e.onset_time > h.duration_s\"", "test_validate_manifest", "test_audio_headers"),
        ("findings", "PARTITION BY key, part ORDER BY row", "PARTITION BY key ORDER BY row", "test_validate_roots", "test_each_source_has_its_own_file"),
        ("findings", "normalize(\"NFKC\", name).casefold()", "normalize(\"NFKC\", name)", "test_validate_roots", "test_names_that_look_alike"),
        ("findings_audio", "root >= {least_root}", "root >= 0", "test_validate_roots", "test_what_has_no_folder"),
        # comparing manifests
        ("manifest_diff", "> tolerance_s for i, j in named", "> 0 for i, j in named", "test_compare_manifests", "test_a_shift_within_the_tolerance"),
        ("manifest_diff", "abs(before.onset_time - after.onset_time) > SAME_ONSET_S", "before.onset_time > after.onset_time", "test_compare_manifests", "test_one_change_is_one_kind"),
        ("manifest_diff_listing", "return 1 << KINDS.index(kind)", "return 1", "test_manifest_diff_sql", "test_every_field_from_every_value_to_every_other"),
        ("manifest_diff_hash", "f\"md5_number({text})\"]", "]", "test_manifest_diff_sql", "test_texts_that_the_engine_confuses"),
        ("manifest_diff_sql", "before.labels = after.labels AND before.velocity <>", "before.velocity <>", "test_manifest_diff_sql", "test_every_field_from_every_value_to_every_other"),
        ("manifest_diff_totals", "return Counter({name: int(events) for", "return Counter({name: 1 + int(events) for", "test_manifest_diff_sql", "test_every_field_from_every_value_to_every_other"),
        ("manifest_match", "allowed = distance <= tolerance_s", "allowed = distance < tolerance_s", "test_compare_manifests", "test_pairing_is_optimal"),
        # openness
        ("openness", "(below + through)).sum() / 2.0", "(below + through)).sum()", "test_openness", "test_separation_is_the_mann_whitney_statistic"),
        ("openness", "if after <= before:", "if after < before:", "test_openness", "test_a_curve_that_makes_no_sense"),
        ("openness_fit", "second - 2.0 * fitted * first", "second - fitted * first", "test_openness_fit", "test_a_known_curve_comes_back_exactly"),
        # sampling
        ("sampling", "np.sqrt(weighting.repeat_threshold", "(weighting.repeat_threshold", "test_sampling", "test_repeat_factors_by_hand"),
        ("sampling", "(1.0 - weighting.beta) / -np.expm1", "1.0 / -np.expm1", "test_sampling", "test_effective_numbers_by_hand"),
        ("sampling_draw", "total = float((count * scaled).sum())", "total = float(scaled.sum())", "test_sampling", "test_the_ends_of_the_exponent"),
    )
)
# fmt: on
