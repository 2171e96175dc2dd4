"""What the trainer makes of waivers, and of what was allowed to be missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import clip_makers
import pytest
from click.testing import Result

from training.errors import BlockedError
from training.loop.readiness import check_readiness, require_readiness

HASH = "a" * 64
WAIVER = {"gate": "a.b", "reason": "known", "who": "J. Doe", "expires": "2026-05-31"}
DAY = date(2026, 5, 31)


def row(**changes: Any) -> dict[str, Any]:
    return {"name": "a.b[s]", "status": "fail", "passed": True, "waiver": WAIVER} | changes


def report(folder: Path, *rows: dict[str, Any], **more: Any) -> Path:
    path = folder / "readiness.json"
    return clip_makers.write_readiness(path, HASH, "warn", gating_results=list(rows), **more)


def test_a_waiver_that_holds_lets_train_and_is_put_on_record(tmp_path: Path) -> None:
    found = check_readiness(report(tmp_path, row()), (HASH,), today=DAY)
    assert found.ready
    assert found.waivers == ({"row": "a.b[s]", **WAIVER},)
    (remark,) = found.remarks
    assert "a.b[s] is waived until 2026-05-31 by J. Doe: known" in remark
    assert json.loads(json.dumps(found.as_dict()))["waivers"] == [{"row": "a.b[s]", **WAIVER}]


def test_a_waiver_that_has_run_out_since_blocks(tmp_path: Path) -> None:
    path = report(tmp_path, row())
    found = check_readiness(path, (HASH,), today=date(2026, 6, 1))
    assert not found.ready
    assert "the waiver of a.b[s] held until 2026-05-31" in found.why
    with pytest.raises(BlockedError, match=r"the waiver of .* held until"):
        require_readiness(report(tmp_path, row(waiver={})), (HASH,), allow_unready=False)
    let = require_readiness(report(tmp_path, row(waiver={})), (HASH,), allow_unready=True)
    assert (let.allowed_unready, len(let.waivers)) == (True, 1)


@pytest.mark.parametrize("expires", [None, "", "soon", 3, ["2999-01-01"], "2999-13-01"])
def test_what_is_no_day_never_holds(tmp_path: Path, expires: object) -> None:
    path = report(tmp_path, row(waiver={**WAIVER, "expires": expires}))
    assert not check_readiness(path, (HASH,), today=DAY).ready


def test_what_was_allowed_to_be_missing_is_put_on_record(tmp_path: Path) -> None:
    missing = row(name="openset", status="not_measured", required=False)
    del missing["waiver"]
    found = check_readiness(report(tmp_path, missing), (HASH,), today=DAY)
    assert (found.ready, found.allowed_missing) == (True, ("openset",))
    assert found.remarks == ("trained on data of which openset was not measured",)


@pytest.mark.parametrize("rows", [None, 3, [3, None, "x"], [{}], [{"waiver": 3, "passed": True}]])
def test_rows_that_are_none_are_passed_over(tmp_path: Path, rows: object) -> None:
    path = clip_makers.write_readiness(tmp_path / "r.json", HASH, "pass", gating_results=rows)
    assert check_readiness(path, (HASH,), today=DAY).waivers == ()


@pytest.mark.slow
def test_the_road_from_the_wrapper_to_the_card(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    manifest, store = clip_makers.build_store(tmp_path / "made", {"train": 20, "val": 10})
    (tmp_path / "tiny.toml").write_text(clip_makers.CONFIG)
    (tmp_path / "waivers.toml").write_text(
        '[[waiver]]\ngate = "health.min_kits"\nreason = "one kit so far"\nwho = "J. Doe"\n'
        "expires = 2999-12-31\n"
    )
    readiness = ["run-readiness-checks", "--checks", "health,openset", "--health-events", manifest]
    readiness += ["--set", "health.min_kits=3", "--report", store / "readiness.json"]
    train = ["train-classifier", "--dataset", store, "--output", tmp_path / "models"]
    train += ["--preset", "fast", "--config", tmp_path / "tiny.toml", "--device", "cpu"]
    train += ["--epochs", 1]

    assert drumgate(*readiness).exit_code == 1
    blocked = drumgate(*train)
    assert (blocked.exit_code, "health.min_kits" in blocked.stderr) == (1, True)

    readiness += ["--waivers", tmp_path / "waivers.toml", "--allow-missing", "openset"]
    done = drumgate(*readiness)
    assert (done.exit_code, "WARN" in done.stdout) == (0, True), done.output
    done = drumgate(*train)
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "models" / "model_card.json").read_text())
    assert card["readiness"]["report_status"] == "warn"
    assert [each["who"] for each in card["readiness"]["waivers"]] == ["J. Doe"]
    assert card["readiness"]["allowed_missing"] == ["openset"]
    said = " ".join(card["warnings"])
    assert "health.min_kits is waived until 2999-12-31 by J. Doe: one kit so far" in said
    assert "openset was not measured" in said
