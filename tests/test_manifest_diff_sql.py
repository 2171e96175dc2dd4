"""The diff in SQL gives what the plain one gives, whatever the manifests hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import manifests

from training.errors import DrumgateError
from training.manifest import Event
from training.manifest.schema import arrow_schema
from training.metrics import manifest_diff_sql, manifest_match
from training.metrics.manifest_diff import KINDS, diff_manifests, differences, summary_counts
from training.metrics.manifest_diff_sql import diff_views
from training.metrics.manifest_diff_totals import total_views

Rows = list[dict[str, Any]]


@contextmanager
def views(base: Rows, candidate: Rows) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        for name, rows in (("base", base), ("candidate", candidate)):
            known = [{k: v for k, v in row.items() if k in arrow_schema().names} for row in rows]
            table = pa.Table.from_pylist(known, schema=arrow_schema())
            table = table.add_column(0, "row", pa.array(range(len(rows)), pa.int64()))
            connection.register(name, table)
        yield connection


def compare(
    base: Rows, candidate: Rows, tolerance_s: float = 0.05, limit: int = 3, by_id: bool = True
) -> None:
    """Assert that both forms of the diff, and both forms of the totals, agree."""
    sides = [[msgspec.convert(row, Event) for row in rows] for rows in (base, candidate)]
    how: dict[str, Any] = {"tolerance_s": tolerance_s, "by_id": by_id}
    expected = diff_manifests(*sides, **how)
    with views(base, candidate) as connection:
        found = diff_views(connection, "base", "candidate", limit=limit, **how)
        totals = total_views(connection, "base", "candidate", limit=limit)
    assert found.counts == expected.counts
    assert found.unchanged == expected.unchanged
    assert found.paired_by_id == expected.paired_by_id
    assert found.paired_by_time == expected.paired_by_time
    assert found.ids_far_apart == expected.ids_far_apart
    for kind in KINDS:
        first = [change for change in expected.changes if change.kind == kind][:limit]
        assert list(found.listed[kind]) == first, kind
    before, after = (summary_counts(side) for side in sides)
    for name in ("components", "techniques", "sources", "splits"):
        assert totals.counts[name] == (before[name], after[name]), name
    changes = {
        name: (before["sessions"][name], after["sessions"][name])
        for name in before["sessions"] | after["sessions"]
        if before["sessions"][name] != after["sessions"][name]
    }
    worst = sorted(changes.items(), key=lambda item: (-abs(item[1][1] - item[1][0]), item[0]))
    assert totals.sessions == (len(before["sessions"]), len(after["sessions"]))
    assert totals.sessions_changed == len(changes)
    assert totals.worst_sessions == dict(worst[:limit])
    assert list(totals.worst_sessions) == [name for name, _ in worst[:limit]]


def hit(sample: str, **fields: Any) -> dict[str, Any]:
    """An event without the fields that are None."""
    made = {"sample_id": sample, "session_id": "s", "onset_time": 1.0, "components": [], **fields}
    return {name: value for name, value in made.items() if value is not None}


KICK = {"label": "kick", "velocity": 0.5}
VALUES: dict[str, list[Any]] = {
    "onset_time": [1.0, 1.0 + 1e-7, 1.0 + 1e-6, 1.0 + 1.1e-6, 1.5],
    "components": [
        [],
        [{"label": "kick"}],
        [KICK],
        [KICK, KICK],
        [KICK, {"label": "snare"}],
        [{"label": "snare"}, KICK],
        [{**KICK, "velocity": 0.0}],
        [{**KICK, "velocity": -0.0}],
        [{**KICK, "openness": 0.5}],
        [{**KICK, "openness_raw": 0.5}],
        [{**KICK, "openness": 0.1}, {**KICK, "openness": 0.2}],
        [{**KICK, "openness": 0.2}, {**KICK, "openness": 0.1}],
        [{**KICK, "velocity": 0.2}, {**KICK, "velocity": 0.1}],
        [{**KICK, "velocity": 0.1}, {**KICK, "velocity": 0.2}],
        [{"label": "kick"}, {**KICK, "velocity": 0.0}],
        [{**KICK, "velocity": 0.0}, {"label": "kick"}],
        [{**KICK, "instrument_variant": "b"}, {"label": "kick"}],
        [{**KICK, "instrument_variant": ""}, {"label": "kick"}],
        [{**KICK, "choke": True}],
        [{**KICK, "choke": False}],
        [{**KICK, "dynamic_bucket": "ghost"}],
        [{**KICK, "openness_curve_id": ""}],
        [{**KICK, "strike_position": "edge"}],
    ],
    "techniques": [None, [], ["x"], ["x", "x"], ["x", "y"], ["y", "x"]],
    "loudness": [None, {}, {"LUFS_i": 0.0}, {"LUFS_i": -0.0}, {"peak_dbfs": 0.0}],
    "context_ms": [None, {}, {"pre": 1.0}, {"post": 1.0}, {"pre": 1.0, "post": 1.0}],
    "annotated_labels": [None, [], ["x"], ["x", "x"], ["x", "y"], ["y", "x"]],
    "track_id": [None, "", "t", "é", "e\u0301"],
    "session_id": ["s", "S", "ß"],
    "is_synthetic": [None, True, False],
    "bar_index": [None, 0, 1],
    "offset_time": [None, 2.0, 2.5],
}


def test_every_field_from_every_value_to_every_other() -> None:
    steps = [
        (field, before, after)
        for field, values in VALUES.items()
        for before in values
        for after in values
    ]
    base = [hit(f"{n}", **{field: before}) for n, (field, before, _) in enumerate(steps)]
    candidate = [hit(f"{n}", **{field: after}) for n, (field, _, after) in enumerate(steps)]
    compare(base, candidate, limit=len(steps))
    # Each step for itself too: in sum one mistake could make up for another.
    expected = [
        bool(differences(*(msgspec.convert(side, Event) for side in pair)))
        for pair in zip(base, candidate, strict=True)
    ]
    with views(base, candidate) as connection:
        diff_views(connection, "base", "candidate", limit=0)
        rows = connection.execute("SELECT base_row FROM diff_pairs WHERE changed <> 0").fetchall()
    assert sorted(row for (row,) in rows) == [n for n, changed in enumerate(expected) if changed]


def test_every_field_is_compared() -> None:
    """A field that is added to `Event` is compared without further ado."""
    assert {"sample_id", "onset_time", *manifest_diff_sql._LOOKED_AT, *manifest_diff_sql._REST} == {
        *Event.__struct_fields__
    }


ALIKE = "prod-000000-00019", "prod-007000-00049"
"""Two texts of which the `hash` of DuckDB 2.0 makes one number."""

TEXTS: dict[str, Any] = {
    **{
        field.name: (lambda text, name=field.name: {name: text})
        for field in arrow_schema()
        if pa.types.is_string(field.type) and field.name != "sample_id"
    },
    **{
        f"components.{name}": (lambda text, name=name: {"components": [{**KICK, name: text}]})
        for name in ("label", "openness_curve_id", "strike_position", "instrument_variant")
    },
    "techniques": lambda text: {"techniques": ["flam", text]},
    "annotated_labels": lambda text: {"annotated_labels": [text]},
}
del TEXTS["bleed_level"]  # one of three words


def test_texts_that_the_engine_confuses_are_told_apart() -> None:
    one, other = ALIKE
    for made in TEXTS.values():
        compare([hit("a", **made(one))], [hit("a", **made(other))])
        compare([hit("a", **made(one))], [hit("b", **made(other))])
    # Two takes, each with an event that the other's could be paired with.
    base = [hit("a", track_id=one), hit("b", track_id=other, onset_time=1.01)]
    compare(base, [{**row, "sample_id": f"{row['sample_id']}-new"} for row in reversed(base)])


def test_takes_are_told_apart_and_ties_are_settled_alike() -> None:
    tracks = [None, "", "t", "u"]
    labels = ["kick", "snare", "kick", "crash"]
    base, candidate = (
        [
            hit(f"{side}{n}", track_id=track, onset_time=1.0 + step * n, components=[{"label": x}])
            for track in tracks[at:][:3]
            for n, x in enumerate(labels[at:])
        ]
        for side, at, step in (("b", 0, 0.0), ("c", 1, 0.01))
    )
    for tolerance_s in (0.0, 0.05):
        for limit in (2, 100):
            compare(base, candidate, tolerance_s, limit)
            compare(candidate, base, tolerance_s, limit)


ids = st.sampled_from(["a", "b", "c", "d", "é", "e\u0301", "\U0001f941", "A", " a", "a\x00", "ß"])
names = st.sampled_from([None, "", "s", "S", "ü", "\U0001f941", "(none)"])
numbers = st.sampled_from([None, 0.0, -0.0, 0.25, 0.5, 1.0])


def test_equal_hits_are_paired_in_the_order_of_their_ids() -> None:
    base, candidate = (
        [hit(f"{side}{n}", components=[{**KICK, "velocity": n / 8}]) for n in order]
        for side, order in (("b", (0, 1, 2)), ("c", (2, 0, 1)))
    )
    compare(base, candidate)
    with views(base, candidate) as connection:
        found = diff_views(connection, "base", "candidate")
    assert (found.unchanged, found.paired_by_time) == (3, 3)


@st.composite
def hostile_components(draw: st.DrawFn) -> dict[str, Any]:
    made = {
        "label": draw(st.sampled_from(["kick", "snare", "Kick", "ß", "\U0001f941"])),
        "velocity": draw(numbers),
        "openness": draw(numbers),
        "openness_raw": draw(numbers),
        "dynamic_bucket": draw(st.sampled_from([None, "ghost"])),
        "openness_curve_id": draw(st.sampled_from([None, "", "c"])),
        "strike_position": draw(st.sampled_from([None, "", "edge"])),
        "choke": draw(st.sampled_from([None, True, False])),
        "instrument_variant": draw(st.sampled_from([None, "", "16in"])),
    }
    return {name: value for name, value in made.items() if value is not None}


@st.composite
def hostile_events(draw: st.DrawFn) -> dict[str, Any]:
    onset = draw(st.sampled_from([0.0, -0.0, 1e-7, 1e-6, 2e-6, 0.01, 0.02, 0.05, 0.06, 0.1, 7.0]))
    made = {
        "sample_id": draw(ids),
        "session_id": draw(st.sampled_from(["s", "S", "ü", "\U0001f941", "\uffee"])),
        "onset_time": onset,
        "components": draw(st.lists(hostile_components(), max_size=3)),
        "track_id": draw(names),
        "source_set": draw(names),
        "split": draw(names),
        "techniques": draw(st.sampled_from([None, [], ["x"], ["x", "x"], ["x", "ü"], ["ü", "x"]])),
        "annotated_labels": draw(st.sampled_from([None, [], ["x"], ["x", "y"], ["y", "x"]])),
        "loudness": draw(
            st.sampled_from([None, {}, {"LUFS_i": 0.0}, {"LUFS_i": -0.0}, {"peak_dbfs": 0.0}])
        ),
        "context_ms": draw(st.sampled_from([None, {}, {"pre": 1.0}, {"post": 1.0}])),
        "negative_example": draw(st.sampled_from([None, True, False])),
        "bar_index": draw(st.sampled_from([None, 0, 1, -1])),
    }
    return {name: value for name, value in made.items() if value is not None}


tolerances = st.sampled_from([0.0, 1e-6, 0.01, 0.05, 5.0])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    base=st.lists(hostile_events(), min_size=1, max_size=12),
    candidate=st.lists(hostile_events(), min_size=1, max_size=12),
    tolerance_s=tolerances,
    limit=st.sampled_from([0, 1, 2, 50]),
)
def test_unrelated_manifests(base: Rows, candidate: Rows, tolerance_s: float, limit: int) -> None:
    compare(base, candidate, tolerance_s, limit, by_id=limit != 1)


@st.composite
def revisions(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """A manifest with ids of its own, and what an editor made of it."""
    base = draw(st.lists(hostile_events(), min_size=1, max_size=12))
    for number, event in enumerate(base):
        event["sample_id"] = f"{number}"
    candidate = []
    for event in base:
        edit = draw(st.integers(0, 4))
        if edit == 0:
            continue
        after = dict(event)
        if edit == 1:
            after |= draw(hostile_events())
        elif edit == 2:
            name = draw(st.sampled_from(["components", "techniques", "loudness", "onset_time"]))
            after.pop(name, None)
            after |= {k: v for k, v in draw(hostile_events()).items() if k == name}
            after = {"onset_time": 3.0, "components": [], **after}
        elif edit == 3:
            after["components"] = draw(st.permutations(after["components"]))
        if draw(st.integers(0, 3)):
            after["sample_id"] = event["sample_id"]
        candidate.append(after)
    return base, draw(st.permutations(candidate)) or base


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=revisions(), tolerance_s=tolerances, limit=st.sampled_from([1, 2, 50]))
def test_revisions(rows: tuple[Rows, Rows], tolerance_s: float, limit: int) -> None:
    compare(*rows, tolerance_s, limit, by_id=limit != 1)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=manifests(), candidate=manifests())
def test_plausible_manifests(base: Rows, candidate: Rows) -> None:
    compare(base, candidate)


onsets = st.lists(st.integers(0, 40).map(lambda value: value / 50), max_size=40)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=onsets, after=onsets, size=st.integers(1, 5), tolerance_s=tolerances)
def test_blocks_cut_nothing(
    before: list[float], after: list[float], size: int, tolerance_s: float
) -> None:
    def rows(prefix: str, times: list[float]) -> Rows:
        return [
            {
                "sample_id": f"{prefix}{number}",
                "session_id": f"s{number % 2}",
                "onset_time": onset,
                "components": [{"label": "kick" if number % 3 else "snare"}],
            }
            for number, onset in enumerate([*times, 0.5])
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_diff_sql, "BATCH_ROWS", size)
        compare(rows("b", before), rows("c", after), tolerance_s, limit=100)


def test_too_many_events_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_match, "MAX_CELLS", 8)
    base, candidate = (
        [
            {
                "sample_id": f"{side}{number}",
                "session_id": "s",
                "onset_time": 1.0 + number * step,
                "components": [],
            }
            for number in range(3)
        ]
        for side, step in (("b", 0.01), ("c", 0.02))
    )
    with (
        views(base, candidate) as connection,
        pytest.raises(DrumgateError, match=r"3 and 3 events .* smaller --tolerance-ms"),
    ):
        diff_views(connection, "base", "candidate")
