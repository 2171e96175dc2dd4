"""What can hardly be right, counted by a loop: the outliers of dataset-health."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manifest_loop_health import Health

NONE = "(none)"
LISTED = 20
STUCK_HITS = 50
MOST_A_SECOND = 40


class Outliers:
    """Notes event by event what the outliers are found from at the end."""

    def __init__(self) -> None:
        self.onsets: dict[Any, array[float]] = defaultdict(lambda: array("d"))
        self.twice: Counter[Any] = Counter()  # hits beyond the first of their label and event
        # field -> take or device -> [hits, lowest, highest]
        self.takes: dict[str, dict[Any, list[Any]]] = {"velocity": {}, "openness": {}}
        self.devices: dict[str, dict[str, list[Any]]] = {"velocity": {}, "openness": {}}
        self.stated: Counter[str] = Counter()
        self.beyond: dict[str, list[tuple[str, str, float]]] = {
            "tempo_bpm": [],
            "peak_dbfs": [],
            "lufs_i": [],
        }

    def add_event(self, event: dict[str, Any], tempo: Any, loudness: dict[str, Any] | None) -> None:
        """Note one event."""
        take = (event["session_id"], event.get("track_id") or "")
        self.onsets[take].append(event["onset_time"])
        if tempo is not None:
            self.stated["tempo_bpm"] += 1
            if not 20 <= tempo <= 400:
                self._beyond("tempo_bpm", event, tempo)
        if loudness:
            peak, lufs = loudness.get("peak_dbfs"), loudness.get("LUFS_i")
            if peak is not None:
                self.stated["peak_dbfs"] += 1
                if peak > 0:
                    self._beyond("peak_dbfs", event, peak)
            if lufs is not None:
                self.stated["lufs_i"] += 1
                if lufs < -70:
                    self._beyond("lufs_i", event, lufs)

    def _beyond(self, field: str, event: dict[str, Any], value: float) -> None:
        self.beyond[field].append((event["sample_id"], event["session_id"], value))

    def add_hit(self, take: Any, device: str, velocity: Any, openness: Any) -> None:
        """Note one component."""
        if velocity is not None:
            _widen(self.takes["velocity"], take, velocity)
            if device != NONE:
                _widen(self.devices["velocity"], device, velocity)
        if openness is not None:
            _widen(self.takes["openness"], take, openness)
            if device != NONE:
                _widen(self.devices["openness"], device, openness)

    def add_dual(self, take: Any, label: str, onset: float, times: int) -> None:
        """Note that one event has a label several times."""
        self.twice[take, label, _step(onset)] += times - 1

    def metrics(self, health: Health) -> dict[str, Any]:
        """Give the figures by kind."""
        unknown = "the lengths of the audio files are not known"
        found = {
            "onset_beyond_audio": {
                **_found(0, 0, []),
                "count": None,
                "not_measured": unknown,
            },
            "overfull_second": self._overfull(health.events),
            "near_repeat": self._near_repeats(health.takes),
        }
        for field in ("velocity", "openness"):
            takes, devices = self.takes[field], self.devices[field]
            stuck = [
                {"session_id": take[0], "track_id": take[1] or None, field: low, "hits": hits}
                for take, (hits, low, high) in sorted(takes.items())
                if hits >= STUCK_HITS and low == high and (field == "velocity" or 0 < low < 1)
            ]
            of = sum(hits for hits, _, _ in takes.values())
            found[f"{field}_stuck_take"] = _found(sum(row["hits"] for row in stuck), of, stuck)
            stuck = [
                {"device": device, field: low, "hits": hits}
                for device, (hits, low, high) in sorted(devices.items())
                if hits >= STUCK_HITS and low == high
            ]
            of = sum(hits for hits, _, _ in devices.values())
            found[f"{field}_stuck_device"] = _found(sum(row["hits"] for row in stuck), of, stuck)
        for kind, field in (
            ("tempo_out_of_range", "tempo_bpm"),
            ("peak_above_full_scale", "peak_dbfs"),
            ("loudness_below_gate", "lufs_i"),
        ):
            rows = sorted(self.beyond[field])
            shown = [
                dict(zip(("sample_id", "session_id", field), row, strict=True)) for row in rows
            ]
            found[kind] = _found(len(rows), self.stated[field], shown)
        return found

    def _overfull(self, events: int) -> dict[str, Any]:
        """Events that begin a second in which their take has more events than anybody plays."""
        count, examples = 0, []
        for take, unsorted in sorted(self.onsets.items()):
            onsets = sorted(unsorted)
            worst, at, stop = MOST_A_SECOND, 0.0, 0
            for index, onset in enumerate(onsets):
                while stop < len(onsets) and onsets[stop] < onset + 1:
                    stop += 1
                count += stop - index > MOST_A_SECOND
                if stop - index > worst:
                    worst, at = stop - index, onset
            if worst > MOST_A_SECOND:
                examples.append(
                    {
                        "session_id": take[0],
                        "track_id": take[1] or None,
                        "onset_s": at,
                        "events": worst,
                    }
                )
        return _found(count, events, examples)

    def _near_repeats(self, takes: dict[Any, list[tuple[float, str]]]) -> dict[str, Any]:
        """Times to 5 ms at which several events of a take strike one label."""
        found = []
        for take, hits in takes.items():
            struck = Counter((label, _step(onset)) for onset, label in hits)
            for (label, step), times in struck.items():
                if times > 1 and times - self.twice[take, label, step] > 1:
                    found.append((*take, label, step))
        found.sort()
        examples = [
            {
                "session_id": session,
                "track_id": track or None,
                "label": label,
                "onset_s": step / 200,
            }
            for session, track, label, step in found[:LISTED]
        ]
        return _found(len(found), sum(map(len, takes.values())), examples)


def _step(onset: float) -> int:
    return math.floor(onset * 200 + 0.5)


def _widen(ranges: dict[Any, list[Any]], key: Any, value: float) -> None:
    found = ranges.get(key)
    if found is None:
        ranges[key] = [1, value, value]
        return
    found[0] += 1
    if value < found[1]:
        found[1] = value
    elif value > found[2]:
        found[2] = value


def _found(count: int, of: int, examples: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "count": count,
        "of": of,
        "share": count / of if of else None,
        "not_measured": None,
        "examples": examples[:LISTED],
    }
