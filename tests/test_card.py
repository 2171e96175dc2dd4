"""The model card: intervals as bootstrap-eval has them, gates and waivers, a page that is safe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import clip_makers
import numpy as np
import pytest
import torch
from model_makers import content

from training.loop.card import judge_model, model_card, write_card_page
from training.loop.card_intervals import intervals
from training.loop.config import Recipe
from training.loop.feed import ClipFeed
from training.loop.metrics import evaluate_model
from training.loop.readiness import Readiness, check_readiness
from training.manifest import to_json
from training.metrics.classification import clip_counts, summarise
from training.model.cnn import DrumClassifier, ModelConfig

NAMES = clip_makers.NAMES


def val_split(n: int = 60, sessions: int = 6) -> Any:
    made = clip_makers.split(n, seed=1, name="val")
    return replace(made, session_ids=[f"s{row % sessions}" for row in range(n)])


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    """The card of a model that nobody trained."""
    torch.set_num_threads(1)
    made = content()
    model = DrumClassifier(clip_makers.FEATURES, ModelConfig(**made["model"]))
    model.load_state_dict(made["weights"])
    train = ClipFeed(clip_makers.split(60), clip_makers.FEATURES, batch_size=64)
    val = ClipFeed(val_split(), clip_makers.FEATURES, batch_size=64)
    evaluation = evaluate_model(model, val, labels=NAMES)
    recipe = Recipe(features=clip_makers.FEATURES)
    judged = judge_model(model, (train, val), evaluation, NAMES, recipe)
    return model_card(
        model,
        recipe,
        judged,
        data={"manifest_sha256": "a" * 64, "train_clips": 60, "val_clips": 60},
        readiness=Readiness(ready=False, why="<b>none</b>", report_path="none.json"),
        history=[{"epoch": 1, "step": 4, "best": True}],
    )


def test_a_card_has_all_that_a_reader_asks(card: dict[str, Any]) -> None:
    assert json.loads(to_json(card)) == card
    assert card["data"]["manifest_sha256"] == "a" * 64
    assert card["intended_use"]
    assert card["limits"]
    assert card["gates"] is None
    found = card["validation"]["intervals"]
    assert found["n_clusters"] == 6
    assert set(found["per_class"]) == set(NAMES)
    judged = card["validation"]["operating_point"]
    assert found["overall"]["macro_f1"]["point_estimate"] == pytest.approx(judged["macro"]["f1"])
    for name in NAMES:
        row = found["per_class"][name]
        assert row["f1"]["point_estimate"] == pytest.approx(judged["per_class"][name]["f1"] or 0.0)
    assert card["validation"]["support"]["kick"]["events"] > 0


def test_intervals_hold_the_figure_and_too_few_sessions_have_none() -> None:
    rng = np.random.default_rng(0)
    split = val_split(200, sessions=20)
    truth = np.asarray(split.labels) > 0
    said = np.where(rng.random(truth.shape) < 0.2, ~truth, truth)
    found = intervals(split, said, said.astype(float), NAMES, seed=3, iterations=200)
    expected = summarise(clip_counts(truth, said), NAMES)
    for row in expected.per_class:
        each = found["per_class"][row.label]["f1"]
        assert each["point_estimate"] == pytest.approx(row.f1)
        assert each["ci_lower"] < row.f1 < each["ci_upper"]
    again = intervals(split, said, said.astype(float), NAMES, seed=3, iterations=200)
    assert again == found
    few = intervals(val_split(60, 3), said[:60], said[:60].astype(float), NAMES, seed=3)
    assert few["overall"]["macro_f1"]["ci_lower"] is None
    assert "reason" in few["overall"]["macro_f1"]


def test_the_page_stands_alone_and_escapes_what_comes_with_data(
    card: dict[str, Any], tmp_path: Path
) -> None:
    hostile = {**card, "warnings": ["<script>alert(1)</script>", "\x1b[31m"]}
    write_card_page(tmp_path / "card.html", hostile)
    page = (tmp_path / "card.html").read_text()
    assert "default-src 'none'" in page
    assert "script-src" not in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;none&lt;/b&gt;" in page
    assert "\x1b" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    for name in NAMES:
        assert name in page
    write_card_page(tmp_path / "again.html", hostile)
    assert (tmp_path / "again.html").read_text() == page


def test_gates_and_waivers_of_the_readiness_report_stand_on_the_card(
    card: dict[str, Any], tmp_path: Path
) -> None:
    from training.loop.card import _gates

    waiver = {"gate": "health.c", "reason": "no room", "who": "me", "expires": "2999-01-01"}
    rows = [
        {"name": "health.a", "status": "pass", "passed": True},
        {"name": "health.b", "status": "warn", "passed": True, "observed": 1.0},
        {
            "name": "health.c",
            "status": "fail",
            "passed": True,
            "waiver": waiver,
        },
    ]
    path = clip_makers.write_readiness(tmp_path / "r.json", "a" * 64, gating_results=rows)
    readiness = check_readiness(path, ("a" * 64,))
    found = _gates(readiness)
    assert found is not None
    assert (found["judged"], found["passed"]) == (3, 1)
    assert [row["name"] for row in found["not_passed"]] == ["health.b", "health.c"]
    assert found["waived"][0]["who"] == "me"
    write_card_page(
        tmp_path / "card.html",
        {**card, "gates": found, "readiness": readiness.as_dict()},
    )
    page = (tmp_path / "card.html").read_text()
    assert "1 of 3 gates passed" in page
    assert "no room" in page
