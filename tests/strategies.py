"""Hypothesis strategies that several tests draw from."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

LABELS = ("kick", "snare", "hihat_open", "hihat_closed", "crash", "aux_percussion")
ALIASES = ("bd", "hh_open", "china")
UNKNOWN = ("vibraslap", "<script>alert(1)</script>")
TECHNIQUES = ("flam", "ghost_note", "hihat_bark", "not_a_technique")

# Numbers on a grid: like real exports, and such that equal values really occur.
units = st.integers(0, 1000).map(lambda value: value / 1000)


@st.composite
def components(draw: st.DrawFn) -> dict[str, Any]:
    """One struck component, most of its fields often left out."""
    made: dict[str, Any] = {"label": draw(st.sampled_from(LABELS + ALIASES + UNKNOWN))}
    optional = {
        "velocity": units,
        "dynamic_bucket": st.sampled_from(["ghost", "light", "medium", "accent"]),
        "openness": units,
        "openness_raw": st.integers(0, 127),
        "instrument_variant": st.sampled_from(["splash", "china", "16in"]),
        "choke": st.booleans(),
    }
    for name, values in optional.items():
        if draw(st.integers(0, 2)) == 0:
            made[name] = draw(values)
    return made


@st.composite
def event_objects(draw: st.DrawFn) -> dict[str, Any]:
    """One valid event as the JSON object of its line; optional fields are left out at random."""
    onset = draw(st.integers(0, 40)) * 0.125
    made: dict[str, Any] = {
        "sample_id": f"e{draw(st.integers(0, 30))}",
        "session_id": f"s{draw(st.integers(0, 3))}",
        "onset_time": onset,
        "components": draw(st.lists(components(), max_size=3)),
    }
    optional = {
        "offset_time": st.just(onset + 0.1),
        "track_id": st.sampled_from(["t1", "t2"]),
        "drummer_id": st.sampled_from(["anna", "ben"]),
        "kit_id": st.sampled_from(["maple", "birch"]),
        "room_id": st.sampled_from(["hall", "booth"]),
        "source_set": st.sampled_from(["studio", "synth"]),
        "is_synthetic": st.booleans(),
        "audio_path": st.sampled_from(["a.wav", "b.wav"]),
        "tempo_bpm": st.sampled_from([60, 90.5, 119.999, 120, 200]),
        "meter": st.sampled_from(["4/4", "7/8"]),
        "techniques": st.lists(st.sampled_from(TECHNIQUES), max_size=3),
        "bleed_level": st.sampled_from(["low", "med", "high"]),
        "mix_context": st.sampled_from(["solo", "full mix"]),
        "negative_example": st.booleans(),
        "loudness": st.fixed_dictionaries(
            {},
            optional={
                "LUFS_i": st.integers(-600, 0).map(lambda value: value / 10),
                "peak_dbfs": st.integers(-300, 10).map(lambda value: value / 10),
            },
        ),
        "device_vendor": st.just("Roland"),
        "device_model": st.sampled_from(["TD-11", "TD-50"]),
        "split": st.sampled_from(["train", "val", "test"]),
        "annotated_labels": st.lists(st.sampled_from(LABELS), max_size=4),
        "x_extra": st.integers(),
    }
    for name, values in optional.items():
        if draw(st.booleans()):
            made[name] = draw(values)
    return made


@st.composite
def manifests(draw: st.DrawFn, *, max_events: int = 40) -> list[dict[str, Any]]:
    """A valid manifest as the JSON objects of its lines, at least one.

    Sometimes a whole session stands a second time under another name, later and in another split,
    as when one performance was rendered on two kits.
    """
    events = draw(st.lists(event_objects(), min_size=1, max_size=max_events))
    if draw(st.booleans()):
        later = draw(st.sampled_from([0.0, 3.0, 12.345]))
        split = draw(st.sampled_from(["train", "test"]))
        for number, event in enumerate([item for item in events if item["session_id"] == "s0"]):
            copy = {
                **event,
                "sample_id": f"copy{number}",
                "session_id": "s0 again",
                "onset_time": event["onset_time"] + later,
                "split": split,
            }
            copy.pop("offset_time", None)
            events.append(copy)
    return events
