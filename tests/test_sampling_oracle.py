"""The sampling artefact against the plain reference, on random manifests, parameters and orders."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sampling_reference as reference
import strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.checks.sampling import Options, run
from training.checks.sampling_profiles import Profile
from training.errors import DrumgateError, InputError

NAMES = st.sampled_from(strategies.TECHNIQUES)


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Any]:
    """Parameters as `Options.given` takes them."""
    scheme = draw(st.sampled_from(["inverse_count", "repeat_factor", "effective_number"]))
    made: dict[str, Any] = {
        "scheme": scheme,
        "group_field": draw(st.sampled_from(["session_id", "session_id", "drummer_id"])),
        "min_count": draw(st.integers(1, 3)),
        "technique_boost": draw(st.dictionaries(NAMES, st.sampled_from([-0.5, 0.5, 2.0]))),
        "include_technique": tuple(draw(st.lists(NAMES, max_size=1))),
        "exclude_technique": tuple(draw(st.lists(NAMES, max_size=1))),
        "dedupe_key": draw(
            st.sampled_from(
                [
                    (),
                    ("session_id", "onset_time", "components"),
                    ("onset_time",),
                    ("components",),
                    ("techniques", "is_synthetic"),
                    ("session_id", "loudness", "annotated_labels"),
                ]
            )
        ),
    }
    if scheme == "inverse_count":
        made["exponent"] = draw(st.sampled_from([0.0, 0.5, 1.0]))
        made["smoothing"] = draw(st.sampled_from([0.0, 1.0]))
        made["max_events_per_group"] = draw(st.sampled_from([2, 512]))
    elif scheme == "repeat_factor":
        made["repeat_threshold"] = draw(st.sampled_from([0.1, 0.5, 1.0]))
    else:
        made["beta"] = draw(st.sampled_from([0.0, 0.5, 0.99]))
    if draw(st.booleans()):
        made["min_weight"], made["max_weight"] = draw(st.sampled_from([(0.2, 0.4), (0.5, 1.2)]))
    return made


def write(folder: str, objects: list[dict[str, Any]]) -> Path:
    path = Path(folder) / "events.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in objects))
    return path


def flattened(preview: dict[str, Any]) -> dict[str, Any]:
    """The preview in the reference's shape."""
    table = {
        (row["class"], row["source"], row["dynamics"]): [row["events"], row["expected_draws"]]
        for row in preview["class_source_dynamics"]
    }
    clamping = {
        name: preview["clamping"][name]
        for name in ("draws_moved_share", "effective_sample_size_without")
    }
    kept = {name: value for name, value in preview.items() if name != "clamping"}
    return kept | clamping | {"class_source_dynamics": table}


def same(found: Any, expected: Any, where: str = "") -> None:
    """Nested dicts and lists, equal but for the last bits of floats."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for key, value in expected.items():
            same(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for one, other in zip(found, expected, strict=True):
            same(one, other, where)
    elif isinstance(expected, str):
        assert found == expected, where
    else:
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9), where


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    objects=strategies.manifests(max_events=25),
    given_=parameters(),
    draws=st.sampled_from([None, 7, 1000]),
)
def test_the_artefact_is_that_of_the_reference(
    objects: list[dict[str, Any]], given_: dict[str, Any], draws: int | None
) -> None:
    chosen = msgspec.structs.replace(Profile(description="", scheme=given_["scheme"]), **given_)
    rows, _ = reference.chosen_events(objects, chosen)
    missing = sum(getattr(row, chosen.group_field) is None for row in rows)
    counts: dict[Any, int] = {}
    for row in rows:
        name = getattr(row, chosen.group_field)
        counts[name] = counts.get(name, 0) + 1
    with tempfile.TemporaryDirectory() as folder:
        options = Options(manifest=write(folder, objects), given=given_, draws=draws)
        if missing:
            with pytest.raises(InputError, match="is required to group by") as caught:
                run(options)
            assert caught.value.total == missing
        elif not rows:
            with pytest.raises(InputError, match="no event that the technique filters"):
                run(options)
        elif max(counts.values()) < chosen.min_count:
            with pytest.raises(DrumgateError, match="no group has"):
                run(options)
        else:
            found = run(options)
            expected = reference.artefact(objects, chosen, draws)
            same(found["weights"], expected["weights"])
            same(found["technique_totals"], expected["technique_totals"])
            same(flattened(found["preview"]), expected["preview"])
            assert found["events_total"] == expected["events_total"]
            left = found["events_left_out_by_technique"] + found["duplicates_left_out"]
            assert left == len(objects) - expected["events_total"]
            if chosen.scheme == "inverse_count":
                assert found["class_factors"] == {}
            else:
                factors = {name: row["factor"] for name, row in found["class_factors"].items()}
                same(factors, expected["factors"])
            json.dumps(found["preview"], allow_nan=False)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), objects=strategies.manifests(max_events=20), given_=parameters())
def test_the_order_of_the_manifest_changes_nothing(
    data: st.DataObject, objects: list[dict[str, Any]], given_: dict[str, Any]
) -> None:
    """Bit for bit, but for which of several equal events is named as the most repeated."""
    given_ = given_ | {"dedupe_key": (), "group_field": "session_id"}
    shuffled = data.draw(st.permutations(objects))
    found = []
    for rows in (objects, shuffled):
        with tempfile.TemporaryDirectory() as folder:
            try:
                artefact = run(Options(manifest=write(folder, rows), given=given_))
            except DrumgateError as error:
                found.append(type(error))
                continue
        del artefact["inputs"]
        del artefact["preview"]["most_repeated"]["sample_id"]
        del artefact["preview"]["most_repeated"]["group"]
        found.append(json.dumps(artefact))
    assert found[0] == found[1]
