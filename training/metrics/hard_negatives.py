"""Hard negatives: the labels that a model is surest of where they are not.

Task:
    Of all (example, label) pairs where the label is not in the truth and the model's score is
    high, keep the hardest, spread over labels and sessions, and say for each why it is there.

Conventions:
    Harder = higher score. Onsets are seconds from the start of their session's recording. A label
    that the example's source does not annotate is unknown there, not absent: such pairs are
    counted and left out. Reasons, the first that holds:

    ``timing_miss``
        A true event of that label lies within the tolerance in the same session: the model may
        have heard it.
    ``out_of_vocabulary``
        The example holds a sound that no class of the model names (or the truth calls it unknown),
        or the label predicted is itself no class.
    ``likely_label_error``
        The score is extreme, at least as high as the model's mean score where the label is true,
        and every label that the truth does give scores below one half: the annotation, not the
        model, is the first suspect.
    ``confident_false_positive``
        Anything else.

Empty input:
    No example or no score high enough yields no hard negative.

Sources:
    The comparison with a label's mean self-confidence is that of confident learning: Northcutt,
    Jiang, Chuang (2021), JAIR 70, section 3.1.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Reason = Literal[
    "timing_miss", "out_of_vocabulary", "likely_label_error", "confident_false_positive"
]
REASONS: tuple[Reason, ...] = (
    "confident_false_positive",
    "likely_label_error",
    "timing_miss",
    "out_of_vocabulary",
)
REJECTED_SCORE = 0.5
"""A true label that scores below this is one that the model does not hear."""

K = TypeVar("K")


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """What is true of one example."""

    sample_id: str
    labels: frozenset[str]
    annotated: frozenset[str] | None = None
    """Labels that the source annotates; ``None`` means all."""
    session_id: str | None = None
    onset_s: float | None = None
    is_known: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HardNegative:
    """One label scored high where it is not."""

    example: Example
    label: str
    score: float
    reason: Reason
    detail: str
    nearest_event_id: str | None = None
    """The true event of that label that is nearest in the same session, if there is one."""
    nearest_distance_ms: float | None = None
    """How far from the example's onset; positive when the true event is later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Criteria:
    """When a score is high, near or extreme."""

    min_confidence: float = 0.7
    tolerance_ms: float = 50.0
    label_error_score: float = 0.98
    vocabulary: frozenset[str] | None = None
    """Classes of the model; ``None`` when not known, and nothing is then out of vocabulary."""
    exclude_labels: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Mined:
    """All hard negatives, hardest first, and what was left out."""

    negatives: tuple[HardNegative, ...]
    unannotated: Mapping[str, int]
    """High scores left out because the source does not annotate the label, by label."""


def mine(
    examples: Sequence[Example], scores: Sequence[Mapping[str, float]], criteria: Criteria
) -> Mined:
    """Find every hard negative.

    Args:
        examples: what is true.
        scores: a score a label for each example, in the same order.
        criteria: when a score is high, near or extreme.

    Returns:
        The hard negatives by falling score; equal scores by sample_id, then label, so that the
        order of the input does not matter.

    Raises:
        ValueError: the lengths differ.
    """
    if len(examples) != len(scores):
        raise ValueError(f"{len(examples)} examples but {len(scores)} score maps")
    timeline = _Timeline(examples)
    self_confidence = _self_confidence(examples, scores)
    found = []
    unannotated: Counter[str] = Counter()
    for example, given in zip(examples, scores, strict=True):
        for label, score in given.items():
            if score < criteria.min_confidence or label in example.labels:
                continue
            if label in criteria.exclude_labels:
                continue
            if example.annotated is not None and label not in example.annotated:
                unannotated[label] += 1
                continue
            event, distance_ms = timeline.nearest(example, label)
            reason, detail = _explain(
                example, label, given, distance_ms, self_confidence.get(label), criteria
            )
            found.append(
                HardNegative(
                    example=example,
                    label=label,
                    score=score,
                    reason=reason,
                    detail=detail,
                    nearest_event_id=event,
                    nearest_distance_ms=distance_ms,
                )
            )
    found.sort(key=lambda n: (-n.score, n.example.sample_id, n.label))
    return Mined(negatives=tuple(found), unannotated=dict(sorted(unannotated.items())))


def select(
    negatives: Sequence[HardNegative],
    *,
    max_per_label: int | None = 150,
    max_total: int | None = None,
    max_session_share: float = 0.25,
) -> list[HardNegative]:
    """Keep the hardest under the caps, spread over sessions.

    Each label gets its `max_per_label` hardest, of which no session holds more than
    `max_session_share` (see `spread`); then `max_total` and the share are applied to what is left
    over all labels.

    Args:
        negatives: hardest first, as `mine` returns them.
        max_per_label: cap a label; ``None`` = no cap.
        max_total: cap over all; ``None`` = no cap.
        max_session_share: above 0, at most 1 (= no spreading).

    Raises:
        ValueError: a cap is below 1 or the share is not in (0, 1].
    """
    by_label: defaultdict[str, list[int]] = defaultdict(list)
    for index, negative in enumerate(negatives):
        by_label[negative.label].append(index)
    kept: list[int] = []
    for indices in by_label.values():
        sessions = [negatives[index].example.session_id for index in indices]
        kept += [indices[i] for i in spread(sessions, max_per_label, max_session_share)]
    kept.sort()
    if max_total is not None:
        sessions = [negatives[index].example.session_id for index in kept]
        kept = [kept[i] for i in spread(sessions, max_total, max_session_share)]
    return [negatives[index] for index in kept]


def spread(groups: Sequence[K], cap: int | None, max_share: float) -> list[int]:
    """Take from the front of a ranking, no group more than a share of what is taken.

    With fewer than ``1 / max_share`` groups the share cannot be kept to; the share is then
    ``1 / number of groups``, that is, the groups are balanced. One item a group is always allowed.

    Args:
        groups: the group of each item, best item first.
        cap: how many items to take at most; ``None`` = all that the share allows.
        max_share: above 0, at most 1.

    Returns:
        Indices of the items taken, rising.

    Raises:
        ValueError: the cap is below 1 or the share is not in (0, 1].
    """
    if cap is not None and cap < 1:
        raise ValueError(f"a cap must be at least 1, got {cap}")
    if not 0 < max_share <= 1:
        raise ValueError(f"the share must be above 0 and at most 1, got {max_share}")
    sizes = sorted(Counter(groups).values())
    if not sizes:
        return []
    quota = _quota(sizes, len(groups) if cap is None else cap, max(max_share, 1 / len(sizes)))
    taken: Counter[K] = Counter()
    chosen: list[int] = []
    for index, group in enumerate(groups):
        if len(chosen) == cap:
            break
        if taken[group] < quota:
            taken[group] += 1
            chosen.append(index)
    return chosen


def _quota(sizes: Sequence[int], cap: int, share: float) -> int:
    """The largest number a group may give so that it is at most `share` of what all give.

    What all groups give under a quota q is concave in q, so the quotas that hold are 1 .. some
    largest one, found by bisection.
    """
    low, high = 1, sizes[-1]
    while low < high:
        middle = (low + high + 1) // 2
        total = min(cap, sum(min(size, middle) for size in sizes))
        if middle <= share * total + 1e-9:
            low = middle
        else:
            high = middle - 1
    return low


class _Timeline:
    """The true events of each label in each session, by onset."""

    def __init__(self, examples: Iterable[Example]) -> None:
        events: defaultdict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
        for example in examples:
            if example.session_id is not None and example.onset_s is not None:
                for label in example.labels:
                    events[example.session_id, label].append((example.onset_s, example.sample_id))
        self._events = {key: sorted(found) for key, found in events.items()}

    def nearest(self, example: Example, label: str) -> tuple[str | None, float | None]:
        """Return sample_id and signed distance in ms of the nearest true event, or two Nones."""
        if example.session_id is None or example.onset_s is None:
            return None, None
        events = self._events.get((example.session_id, label))
        if not events:
            return None, None
        onset = example.onset_s
        after = bisect.bisect_left(events, (onset, ""))
        near = events[max(after - 1, 0) : after + 1]
        found, sample_id = min(near, key=lambda event: (abs(event[0] - onset), event))
        return sample_id, round((found - onset) * 1000, 3)


def _self_confidence(
    examples: Sequence[Example], scores: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Mean score of each label over the examples that truly have it."""
    total: defaultdict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    for example, given in zip(examples, scores, strict=True):
        for label in example.labels:
            total[label] += given.get(label, 0.0)
            count[label] += 1
    return {label: total[label] / count[label] for label in count}


def _explain(
    example: Example,
    label: str,
    scores: Mapping[str, float],
    distance_ms: float | None,
    self_confidence: float | None,
    criteria: Criteria,
) -> tuple[Reason, str]:
    if distance_ms is not None and abs(distance_ms) <= criteria.tolerance_ms:
        when = f"{abs(distance_ms):g} ms {'later' if distance_ms > 0 else 'earlier'}"
        return "timing_miss", f"a true {label} lies {when if distance_ms else 'at the same time'}"
    if strange := _out_of_vocabulary(example, label, criteria.vocabulary):
        return "out_of_vocabulary", strange
    score = scores[label]
    extreme = score >= max(criteria.label_error_score, self_confidence or 0.0)
    heard = max((scores.get(true, 0.0) for true in example.labels), default=0.0)
    if extreme and heard < REJECTED_SCORE:
        stands = _names(example.labels) or "nothing"
        return (
            "likely_label_error",
            f"{label} scores {score:.3f} and what is annotated, {stands}, at most {heard:.3f}",
        )
    where = _names(example.labels) or "an example without any label"
    return "confident_false_positive", f"{label} scores {score:.3f} on {where}"


def _out_of_vocabulary(example: Example, label: str, vocabulary: frozenset[str] | None) -> str:
    if vocabulary is None:
        return ""
    if label not in vocabulary:
        return f"{label} is no class of the model"
    strange = example.labels - vocabulary
    if strange:
        return f"{_names(strange)} is no class of the model"
    return "the truth calls this sound unknown" if example.is_known is False else ""


def _names(labels: Collection[str]) -> str:
    return " + ".join(sorted(labels))
