"""The demo data set: whole or not at all, honest splits, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from training.audio.synth import MICS, dataset
from training.audio.synth.dataset import make_dataset
from training.audio.synth.plan import DatasetPlan, plan_sessions
from training.errors import InputError
from training.manifest import Event, GroundTruth, read_records, resolve_inside
from training.taxonomy import load_components

SMALL = DatasetPlan(
    sessions=3, drummers=2, kits=2, unknown_sessions=1, duration_s=15.0, sample_rate=22_050, seed=4
)
REQUIRED = {"hihat_bark", "metric_modulation", "variable_meter", "multi_cymbal_same_class"}


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("demo") / "set"
    make_dataset(target, SMALL, jobs=1)
    return target


@pytest.fixture(scope="module")
def events(made: Path) -> list[Event]:
    return read_records(made / "annotations" / "events.jsonl", Event).rows


def test_bytes_depend_on_the_plan_alone(made: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "again", SMALL, jobs=3)
    assert digest(tmp_path / "again") == digest(made)


def test_the_layout(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == [
        "annotations",
        "metadata.json",
        "sessions",
    ]
    manifests = sorted((made / "sessions").glob("*.json"))
    assert [path.stem for path in manifests] == [
        "session_001",
        "session_002",
        "session_003",
        "unknown_001",
    ]
    for path in manifests:
        manifest = json.loads(path.read_text())
        assert manifest["session_id"] == path.stem
        assert manifest["anchor_mic"] == "kick_in"
        assert [mic["name"] for mic in manifest["mics"]] == list(MICS)
        for mic in manifest["mics"]:
            audio = resolve_inside(path.parent, mic["path"], source=path)
            info = soundfile.info(audio)
            assert (info.samplerate, info.channels, info.subtype) == (22_050, 1, "PCM_16")
            assert info.frames == 15 * 22_050
            assert 0.0 <= mic["expected_delay_ms"] < 15.0
        assert manifest["mics"][0]["expected_delay_ms"] == 0.0


def test_events_are_sorted_valid_and_complete(made: Path, events: list[Event]) -> None:
    keys = [(event.session_id, event.onset_time) for event in events]
    assert keys == sorted(keys)
    assert len({event.sample_id for event in events}) == len(events)
    known = load_components().known
    for event in events:
        assert event.audio_path is not None
        assert resolve_inside(made, event.audio_path, source=made).is_file()
        assert 0.0 <= event.onset_time < 15.0
        assert set(event.labels) <= known
        assert set(event.annotated_labels or ()) == known
        assert (event.negative_example is True) == (not event.components)
        assert event.is_synthetic is True
    techniques = {name for event in events for name in event.techniques}
    assert techniques >= REQUIRED


def test_every_technique_is_in_the_catalogue(events: list[Event]) -> None:
    from training.taxonomy.techniques import load_techniques

    catalogue = load_techniques()
    names = {name for event in events for name in event.techniques}
    assert {name for name in names if catalogue.canonical(name) != name} == set()


def test_splits_share_no_session_and_test_shares_no_drummer_and_no_kit(
    events: list[Event],
) -> None:
    of: dict[str, dict[str, set[object]]] = {}
    for event in events:
        row = of.setdefault(str(event.split), {"session": set(), "kit": set(), "drummer": set()})
        row["session"].add(event.session_id)
        row["kit"].add(event.kit_id)
        row["drummer"].add(event.drummer_id)
    assert set(of) == {"train", "val", "test"}
    assert not of["train"]["session"] & of["val"]["session"]
    for name in ("kit", "drummer", "session"):
        assert not of["test"][name] & (of["train"][name] | of["val"][name])


def test_unknown_percussion_is_met_by_the_open_set_gate_alone(events: list[Event]) -> None:
    assert {event.source_set for event in events} == {"demo"}
    assert not any("aux_percussion" in event.labels for event in events)


def test_open_set_truth(made: Path, events: list[Event]) -> None:
    rows = read_records(made / "annotations" / "ood.jsonl", GroundTruth).rows
    tested = {e.sample_id for e in events if e.split == "test" and e.components}
    assert {row.sample_id for row in rows if row.is_known} == tested
    assert {row.is_known for row in rows} == {True, False}
    for row in rows:
        assert row.is_known == ("aux_percussion" not in row.label_set)
        assert (row.unknown_group is None) == row.is_known


def test_metadata_counts_what_is_there(made: Path, events: list[Event]) -> None:
    metadata = json.loads((made / "metadata.json").read_text())
    assert metadata["events_total"] == len(events)
    assert metadata["durations_s"] == {
        "train": {"demo": 15.0},
        "val": {"demo": 15.0},
        "test": {"demo": 15.0},
    }
    hits = sum(sum(row.values()) for row in metadata["label_counts"].values())
    assert hits == sum(len(event.components) for event in events)
    assert metadata["seed"] == 4


@settings(max_examples=40, deadline=None)
@given(
    sessions=st.integers(3, 60),
    drummers=st.integers(2, 12),
    kits=st.integers(2, 16),
    unknown=st.integers(0, 5),
    seed=st.integers(0, 2**32),
)
def test_every_plan_keeps_its_promises(
    sessions: int, drummers: int, kits: int, unknown: int, seed: int
) -> None:
    planned = plan_sessions(
        DatasetPlan(
            sessions=sessions, drummers=drummers, kits=kits, unknown_sessions=unknown, seed=seed
        )
    )
    assert len(planned) == sessions + unknown
    assert len({p.spec.session_id for p in planned}) == len(planned)
    kit: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    drummer: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for p in planned:
        kit[p.split].add(p.spec.kit.kit_id)
        drummer[p.split].add(p.spec.drummer.drummer_id)
        assert p.spec.unknown == (p.source_set == "demo_unknown")
        assert not p.spec.unknown or p.split == "test"
    assert all(kit.values())
    for shares in (kit, drummer):
        assert not shares["test"] & (shares["train"] | shares["val"])
    assert kits < 3 or not kit["train"] & kit["val"]
    assert drummers < 4 or not drummer["train"] & drummer["val"]
    for split in kit:
        mine = [p.spec for p in planned if p.split == split and not p.spec.unknown]
        assert mine[0].metric_modulation
        assert mine[0].variable_meter


def test_a_full_folder_is_not_touched(made: Path, tmp_path: Path) -> None:
    before = digest(made)
    with pytest.raises(InputError, match="holds a dataset already; --force replaces it"):
        make_dataset(made, SMALL)
    assert digest(made) == before
    (tmp_path / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(InputError, match="something else in it"):
            make_dataset(tmp_path, SMALL, force=force)
    (tmp_path / "metadata.json").write_text('{"generator": "another"}')
    with pytest.raises(InputError, match="something else in it"):
        make_dataset(tmp_path, SMALL, force=True)
    with pytest.raises(InputError, match="is a file"):
        make_dataset(tmp_path / "notes.txt", SMALL, force=True)
    link = tmp_path / "link"
    link.symlink_to(made)
    with pytest.raises(InputError, match="is a link"):
        make_dataset(link, SMALL, force=True)
    assert digest(made) == before


def test_a_failure_leaves_the_old_set_and_nothing_else(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, beside = digest(made), sorted(made.parent.iterdir())
    calls = []

    def failing(spec: object) -> None:
        calls.append(spec)
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(dataset, "render_session", failing)
    with pytest.raises(RuntimeError, match="disk on fire"):
        make_dataset(made, SMALL, force=True)
    with pytest.raises(RuntimeError, match="disk on fire"):
        make_dataset(tmp_path / "new", SMALL)
    assert digest(made) == before
    assert sorted(made.parent.iterdir()) == beside
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_a_set(tmp_path: Path) -> None:
    small = DatasetPlan(
        sessions=3, drummers=2, kits=2, unknown_sessions=0, duration_s=15.0, sample_rate=16_000
    )
    target = tmp_path / "set"
    target.mkdir()  # an empty folder may be there
    make_dataset(target, small)
    (target / "sessions" / "left_over.txt").write_text("old")
    make_dataset(target, small, force=True)
    assert not (target / "sessions" / "left_over.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--sessions 2", "--sessions: must be at least 3: train, val and test need one each"),
        ("--kits 1", "--kits: must be at least 2"),
        ("--drummers 1", "--drummers: must be at least 2"),
        ("--unknown-sessions -1", "--unknown-sessions: must be at least 0"),
        ("--duration-s nan", "--duration-s"),
        ("--duration-s 5", "--duration-s: must lie between 15 and 600 seconds (got 5.0)"),
        ("--sample-rate 8000", "--sample-rate: must lie between 16000 and 96000"),
        ("--seed -1", "--seed"),
        ("--sessions many", "--sessions"),
    ],
)
def test_bad_usage(
    arguments: str, said: str, tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    result = drumgate(f"make-demo-dataset {tmp_path}/set {arguments}")
    assert result.exit_code == 2
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_made(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    result = drumgate(
        f"make-demo-dataset {tmp_path}/set --sessions 3 --drummers 2 --kits 2 "
        "--unknown-sessions 1 --duration-s 15 --sample-rate 16000 --seed 2 --jobs 2"
    )
    assert result.exit_code == 0, result.stderr
    assert "events written to" in result.stdout
    assert {line.split()[0] for line in result.stdout.splitlines()[:3]} == {"train", "val", "test"}
    manifests = sorted((tmp_path / "set" / "sessions").glob("*.json"))
    assert len(manifests) == 4
