"""Gates on the counts of a class in each split and of other figures; the figures in few lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from health_checks import check, event, verdicts

from training.checks.health_counts import COUNTED
from training.errors import DrumgateError
from training.gates import Report, Status
from training.health_flags import gate_options

__all__ = ["check"]  # a fixture

PASS, FAIL, NOT_MEASURED = Status.PASS, Status.FAIL, Status.NOT_MEASURED
KICK, SNARE = {"label": "kick"}, {"label": "snare"}


def test_each_class_in_each_split(check: Callable[..., Report]) -> None:
    rows = [
        event(0, split="train", components=[KICK, SNARE]),
        event(1, split="train", components=[{"label": "bd"}]),  # an alias of kick
        event(2, split="test", components=[KICK]),
        event(3, split="val", components=[]),
        event(4, components=[KICK, SNARE]),  # in no split
    ]
    report = check(rows, min_split_class_count=1)
    found = verdicts(report)
    assert len(found) == 3 * 12
    prefix = "health.min_split_class_count"
    assert found[f"{prefix}[train/kick]"] == (PASS, 2)
    assert found[f"{prefix}[train/snare]"] == (PASS, 1)
    assert found[f"{prefix}[test/kick]"] == (PASS, 1)
    assert found[f"{prefix}[test/snare]"] == (FAIL, 0)
    assert found[f"{prefix}[val/kick]"] == (FAIL, 0)
    assert report.blocks


def test_without_splits_it_was_not_measured(check: Callable[..., Report]) -> None:
    report = check([event(0)], min_split_class_count=0)
    assert verdicts(report) == {"health.min_split_class_count": (NOT_MEASURED, None)}
    assert report.blocks


RICH: dict[str, Any] = {
    "bleed_level": "high",
    "mix_context": "band: live=1",
    "meter": "7/8",
    "device_vendor": "Roland",
    "device_model": "TD-11",
    "tempo_bpm": 185,
    "techniques": ["flams"],  # an alias of flam
    "components": [
        {"label": "crash", "instrument_variant": "china", "dynamic_bucket": "ghost"},
        {"label": "crash"},
    ],
}
HELD = {
    "bleed": "high",
    "crash_variants": "china",
    "devices": "Roland TD-11",
    "dual_labels": "crash",
    "dynamics": "ghost",
    "meters": "7/8",
    "mix_context": "band: live=1",
    "techniques": "flam",
    "tempo_bins": "180-200",
}


def test_every_figure_can_be_asked_for(check: Callable[..., Report]) -> None:
    assert set(HELD) == set(COUNTED)
    rows = [event(0, **RICH), event(1)]
    enough = check(rows, require_counts=tuple(f"{name}:{held}=1" for name, held in HELD.items()))
    assert {status for status, _ in verdicts(enough).values()} == {PASS}
    assert [observed for _, observed in verdicts(enough).values()] == [1] * len(HELD)
    more = check(rows, require_counts=tuple(f"{name}:{held}=2" for name, held in HELD.items()))
    assert {status for status, _ in verdicts(more).values()} == {FAIL}


def test_a_name_that_does_not_occur_counts_nothing(check: Callable[..., Report]) -> None:
    report = check([event(0, **RICH)], require_counts=("meters:4/4=1", "techniques:flams=1"))
    assert verdicts(report) == {
        "health.require_counts[meters:4/4]": (FAIL, 0),
        "health.require_counts[techniques:flam]": (PASS, 1),
    }
    assert "there are 7/8" in report.verdicts[0].detail


def test_a_gates_file_alone_names_nothing(check: Callable[..., Report], tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text('[health.require_counts]\nvalue = 5\nreason = "ours"\n')
    assert verdicts(check([event(0)], gates=gates)) == {
        "health.require_counts": (NOT_MEASURED, None)
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bleed", "is not FIGURE:NAME=N"),
        ("bleed:high", "is not FIGURE:NAME=N"),
        ("bleed:high=", "is not FIGURE:NAME=N"),
        ("bleed:high=-1", "is not FIGURE:NAME=N"),
        ("bleed:high=1.5", "is not FIGURE:NAME=N"),
        ("bleed:high=²", "is not FIGURE:NAME=N"),
        ("bleed:=1", "is not FIGURE:NAME=N"),
        ("bled:high=1", "did you mean 'bleed'"),
        ("techniques:flamm=1", "'flamm' is not a known technique; did you mean 'flam'"),
        ("dual_labels:carsh=1", "'carsh' is not a known label; did you mean 'crash'"),
    ],
)
def test_what_is_no_count(check: Callable[..., Report], text: str, said: str) -> None:
    with pytest.raises(DrumgateError, match=said):
        check([event(0)], require_counts=(text,))


def test_one_name_is_asked_for_once(check: Callable[..., Report]) -> None:
    with pytest.raises(DrumgateError, match="techniques:flam is asked for twice"):
        check([event(0)], require_counts=("techniques:flam=1", "techniques:flams=9"))


def test_takes_too_short_to_compare_have_not_passed(check: Callable[..., Report]) -> None:
    rows = [event(0, split="train"), event(1, session_id="t", split="test")]
    found = verdicts(check(rows, split_isolation=("performance", "session")))
    assert found["health.split_isolation[performance]"] == (NOT_MEASURED, None)
    assert found["health.split_isolation[session]"] == (PASS, 0)


def test_kinds_of_outliers_without_their_gate_are_refused(check: Callable[..., Report]) -> None:
    with pytest.raises(DrumgateError, match="--max-outlier-rate"):
        check([event(0)], outlier_kinds=("near_repeat",))


def test_long_names_are_cut_in_what_is_said(check: Callable[..., Report]) -> None:
    long = event(0, components=[{"label": "x" * 9999}], annotated_labels=["y"])
    report = check([long], max_unknown_labels=0)
    assert all(len(text) < 200 for text in report.warnings)
    assert len(report.verdicts[0].detail) < 200
    assert report.metrics["unknown_labels"] == {"x" * 9999: 1}


def test_the_figures_are_said_where_no_gate_is_asked_for(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    from conftest import ROOT

    manifest = ROOT / "examples" / "events_health_example.jsonl"
    said = drumgate("dataset-health", "--events", manifest).stdout
    assert "entities    audio_files" in said
    assert "; without a hit: aux_percussion\n" in said
    assert " repeat an id, " in said
    assert "splits      train " in said
    judged = drumgate("dataset-health", "--events", manifest, "--min-class-count", "0").stdout
    assert "entities" not in judged
    tiny = tmp_path / "tiny.jsonl"
    row = '{"sample_id":"a","session_id":"s","onset_time":0,"components":[{"label":"\\u001bx"}]}\n'
    tiny.write_text(row)
    said = drumgate("dataset-health", "--events", tiny).stdout
    assert r"unknown     \x1bx 1" in said
    assert "\x1b" not in said


def test_every_gate_of_one_number_has_its_flag() -> None:
    from training.checks.health_gates import NUMERIC_GATES

    @gate_options
    def command() -> None:
        """Do nothing."""

    flags = {option.name for option in command.__click_params__}  # type: ignore[attr-defined]
    assert flags.issuperset(NUMERIC_GATES)
