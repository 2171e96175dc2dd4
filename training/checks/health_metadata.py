"""The lengths of audio that the metadata.json of a built dataset gives."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import InputError, Problem
from training.manifest import InputFile, describe_file, read_json


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioLengths:
    """How much audio there is.

    Attributes:
        durations: what the report says: seconds by split and by source, or the reason why not.
        lengths_s: the length of each audio file by `audio_path`; None when the metadata do not
            list recordings. The longest counts where a path is listed twice.
        sources: the file that was read, if one was.
    """

    durations: dict[str, Any]
    lengths_s: dict[str, float] | None = None
    sources: tuple[InputFile, ...] = ()


def audio_lengths(path: Path | None) -> AudioLengths:
    """Read seconds of audio by split and source, and the length of each recording.

    The metadata.json of a built dataset has `durations_s: {split: {source: seconds}}`, and
    `sample_rate` with `recordings: {split: [{audio_path, start, stop}]}`, in samples. Its other
    fields are left alone, and either of the two may be missing.

    Raises:
        InputError: the file is not a JSON object, or one of the two is there and not as described.
    """
    if path is None:
        return AudioLengths(durations=_no_durations("no --dataset-metadata was given"))
    metadata = read_json(path, dict[str, Any])
    return AudioLengths(
        durations=_durations(path, metadata.get("durations_s")),
        lengths_s=_lengths(path, metadata),
        sources=(describe_file(path),),
    )


def _durations(path: Path, stated: Any) -> dict[str, Any]:
    if stated is None:
        return _no_durations(f"{path} has no durations_s")
    _check_durations(path, stated)
    by_source: Counter[str] = Counter()
    for sources in stated.values():
        by_source.update(sources)
    return {
        "total_s": round(sum(by_source.values()), 3),
        "by_split_s": {split: round(sum(row.values()), 3) for split, row in stated.items()},
        "by_source_s": {name: round(by_source[name], 3) for name in sorted(by_source)},
        "by_split_and_source_s": stated,
        "not_measured": None,
    }


def _number(value: Any) -> bool:
    # To Python true is a number and 1e999 is infinity; neither is a duration.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _check_durations(path: Path, stated: Any) -> None:
    if not isinstance(stated, dict):
        why = "must be an object of split: {source: seconds}"
        raise InputError.at(path, why, field="durations_s", got=stated)
    problems = []
    for split, sources in stated.items():
        field = f"durations_s.{split}"
        if not isinstance(sources, dict):
            problems.append(Problem(str(path), "must be an object", field=field, got=sources))
            continue
        for source, seconds in sources.items():
            if not _number(seconds):
                why, where = "must be a number >= 0", f"{field}.{source}"
                problems.append(Problem(str(path), why, field=where, got=seconds))
    if problems:
        raise InputError(problems)


def _lengths(path: Path, metadata: dict[str, Any]) -> dict[str, float] | None:
    recordings = metadata.get("recordings")
    if recordings is None:
        return None
    rate = metadata.get("sample_rate")
    if not _number(rate) or not rate:
        raise InputError.at(path, "must be a number > 0", field="sample_rate", got=rate)
    if not isinstance(recordings, dict):
        why = "must be an object of split: [recordings]"
        raise InputError.at(path, why, field="recordings", got=recordings)
    problems = []
    lengths: dict[str, float] = {}
    for split, listed in recordings.items():
        if not isinstance(listed, list):
            where = f"recordings.{split}"
            problems.append(Problem(str(path), "must be a list", field=where, got=listed))
            continue
        for index, one in enumerate(listed):
            length = _samples(one)
            if length is None:
                why, where = "must have audio_path, start and stop", f"recordings.{split}[{index}]"
                problems.append(Problem(str(path), why, field=where, got=one))
                continue
            name = one["audio_path"]
            lengths[name] = max(lengths.get(name, 0.0), length / rate)
    if problems:
        raise InputError(problems)
    return lengths


def _samples(recording: Any) -> float | None:
    if not isinstance(recording, dict) or not isinstance(recording.get("audio_path"), str):
        return None
    start: Any = recording.get("start")
    stop: Any = recording.get("stop")
    if not (_number(start) and _number(stop)) or stop < start:
        return None
    return float(stop - start)


def _no_durations(reason: str) -> dict[str, Any]:
    return {
        "total_s": None,
        "by_split_s": {},
        "by_source_s": {},
        "by_split_and_source_s": {},
        "not_measured": reason,
    }
