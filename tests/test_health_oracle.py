"""The figures of dataset health against a plain Python loop over the lines of the manifest."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import duckdb
import msgspec
import narwhals as nw
import numpy as np
import pytest
from event_table import event_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import TECHNIQUES, manifests

from training.manifest import Event
from training.manifest.views import LABEL_SEPARATOR
from training.metrics import health_outliers, health_repeats
from training.metrics.health import HealthFrames, LabelNames, measure_health
from training.taxonomy import load_components

TAXONOMY = load_components()
NAMES = LabelNames(targets=TAXONOMY.targets, known=TAXONOMY.known, canonical=TAXONOMY.canonical)
NONE = "(none)"


def technique(name: str) -> str | None:
    return name if name in TECHNIQUES[:3] else None


def measured(
    rows: list[dict[str, Any]], engine: Callable[[Any], Any], **how: Any
) -> dict[str, Any]:
    table = event_table([msgspec.convert(row, Event) for row in rows])
    frames = HealthFrames(
        **{frame.name: engine(getattr(table, frame.name)) for frame in fields(HealthFrames)}
    )
    figures = measure_health(frames, NAMES, technique=technique, separator=LABEL_SEPARATOR, **how)
    metrics: dict[str, Any] = json.loads(json.dumps(figures.to_metrics(), allow_nan=False))
    return metrics


def on_arrow(table: Any) -> Any:
    return nw.from_native(table).lazy()


def on_duckdb(table: Any) -> Any:
    return nw.from_native(duckdb.from_arrow(table))


ENGINES = pytest.mark.parametrize("engine", [on_arrow, on_duckdb])


def plain(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def expected(lines: list[str]) -> dict[str, Any]:
    """Every figure by the shortest road: one pass, dictionaries, no columns."""
    events = [json.loads(line) for line in lines]
    hits = [(event, part) for event in events for part in event["components"]]
    classes = {label: {"total": 0, "real": 0, "synthetic": 0} for label in TAXONOMY.known}
    unknown: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    by_class: dict[str, Counter[str]] = defaultdict(Counter)
    tables: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    crashes: Counter[str] = Counter()
    devices: dict[str, list[int]] = {}
    dual: Counter[str] = Counter()
    for event, part in hits:
        label = TAXONOMY.canonical(part["label"])
        if label is None:
            unknown[part["label"]] += 1
            continue
        classes[label]["total"] += 1
        classes[label]["synthetic" if event.get("is_synthetic") else "real"] += 1
        by_class[label][part.get("dynamic_bucket", NONE)] += 1
        tables[event.get("split", NONE)][event.get("source_set", NONE)][label] += 1
        if label == "crash":
            alias = part["label"] if part["label"] != "crash" else NONE
            crashes[part.get("instrument_variant", alias)] += 1
        if "annotated_labels" in event and label not in event["annotated_labels"]:
            outside[label] += 1
    for event in events:
        for name, times in Counter(part["label"] for part in event["components"]).items():
            label = TAXONOMY.canonical(name)
            if times > 1 and label is not None:
                dual[label] += 1
    techniques: Counter[str] = Counter()
    for event in events:
        techniques.update(set(event.get("techniques", ())))
    splits: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for event in events:
        row = splits[event.get("split", NONE)][event.get("source_set", NONE)]
        row["events"] += 1
        row["hits"] += len(event["components"])
        row["synthetic"] += event.get("is_synthetic") is True
    openness = [0] * 10
    velocity = [0] * 10
    tempo: Counter[str] = Counter()
    for event, part in hits:
        device = f"{event.get('device_vendor', '')} {event.get('device_model', '')}".strip()
        if "openness" in part:
            openness[min(int(part["openness"] * 10), 9)] += 1
            devices.setdefault(device or NONE, [0] * 10)[min(int(part["openness"] * 10), 9)] += 1
        if "velocity" in part:
            velocity[min(int(part["velocity"] * 10), 9)] += 1
    for event in events:
        bpm = event.get("tempo_bpm")
        low = None if bpm is None else int(bpm // 20) * 20
        tempo[NONE if low is None else f"{low}-{low + 20}"] += 1
    ids = Counter(event["sample_id"] for event in events)
    places = Counter(
        (event["audio_path"], math.floor(event["onset_time"] / 1e-4 + 0.5))
        for event in events
        if "audio_path" in event
    )
    surplus = [sum(n - 1 for n in counts.values()) for counts in (ids, places)]
    return {
        "events_total": len(events),
        "hits_total": len(hits),
        "entities": {
            name: len({event[field] for event in events if field in event})
            for name, field in {
                "sessions": "session_id",
                "drummers": "drummer_id",
                "kits": "kit_id",
                "rooms": "room_id",
                "audio_files": "audio_path",
                "splits": "split",
                "sources": "source_set",
            }.items()
        },
        "per_class_counts": classes,
        "unknown_labels": dict(unknown),
        "dynamics": dict(Counter(part.get("dynamic_bucket", NONE) for _, part in hits)),
        "dynamics_by_class": {label: dict(counts) for label, counts in by_class.items()},
        "dual_labels": dict(dual),
        "crash_variants": dict(crashes),
        "per_class_by_split_and_source": {
            split: {source: dict(counts) for source, counts in table.items()}
            for split, table in tables.items()
        },
        "technique_counts": dict(techniques),
        "bleed": dict(Counter(event.get("bleed_level", NONE) for event in events)),
        "mix_context": dict(Counter(event.get("mix_context", NONE) for event in events)),
        "meters": dict(Counter(event.get("meter", NONE) for event in events)),
        "tempo_bins": dict(tempo),
        "by_split": {
            split: {source: dict(row) for source, row in table.items()}
            for split, table in splits.items()
        },
        "duplication_rate": max(surplus) / len(events),
        "_openness": openness,
        "_devices": devices,
        "_velocity": velocity,
        "_outside": dict(outside),
        "_surplus": surplus,
        "_families": families(events),
        "_isolation": {name: shared(events, f"{name}_id") for name in ISOLATED},
        "_negatives": {
            "marked": sum(event.get("negative_example") is True for event in events),
            "without_components": sum(not event["components"] for event in events),
            "unmarked_empty": sum(
                not event["components"] and not event.get("negative_example") for event in events
            ),
            "marked_with_components": sum(
                bool(event["components"]) and bool(event.get("negative_example"))
                for event in events
            ),
        },
        "_loudness": {
            name: [
                event["loudness"][field] for event in events if field in event.get("loudness", {})
            ]
            for name, field in (("lufs_i", "LUFS_i"), ("peak_dbfs", "peak_dbfs"))
        },
    }


ISOLATED = ("session", "drummer", "kit", "room")


def shared(events: list[dict[str, Any]], field: str) -> dict[str, list[str]]:
    sides: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if field in event and "split" in event:
            sides[event[field]].add(event["split"])
    return {value: sorted(found) for value, found in sides.items() if len(found) > 1}


def families(events: list[dict[str, Any]]) -> list[list[str]]:
    """Sessions that share a take, each take written out in full instead of fingerprinted."""
    takes: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for event in events:
        for part in event["components"]:
            key = (event["session_id"], event.get("track_id", ""))
            takes[key].append((event["onset_time"], part["label"]))
    patterns: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for (session, _), hits in takes.items():
        start = min(onset for onset, _ in hits)
        if len(hits) >= 8:
            pattern = sorted((math.floor((t - start) * 1000 + 0.537), label) for t, label in hits)
            patterns[tuple(pattern)].add(session)
    return sorted(sorted(sessions) for sessions in patterns.values() if len(sessions) > 1)


@ENGINES
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=manifests())
def test_figures_equal_a_plain_loop(
    engine: Callable[[Any], Any], rows: list[dict[str, Any]]
) -> None:
    found = measured(rows, engine)
    wanted = expected([json.dumps(row) for row in rows])
    for name, value in wanted.items():
        if not name.startswith("_"):
            assert found[name] == value, name
    assert found["openness_histogram"]["counts"] == wanted["_openness"]
    assert {
        device: row["counts"]
        for device, row in found["openness_histogram"]["per_device"].items()
        if any(row["counts"])
    } == wanted["_devices"]
    assert found["velocity_histogram"]["counts"] == wanted["_velocity"]
    assert found["annotated_labels"]["hits_outside_annotated"] == wanted["_outside"]
    assert found["negatives"] == wanted["_negatives"]
    duplicates = found["duplicates"]
    assert [duplicates[name]["surplus"] for name in ("sample_id", "audio_path_onset")] == wanted[
        "_surplus"
    ]
    assert (
        sorted(f["sessions"] for f in duplicates["performance"]["examples"]) == wanted["_families"]
    )
    for name in ISOLATED:
        isolation = found["split_isolation"][name]
        offenders = {item["value"]: item["splits"] for item in isolation["offenders"]}
        assert offenders == wanted["_isolation"][name]
    for name, values in wanted["_loudness"].items():
        assert_spread(found["loudness"][name], values)


def assert_spread(found: dict[str, Any], values: list[float]) -> None:
    assert found["n"] == len(values)
    if not values:
        assert found["mean"] is found["median"] is found["minimum"] is found["maximum"] is None
        return
    for name, figure in {
        "minimum": min(values),
        "maximum": max(values),
        "mean": np.mean(values),
        "median": np.median(values),
    }.items():
        assert found[name] == pytest.approx(figure, abs=1e-6), name
    for percent in (5, 25, 75, 95):
        figure = np.percentile(values, percent)
        assert found["percentiles"][f"p{percent:02}"] == pytest.approx(figure, abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 101])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_percentiles_of_values_within_one_step(size: int, data: st.DataObject) -> None:
    # on the ten-thousandths that the mean is taken over
    close = st.integers(-200_200, -199_800).map(lambda n: n / 10_000) | st.just(3.0)
    values = data.draw(st.lists(close, min_size=size, max_size=size))
    rows = [
        {
            "sample_id": str(number),
            "session_id": "s",
            "onset_time": 0,
            "components": [],
            "loudness": {"LUFS_i": value},
        }
        for number, value in enumerate(values)
    ]
    assert_spread(measured(rows, on_duckdb)["loudness"]["lufs_i"], values)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=manifests())
def test_engines_agree_to_the_byte(rows: list[dict[str, Any]]) -> None:
    assert json.dumps(measured(rows, on_arrow)) == json.dumps(measured(rows, on_duckdb))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=manifests())
def test_order_of_lines_does_not_matter(rows: list[dict[str, Any]]) -> None:
    assert measured(rows, on_arrow) == measured(rows[::-1], on_arrow)


@ENGINES
def test_many_repeats_are_counted_without_being_fetched(
    engine: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"session_id": "s", "audio_path": "a.wav", "components": [{"label": "kick"}]}
    rows = [
        {**row, "sample_id": f"{place:02}", "onset_time": float(place)}
        for place in range(30)
        for _ in range(3)
    ]
    expected = measured(rows, engine)
    for module in (health_repeats, health_outliers):
        monkeypatch.setattr(module, "_FEW", 20)
    assert measured(rows, engine) == expected
    assert expected["outliers"]["near_repeat"]["count"] == 30
    for kind in ("sample_id", "audio_path_onset"):
        assert (
            expected["duplicates"][kind]["groups"],
            expected["duplicates"][kind]["surplus"],
        ) == (
            30,
            60,
        )


@ENGINES
def test_a_single_negative_event(engine: Callable[[Any], Any]) -> None:
    found = measured(
        [{"sample_id": "a", "session_id": "s", "onset_time": 0, "components": []}], engine
    )
    assert found["events_total"] == 1
    assert found["hits_total"] == 0
    assert found["duplication_rate"] == 0
    assert found["per_class_counts"]["kick"] == {"total": 0, "real": 0, "synthetic": 0}
    assert found["openness_histogram"]["counts"] == [0] * 10
    assert found["loudness"]["lufs_i"]["median"] is None
