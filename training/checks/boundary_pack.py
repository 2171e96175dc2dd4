"""The boundary pack: events near a seam of streaming windows, as rows a model can be run on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from training.checks.boundary_input import canonical
from training.errors import DrumgateError, InputError
from training.gates import Report
from training.manifest import Event, atomic_write, describe_file, iter_records, to_json
from training.manifest.scratch import scratch_folder
from training.manifest.unique import RepeatedIds
from training.metrics.boundary_pack import (
    EDGES,
    MAX_US,
    US_PER_MS,
    US_PER_S,
    CappedSample,
    Placement,
    WindowLayout,
    layout_from_ms,
    placements,
)

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the pack is made from; times in ms."""

    events: Path
    output: Path | None
    window_ms: float = 2048.0
    hop_ms: float = 512.0
    margin_ms: float = 40.0
    offsets_ms: tuple[float, ...] = (0.0,)
    edges: tuple[str, ...] = EDGES
    include_labels: tuple[str, ...] = ()
    exclude_labels: tuple[str, ...] = ()
    max_per_edge: int | None = None
    seed: int = 0
    dry_run: bool = False


@dataclass(slots=True)
class _Tally:
    """What was seen, left out and taken, counted in one pass."""

    events: int = 0
    without_labels: int = 0
    filtered: int = 0
    near: int = 0
    without_audio: int = 0
    labels: set[str] = field(default_factory=set)
    found: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    found_labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    written_labels: Counter[tuple[str, str]] = field(default_factory=Counter)

    def take(self, row: Row) -> Row:
        """Count a row that goes into the pack."""
        self.written[row["edge"]] += 1
        self.written_labels.update((row["edge"], label) for label in row["labels"])
        self.without_audio += row["audio_path"] is None
        return row


def run(options: Options) -> Report:
    """Write the pack (unless `dry_run`) and report what is in it.

    The manifest is read one event at a time; without a cap the rows are written as they are found,
    with one at most ``RESERVE * max_per_edge`` rows an (edge, label) are held. The notes by which
    repeated ids are found go to scratch files once they are many.

    Raises:
        DrumgateError: the layout makes no sense, or `output` is missing.
        InputError: the manifest is missing or malformed, a `sample_id` stands twice, or no event
            is near an edge (an empty pack would measure nothing). Nothing has been written then.
    """
    try:
        layout = layout_from_ms(
            window_ms=options.window_ms,
            hop_ms=options.hop_ms,
            margin_ms=options.margin_ms,
            offsets_ms=options.offsets_ms,
            edges=options.edges,
        )
    except ValueError as error:
        raise DrumgateError(str(error)) from None
    tally = _Tally()
    rows = _capped(options, layout, tally) if options.max_per_edge else None
    rows = rows if rows is not None else _found(options, layout, tally)
    if options.dry_run:
        for row in rows:
            tally.take(row)
    else:
        if options.output is None:
            raise DrumgateError("--output is required unless --dry-run is given")
        with atomic_write(options.output) as file:
            for row in rows:
                file.write(to_json(tally.take(row), indent=None) + "\n")
            if not tally.written:
                why = f"has no event within {options.margin_ms:g} ms of a window edge"
                labels = f"; {tally.filtered} of {tally.events} events are left out by label"
                why += " under these options" + (labels if tally.filtered else "")
                raise InputError.at(options.events, why)
    return Report(
        tool="generate-boundary-pack",
        inputs=[describe_file(options.events, tally.events)],
        parameters=asdict(options),
        metrics=_metrics(tally, options),
        warnings=_warnings(tally, options),
        seed=options.seed,
    )


def table(report: Report) -> str:
    """Return the counts per edge and label as text."""
    metrics = report.metrics
    lines = [
        f"{metrics['rows_written']} rows of {metrics['rows_found']} found, from "
        f"{metrics['events_near_an_edge']} of {metrics['events_total']} events",
        f"{'edge':<8}{'label':<24}{'found':>9}{'taken':>9}",
    ]
    for edge, counts in metrics["per_edge"].items():
        lines.append(f"{edge:<8}{'(all rows)':<24}{counts['found']:>9}{counts['written']:>9}")
        for label, each in counts["per_label"].items():
            lines.append(f"{'':<8}{label:<24}{each['found']:>9}{each['written']:>9}")
    return "\n".join(lines)


def _found(options: Options, layout: WindowLayout, tally: _Tally) -> Iterator[Row]:
    """Yield a row for every (event, window, edge), in the order of the manifest."""
    for event in _unique_events(options.events, tally):
        labels = event.labels
        if not labels:
            tally.without_labels += 1
            continue
        tally.labels.update(map(canonical, labels))
        if _left_out(labels, options):
            tally.filtered += 1
            continue
        make = _row_maker(event, layout)
        near = False
        for place in placements(event.onset_time, layout):
            near = True
            tally.found[place.edge] += 1
            tally.found_labels.update((place.edge, label) for label in labels)
            yield make(place)
        tally.near += near


def _capped(options: Options, layout: WindowLayout, tally: _Tally) -> Iterator[Row]:
    sample: CappedSample[Row] = CappedSample(cap=options.max_per_edge or 1, seed=options.seed)
    for row in _found(options, layout, tally):
        sample.add(row["sample_id"], row["edge"], row["labels"], row)
    yield from sample.selected()


def _unique_events(path: Path, tally: _Tally) -> Iterator[Event]:
    """Yield the events one at a time; complain at the end where a `sample_id` stood twice.

    Whoever consumes them must publish nothing before the end.
    """
    with scratch_folder() as folder:
        repeated = RepeatedIds(folder)
        for line, event in iter_records(path, Event):
            repeated.add(line, event.sample_id)
            tally.events += 1
            if event.onset_time * US_PER_S > MAX_US:
                raise InputError.at(
                    path,
                    f"must not exceed {MAX_US / US_PER_S:g} s: later times are no longer told "
                    "apart to the microsecond",
                    line=line,
                    field="onset_time",
                    got=event.onset_time,
                )
            yield event
        names = ((line, event.sample_id) for line, event in iter_records(path, Event))
        if (error := repeated.error(path, names)) is not None:
            raise error


def _left_out(labels: tuple[str, ...], options: Options) -> bool:
    """Whether the labels asked for leave an event out; a label is known by any of its names."""
    held = set(map(canonical, labels))
    if options.include_labels and held.isdisjoint(map(canonical, options.include_labels)):
        return True
    return not held.isdisjoint(map(canonical, options.exclude_labels))


def _row_maker(event: Event, layout: WindowLayout) -> Callable[[Placement], Row]:
    components = msgspec.to_builtins(event.components)

    def make(place: Placement) -> Row:
        return {
            "sample_id": f"{event.sample_id}@{place.key}",
            "event_id": event.sample_id,
            "session_id": event.session_id,
            "labels": list(event.labels),
            "components": components,
            "window_index": place.window_index,
            "window_start_s": place.window_start_us / US_PER_S,
            "window_size_ms": layout.window_us / US_PER_MS,
            "hop_size_ms": layout.hop_us / US_PER_MS,
            "offset_ms": place.offset_us / US_PER_MS,
            "edge": place.edge,
            "distance_ms": place.distance_us / US_PER_MS,
            "onset_ms": place.onset_us / US_PER_MS,
            "onset_time": event.onset_time,
            "audio_path": event.audio_path,
            "source_set": event.source_set,
            "split": event.split,
            "annotated_labels": event.annotated_labels,
        }

    return make


def _metrics(tally: _Tally, options: Options) -> dict[str, Any]:
    per_edge = {}
    for edge in options.edges:
        labels = sorted(label for each, label in tally.found_labels if each == edge)
        per_edge[edge] = {
            "found": tally.found[edge],
            "written": tally.written[edge],
            "per_label": {
                label: {
                    "found": tally.found_labels[edge, label],
                    "written": tally.written_labels[edge, label],
                }
                for label in labels
            },
        }
    return {
        "events_total": tally.events,
        "events_without_labels": tally.without_labels,
        "events_left_out_by_label": tally.filtered,
        "events_near_an_edge": tally.near,
        "rows_found": sum(tally.found.values()),
        "rows_written": sum(tally.written.values()),
        "rows_without_audio": tally.without_audio,
        "per_edge": per_edge,
    }


def _warnings(tally: _Tally, options: Options) -> list[str]:
    warnings = [
        f"{flag} {label}: no event has this label"
        for flag, labels in (
            ("--include-label", options.include_labels),
            ("--exclude-label", options.exclude_labels),
        )
        for label in labels
        if canonical(label) not in tally.labels
    ]
    if tally.without_labels:
        warnings.append(f"{tally.without_labels} events have no component and are not in the pack")
    if tally.without_audio:
        warnings.append(f"{tally.without_audio} rows have no audio_path and cannot be predicted")
    return warnings
