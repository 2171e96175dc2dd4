"""Sampling weights: the formula by hand, the preview against a simulated draw, the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from training.checks.sampling import Options, Profile, load_profiles, run
from training.errors import DrumgateError, InputError
from training.metrics.sampling import (
    Weighting,
    draw,
    entropy_bits,
    group_weights,
    total_variation,
)

OPEN = Weighting(min_weight=1e-9, max_weight=1e9)


def groups_of(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def test_weights_by_hand() -> None:
    found = group_weights(groups_of(3, 15, 99), 3, techniques={}, weighting=OPEN)
    assert found.weight == pytest.approx([4**-0.5, 16**-0.5, 100**-0.5])
    assert found.count.tolist() == [3, 15, 99]


def test_clamping_is_counted_and_small_groups_are_left_out() -> None:
    weighting = Weighting(min_weight=0.2, max_weight=0.4, min_count=2)
    found = group_weights(groups_of(1, 3, 8, 99), 4, techniques={}, weighting=weighting)
    assert found.weight == pytest.approx([0.0, 0.4, 1 / 3, 0.2])
    assert found.lowered.tolist() == [False, True, False, False]
    assert found.raised.tolist() == [False, False, False, True]
    assert found.unclamped == pytest.approx([0.0, 0.5, 1 / 3, 0.1])


def test_counts_are_capped() -> None:
    weighting = Weighting(min_weight=1e-9, max_events_per_group=15)
    found = group_weights(groups_of(15, 4000), 2, techniques={}, weighting=weighting)
    assert found.weight == pytest.approx([0.25, 0.25])
    assert found.count.tolist() == [15, 4000]


def test_a_boost_grows_with_the_share_of_events() -> None:
    weighting = Weighting(technique_boost={"flam": 0.8, "nowhere": 3.0})
    shown = {"flam": np.array([True, True, True, False, False, False])}
    found = group_weights(groups_of(2, 2, 2), 3, techniques=shown, weighting=OPEN)
    boosted = group_weights(
        groups_of(2, 2, 2),
        3,
        techniques=shown,
        weighting=Weighting(
            min_weight=1e-9, max_weight=9, technique_boost=weighting.technique_boost
        ),
    )
    assert boosted.weight / found.weight == pytest.approx([1.8, 1.4, 1.0])


def test_the_ends_of_the_exponent() -> None:
    group = groups_of(2, 6)
    as_is = group_weights(
        group, 2, techniques={}, weighting=Weighting(exponent=0, min_weight=1, max_weight=1)
    )
    assert draw(group, as_is.weight).probability == pytest.approx(1 / 8)
    assert draw(group, as_is.weight).effective_sample_size == pytest.approx(8)
    equal = group_weights(
        group,
        2,
        techniques={},
        weighting=Weighting(exponent=1, smoothing=0, min_weight=1e-9, max_weight=9),
    )
    found = draw(group, equal.weight)
    assert np.bincount(group, weights=found.probability) == pytest.approx([0.5, 0.5])
    assert found.group_entropy_bits == pytest.approx(1.0)
    # Kish: (2/2 + 6/6)² / (2/4 + 6/36)
    assert found.effective_sample_size == pytest.approx(4 / (2 / 4 + 6 / 36))
    assert found.most_repeated == 0


def test_entropy_and_total_variation_by_hand() -> None:
    assert entropy_bits(np.array([1.0, 0.0])) == 0.0
    assert entropy_bits(np.full(8, 1 / 8)) == pytest.approx(3.0)
    assert total_variation(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exponent": -1.0}, "exponent"),
        ({"smoothing": float("nan")}, "smoothing"),
        ({"min_weight": 0.0}, "min_weight"),
        ({"min_weight": 0.6}, "max_weight must be finite and >= min_weight"),
        ({"max_events_per_group": 0}, "max_events_per_group"),
        ({"min_count": 0}, "min_count"),
        ({"technique_boost": {"flam": -1.0}}, "technique_boost"),
    ],
)
def test_senseless_parameters_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Weighting(**change)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no group has 9 events"):
        group_weights(groups_of(2, 3), 2, techniques={}, weighting=Weighting(min_count=9))
    with pytest.raises(ValueError, match="at least one event"):
        group_weights(groups_of(), 0, techniques={}, weighting=OPEN)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=20), st.floats(0, 2))
def test_weights_fall_with_the_count_and_stay_within_the_bounds(
    counts: list[int], exponent: float
) -> None:
    weighting = Weighting(exponent=exponent)
    group = groups_of(*counts)
    found = group_weights(group, len(counts), techniques={}, weighting=weighting)
    assert (found.weight >= 0.05).all()
    assert (found.weight <= 0.5).all()
    assert (np.diff(found.weight[np.argsort(counts, kind="stable")]) <= 1e-15).all()
    assert draw(group, found.weight).probability.sum() == pytest.approx(1.0)


def event(number: int, session: str, label: str = "kick", **more: Any) -> dict[str, Any]:
    return {
        "sample_id": f"e{number}",
        "session_id": session,
        "onset_time": number / 10,
        "components": [{"label": label, "dynamic_bucket": "light"}],
        "source_set": "studio",
    } | more


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    def write(rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / "events.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def rows_of_two_sessions() -> list[dict[str, Any]]:
    long = [event(n, "long", "kick" if n % 3 else "snare") for n in range(99)]
    short = [event(n, "short", "crash", techniques=["flam"]) for n in range(100, 103)]
    return long + short


def test_the_artefact(manifest: Any) -> None:
    found = run(Options(manifest=manifest(rows_of_two_sessions()), draws=1000))
    assert found["weights"] == {
        "long": {"count": 99, "weight": pytest.approx(0.1)},
        "short": {"count": 3, "weight": pytest.approx(0.5)},
    }
    assert found["technique_totals"] == {"flam": 3}
    assert found["parameters"]["max_weight"] == 0.5
    preview = found["preview"]
    short = 1000 * 1.5 / (9.9 + 1.5)
    assert preview["per_class"]["crash"]["expected_draws"] == pytest.approx(short)
    assert preview["per_technique"] == {"flam": pytest.approx(short)}
    assert preview["most_repeated"]["group"] == "short"
    assert preview["most_repeated"]["expected_draws"] == pytest.approx(short / 3)
    crash = next(r for r in preview["class_source_dynamics"] if r["class"] == "crash")
    assert (crash["source"], crash["dynamics"], crash["events"]) == ("studio", "light", 3)
    json.dumps(found["preview"], allow_nan=False)


def test_the_preview_is_what_a_sampler_draws(manifest: Any) -> None:
    rows = rows_of_two_sessions()
    found = run(Options(manifest=manifest(rows), draws=20_000))
    weight = np.array([found["weights"][row["session_id"]]["weight"] for row in rows])
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(rows), size=20_000, p=weight / weight.sum())
    labels = np.array([row["components"][0]["label"] for row in rows])[drawn]
    for label, row in found["preview"]["per_class"].items():
        assert (labels == label).sum() == pytest.approx(row["expected_draws"], rel=0.05)
    assert len(set(drawn)) == pytest.approx(found["preview"]["expected_distinct_events"], abs=1)


def test_duplicates_count_once(manifest: Any) -> None:
    rows = rows_of_two_sessions()
    twin = rows[0] | {"sample_id": "twin", "audio_path": "room.flac"}
    assert run(Options(manifest=manifest([*rows, twin])))["duplicates_left_out"] == 1
    kept = run(Options(manifest=manifest([*rows, twin]), given={"dedupe_key": ()}))
    assert kept["weights"]["long"]["count"] == 100


def test_negatives_and_aliases_in_the_preview(manifest: Any) -> None:
    rows = [event(0, "a", components=[]), event(1, "a", "bass_drum"), event(2, "a")]
    per_class = run(Options(manifest=manifest(rows)))["preview"]["per_class"]
    assert set(per_class) == {"(no hit)", "kick"}
    assert per_class["kick"]["events"] == 2


def test_grouping_needs_the_field(manifest: Any) -> None:
    path = manifest([event(0, "a", audio_path="a.flac"), event(1, "a")])
    with pytest.raises(InputError, match=r"events.jsonl:2: audio_path: is required to group by"):
        run(Options(manifest=path, given={"group_field": "audio_path"}))


def test_profiles(manifest: Any, tmp_path: Path) -> None:
    path = manifest(rows_of_two_sessions())
    assert load_profiles()["prod_combined"] == Profile(
        description=load_profiles()["prod_combined"].description,
        technique_boost=load_profiles()["prod_combined"].technique_boost,
    )
    for name in load_profiles():
        assert run(Options(manifest=path, profile=name))["parameters"]["profile"] == name
    found = run(Options(manifest=path, profile="uniform", given={"max_weight": 2.0}))
    assert found["parameters"]["exponent"] == 0
    assert found["parameters"]["max_weight"] == 2.0
    with pytest.raises(DrumgateError, match="did you mean 'prod_combined'"):
        run(Options(manifest=path, profile="prod_combinde"))
    own = tmp_path / "profiles.json"
    own.write_text(
        '{"schema_version": 1, "profiles": {"mine": {"description": "", "exponant": 1}}}'
    )
    with pytest.raises(InputError, match="exponant: is not a known field"):
        run(Options(manifest=path, profile="mine", profiles_path=own))


def test_an_unknown_dedupe_field_is_named(manifest: Any) -> None:
    with pytest.raises(DrumgateError, match="did you mean 'onset_time'"):
        run(
            Options(manifest=manifest(rows_of_two_sessions()), given={"dedupe_key": ("onset_tim",)})
        )


def test_the_command(
    manifest: Any, tmp_path: Path, drumgate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest(rows_of_two_sessions())
    monkeypatch.chdir(tmp_path)
    result = drumgate(
        "derive-sampling-weights events.jsonl --output w.json --technique-boost flam=0.5"
        " --max-weight 2 --profile prod_combined"
    )
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "w.json").read_text())
    assert written["weights"]["short"]["weight"] == pytest.approx(0.75)
    assert written["parameters"]["technique_boost"] == {"flam": 0.5}
    assert "most repeated" in result.stdout
    again = drumgate("derive-sampling-weights events.jsonl --output w2.json --technique-boost flam")
    assert again.exit_code == 2
    assert "is not name=factor" in again.stderr
    assert not (tmp_path / "w2.json").exists()
