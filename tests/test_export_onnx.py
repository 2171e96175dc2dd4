"""ONNX export: onnxruntime says what PyTorch says, and nothing is written where it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from model_makers import write_model

from training.checks import export_onnx
from training.errors import DrumgateError
from training.model import onnx_export
from training.model.inference import Predictor

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A model file, its ONNX file, and the report."""
    folder = tmp_path_factory.mktemp("exported")
    model = write_model(folder / "model.pth")
    options = export_onnx.Options(model=model, output=folder / "model.onnx")
    return model, options.output, export_onnx.run(options).to_dict()


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_it_takes_any_batch_and_says_what_predict_says(
    exported: tuple[Path, Path, dict[str, Any]], batch: int
) -> None:
    model, path, _ = exported
    predictor = Predictor.load(model)
    rng = np.random.default_rng(batch)
    audio = rng.standard_normal((batch, predictor.features.read_samples)).astype(np.float32) / 8
    run = session(path)
    names = [output.name for output in run.get_outputs()]
    assert names == ["scores", "logits", "velocity", "openness", "unknown_score"]
    found = dict(zip(names, run.run(names, {"audio": audio}), strict=True))
    said = predictor.predict(torch.from_numpy(audio))
    assert found["scores"].shape == (batch, 3)
    np.testing.assert_allclose(found["scores"], said.scores, atol=1e-5)
    np.testing.assert_allclose(found["logits"], said.logits, atol=1e-5)
    np.testing.assert_allclose(found["velocity"], said.velocity, atol=1e-5)
    np.testing.assert_allclose(found["openness"], said.openness, atol=1e-5)
    np.testing.assert_allclose(found["unknown_score"], said.unknown, rtol=1e-4, atol=1e-4)


def test_the_metadata_says_how_to_feed_it(exported: tuple[Path, Path, dict[str, Any]]) -> None:
    model, path, report = exported
    known = session(path).get_modelmeta().custom_metadata_map
    predictor = Predictor.load(model)
    assert json.loads(known["labels"]) == ["kick", "snare", "hihat_closed"]
    assert json.loads(known["features"]) == predictor.features.as_dict()
    assert int(known["sample_rate"]) == 8000
    assert int(known["read_samples"]) == predictor.features.read_samples
    assert int(known["read_before"]) == predictor.features.read_before
    np.testing.assert_allclose(
        json.loads(known["thresholds"]), 1 / (1 + np.exp([-0.0, -0.2, -0.4]))
    )
    assert json.loads(known["data"])["manifest_sha256"] == "a" * 64
    assert report["metrics"]["metadata"] == known
    assert report["metrics"]["bytes"] == path.stat().st_size
    assert report["status"] == "pass"


def test_the_file_tells_nothing_of_the_machine(
    exported: tuple[Path, Path, dict[str, Any]],
) -> None:
    content = exported[1].read_bytes()
    for word in (b"site-packages", b"/training/", b"stack_trace", str(Path.home()).encode()):
        assert word not in content
    assert {each.domain for each in onnx.load(exported[1]).opset_import} <= {"", "ai.onnx"}


def test_a_softmax_model_without_heads_and_statistics(tmp_path: Path, drumgate: Run) -> None:
    card = {"readiness": 3, "data": {"x": torch.zeros(1)}}  # a card may hold anything
    model = write_model(
        tmp_path / "m.pth", task="multiclass", openset=False, heads=False, card=card
    )
    out = tmp_path / "m.onnx"
    result = drumgate("export-onnx", "--model", model, "--output", out)
    assert result.exit_code == 0, result.stderr
    assert "scores          max abs diff" in result.stdout
    assert "has no unknown_score" in result.stdout + result.stderr
    run = session(out)
    assert [output.name for output in run.get_outputs()] == ["scores", "logits"]
    length = Predictor.load(model).features.read_samples
    scores = run.run(["scores"], {"audio": np.zeros((2, length), np.float32)})[0]
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-6)


def test_what_differs_is_not_written(
    exported: tuple[Path, Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = exported[1].read_bytes()
    monkeypatch.setattr(export_onnx, "export_onnx", lambda *_: content)
    other = write_model(tmp_path / "other.pth", seed=1)
    out = tmp_path / "other.onnx"
    out.write_bytes(b"as it was")
    report = export_onnx.run(export_onnx.Options(model=other, output=out))
    assert report.blocks
    assert report.verdicts[0].name == "onnx.max_diff"
    assert not report.metrics["written"]
    assert out.read_bytes() == b"as it was"


def test_the_comparison_sees_a_small_change(exported: tuple[Path, Path, dict[str, Any]]) -> None:
    model, path, _ = exported
    predictor = Predictor.load(model)
    clips = onnx_export.parity_clips(predictor.features.read_samples, 100)
    assert clips.shape == (24, predictor.features.read_samples)
    assert clips.min() >= -1.0
    assert clips.max() < 1.0
    assert not clips[0].any()
    with torch.no_grad():
        predictor.model.cnn.classes.bias[1] += 0.01
    found = onnx_export.compare_outputs(path.read_bytes(), predictor, clips)
    assert found["logits"]["max_abs_diff"] == pytest.approx(0.01, rel=1e-2)
    assert found["velocity"]["max_abs_diff"] < 1e-5


def test_a_missing_package_is_named(
    exported: tuple[Path, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    predictor = Predictor.load(exported[0])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(DrumgateError, match=r"pip install 'drumgate\[onnx\]'"):
        onnx_export.export_onnx(predictor, {})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DrumgateError, match=r"pip install 'drumgate\[onnx\]'"):
        onnx_export.compare_outputs(b"", predictor, np.zeros((1, 8), np.float32))


def test_a_file_that_onnxruntime_refuses_is_an_error(
    exported: tuple[Path, Path, dict[str, Any]],
) -> None:
    predictor = Predictor.load(exported[0])
    clips = np.zeros((1, predictor.features.read_samples), np.float32)
    with pytest.raises(DrumgateError, match="cannot run the exported file"):
        onnx_export.compare_outputs(b"no model", predictor, clips)


def test_a_crafted_model_is_refused(tmp_path: Path, drumgate: Run) -> None:
    import pickle

    (tmp_path / "m.pth").write_bytes(pickle.dumps(print))
    result = drumgate("export-onnx", "--model", tmp_path / "m.pth", "--output", tmp_path / "o")
    assert result.exit_code == 2
    assert "m.pth: " in result.stderr
    assert not (tmp_path / "o").exists()
