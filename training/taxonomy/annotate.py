"""Adding inferred techniques to the rows of a manifest, performance by performance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from training.manifest import Event
from training.taxonomy.rules import RULES, RuleSettings, infer
from training.taxonomy.techniques import TechniqueCatalogue

__all__ = ["Annotated", "annotate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotated:
    """The rows in their old order, with more techniques.

    `added` and `present` count events by technique: newly named, and named before. `unknown` counts
    names in the manifest that the catalogue does not have; they are left as they stand.
    """

    rows: tuple[dict[str, Any], ...]
    changed: int
    added: Counter[str]
    present: Counter[str]
    unknown: Counter[str]


def annotate(
    pairs: Sequence[tuple[Event, dict[str, Any]]],
    catalogue: TechniqueCatalogue,
    *,
    rules: Iterable[str] = tuple(RULES),
    settings: RuleSettings | None = None,
) -> Annotated:
    """Add to each row the techniques that the rules find and that it does not name yet.

    A performance is the events of one session and, where tracks are named, one track: onsets of
    different tracks are not on one clock. A technique that stands under an alias is not added
    again. Fields other than `techniques` are not touched, and a row to which nothing is added is
    the very object that was given.
    """
    rules = tuple(rules)
    settings = settings or RuleSettings()
    performances: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for place, (event, _) in enumerate(pairs):
        performances[event.session_id, event.track_id].append(place)
    rows = [row for _, row in pairs]
    added: Counter[str] = Counter()
    for places in performances.values():
        places.sort(key=lambda place: pairs[place][0].onset_time)
        events = [pairs[place][0] for place in places]
        for place, names in zip(places, infer(events, settings, rules=rules), strict=True):
            standing = {catalogue.canonical(name) for name in pairs[place][0].techniques}
            new = [name for name in names if name not in standing]
            if new:
                added.update(new)
                rows[place] = {**rows[place], "techniques": [*pairs[place][0].techniques, *new]}
    held = Counter(name for event, _ in pairs for name in event.techniques)
    present: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for name, count in held.items():
        known = catalogue.canonical(name)
        (unknown if known is None else present)[known or name] += count
    return Annotated(
        rows=tuple(rows),
        changed=sum(row is not old for row, (_, old) in zip(rows, pairs, strict=True)),
        added=added,
        present=present,
        unknown=unknown,
    )
