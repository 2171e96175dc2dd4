"""The events contract as types: what a line of a manifest may hold.

Readers validate against these strictly: `"0.5"` is not a number, `1` is not a string, NaN is not
JSON. Unknown fields are allowed; tools that rewrite a manifest keep them (see `read_raw`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

NonEmpty = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(ge=0)]
Unit = Annotated[float, Meta(ge=0, le=1)]
Midi = Annotated[float, Meta(ge=0, le=127)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1, le=2**53)]
Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]

DynamicBucket = Literal["ghost", "light", "medium", "accent"]
BleedLevel = Literal["low", "med", "high"]


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What all records share; none can hold a cycle, so the collector need not look at them."""


class Component(Record, frozen=True, kw_only=True):
    """What was struck: a label, and how hard, how open, where."""

    label: NonEmpty
    velocity: Unit | None = None
    dynamic_bucket: DynamicBucket | None = None
    openness: Unit | None = None
    openness_raw: Midi | None = None
    openness_curve_id: str | None = None
    strike_position: str | float | None = None
    choke: bool | None = None
    instrument_variant: str | None = None


class Loudness(Record, frozen=True, kw_only=True):
    """Integrated loudness (LUFS, BS.1770-4) and sample peak (dBFS) of the event's audio."""

    LUFS_i: float | None = None
    peak_dbfs: float | None = None


class ContextMs(Record, frozen=True, kw_only=True):
    """How much audio an example keeps before and after its onset, in ms."""

    pre: Annotated[float, Meta(ge=0)] | None = None
    post: Annotated[float, Meta(ge=0)] | None = None


class Event(Record, frozen=True, kw_only=True):
    """One drum event: what was struck when, in which session.

    `components` is empty for a negative or silent example. `onset_time` and `offset_time` are
    seconds from the start of the recording; `offset_time` is the end of the event, never a lag.
    `annotated_labels` lists the labels that this source really annotates: any other label is
    *unknown* there, not absent; None means that every label is annotated.
    """

    sample_id: NonEmpty
    session_id: NonEmpty
    onset_time: Seconds
    components: tuple[Component, ...]
    offset_time: Seconds | None = None
    track_id: str | None = None
    drummer_id: str | None = None
    kit_id: str | None = None
    room_id: str | None = None
    source_set: str | None = None
    is_synthetic: bool | None = None
    audio_path: NonEmpty | None = None
    sample_rate: Count | None = None
    channels: Count | None = None
    tempo_bpm: Positive | None = None
    meter: str | None = None
    bar_index: Whole | None = None
    beat_index: float | None = None
    techniques: tuple[NonEmpty, ...] = ()
    bleed_level: BleedLevel | None = None
    mix_context: str | None = None
    negative_example: bool | None = None
    loudness: Loudness | None = None
    context_ms: ContextMs | None = None
    device_vendor: str | None = None
    device_model: str | None = None
    split: str | None = None
    annotated_labels: tuple[NonEmpty, ...] | None = None

    def __post_init__(self) -> None:
        # `isinstance`, not `is not None`: the closed variant has UNSET for what is not stated.
        if isinstance(self.offset_time, float) and self.offset_time < self.onset_time:
            raise ValueError(f"offset_time: must not lie before onset_time ({self.onset_time})")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the components, each once, in the order in which they stand."""
        return tuple(dict.fromkeys(component.label for component in self.components))


class GroundTruth(Record, frozen=True, kw_only=True):
    """What is true of one example that a model is judged on.

    Either `labels` or `components` says what is there (a line of an events manifest will do).
    `is_known` marks examples of the open-set pack: false where the sound is of no known class.
    """

    sample_id: NonEmpty
    labels: tuple[NonEmpty, ...] | None = None
    components: tuple[Component, ...] | None = None
    session_id: NonEmpty | None = None
    weight: Annotated[float, Meta(ge=0)] = 1.0
    openness: Unit | None = None
    velocity: Unit | None = None
    is_known: bool | None = None
    unknown_group: str | None = None
    onset_time: Seconds | None = None
    audio_path: NonEmpty | None = None
    annotated_labels: tuple[NonEmpty, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.labels, tuple) and not isinstance(self.components, tuple):
            raise ValueError("labels: is required where there are no components")

    @property
    def label_set(self) -> frozenset[str]:
        """The labels that are there; empty for a negative example."""
        if self.labels is not None:
            return frozenset(self.labels)
        return frozenset(component.label for component in self.components or ())


class Prediction(Record, frozen=True, kw_only=True):
    """What a model says of one example.

    Scores lie in [0, 1]. `logits` are what the class layer gave, before any sigmoid, softmax or
    temperature. `unknown_score` rises with how unknown the sound seems.
    `calibration` is the id of the calibration that the scores have been through. `onset_pred` is
    when the sound was heard, in seconds from the start of the recording, which `session_id` and
    `audio_path` name where `sample_id` is of no example.
    """

    sample_id: NonEmpty
    scores: dict[str, Unit] | None = None
    probabilities: dict[str, Unit] | None = None
    logits: dict[str, float] | None = None
    labels: tuple[NonEmpty, ...] | None = None
    openness_pred: float | None = None
    velocity_pred: float | None = None
    onset_pred: Seconds | None = None
    session_id: NonEmpty | None = None
    audio_path: NonEmpty | None = None
    unknown_score: float | None = None
    calibration: NonEmpty | None = None

    def __post_init__(self) -> None:
        given = (self.scores, self.probabilities, self.labels)
        if not any(isinstance(value, dict | tuple) for value in given):
            raise ValueError("scores: is required where there are no probabilities and no labels")

    @property
    def label_scores(self) -> dict[str, float]:
        """A score for every label that the prediction names; a bare label counts as 1.0."""
        if self.scores is not None:
            return self.scores
        if self.probabilities is not None:
            return self.probabilities
        return dict.fromkeys(self.labels or (), 1.0)


RECORDS: dict[str, type[Struct]] = {
    "event": Event,
    "ground_truth": GroundTruth,
    "prediction": Prediction,
}


def _closed(record: type[Struct], **nested: Any) -> type[Struct]:
    """Make the variant of a record that refuses unknown fields and keeps what was not stated apart.

    Optional fields are UNSET unless the line states them, so that what such a record encodes to has
    exactly the keys that the line had. `nested` gives the types of fields that hold records.
    """
    fields: list[tuple[str, Any, Any]] = []
    for info in msgspec.structs.fields(record):
        kind = nested.get(info.encode_name, info.type)
        if info.required:
            fields.append((info.name, kind, msgspec.NODEFAULT))
        else:
            fields.append((info.name, kind | UnsetType, UNSET))
    checks = getattr(record, "__post_init__", None)
    return msgspec.defstruct(
        f"Closed{record.__name__}",
        fields,
        kw_only=True,
        frozen=True,
        gc=False,
        forbid_unknown_fields=True,
        namespace={"__post_init__": checks} if checks else {},
    )


def _closed_records() -> dict[str, type[Struct]]:
    component: Any = _closed(Component)
    return {
        "event": _closed(
            Event,
            components=tuple[component, ...],
            loudness=_closed(Loudness) | None,
            context_ms=_closed(ContextMs) | None,
        ),
        "ground_truth": _closed(GroundTruth, components=tuple[component, ...] | None),
        "prediction": _closed(Prediction),
    }


CLOSED: dict[str, type[Struct]] = _closed_records()
"""The same records, refusing unknown fields at every depth; see `training.manifest.validate`."""


def json_schema(record: str) -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a kind of record: see `configs/schemas/`."""
    schema, components = msgspec.json.schema_components(
        [RECORDS[record]], ref_template="#/$defs/{name}"
    )
    described = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"drumgate {record.replace('_', ' ')}",
        **schema[0],
        "$defs": components,
    }
    plain: dict[str, object] = msgspec.json.decode(msgspec.json.encode(described))
    return plain
