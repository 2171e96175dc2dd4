"""Sampling weights of a manifest: choose events, weigh, and preview what the draw will give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from training import __version__
from training.checks.sampling_preview import Weights, preview
from training.checks.sampling_profiles import (
    Profile,
    choose_parameters,
    load_profiles,
    weighting_of,
)
from training.dataset.drawn import Choice, Drawn, choose_events, columns_of
from training.errors import DrumgateError, clip, printable
from training.manifest.engine import Engine, open_engine
from training.manifest.scan import Scan, scan_events
from training.metrics.sampling import (
    Clamped,
    IntArray,
    Weighting,
    class_factors,
    drawable,
    group_weights,
)
from training.taxonomy.techniques import load_techniques

__all__ = ["Options", "Profile", "load_profiles", "run", "summary"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to weigh and how; None leaves what the profile says, or the default."""

    manifest: Path | Sequence[Path]
    """One manifest or several, which count as one."""
    profile: str | None = None
    profiles_path: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    """Parameters given one by one, named as in `Profile`; they go before the profile's."""
    draws: int | None = None
    """Draws to preview; default: as many as there are events."""
    memory_limit: str | None = None
    cache_dir: Path | None = None


def run(options: Options) -> dict[str, Any]:
    """Return the artefact: `weights {group: {count, weight}}`, parameters, totals and preview.

    Raises:
        DrumgateError: a parameter makes no sense, or the profile does not exist.
        InputError: the manifest or the profiles file is missing or malformed, an event lacks the
            field to group by, or no event is chosen.
    """
    chosen = choose_parameters(options.profile, options.profiles_path, options.given)
    weighting = weighting_of(chosen)
    paths = [options.manifest] if isinstance(options.manifest, Path) else list(options.manifest)
    with open_engine(options.memory_limit) as engine:
        scan = scan_events(
            engine, paths, columns=columns_of(_choice(chosen)), cache_dir=options.cache_dir
        )
        return _artefact(options, chosen, weighting, engine, scan)


def _choice(chosen: Profile) -> Choice:
    return Choice(
        group_field=chosen.group_field,
        dedupe_key=chosen.dedupe_key,
        include_technique=chosen.include_technique,
        exclude_technique=chosen.exclude_technique,
    )


def _artefact(
    options: Options, chosen: Profile, weighting: Weighting, engine: Engine, scan: Scan
) -> dict[str, Any]:
    drawn = choose_events(engine.connection, scan, _choice(chosen))
    totals = drawn.technique_totals()
    n_draws = options.draws or drawn.n_events
    try:
        weights, class_count, eligible = _weigh(drawn, weighting)
        shown = preview(drawn, weights, n_draws)
    except ValueError as error:
        raise DrumgateError(f"{scan.sources[0].path}: {error}") from None
    artefact: dict[str, Any] = {
        "schema_version": 1,
        "tool": "derive-sampling-weights",
        "version": __version__,
        "parameters": {"profile": options.profile, "draws": n_draws, **chosen.parameters()},
        "inputs": list(scan.sources),
        "events_total": drawn.n_events,
        "events_left_out_by_technique": drawn.filtered,
        "duplicates_left_out": drawn.duplicates,
        "duplicates_of_another_track": drawn.duplicates_elsewhere,
        "technique_totals": totals,
        "techniques_boosted_but_absent": sorted(set(chosen.technique_boost) - set(totals)),
        "techniques_filtered_but_absent": drawn.unmet,
        "weights": {
            name: {"count": count, "weight": weight}
            for name, count, weight in zip(
                drawn.groups,
                drawn.group_count.tolist(),
                weights.groups.weight.tolist(),
                strict=True,
            )
        },
        "class_factors": _factors(drawn, weights.classes, class_count, eligible)
        if weighting.by_class
        else {},
        "preview": shown,
    }
    return {**artefact, "warnings": _warnings(artefact)}


def _warnings(artefact: Mapping[str, Any]) -> list[str]:
    """What a reader should know before training with the weights."""
    parameters, clamping = artefact["parameters"], artefact["preview"]["clamping"]
    warnings = []
    if elsewhere := artefact["duplicates_of_another_track"]:
        warnings.append(
            f"{elsewhere:,} of {artefact['duplicates_left_out']:,} events left out as duplicates"
            " name another track than the one that is kept: where tracks are takes of their own,"
            " add track_id to --dedupe-key"
        )
    drawable_weights = {group["weight"] for group in artefact["weights"].values()} - {0.0}
    clamped = clamping["groups_raised_to_min"] + clamping["groups_lowered_to_max"]
    if len(artefact["weights"]) > 1 and len(drawable_weights) == 1 and clamped:
        warnings.append(
            f"all groups weigh the same, {clamped:,} of {len(artefact['weights']):,} by clamping:"
            " every event is drawn alike; a lower --min-weight (or higher --max-weight) lets"
            " groups differ"
        )
    canonical = load_techniques().canonical
    asked = ("technique_boost", "include_technique", "exclude_technique")
    for name in sorted({name for parameter in asked for name in parameters[parameter]}):
        meant = canonical(name)
        others = [
            other
            for other in artefact["technique_totals"]
            if other != name and meant is not None and canonical(other) == meant
        ]
        if others:
            warnings.append(
                f"{clip(name)} also stands in the manifest as {', '.join(map(clip, others))},"
                " which is not taken for it"
            )
    return warnings


def _weigh(drawn: Drawn, weighting: Weighting) -> tuple[Weights, IntArray, int]:
    """Return the weights, the drawable events of each class, and all drawable events."""
    alive = drawable(drawn.group_count, weighting)
    groups = group_weights(
        drawn.group_count,
        techniques=drawn.technique_counts(tuple(weighting.technique_boost)),
        weighting=weighting,
    )
    eligible = int(drawn.group_count[alive].sum())
    counted = drawn.class_counts(alive)
    # A class that occurs in groups left out only is not drawn; any finite factor will do.
    classes = class_factors(np.maximum(counted, 1), eligible, weighting)
    classes = replace(
        classes, raised=classes.raised & (counted > 0), lowered=classes.lowered & (counted > 0)
    )
    weights = Weights(
        groups=groups,
        classes=classes,
        kind_factor=drawn.largest_of_kind(classes.weight),
        kind_unclamped=drawn.largest_of_kind(classes.unclamped),
    )
    return weights, counted, eligible


def _factors(
    drawn: Drawn, classes: Clamped, count: IntArray, eligible: int
) -> dict[str, dict[str, float | int]]:
    return {
        name: {"events": events, "share": events / eligible, "factor": factor}
        for name, events, factor in zip(
            drawn.classes, count.tolist(), classes.weight.tolist(), strict=True
        )
        if events
    }


def summary(artefact: Mapping[str, Any]) -> str:
    """Say in a few lines what the draw will give."""
    shown, clamping = artefact["preview"], artefact["preview"]["clamping"]
    parameters, top = artefact["parameters"], shown["most_repeated"]
    left_out = f"{artefact['duplicates_left_out']} duplicates"
    if parameters["include_technique"] or parameters["exclude_technique"]:
        left_out += f", {artefact['events_left_out_by_technique']} events by technique"
    moved = f"that moves {clamping['draws_moved_share']:.1%} of the draws"
    of = "classes" if artefact["class_factors"] else "groups"
    factors = artefact["class_factors"]
    lines = [
        f"{artefact['events_total']} events in {shown['groups_total']} groups by "
        f"{parameters['group_field']}"
        f" ({left_out} and {shown['groups_left_out']} groups left out)",
        f"{shown['draws']} draws: {shown['expected_distinct_events']:.0f} distinct events, "
        f"effective sample size {shown['effective_sample_size']:.0f}, most repeated "
        f"{printable(top['sample_id'])} ({top['expected_draws']:.2f} times)",
        f"clamped: {clamping[f'{of}_raised_to_min']} {of} up, "
        f"{clamping[f'{of}_lowered_to_max']} down; {moved}",
        f"{'class':<20}{'events':>10}{'draws':>12}{'unweighted':>12}"
        + (f"{'factor':>12}" if factors else ""),
    ]
    lines += [
        f"{clip(printable(label), 40):<20}{row['events']:>10}{row['expected_draws']:>12.1f}"
        f"{row['expected_draws_unweighted']:>12.1f}"
        + (f"{factors[label]['factor']:>12.4g}" if label in factors else "")
        for label, row in shown["per_class"].items()
    ]
    for how in ("boosted", "filtered"):
        if absent := artefact[f"techniques_{how}_but_absent"]:
            lines.append(f"{how}, but in no event: {printable(', '.join(absent))}")
    return "\n".join(lines)
