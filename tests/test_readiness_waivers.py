"""Waivers: which gates they excuse, until when, and what becomes of those that excuse none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from readiness_cases import CASES, stores, table

from training.checks import waivers
from training.checks.waivers import Waivers, names, read_waivers
from training.errors import InputError
from training.gates import Status, Verdict, Waiver, overall
from training.manifest import InputFile

__all__ = ["stores"]  # a fixture

DAY = date(2026, 5, 31)


def verdict(name: str, status: Status = Status.FAIL, **more: Any) -> Verdict:
    return Verdict(name=name, status=status, observed=None, comparator=None, threshold=None, **more)


def of(*gates: str, expires: str = "2026-05-31") -> Waivers:
    made = tuple(Waiver(gate=gate, reason="r", who="w", expires=expires) for gate in gates)
    return Waivers(source=InputFile("w.toml", "0" * 64, 1), waivers=made)


@pytest.mark.parametrize(
    ("waiver", "gate", "about"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b[c]", False),
        ("a.b[c]", "a.b[c]", True),
        ("a.b[s1/*]", "a.b[s1/mic]", True),
        ("a.b[s1/*]", "a.b[s10/mic]", False),
        ("a.b[s*]", "a.b[s]", True),
        ("a.b[*]", "a.b[c]", False),
        ("a.*", "a.b", False),
        ("*", "a.b", False),
        ("*]", "a.b[c]", False),
        ("a.b[*]", "a.b[*]", True),
        ("a.b[x[*]", "a.b[x[y]", True),
        ("a.b[a*z]", "a.b[abz]", False),
    ],
)
def test_what_a_waiver_is_about(waiver: str, gate: str, about: bool) -> None:
    assert names(Waiver(gate=waiver, reason="r", who="w", expires="2026-01-01"), gate) is about


@given(st.text(), st.text())
def test_a_waiver_with_a_star_names_only_what_begins_like_it(gate: str, name: str) -> None:
    made = Waiver(gate=gate, reason="r", who="w", expires="2026-01-01")
    if names(made, name) and gate != name:
        assert gate.endswith("*]")
        assert name.startswith(gate[:-2])
        assert len(gate.partition("[")[2]) > 2


@pytest.mark.parametrize("status", list(Status))
def test_only_what_failed_or_was_not_measured_is_excused(status: Status) -> None:
    (found,) = of("a.b").excuse([verdict("a.b", status)], DAY)
    excused = status in (Status.FAIL, Status.NOT_MEASURED)
    assert (found.waiver is not None) is excused
    assert found.status is status
    assert found.passed is (status is not Status.ERROR)
    assert overall([found]) is (Status.WARN if excused else status)


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("waived", [True, False])
def test_how_a_verdict_counts(status: Status, required: bool, waived: bool) -> None:
    waiver = of("a.b").waivers[0] if waived else None
    found = verdict("a.b", status, required=required, waiver=waiver)
    wanted = status
    if waived and status in (Status.FAIL, Status.NOT_MEASURED):
        wanted = Status.WARN
    if not required and status is Status.NOT_MEASURED:
        wanted = Status.WARN
    assert found.standing is wanted
    assert found.passed is not wanted.blocks


def test_the_exact_name_goes_before_the_star() -> None:
    both = of("a.b[s/*]", "a.b[s/x]")
    found = both.excuse([verdict("a.b[s/x]"), verdict("a.b[s/y]")], DAY)
    assert [each.waiver.gate for each in found if each.waiver] == ["a.b[s/x]", "a.b[s/*]"]


def test_what_became_of_each_waiver() -> None:
    made = of("a.used", "a.good", "a.crashed", "b.elsewhere", "c.unknown", "a.gone", "a.missing")
    verdicts = made.excuse(
        [
            verdict("a.used"),
            verdict("a.good", Status.PASS),
            verdict("a.crashed", Status.ERROR),
            verdict("a.missing", Status.NOT_MEASURED, required=False),
        ],
        DAY,
    )
    judged = {"a": True, "b": False}
    fates = made.fates(verdicts, DAY, judged=lambda gate: judged.get(gate[0]))
    assert [each["fate"] for each in fates] == [
        *("used", "unneeded", "refused", "not_judged", "unknown", "unknown", "not_judged")
    ]
    rows = made.rows(fates, [each.name for each in verdicts])
    assert [row.name for row in rows] == [
        "waivers.unneeded[a.good]",
        "waivers.refused[a.crashed]",
        "waivers.unknown[c.unknown]",
        "waivers.unknown[a.gone]",
    ]
    assert not any(row.passed for row in rows)
    assert "did you mean" in rows[3].detail


def test_a_waiver_holds_to_the_end_of_its_last_day() -> None:
    for today, holds in ((date(2026, 5, 30), True), (DAY, True), (date(2026, 6, 1), False)):
        found = of("a.b").excuse([verdict("a.b")], today)
        assert found[0].passed is holds
        fates = of("a.b").fates(found, today, judged=lambda gate: True)
        assert fates[0]["fate"] == ("used" if holds else "expired")


def test_every_fate_that_blocks_says_what_to_do() -> None:
    assert set(waivers._WHY) == set(waivers._FIX)


GOOD = '[[waiver]]\ngate = "a.b"\nreason = "r"\nwho = "w"\nexpires = 2026-05-31\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("who", "whom"), "waiver[0].whom: is not a known key; did you mean 'who'?"),
        (GOOD.replace('who = "w"\n', ""), "waiver[0].who: is required"),
        (GOOD.replace('"r"', '" "'), "waiver[0].reason: must be a text that is not empty"),
        (GOOD.replace('"r"', "3"), "waiver[0].reason: must be a text that is not empty"),
        (GOOD.replace("2026-05-31", '"2026-05-31"'), "waiver[0].expires: must be a day"),
        (GOOD.replace("2026-05-31", "2026-05-31T00:00:00"), "waiver[0].expires: must be a day"),
        (GOOD.replace("2026-05-31", "2026-02-31"), "is not valid TOML"),
        (GOOD + GOOD, "waiver[1].gate: is waived already, by waiver[0]"),
        (GOOD.replace("[[waiver]]", "[[waivers]]"), "waivers: is not a known key"),
        (GOOD.replace("[[waiver]]", "[waiver]"), "waiver: must be tables: write [[waiver]]"),
        ("waiver = 3", "waiver: must be tables"),
        ("[[waiver", "is not valid TOML"),
        ("\xff", "is not valid TOML"),
    ],
)
def test_a_faulty_file_of_waivers_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "w.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError) as caught:
        read_waivers(path)
    assert said in str(caught.value)


def test_waivers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(GOOD)
    assert read_waivers(path).waivers == of("a.b").waivers
    path.write_text("# none at present\n")
    assert read_waivers(path).waivers == ()


def test_hostile_waivers_stay_text(
    drumgate: Callable[..., Result], tmp_path: Path, stores: Path
) -> None:
    hostile = "<script>alert(1)</script>\x1b[2J{who}{0}%s"
    config, page = tmp_path / "readiness.toml", tmp_path / "index.html"
    config.write_text(table(CASES["openset"], "bad", stores))
    lines = []
    for gate in ("openset.min_auroc", hostile):
        lines.append(GOOD.replace("2026", "2999").replace('"a.b"', json.dumps(gate)))
    text = "".join(lines).replace('"r"', json.dumps(hostile)).replace('"w"', json.dumps(hostile))
    (tmp_path / "w.toml").write_text(text)
    words = ("--root", "/", "--waivers", tmp_path / "w.toml", "--html-output", page, "--github")
    for more in ((), ("--dry-run",)):
        result = drumgate("run-readiness-checks", "--config", config, *words, *more)
        assert result.exit_code == (0 if more else 1), result.output
        assert "\x1b" not in result.output
    assert "<script>alert" not in page.read_text()
    assert "\x1b" not in page.read_text()


subjects = st.sampled_from(["", "[s1/a]", "[s1/b]", "[s2/a]"])
gates = st.builds("{}.{}{}".format, st.sampled_from("ab"), st.sampled_from("xy"), subjects)
patterns = gates | st.builds(
    "{}.{}[{}*]".format,
    st.sampled_from("ab"),
    st.sampled_from("xy"),
    st.sampled_from(["", "s", "s1/"]),
)


@given(
    st.lists(st.builds(verdict, gates, st.sampled_from(list(Status)), required=st.booleans())),
    st.lists(st.tuples(patterns, st.integers(-2, 2)), unique_by=lambda each: each[0]),
)
def test_nothing_passes_that_did_not_and_is_not_waived(
    found: list[Verdict], given_: list[tuple[str, int]]
) -> None:
    made = Waivers(
        source=InputFile("w.toml", "0" * 64, 1),
        waivers=tuple(
            Waiver(gate=gate, reason="r", who="w", expires=str(DAY + timedelta(days)))
            for gate, days in given_
        ),
    )
    excused = made.excuse(found, DAY)
    fates = made.fates(excused, DAY, judged=lambda gate: None)
    rows = made.rows(fates, [each.name for each in excused])
    for before, after in zip(found, excused, strict=True):
        valid = [each for each in made.waivers if each.expires >= str(DAY)]
        about = any(names(each, before.name) for each in valid)
        assert (after.name, after.status, after.observed) == (
            before.name,
            before.status,
            before.observed,
        )
        assert after.passed is (before.passed or (about and before.status is not Status.ERROR))
    # Every waiver excuses something, or stands in the way, or nobody could tell.
    used = {each.waiver.gate for each in excused if each.waiver}
    assert used == {each["gate"] for each in fates if each["fate"] == "used"}
    told = {row.name.partition("[")[2][:-1] for row in rows}
    untold = {each["gate"] for each in fates if each["fate"] == "not_judged"}
    assert used | told | untold == {gate for gate, _ in given_}
    assert overall([*excused, *rows]).blocks is not all(
        each.passed for each in [*excused, *rows]
    ) or (not excused and not rows)
