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
from training.metrics.sampling import Weighting, class_factors, drawable, group_weights
from training.metrics.sampling_draw import draw, entropy_bits, total_variation

OPEN = Weighting(min_weight=1e-9, max_weight=1e9)


def counts_of(*counts: int) -> np.ndarray:
    return np.array(counts, dtype=np.int64)


def test_weights_by_hand() -> None:
    found = group_weights(counts_of(3, 15, 99), techniques={}, weighting=OPEN)
    assert found.weight == pytest.approx([4**-0.5, 16**-0.5, 100**-0.5])


def test_clamping_is_counted_and_small_groups_are_left_out() -> None:
    weighting = Weighting(min_weight=0.2, max_weight=0.4, min_count=2)
    found = group_weights(counts_of(1, 3, 8, 99), techniques={}, weighting=weighting)
    assert found.weight == pytest.approx([0.0, 0.4, 1 / 3, 0.2])
    assert found.lowered.tolist() == [False, True, False, False]
    assert found.raised.tolist() == [False, False, False, True]
    assert found.unclamped == pytest.approx([0.0, 0.5, 1 / 3, 0.1])


def test_counts_are_capped() -> None:
    weighting = Weighting(min_weight=1e-9, max_events_per_group=15)
    found = group_weights(counts_of(15, 4000), techniques={}, weighting=weighting)
    assert found.weight == pytest.approx([0.25, 0.25])


def test_a_boost_grows_with_the_share_of_events() -> None:
    weighting = Weighting(technique_boost={"flam": 0.8, "nowhere": 3.0})
    shown = {"flam": counts_of(2, 1, 0)}
    found = group_weights(counts_of(2, 2, 2), techniques=shown, weighting=OPEN)
    boosted = group_weights(
        counts_of(2, 2, 2),
        techniques=shown,
        weighting=Weighting(
            min_weight=1e-9, max_weight=9, technique_boost=weighting.technique_boost
        ),
    )
    assert boosted.weight / found.weight == pytest.approx([1.8, 1.4, 1.0])


def test_the_ends_of_the_exponent() -> None:
    count, first = counts_of(2, 6), counts_of(0, 2)
    as_is = group_weights(
        count, techniques={}, weighting=Weighting(exponent=0, min_weight=1, max_weight=1)
    )
    assert draw(count, as_is.weight, first, 8).probability == pytest.approx(1 / 8)
    assert draw(count, as_is.weight, first, 8).effective_sample_size == pytest.approx(8)
    equal = group_weights(
        count,
        techniques={},
        weighting=Weighting(exponent=1, smoothing=0, min_weight=1e-9, max_weight=9),
    )
    found = draw(count, equal.weight, first, 8)
    assert found.probability * count == pytest.approx([0.5, 0.5])
    assert entropy_bits(found.probability * count) == pytest.approx(1.0)
    # Kish: (2/2 + 6/6)² / (2/4 + 6/36)
    assert found.effective_sample_size == pytest.approx(4 / (2 / 4 + 6 / 36))
    assert found.most_repeated == 0
    # two events with 1/4 each, six with 1/12
    assert found.expected_distinct == pytest.approx(2 * (1 - 0.75**8) + 6 * (1 - (11 / 12) ** 8))


def test_of_equally_likely_strata_the_first_in_the_manifest_is_named() -> None:
    found = draw(counts_of(3, 4), np.array([1.0, 1.0]), counts_of(9, 2), 10)
    assert found.most_repeated == 1


def test_tiny_weights_do_not_vanish() -> None:
    found = draw(counts_of(1, 1), np.array([1e-200, 3e-200]), counts_of(0, 1), 4)
    assert found.probability == pytest.approx([0.25, 0.75])
    assert found.effective_sample_size == pytest.approx(16 / 10)
    with pytest.raises(ValueError, match="nothing can be drawn"):
        draw(counts_of(1), np.zeros(1), counts_of(0), 1)


def test_repeat_factors_by_hand() -> None:
    """LVIS: r = max(1, sqrt(t / f)); f = 0.64, 0.16, 0.04, 0.01 of 100 events, t = 0.16."""
    weighting = Weighting(
        scheme="repeat_factor", repeat_threshold=0.16, min_weight=None, max_weight=None
    )
    found = class_factors(counts_of(64, 16, 4, 1), 100, weighting)
    assert found.weight == pytest.approx([1.0, 1.0, 2.0, 4.0])
    bounded = Weighting(
        scheme="repeat_factor", repeat_threshold=0.16, min_weight=1.5, max_weight=3.0
    )
    found = class_factors(counts_of(64, 16, 4, 1), 100, bounded)
    assert found.weight == pytest.approx([1.5, 1.5, 2.0, 3.0])
    assert found.unclamped == pytest.approx([1.0, 1.0, 2.0, 4.0])
    assert found.raised.tolist() == [True, True, False, False]
    assert found.lowered.tolist() == [False, False, False, True]


def test_effective_numbers_by_hand() -> None:
    """Cui et al.: (1 - β) / (1 - β^n); with β = 1/2 it is 1/2, over 1/2, 3/4, 7/8."""
    weighting = Weighting(scheme="effective_number", beta=0.5, min_weight=None, max_weight=None)
    found = class_factors(counts_of(1, 2, 3), 6, weighting)
    assert found.weight == pytest.approx([1.0, 2 / 3, 4 / 7])
    none = Weighting(scheme="effective_number", beta=0.0, min_weight=None, max_weight=None)
    assert class_factors(counts_of(1, 2, 3), 6, none).weight.tolist() == [1.0, 1.0, 1.0]
    capped = Weighting(scheme="effective_number", beta=0.0, min_weight=0.2, max_weight=0.4)
    assert class_factors(counts_of(1, 2), 3, capped).weight.tolist() == [0.4, 0.4]


@given(st.integers(1, 10**7))
def test_the_ends_of_the_effective_number(count: int) -> None:
    """β near 1 weighs by 1/n; and no factor leaves (1 - β, 1], where n is endless or 1."""
    near = Weighting(scheme="effective_number", beta=1 - 1e-12, min_weight=None, max_weight=None)
    found = float(class_factors(counts_of(count), count, near).weight[0])
    assert found == pytest.approx(1 / count, rel=1e-3)
    weighting = Weighting(scheme="effective_number", min_weight=None, max_weight=None)
    assert 1 - 0.9999 - 1e-15 <= class_factors(counts_of(count), count, weighting).weight[0] <= 1


def test_groups_weigh_alike_where_classes_are_weighed() -> None:
    weighting = Weighting(
        scheme="repeat_factor", min_count=2, max_weight=1.2, technique_boost={"flam": 1.0}
    )
    found = group_weights(
        counts_of(1, 2, 400), techniques={"flam": counts_of(0, 1, 0)}, weighting=weighting
    )
    assert found.weight.tolist() == [0.0, 1.5, 1.0]
    assert not found.lowered.any()


def test_entropy_and_total_variation_by_hand() -> None:
    assert entropy_bits(np.array([1.0, 0.0])) == 0.0
    assert entropy_bits(np.full(8, 1 / 8)) == pytest.approx(3.0)
    assert total_variation(counts_of(1, 1), np.array([0.5, 0.5]), np.array([1.0, 0.0])) == 0.5
    assert total_variation(counts_of(4), np.array([0.25]), np.array([0.25])) == 0.0


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
        ({"scheme": "inverse"}, "scheme must be one of inverse_count, repeat_factor"),
        ({"repeat_threshold": 0.0}, "repeat_threshold"),
        ({"beta": 1.0}, "beta must be >= 0 and < 1"),
    ],
)
def test_senseless_parameters_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Weighting(**change)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no group has 9 events"):
        group_weights(counts_of(2, 3), techniques={}, weighting=Weighting(min_count=9))
    with pytest.raises(ValueError, match="at least one event"):
        group_weights(counts_of(), techniques={}, weighting=OPEN)
    with pytest.raises(ValueError, match="at least one event"):
        drawable(counts_of(1, 0), OPEN)
    huge = Weighting(technique_boost={"flam": 1e308, "drag": 1e308})
    shown = {"flam": counts_of(2, 0), "drag": counts_of(2, 0)}
    with pytest.raises(ValueError, match="too large"):
        group_weights(counts_of(2, 3), techniques=shown, weighting=huge)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=20), st.floats(0, 2))
def test_weights_fall_with_the_count_and_stay_within_the_bounds(
    counts: list[int], exponent: float
) -> None:
    weighting = Weighting(exponent=exponent)
    count = counts_of(*counts)
    found = group_weights(count, techniques={}, weighting=weighting)
    assert (found.weight >= 0.05).all()
    assert (found.weight <= 0.5).all()
    assert (np.diff(found.weight[np.argsort(counts, kind="stable")]) <= 1e-15).all()
    drawn = draw(count, found.weight, np.cumsum(count) - count, 10)
    assert (count * drawn.probability).sum() == pytest.approx(1.0)


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


def class_rows() -> list[dict[str, Any]]:
    """64 kicks, 15 snares, one of both, 16 crashes with a flam, 4 without a hit: 100 events."""
    labels = ["kick"] * 64 + ["snare"] * 15
    rows = [event(n, "a", label) for n, label in enumerate(labels)]
    both = [{"label": "snare"}, {"label": "kick"}]
    rows.append(event(79, "a", components=both))
    rows += [event(n, "b", "crash", techniques=["flam"]) for n in range(80, 96)]
    return rows + [event(n, "b", components=[]) for n in range(96, 100)]


def test_repeat_factors_of_a_manifest_by_hand(manifest: Any) -> None:
    """Shares 0.65, 0.16, 0.16 and 0.04 at t = 0.64; an event takes the largest of its classes."""
    given_ = {"scheme": "repeat_factor", "repeat_threshold": 0.64}
    found = run(Options(manifest=manifest(class_rows()), given=given_, draws=1000))
    assert {name: row["factor"] for name, row in found["class_factors"].items()} == {
        "(no hit)": pytest.approx(4.0),
        "crash": pytest.approx(2.0),
        "kick": 1.0,
        "snare": pytest.approx(2.0),
    }
    assert found["class_factors"]["kick"] == {"events": 65, "share": 0.65, "factor": 1.0}
    assert found["weights"] == {
        "a": {"count": 80, "weight": 1.0},
        "b": {"count": 20, "weight": 1.0},
    }
    assert found["parameters"]["max_weight"] is None
    # 64 x 1, 16 x 2, 16 x 2 and 4 x 4
    each = 1000 / (64 + 32 + 32 + 16)
    per_class = found["preview"]["per_class"]
    assert per_class["kick"]["expected_draws"] == pytest.approx(66 * each)
    assert per_class["snare"]["expected_draws"] == pytest.approx(32 * each)
    assert per_class["(no hit)"]["expected_draws"] == pytest.approx(16 * each)
    assert found["preview"]["most_repeated"] == {
        "sample_id": "e96",
        "group": "b",
        "expected_draws": pytest.approx(4 * each),
    }


def test_clamped_classes_are_counted(manifest: Any) -> None:
    given_ = {"scheme": "repeat_factor", "repeat_threshold": 0.64, "max_weight": 2.5}
    found = run(Options(manifest=manifest(class_rows()), given=given_))
    assert found["class_factors"]["(no hit)"]["factor"] == 2.5
    clamping = found["preview"]["clamping"]
    assert (clamping["classes_lowered_to_max"], clamping["classes_raised_to_min"]) == (1, 0)
    # 4 events had 16 of 144 and have 10 of 138
    assert clamping["draws_moved_share"] == pytest.approx(16 / 144 - 10 / 138)


def test_effective_numbers_of_a_manifest_by_hand(manifest: Any) -> None:
    rows = [event(0, "a", "kick"), event(1, "a", "kick"), event(2, "a", "crash")]
    given_ = {"scheme": "effective_number", "beta": 0.5}
    found = run(Options(manifest=manifest(rows), given=given_, draws=7))
    # 1/2 over 3/4, and 1/2 over 1/2: 2/3, 2/3 and 1
    assert found["class_factors"]["kick"]["factor"] == pytest.approx(2 / 3)
    assert found["class_factors"]["crash"]["factor"] == pytest.approx(1.0)
    assert found["preview"]["per_class"]["crash"]["expected_draws"] == pytest.approx(3.0)


def test_technique_filters(manifest: Any) -> None:
    path = manifest(class_rows())
    only = run(Options(manifest=path, given={"include_technique": ("flam", "drag")}))
    assert only["events_total"] == 16
    assert only["events_left_out_by_technique"] == 84
    assert only["techniques_filtered_but_absent"] == ["drag"]
    assert set(only["preview"]["per_class"]) == {"crash"}
    without = run(Options(manifest=path, given={"exclude_technique": ("flam",)}))
    assert without["events_total"] == 84
    assert without["technique_totals"] == {}
    with pytest.raises(InputError, match="no event that the technique filters let through"):
        run(Options(manifest=path, given={"include_technique": ("drag",)}))


def test_a_filter_goes_before_the_duplicates(manifest: Any) -> None:
    rows = [event(0, "a"), event(0, "a", techniques=["flam"])]
    found = run(Options(manifest=manifest(rows), given={"include_technique": ("flam",)}))
    assert (found["events_total"], found["duplicates_left_out"]) == (1, 0)


def test_duplicates_compare_labels_as_a_set_and_onsets_exactly(manifest: Any) -> None:
    kick, snare = {"label": "kick", "velocity": 0.2}, {"label": "snare"}
    rows = [
        event(0, "a", components=[kick, snare]),
        event(0, "a", components=[snare, {"label": "kick"}, kick]),
        event(0, "a", components=[kick]),
        event(0, "a", components=[kick, snare], onset_time=1e-300),
        event(0, "a", components=[snare, kick], onset_time=-0.0),
    ]
    found = run(Options(manifest=manifest(rows)))
    assert (found["events_total"], found["duplicates_left_out"]) == (3, 2)


def test_parameters_of_another_scheme_are_refused(manifest: Any) -> None:
    path = manifest(class_rows())
    for given_, message in (
        ({"beta": 0.9}, "--beta: means nothing to the scheme inverse_count"),
        ({"scheme": "repeat_factor", "exponent": 1.0}, "--exponent: .* only to inverse_count"),
        ({"scheme": "effective_number", "repeat_threshold": 0.1}, "--repeat-threshold"),
    ):
        with pytest.raises(DrumgateError, match=message):
            run(Options(manifest=path, given=given_))
    found = run(
        Options(manifest=path, profile="prod_combined", given={"scheme": "effective_number"})
    )
    assert found["parameters"]["min_weight"] is None


def test_all_events_without_a_group_are_counted(manifest: Any) -> None:
    rows = [event(n, "a", **({} if n % 3 else {"kit_id": "maple"})) for n in range(90)]
    with pytest.raises(InputError, match=r"events.jsonl:2: kit_id: is required") as caught:
        run(Options(manifest=manifest(rows), given={"group_field": "kit_id"}))
    assert caught.value.total == 60
    assert [problem.line for problem in caught.value.problems[:4]] == [2, 3, 5, 6]
    assert "and 40 more" in str(caught.value)


def test_several_manifests_count_as_one(
    manifest: Any, tmp_path: Path, drumgate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of_two_sessions()
    whole = run(Options(manifest=manifest(rows)))
    for name, part in (("part1.jsonl", rows[:40]), ("part2.jsonl", rows[40:])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    monkeypatch.chdir(tmp_path)
    result = drumgate("derive-sampling-weights part*.jsonl --output w.json --memory-limit 256MiB")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "w.json").read_text())
    assert [item["path"] for item in written["inputs"]] == ["part1.jsonl", "part2.jsonl"]
    assert written["weights"] == whole["weights"]
    assert written["preview"] == whole["preview"]


def test_the_manifest_is_not_written_over(
    manifest: Any, tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    path = manifest(rows_of_two_sessions())
    before = path.read_bytes()
    result = drumgate("derive-sampling-weights", path, "--output", path)
    assert result.exit_code == 2
    assert "is the file of MANIFEST, which would be lost" in result.stderr
    assert path.read_bytes() == before
    result = drumgate("derive-sampling-weights", path, "--output", path, "--dedupe-key", ",")
    assert result.exit_code == 2
    assert "holds an empty name" in result.stderr


def test_names_that_mean_something_elsewhere(manifest: Any) -> None:
    """Quotes, separators, markup and NUL in names are nothing but text."""
    odd = ["o'clock", 'say "x"', "a,b", "]", "x\x1fy", "n\x00ul", "é ü 🥁", "<b>", "--", "%s", "{}"]
    rows = [event(n, name, name, source_set=name, techniques=[name]) for n, name in enumerate(odd)]
    given_ = {
        "include_technique": tuple(odd),
        "technique_boost": dict.fromkeys(odd, 1.0),
        "max_weight": 9.0,
    }
    found = run(Options(manifest=manifest(rows), given=given_))
    assert set(found["weights"]) == set(odd)
    assert set(found["technique_totals"]) == set(odd)
    assert {row["source"] for row in found["preview"]["class_source_dynamics"]} == set(odd)
    assert len(found["preview"]["per_class"]) == len(odd)
    assert {row["weight"] for row in found["weights"].values()} == {2 * 2**-0.5}
    for name in odd:
        only = run(Options(manifest=manifest(rows), given={"include_technique": (name,)}))
        assert list(only["weights"]) == [name]
