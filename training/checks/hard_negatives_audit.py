"""The miner's audit page: which clips are shown, and their sound and pictures."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.audio.excerpt import band_position, read_excerpt, to_flac
from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.manifest import GroundTruth, Records, resolve_inside
from training.metrics import hard_negatives as hn
from training.render.audit import TICKS_HZ, Heard, Media, embed, render_audit

REASONS: Final = {
    "confident_false_positive": ("false positive", "train on it as a negative"),
    "likely_label_error": ("likely label error", "listen, and correct the annotation"),
    "timing_miss": ("timing miss", "check the onset; no negative to train on"),
    "out_of_vocabulary": ("out of vocabulary", "a sound without a class: train it as background"),
}
SHOWN_SCORES: Final = 4
SHOWN_MISSING: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much the page holds: at most so many clips, so many bytes, and this around an onset."""

    clips: int = 60
    size_bytes: int = 25_000_000
    context_s: float = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """The page, what of it is counted in the report, and what has to be said."""

    html: str
    figures: Mapping[str, int]
    warnings: Sequence[str]


def make(
    kept: Sequence[hn.HardNegative],
    truth: Records[GroundTruth],
    scores: Mapping[str, Mapping[str, float]],
    *,
    predictions: str,
    audio_root: Path | None,
    min_confidence: float,
    limits: Limits,
) -> Audit:
    """Make the page of the hardest clips, a fair share of each label.

    A clip whose recording cannot be read is listed with the reason in place of its sound.

    Args:
        kept: the rows that were mined, hardest first.
        truth: what is true; its `audio_path` is relative to `audio_root`.
        scores: the scores of each `sample_id`.
        predictions: the name of the predictions, for the page.
        audio_root: by default the folder of the truth.
        min_confidence: from which score on was mined, for the page.
        limits: how much the page holds.

    Raises:
        InputError: an `audio_path` leads outside its root, or there are clips and none of them can
            be heard.
    """
    recordings = _Recordings(truth, audio_root, limits.context_s)
    ranks = {id(negative): rank for rank, negative in enumerate(kept, start=1)}
    comparisons: dict[str, dict[str, Any] | None] = {}
    shown: dict[str, list[dict[str, Any]]] = defaultdict(list)
    size = 0
    for negative in in_turn(kept)[: limits.clips]:
        clip = _clip(negative, ranks[id(negative)], scores, recordings)
        new = negative.label not in comparisons
        comparison = _comparison(negative.label, scores, recordings) if new else None
        more = sum(each["media"].size for each in (clip, comparison) if each and each["media"])
        if size + more > limits.size_bytes:
            break
        size += more
        shown[negative.label].append(clip)
        if new:
            comparisons[negative.label] = comparison
    clips = [clip for own in shown.values() for clip in own]
    silent = [clip for clip in clips if clip["media"] is None]
    if clips and len(silent) == len(clips):
        raise InputError(recordings.problems[:SHOWN_PROBLEMS], len(recordings.problems))
    warnings = _warnings(kept, clips, silent, limits)
    page = {
        "kept_total": len(kept),
        "shown_total": len(clips),
        "embedded_bytes": size,
        "predictions": predictions,
        "ground_truth": truth.source.path,
        "min_confidence": min_confidence,
        "notes": warnings,
        "reasons": _reasons(clips),
        "sections": [
            {
                "label": label,
                "comparison": comparisons[label],
                "clips": sorted(own, key=lambda clip: clip["rank"]),
            }
            for label, own in shown.items()
        ],
    }
    return Audit(
        html=render_audit(page, {hertz: band_position(hertz) for hertz in TICKS_HZ}),
        figures={"clips": len(clips), "clips_without_sound": len(silent), "embedded_bytes": size},
        warnings=warnings,
    )


def in_turn(kept: Iterable[hn.HardNegative]) -> list[hn.HardNegative]:
    """Return the rows so that the labels take turns, each giving its hardest first.

    The first n of them show every label, however many rows the loudest one has.
    """
    place: defaultdict[str, int] = defaultdict(int)
    keyed = []
    for rank, negative in enumerate(kept):
        keyed.append((place[negative.label], rank, negative))
        place[negative.label] += 1
    return [negative for *_, negative in sorted(keyed, key=lambda key: key[:2])]


class _Recordings:
    """Where each example lies, what else is annotated there, and what could not be read."""

    def __init__(self, truth: Records[GroundTruth], root: Path | None, context_s: float) -> None:
        self.by_id = {row.sample_id: row for row in truth}
        self.problems: list[Problem] = []
        self._lines = dict(zip(self.by_id, truth.lines, strict=True))
        self._source = Path(truth.source.path)
        self._root = root or self._source.parent
        self._context_s = context_s
        events: defaultdict[str, list[tuple[float, str, str]]] = defaultdict(list)
        for row in truth:
            if row.audio_path is not None and row.onset_time is not None:
                name = " + ".join(sorted(row.label_set)) or "nothing"
                events[row.audio_path].append((row.onset_time, row.sample_id, name))
        self._events = {path: sorted(found) for path, found in events.items()}

    def media(self, sample_id: str) -> tuple[Media | None, str]:
        """Return an example's sound and picture, or None and the reason.

        Raises:
            InputError: the path leads outside the root.
        """
        row = self.by_id[sample_id]
        line = self._lines[sample_id]
        for value, name in ((row.audio_path, "audio_path"), (row.onset_time, "onset_time")):
            if value is None:
                self.problems.append(Problem(str(self._source), "is missing", line, name))
                return None, f"{name} is missing"
        assert row.audio_path is not None
        assert row.onset_time is not None
        path = resolve_inside(self._root, row.audio_path, source=self._source, line=line)
        around_s = self._context_s
        try:
            read = read_excerpt(path, row.onset_time, before_s=around_s, after_s=around_s)
        except InputError as error:
            self.problems += error.problems
            return None, error.problems[0].why
        heard = Heard(
            flac=to_flac(read.sound, read.sample_rate),
            decibels=read.decibels,
            before_s=read.before_s,
            after_s=read.after_s,
            gain_db=read.gain_db,
            events=self._around(row, read.before_s, read.after_s),
        )
        return embed(heard), ""

    def place(self, sample_id: str) -> str:
        """Say where an example lies: the file and the time."""
        row = self.by_id[sample_id]
        at = "" if row.onset_time is None else f" at {row.onset_time:.3f} s"
        return f"{row.audio_path or 'no audio_path'}{at}"

    def _around(self, row: GroundTruth, before_s: float, after_s: float) -> list[tuple[float, str]]:
        """The true events near an example in its recording, in seconds from its onset."""
        assert row.audio_path is not None
        assert row.onset_time is not None
        events = self._events[row.audio_path]
        first = bisect.bisect_left(events, (row.onset_time - before_s,))
        last = bisect.bisect_right(events, (row.onset_time + after_s,))
        return [
            (0.0 if sample_id == row.sample_id else at_s - row.onset_time or 1e-9, name)
            for at_s, sample_id, name in events[first:last]
        ]


def _clip(
    negative: hn.HardNegative,
    rank: int,
    scores: Mapping[str, Mapping[str, float]],
    recordings: _Recordings,
) -> dict[str, Any]:
    example = negative.example
    media, problem = recordings.media(example.sample_id)
    ordered = sorted(scores[example.sample_id].items(), key=lambda item: (-item[1], item[0]))
    nearest = ""
    if negative.nearest_event_id is not None and negative.reason != "timing_miss":
        away_s = (negative.nearest_distance_ms or 0.0) / 1000
        when = "later" if away_s > 0 else "earlier"
        event = negative.nearest_event_id
        nearest = f"nearest true {negative.label}: {event}, {abs(away_s):.3g} s {when}"
    return {
        "rank": rank,
        "label": negative.label,
        "score": negative.score,
        "reason": negative.reason,
        "detail": negative.detail,
        "true_labels": sorted(example.labels),
        "sample_id": example.sample_id,
        "session_id": example.session_id,
        "place": recordings.place(example.sample_id),
        "nearest": nearest,
        "scores": ordered[:SHOWN_SCORES],
        "media": media,
        "problem": problem,
    }


def _comparison(
    label: str, scores: Mapping[str, Mapping[str, float]], recordings: _Recordings
) -> dict[str, Any] | None:
    """The true example of a label that the model is surest of, the label alone where there is one.

    None where the label has no true example with a score, or the first choice cannot be read.
    """
    choices = [
        (len(row.label_set) > 1, -scores[name].get(label, 0.0), name)
        for name, row in recordings.by_id.items()
        if label in row.label_set and name in scores and row.audio_path is not None
    ]
    if not choices:
        return None
    _, score, sample_id = min(choices)
    media, _ = recordings.media(sample_id)
    if media is None:
        return None
    place = recordings.place(sample_id)
    return {"sample_id": sample_id, "score": -score, "place": place, "media": media}


def _reasons(clips: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    given = [clip["reason"] for clip in clips]
    return {
        reason: {"title": title, "todo": todo, "count": given.count(reason)}
        for reason, (title, todo) in REASONS.items()
        if reason in given
    }


def _warnings(
    kept: Sequence[hn.HardNegative],
    clips: Sequence[Mapping[str, Any]],
    silent: Sequence[Mapping[str, Any]],
    limits: Limits,
) -> list[str]:
    warnings = []
    left_out = len(kept) - len(clips)
    if left_out:
        by_size = len(clips) < min(limits.clips, len(kept))
        limit = (
            f"{limits.size_bytes / 1e6:g} MB (--audit-max-mb)"
            if by_size
            else f"{limits.clips} clips (--audit-clips)"
        )
        warnings.append(
            f"the audit page shows {len(clips)} of {len(kept)} rows, each label's hardest first: "
            f"it holds at most {limit}"
        )
    if silent:
        named = ", ".join(
            f"{clip['sample_id']} ({clip['problem']})" for clip in silent[:SHOWN_MISSING]
        )
        rest = f" and {len(silent) - SHOWN_MISSING} more" if len(silent) > SHOWN_MISSING else ""
        warnings.append(f"{len(silent)} clips cannot be heard on the audit page: {named}{rest}")
    return warnings
