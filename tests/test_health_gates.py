"""The gates of dataset health that are one number: each seen passing, failing and not measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from health_checks import check, event, verdicts

from training.errors import DrumgateError, InputError
from training.gates import Report, Status

__all__ = ["check"]  # a fixture

PASS, FAIL, NOT_MEASURED = Status.PASS, Status.FAIL, Status.NOT_MEASURED


PART = {"label": "kick"}
TAKE = [event(i, session_id="a") for i in range(8)]
COPY = [event(i, session_id="b", sample_id=f"b{i}") for i in range(8)]


@pytest.mark.parametrize(
    ("rows", "gate", "limit", "status", "observed"),
    [
        ([event(0), event(1, session_id="t")], "min_sessions", 2, PASS, 2),
        ([event(0)], "min_sessions", 2, FAIL, 1),
        ([event(0, kit_id="k")], "min_kits", 1, PASS, 1),
        ([event(0, kit_id="k")], "min_kits", 2, FAIL, 1),
        ([event(0)], "min_kits", 0, NOT_MEASURED, None),
        ([event(0, room_id="r")], "min_rooms", 2, FAIL, 1),
        ([event(0)], "min_rooms", 0, NOT_MEASURED, None),
        ([event(0)], "min_duration_s", 0, NOT_MEASURED, None),
        ([event(0, components=[]), event(1, negative_example=True)], "min_negatives", 2, PASS, 2),
        ([event(0)], "min_negatives", 1, FAIL, 0),
        ([event(0, components=[{**PART, "openness": 0.5}])], "min_openness_hits", 1, PASS, 1),
        ([event(0, components=[{**PART, "openness_raw": 5}])], "min_openness_hits", 1, FAIL, 0),
        ([event(0, annotated_labels=["snare"])], "max_contradicted_hits", 0, FAIL, 1),
        ([event(0, annotated_labels=["kick"])], "max_contradicted_hits", 0, PASS, 0),
        ([event(0, techniques=["no such thing"])], "max_unknown_techniques", 0, FAIL, 1),
        ([event(0, techniques=["flam"])], "max_unknown_techniques", 0, PASS, 0),
        (TAKE + COPY, "max_repeated_performances", 0, FAIL, 1),
        (TAKE, "max_repeated_performances", 0, PASS, 0),
        ([event(0)], "max_repeated_performances", 0, NOT_MEASURED, None),
        ([event(0, loudness={"peak_dbfs": 0}), event(1)], "max_clipping_rate", 0.5, FAIL, 1),
        ([event(0, loudness={"peak_dbfs": -1})], "max_clipping_rate", 0, PASS, 0),
        ([event(0)], "max_clipping_rate", 1, NOT_MEASURED, None),
    ],
)
def test_gates_of_one_number(
    check: Callable[..., Report],
    rows: list[dict[str, Any]],
    gate: str,
    limit: float,
    status: Status,
    observed: float | None,
) -> None:
    report = check(rows, **{gate: limit})
    assert verdicts(report) == {f"health.{gate}": (status, observed)}
    assert report.blocks == (status is not PASS)


def test_gates_by_bucket_and_by_label(check: Callable[..., Report]) -> None:
    rows = [
        event(0, components=[{**PART, "dynamic_bucket": "ghost"}], annotated_labels=["kick"]),
        event(1),
    ]
    found = verdicts(check(rows, min_dynamic_count=1, min_annotated_share=0.6))
    assert found["health.min_dynamic_count[ghost]"] == (PASS, 1)
    assert found["health.min_dynamic_count[accent]"] == (FAIL, 0)
    assert found["health.min_annotated_share[kick]"] == (PASS, 1.0)
    assert found["health.min_annotated_share[snare]"] == (FAIL, 0.5)


def test_outlier_kinds(check: Callable[..., Report]) -> None:
    rows = [event(0, tempo_bpm=500), event(1, tempo_bpm=100)]
    found = verdicts(check(rows, max_outlier_rate=0.4))
    assert found["health.max_outlier_rate[tempo_out_of_range]"] == (FAIL, 0.5)
    assert found["health.max_outlier_rate[overfull_second]"] == (PASS, 0)
    # What nobody can tell is judged only where somebody asks for it.
    assert "health.max_outlier_rate[onset_beyond_audio]" not in found
    named = check(rows, max_outlier_rate=1.0, outlier_kinds=("onset_beyond_audio",))
    assert verdicts(named) == {"health.max_outlier_rate[onset_beyond_audio]": (NOT_MEASURED, None)}
    assert any("tempo_out_of_range (1)" in warning for warning in named.warnings)
    dense = check(rows, max_outlier_rate=0.4, max_events_per_second=1)
    assert verdicts(dense)["health.max_outlier_rate[overfull_second]"] == (PASS, 0)


def test_lengths_come_from_the_store(check: Callable[..., Report], tmp_path: Path) -> None:
    metadata = tmp_path / "metadata.json"
    recordings = {"train": [{"audio_path": "a.wav", "start": 10, "stop": 25, "source": "x"}]}
    metadata.write_text(json.dumps({"sample_rate": 10, "recordings": recordings}))
    rows = [event(0, audio_path="a.wav"), event(1, audio_path="a.wav", onset_time=1.5)]
    report = check(rows, dataset_metadata=metadata, max_outlier_rate=0)
    found = verdicts(report)["health.max_outlier_rate[onset_beyond_audio]"]
    assert found == (FAIL, 0.5)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"recordings": {}}, "sample_rate: must be a number > 0"),
        ({"recordings": [], "sample_rate": 1}, "recordings: must be an object"),
        ({"recordings": {"train": 1}, "sample_rate": 1}, "recordings.train: must be a list"),
        ({"recordings": {"t": [{}]}, "sample_rate": 1}, r"recordings.t\[0\]: must have"),
        (
            {"recordings": {"t": [{"audio_path": "a", "start": 2, "stop": 1}]}, "sample_rate": 1},
            r"recordings.t\[0\]: must have",
        ),
        ({"recordings": {}, "sample_rate": True}, "sample_rate: must be a number > 0"),
    ],
)
def test_bad_recordings_name_their_field(
    check: Callable[..., Report], tmp_path: Path, metadata: Any, message: str
) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(metadata))
    with pytest.raises(InputError, match=message):
        check([event()], dataset_metadata=path)


@pytest.mark.parametrize(
    "options",
    [
        {"outlier_kinds": ("tempo",)},
        {"max_events_per_second": 0},
        {"max_outlier_rate": float("nan")},
        {"min_duration_s": float("inf")},
    ],
)
def test_options_that_cannot_be_used(check: Callable[..., Report], options: dict[str, Any]) -> None:
    with pytest.raises(DrumgateError):
        check([event()], **options)
