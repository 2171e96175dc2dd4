"""The figures of dataset-health as one plain loop over lines; see `manifest_loops.py`."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from manifest_loop_outliers import Outliers
from manifest_loop_repeats import repeats

from training.taxonomy import load_components
from training.taxonomy.techniques import load_techniques

NONE = "(none)"
ENTITIES = {
    "sessions": "session_id",
    "drummers": "drummer_id",
    "kits": "kit_id",
    "rooms": "room_id",
    "audio_files": "audio_path",
    "splits": "split",
    "sources": "source_set",
}
STATED = ("drummer_id", "kit_id", "room_id", "split", "source_set", "is_synthetic", "audio_path")
ISOLATED = ("session", "drummer", "kit", "room")


class Health:
    """Every figure of dataset-health but the durations, in one pass over the lines."""

    def __init__(self) -> None:
        self.taxonomy, self.catalogue = load_components(), load_techniques()
        self.outliers = Outliers()
        self.events = 0
        self.cells: Counter[Any] = Counter()  # hits by all that they are counted by
        self.techniques: Counter[Any] = Counter()
        self.with_technique = 0
        self.dual: Counter[str] = Counter()
        self.variety: dict[str, set[str]] = {field: set() for field in ENTITIES.values()}
        self.stated: Counter[str] = Counter()
        self.sources: Counter[Any] = Counter()
        self.source_hits: Counter[Any] = Counter()
        self.bleed: Counter[str] = Counter()
        self.mix: Counter[str] = Counter()
        self.meters: Counter[str] = Counter()
        self.devices: Counter[str] = Counter()
        self.tempo: Counter[int | None] = Counter()
        self.negatives: Counter[Any] = Counter()
        self.annotated: Counter[Any] = Counter()
        self.velocity: Counter[int | None] = Counter()
        self.openness: Counter[Any] = Counter()
        self.loudness = {"LUFS_i": array("d"), "peak_dbfs": array("d")}
        self.ids: Counter[str] = Counter()
        self.places: dict[str, Counter[int]] = defaultdict(Counter)
        self.takes: dict[Any, list[tuple[float, str]]] = defaultdict(list)
        self.take_splits: dict[Any, set[str]] = defaultdict(set)
        self.sides: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in ISOLATED}
        self.sideless: Counter[str] = Counter()

    def add(self, event: dict[str, Any]) -> None:
        """Count one event."""
        get = event.get
        parts = event["components"]
        split, source, synthetic = get("split"), get("source_set"), get("is_synthetic")
        self.events += 1
        self.ids[event["sample_id"]] += 1
        if "audio_path" in event:
            place = math.floor(event["onset_time"] / 1e-4 + 0.5)
            self.places[event["audio_path"]][place] += 1
        self.sources[split, source, synthetic] += 1
        self.source_hits[split, source] += len(parts)
        for field, values in self.variety.items():
            if (value := get(field)) is not None:
                values.add(value)
        for field in STATED:
            if get(field) is not None:
                self.stated[field] += 1
        self.bleed[get("bleed_level") or NONE] += 1
        self.mix[get("mix_context") or NONE] += 1
        self.meters[get("meter") or NONE] += 1
        device = " ".join(filter(None, (get("device_vendor"), get("device_model")))) or NONE
        self.devices[device] += 1
        tempo = get("tempo_bpm")
        self.tempo[None if tempo is None else int(tempo // 20)] += 1
        self.negatives[not parts, bool(get("negative_example"))] += 1
        annotated = get("annotated_labels")
        if annotated is not None:
            annotated = tuple(annotated)
        self.annotated[source, annotated] += 1
        loudness = get("loudness")
        self.outliers.add_event(event, tempo, loudness)
        if loudness:
            for name, values in self.loudness.items():
                if name in loudness:
                    values.append(loudness[name])
        if names := get("techniques"):
            self.with_technique += 1
            for name in set(names):
                self.techniques[name, bool(synthetic), split] += 1
        if split is not None:
            self._side(event, split)
        if parts:
            self._hits(event, parts, (bool(synthetic), split, source, annotated), device)

    def _side(self, event: dict[str, Any], split: str) -> None:
        for name, sides in self.sides.items():
            value = event.get(f"{name}_id")
            if value is None:
                self.sideless[name] += 1
            else:
                sides[value].add(split)

    def _hits(self, event: dict[str, Any], parts: list[Any], of: Any, device: str) -> None:
        onset = event["onset_time"]
        take = (event["session_id"], event.get("track_id") or "")
        hits = self.takes[take]
        if of[1] is not None:
            self.take_splits[take].add(of[1])
        add_hit = self.outliers.add_hit
        for part in parts:
            get, label = part.get, part["label"]
            hits.append((onset, label))
            self.cells[label, get("dynamic_bucket"), get("instrument_variant"), of] += 1
            velocity = get("velocity")
            self.velocity[None if velocity is None else min(int(velocity * 10), 9)] += 1
            openness = get("openness")
            if openness is not None:
                self.openness[device, min(int(openness * 10), 9)] += 1
            elif "openness_raw" in part:
                self.openness[device, None] += 1
            add_hit(take, device, velocity, openness)
        if len(parts) > 1:
            for label, times in Counter(part["label"] for part in parts).items():
                if times > 1:
                    self.dual[label] += 1
                    self.outliers.add_dual(take, label, onset, times)

    def metrics(self) -> dict[str, Any]:
        """Give the figures under the names that they have in a report."""
        return {
            "events_total": self.events,
            "entities": {name: len(self.variety[field]) for name, field in ENTITIES.items()},
            "stated_fields": {field: self.stated[field] for field in STATED},
            "bleed": dict(self.bleed),
            "mix_context": dict(self.mix),
            "meters": dict(self.meters),
            "devices": dict(self.devices),
            "tempo_bins": {
                NONE if low is None else f"{low * 20}-{low * 20 + 20}": count
                for low, count in self.tempo.items()
            },
            "negatives": self._negatives(),
            "velocity_histogram": {
                "edges": EDGES,
                "counts": [self.velocity[low] for low in range(10)],
                "stated": sum(self.velocity.values()) - self.velocity[None],
                "unstated": self.velocity[None],
            },
            "openness_histogram": self._openness(),
            "loudness": self._loudness(),
            **self._labels(),
            **self._techniques(),
            **self._sources(),
            **repeats(self),
            "outliers": self.outliers.metrics(self),
        }

    def _negatives(self) -> dict[str, int]:
        cells = self.negatives
        return {
            "marked": cells[True, True] + cells[False, True],
            "without_components": cells[True, True] + cells[True, False],
            "unmarked_empty": cells[True, False],
            "marked_with_components": cells[False, True],
        }

    def _openness(self) -> dict[str, Any]:
        devices: dict[str, dict[str, Any]] = {}
        total = [0] * 10
        for (device, low), count in self.openness.items():
            entry = devices.setdefault(device, {"counts": [0] * 10, "raw_only": 0})
            if low is None:
                entry["raw_only"] += count
            else:
                entry["counts"][low] += count
                total[low] += count
        return {
            "edges": EDGES,
            "counts": total,
            "stated": sum(total),
            "raw_only": sum(entry["raw_only"] for entry in devices.values()),
            "per_device": devices,
        }

    def _loudness(self) -> dict[str, Any]:
        peaks = self.loudness["peak_dbfs"]
        return {
            "lufs_i": _spread(self.loudness["LUFS_i"], self.events),
            "peak_dbfs": _spread(peaks, self.events),
            "clipping": sum(peak >= 0 for peak in peaks),
        }

    def _labels(self) -> dict[str, Any]:
        canonical, known = self.taxonomy.canonical, self.taxonomy.known
        classes = {label: {"total": 0, "real": 0, "synthetic": 0} for label in known}
        tables: dict[str, Any] = {
            name: defaultdict(Counter)
            for name in ("per_class_by_split", "per_class_by_source", "dynamics_by_class")
        }
        variants: dict[str, Counter[str]] = defaultdict(Counter)
        by_both: dict[str, Any] = defaultdict(lambda: defaultdict(Counter))
        crashes: Counter[str] = Counter()
        dynamics: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        aliased: dict[str, dict[str, Any]] = {}
        outside: Counter[str] = Counter()
        for (
            name,
            bucket,
            variant,
            (synthetic, split, source, declared),
        ), hits in self.cells.items():
            dynamics[bucket or NONE] += hits
            label = canonical(name)
            if label is None:
                unknown[name] += hits
                continue
            if label != name:
                aliased.setdefault(name, {"label": label, "hits": 0})["hits"] += hits
            classes[label]["total"] += hits
            classes[label]["synthetic" if synthetic else "real"] += hits
            tables["per_class_by_split"][split or NONE][label] += hits
            tables["per_class_by_source"][source or NONE][label] += hits
            tables["dynamics_by_class"][label][bucket or NONE] += hits
            by_both[split or NONE][source or NONE][label] += hits
            if label == "crash":
                crashes[variant or (name if name != label else NONE)] += hits
            if variant is not None:
                variants[label][variant] += hits
            if declared is not None and label not in {canonical(item) for item in declared}:
                outside[label] += hits
        dual: Counter[str] = Counter()
        for name, count in self.dual.items():
            if (label := canonical(name)) is not None:
                dual[label] += count
        return {
            "hits_total": sum(self.cells.values()),
            "per_class_counts": classes,
            **{name: _plain(table) for name, table in tables.items()},
            "per_class_by_split_and_source": {
                split: _plain(table) for split, table in by_both.items()
            },
            "crash_variants": dict(crashes),
            "unknown_labels": dict(unknown),
            "aliased_labels": aliased,
            "dynamics": dict(dynamics),
            "instrument_variants": _plain(variants),
            "dual_labels": dict(dual),
            "annotated_labels": {**self._coverage(), "hits_outside_annotated": dict(outside)},
        }

    def _coverage(self) -> dict[str, Any]:
        canonical, known = self.taxonomy.canonical, self.taxonomy.known
        per_class = dict.fromkeys(known, 0)
        by_source: dict[str, dict[str, Any]] = {}
        for (source, declared), count in self.annotated.items():
            entry = by_source.setdefault(
                source or NONE, {"events": 0, "stating": 0, "labels": None}
            )
            entry["events"] += count
            labels = known
            if declared is not None:
                labels = frozenset(canonical(item) or item for item in declared)
                entry["stating"] += count
                both = labels if entry["labels"] is None else labels & set(entry["labels"])
                entry["labels"] = sorted(both)
            for label in labels & known:
                per_class[label] += count
        stating = sum(entry["stating"] for entry in by_source.values())
        return {"events_stating": stating, "per_class": per_class, "by_source": by_source}

    def _techniques(self) -> dict[str, Any]:
        counts: Counter[str] = Counter()
        real: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        by_split: dict[str, Counter[str]] = defaultdict(Counter)
        for (written, synthetic, split), events in self.techniques.items():
            known = self.catalogue.canonical(written)
            if known is None:
                unknown[written] += events
            name = known or written
            counts[name] += events
            by_split[split or NONE][name] += events
            if not synthetic:
                real[name] += events
        return {
            "technique_counts": dict(counts),
            "real_technique_counts": dict(real),
            "technique_by_split": _plain(by_split),
            "unknown_techniques": dict(unknown),
            "events_with_technique": self.with_technique,
        }

    def _sources(self) -> dict[str, Any]:
        synthetic = {"real": 0, "synthetic": 0, "unstated": 0}
        by_source: dict[str, Any] = {}
        by_split: dict[str, Any] = {}
        for (split, source, flag), events in self.sources.items():
            synthetic["unstated" if flag is None else "synthetic" if flag else "real"] += events
            for table in (by_source, by_split.setdefault(split or NONE, {})):
                row = table.setdefault(source or NONE, {"events": 0, "hits": 0, "synthetic": 0})
                row["events"] += events
                row["synthetic"] += events if flag else 0
        for (split, source), hits in self.source_hits.items():
            by_source[source or NONE]["hits"] += hits
            by_split[split or NONE][source or NONE]["hits"] += hits
        return {"synthetic": synthetic, "by_source": by_source, "by_split": by_split}


EDGES = [index / 10 for index in range(11)]


def _plain(table: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: dict(counts) for name, counts in table.items()}


def _spread(values: array[float], events: int) -> dict[str, Any]:
    percents = {"p05": 5, "p25": 25, "p75": 75, "p95": 95}
    found: dict[str, Any] = {"n": len(values), "missing": events - len(values)}
    if not values:
        none = dict.fromkeys(("minimum", "maximum", "mean", "median"))
        return {**found, **none, "percentiles": dict.fromkeys(percents)}
    parts = sum(math.floor(value * 10_000 + 0.5) for value in values)
    order = np.percentile(np.frombuffer(values), [50, *percents.values()]).tolist()
    return {
        **found,
        "minimum": round(min(values), 6),
        "maximum": round(max(values), 6),
        "mean": round(parts / len(values) / 10_000, 6),
        "median": round(order[0], 6),
        "percentiles": {
            name: round(value, 6) for name, value in zip(percents, order[1:], strict=True)
        },
    }


def health(path: Path) -> dict[str, Any]:
    """Every figure of dataset-health about a manifest, but the durations."""
    found = Health()
    with path.open("rb") as file:
        for line in file:
            found.add(json.loads(line))
    return found.metrics()
