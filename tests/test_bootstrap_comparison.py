"""The table of bootstrap-eval with a baseline: what stands in it is what the report says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from sklearn.metrics import f1_score

from training.checks.bootstrap_report import comparison_table

NAMES = ("kick", "snare", "crash")
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """Sixty clips of six sessions, two models' scores, the first one better; no crash is struck."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(3)
    y = rng.random((60, 3)) < (0.5, 0.4, 0.0)
    scores = [np.clip(0.8 * y + noise * rng.random(y.shape), 0, 1) for noise in (0.7, 1.2)]
    truth = [
        {
            "sample_id": f"c{k}",
            "session_id": f"s{k % 6}",
            "labels": [n for n, there in zip(NAMES, row, strict=True) if there],
        }
        for k, row in enumerate(y)
    ]
    (folder / "truth.jsonl").write_text("".join(json.dumps(each) + "\n" for each in truth))
    for name, said in zip(("new", "old"), scores, strict=True):
        rows = [
            {"sample_id": f"c{k}", "scores": dict(zip(NAMES, map(float, row), strict=True))}
            for k, row in enumerate(said)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder, [y, *scores]


def judge(folder: Path, report: Path, drumgate: Run, *more: object) -> Result:
    return drumgate(
        "bootstrap-eval", "--ground-truth", folder / "truth.jsonl", "--predictions",
        folder / "new.jsonl", "--baseline-predictions", folder / "old.jsonl", "--iterations", 50,
        "--report", report, *more,
    )  # fmt: skip


def test_both_models_stand_beside_each_other(
    files: tuple[Path, list[np.ndarray]], tmp_path: Path, drumgate: Run
) -> None:
    folder, (y, new, old) = files
    done = judge(folder, tmp_path / "report.json", drumgate)
    assert done.exit_code == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    compared = report["metrics"]["comparison"]
    for column, name in enumerate(NAMES[:2]):
        row = compared["per_class_f1"][name]
        for key, scores in (("candidate", new), ("baseline", old)):
            expected = f1_score(y[:, column], scores[:, column] >= 0.5)
            assert row[key] == pytest.approx(expected)
        assert row["point_estimate"] == pytest.approx(row["candidate"] - row["baseline"])
    crash = compared["per_class_f1"]["crash"]
    assert crash["candidate"] is None
    assert crash["baseline"] is None
    for figure in ("macro_f1", "micro_f1"):
        assert compared["difference"][figure]["point_estimate"] == pytest.approx(
            report["metrics"][figure]["point_estimate"] - compared[f"baseline_{figure}"]
        )
    table = comparison_table(report)
    assert table in done.stdout
    cells = {line[:8].strip(): line[8:].split() for line in table.splitlines()}
    kick = compared["per_class_f1"]["kick"]
    assert cells["kick"][:3] == [
        f"{kick['candidate']:.3f}",
        f"{kick['baseline']:.3f}",
        f"{kick['point_estimate']:+.3f}",
    ]
    assert cells["kick"][-2:] == [f"{int(y[:, 0].sum())}", "6"]
    assert cells["crash"] == ["–", "–", "–", "–", "0", "0"]


def test_figures_left_out_are_no_rows(
    files: tuple[Path, list[np.ndarray]], tmp_path: Path, drumgate: Run
) -> None:
    folder, _ = files
    done = judge(folder, tmp_path / "report.json", drumgate, "--metrics", "macro_f1,ece")
    assert done.exit_code in (0, 1), done.stderr
    assert "micro F1" not in done.stdout
    assert "macro F1" in done.stdout
    plain = judge(folder, tmp_path / "report.json", drumgate, "--format", "json")
    assert json.loads(plain.stdout)["tool"] == "bootstrap-eval"
