"""The rules of `validate-manifest`: what each means, how grave it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One thing that is checked.

    Attributes:
        id: stands behind every finding, and is `ruleId` in SARIF.
        level: warnings block only with `--strict`.
        title: what is wrong, in a few words.
        help: why it matters and what to do.
        schema: whether it makes a line unreadable: bad input, exit code 2.
    """

    id: str
    level: Level
    title: str
    help: str
    schema: bool = False


_ALL: Final = (
    Rule(
        id="unreadable-input",
        level="error",
        title="A manifest cannot be read",
        help="The file is missing, empty, damaged or cut short, or holds no valid record. Give the"
        " right path, or write the file again.",
        schema=True,
    ),
    Rule(
        id="invalid-json",
        level="error",
        title="A line is not JSON",
        help="Each line must be one JSON object in UTF-8, without NaN or Infinity, without a key"
        " that stands twice, and with numbers in range. Write it with a JSON library.",
        schema=True,
    ),
    Rule(
        id="invalid-record",
        level="error",
        title="A line is not a valid record",
        help="A field is missing, of the wrong type or out of range: see configs/schemas/. Numbers"
        " in quotes are not numbers.",
        schema=True,
    ),
    Rule(
        id="duplicate-sample-id",
        level="error",
        title="A sample_id stands more than once",
        help="Ids tie events to predictions and to audio; of two events with one id nobody can say"
        " which is meant. Give each event its own id, or drop the repeats with merge-manifests.",
    ),
    Rule(
        id="audio-outside-root",
        level="error",
        title="An audio_path leads out of its root",
        help="Paths in manifests are relative to the audio root and stay inside it, links followed,"
        " so that a dataset can be moved and cannot reach the rest of the disk.",
    ),
    Rule(
        id="sample-rate-conflict",
        level="error",
        title="One audio_path has several sample rates",
        help="A file has one sample rate. Compare with the file and correct the events.",
    ),
    Rule(
        id="channels-conflict",
        level="error",
        title="One audio_path has several channel counts",
        help="A file has one number of channels. Compare with the file and correct the events.",
    ),
    Rule(
        id="session-conflict",
        level="error",
        title="One audio_path belongs to several sessions",
        help="Sessions are what splits keep apart: a recording in two of them lets test audio into"
        " the training set. Give all events of a recording the same session_id.",
    ),
    Rule(
        id="track-conflict",
        level="warning",
        title="One audio_path belongs to several tracks",
        help="A file usually holds one track. If this one really holds several, nothing is wrong.",
    ),
    Rule(
        id="split-conflict",
        level="warning",
        title="A session lies in several splits",
        help="Events of one session are not independent: a model is then tested on what it was"
        " trained on. Assign splits by session; dataset-health --split-isolation judges this.",
    ),
    Rule(
        id="lookalike-name",
        level="warning",
        title="Two names differ only in case, spaces or Unicode form",
        help="To every tool they are two sessions, drummers or splits: splits then share one and"
        " nobody notices. Write the name in one way; if they really are two, nothing is wrong.",
    ),
    Rule(
        id="unknown-label",
        level="warning",
        title="A label is not in the taxonomy",
        help="Nothing is trained or counted under a label that configs/components.json does not"
        " name. Correct it, add it there as an alias, or give --components.",
    ),
    Rule(
        id="unannotated-label",
        level="warning",
        title="A label stands outside its event's annotated_labels",
        help="The event says that its source does not annotate this label, and uses it. Add it to"
        " annotated_labels or drop the component.",
    ),
    Rule(
        id="unknown-technique",
        level="warning",
        title="A technique is not in the catalogue",
        help="No gate and no rule knows it. Correct it, add it to configs/technique_taxonomy.json"
        " as an alias, or give --techniques.",
    ),
    Rule(
        id="no-audio-path",
        level="warning",
        title="Events name no audio",
        help="With an audio root the audio is to be checked, and of these events it cannot be.",
    ),
    Rule(
        id="no-audio-root",
        level="error",
        title="A source has no folder to look for its audio in",
        help="With --audio-root-map alone, the audio of other sources cannot be looked at, and what"
        " was not looked at has not passed. Map them too, or give --audio-root for the rest.",
    ),
    Rule(
        id="audio-missing",
        level="error",
        title="An audio file is not there",
        help="No such file below its audio root. Correct audio_path or the root, or fetch the"
        " file.",
    ),
    Rule(
        id="audio-unreadable",
        level="error",
        title="An audio file cannot be read",
        help="It is not audio that libsndfile knows, or it is cut short. Write the file again.",
    ),
    Rule(
        id="audio-empty",
        level="error",
        title="An audio file holds no audio",
        help="It has no bytes or no frames: a recording that failed, or a copy that was cut off.",
    ),
    Rule(
        id="sample-rate-mismatch",
        level="error",
        title="A file has another sample rate than its events say",
        help="Whatever trusts the manifest cuts in the wrong place. Correct sample_rate, or find"
        " out who resampled the file.",
    ),
    Rule(
        id="channels-mismatch",
        level="error",
        title="A file has another number of channels than its events say",
        help="Correct channels, or find out who mixed the file down.",
    ),
    Rule(
        id="onset-beyond-audio",
        level="error",
        title="An onset lies beyond the end of its audio",
        help="The event names the wrong file, its time is in the wrong unit, or the file was cut.",
    ),
    Rule(
        id="offset-beyond-audio",
        level="error",
        title="An offset lies beyond the end of its audio",
        help="The event ends after its audio does, by more than the tolerance of 1 ms: the file was"
        " cut, or the times belong to another one.",
    ),
)

RULES: Final[dict[str, Rule]] = {rule.id: rule for rule in _ALL}
"""Every rule by its id, in the order in which they are listed."""
