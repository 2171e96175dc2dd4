"""Gates on single counts of a manifest: of each class in each split, and of any other count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from training.checks.health_names import Vocabulary
from training.errors import DrumgateError
from training.gates import Measurement, nearest
from training.metrics.health import HealthFigures
from training.metrics.health_frames import UNSTATED

__all__ = ["COUNTED", "Counts", "class_counts_by_split", "counts_asked_for", "single_counts"]

Counts = Mapping[tuple[str, str], int]
"""{(figure, name): the smallest count}."""

COUNTED: Final[Mapping[str, Callable[[HealthFigures], Mapping[str, int]]]] = {
    "bleed": lambda found: found.context["bleed"],
    "crash_variants": lambda found: found.labels.crash_variants,
    "devices": lambda found: found.context["devices"],
    "dual_labels": lambda found: found.dual_labels,
    "dynamics": lambda found: found.labels.dynamics,
    "meters": lambda found: found.context["meters"],
    "mix_context": lambda found: found.context["mix_context"],
    "techniques": lambda found: found.techniques.technique_counts,
    "tempo_bins": lambda found: found.tempo,
}
"""The figures of a report that are {name: count} and that `require_counts` can ask about."""


def counts_asked_for(
    given: Sequence[str], *, labels: Vocabulary, techniques: Vocabulary
) -> dict[tuple[str, str], int]:
    """Read `FIGURE:NAME=N`, such as `bleed:high=100`; labels and techniques by canonical name.

    Raises:
        DrumgateError: one is not of that form, names no figure, no known label or technique, or
            stands twice.
    """
    known = {"dual_labels": labels, "techniques": techniques}
    counts: dict[tuple[str, str], int] = {}
    for text in given:
        where = f"--require-count {text!r}"
        named, equals, number = text.rpartition("=")
        figure, colon, name = named.partition(":")
        if not (equals and colon and name) or not (number.isascii() and number.isdigit()):
            raise DrumgateError(f"{where}: is not FIGURE:NAME=N, such as bleed:high=100")
        if figure not in COUNTED:
            raise DrumgateError(
                f"{where}: {figure!r} is none of {', '.join(COUNTED)}{nearest(figure, COUNTED)}"
            )
        if figure in known:
            canonical = known[figure].canonical(name)
            if canonical is None:
                raise DrumgateError(f"{where}: {name!r} {known[figure].unknown(name)}")
            name = canonical
        if (figure, name) in counts:
            raise DrumgateError(f"{where}: {figure}:{name} is asked for twice")
        counts[figure, name] = int(number)
    return counts


def single_counts(figures: HealthFigures, asked: Counts) -> dict[tuple[str, str], Measurement]:
    """Measure each count that is asked for; a name that does not occur counts 0."""
    return {
        (figure, name): Measurement(
            name="count",
            value=COUNTED[figure](figures).get(name, 0),
            n=figures.sources.events_total,
            detail=_others(COUNTED[figure](figures), name),
        )
        for figure, name in asked
    }


def _others(counts: Mapping[str, int], name: str) -> str:
    """Say what there is where the name is not: it may be written another way."""
    if name in counts:
        return ""
    most = sorted(counts, key=lambda other: (-counts[other], other))[:5]
    return f"there are {', '.join(most)}" if most else "there are none of any name"


def class_counts_by_split(figures: HealthFigures, targets: Sequence[str]) -> dict[str, Measurement]:
    """Measure the hits of each target label in each split, by "SPLIT/LABEL".

    Where no event states a split there is one measurement, without a value.
    """
    tables = figures.labels.per_class_by_split
    splits = sorted({*figures.sources.by_split, *tables} - {UNSTATED})
    if not splits:
        why = "no event states a split"
        return {"": Measurement(name="split_class_count", value=None, n=0, detail=why)}
    return {
        f"{split}/{label}": Measurement(
            name="split_class_count",
            value=tables.get(split, {}).get(label, 0),
            unit="hits",
            n=sum(source["hits"] for source in figures.sources.by_split.get(split, {}).values()),
        )
        for split in splits
        for label in targets
    }
