"""A trained model as one ONNX file: from audio to scores, without PyTorch.

The graph holds what `Predictor.predict` does: the log-mel front end (the ``STFT`` operator), the
CNN, temperature and operating points, and the unknown score.

Input: ``audio``, float32 in [-1, 1) [shape=(batch, read_samples)], mono at the model's rate; the
onset is at sample ``read_before`` (both numbers are in the metadata). Outputs: ``scores`` and
``logits`` [shape=(batch, n_classes)], and, where the model has them, ``velocity``, ``openness`` and
``unknown_score`` [shape=(batch,)]. The batch is of any size from 1.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training import __version__
from training.errors import DrumgateError
from training.model.inference import Predictor

__all__ = ["OPSET", "compare_outputs", "export_onnx", "onnx_metadata", "parity_clips"]

OPSET: Final = 18
"""The first that PyTorch's exporter writes without converting; STFT needs 17."""
INPUT: Final = "audio"
INSTALL: Final = "pip install 'drumgate[onnx]'"
Outputs = dict[str, NDArray[np.float32]]


class _Scoring(nn.Module):
    """What `Predictor.predict` computes, as one module with a tuple of outputs."""

    shift: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model = predictor.model
        self.task = predictor.task
        self.temperature = predictor.calibration.temperature
        self.openset = predictor.openset
        shift = torch.as_tensor(predictor.calibration.shift, dtype=torch.float32)
        self.register_buffer("shift", shift)

    @property
    def names(self) -> list[str]:
        heads = [x for x in ("velocity", "openness") if getattr(self.model.cnn, x) is not None]
        return ["scores", "logits", *heads, *(["unknown_score"] if self.openset else [])]

    def forward(self, audio: Tensor) -> tuple[Tensor, ...]:
        out = self.model(audio)
        tempered = out["logits"] / self.temperature
        if self.task == "multiclass":
            out["scores"] = torch.softmax(tempered, dim=1)
        else:
            out["scores"] = torch.sigmoid(tempered - self.shift)
        if self.openset is not None:
            out["unknown_score"] = self.openset.score(out["features"])
        return tuple(out[name] for name in self.names)


def onnx_metadata(predictor: Predictor, card: Mapping[str, Any]) -> dict[str, str]:
    """Return what a program needs to feed the file and to read what it says, as texts.

    ``labels``, ``thresholds`` (probabilities), ``features``, ``data`` and ``readiness`` are JSON.
    """
    features = predictor.features
    readiness = card.get("readiness")
    readiness = readiness if isinstance(readiness, dict) else {}
    return {
        "drumgate_version": __version__,
        "labels": json.dumps(list(predictor.labels)),
        "task": predictor.task,
        "temperature": repr(predictor.calibration.temperature),
        "thresholds": json.dumps(predictor.calibration.thresholds.tolist()),
        "score_threshold": "0.5",
        "features": json.dumps(features.as_dict(), sort_keys=True),
        "sample_rate": str(features.sample_rate),
        "read_samples": str(features.read_samples),
        "read_before": str(features.read_before),
        "front_end": "log-mel in the graph: feed audio, not features",
        "recipe_signature": str(card.get("recipe_signature", "")),
        "data": json.dumps(card.get("data", {}), sort_keys=True, default=str),
        "readiness": json.dumps(
            {key: readiness.get(key) for key in ("ready", "why", "report_sha256")}, default=str
        ),
        "intended_use": str(card.get("intended_use", "")),
    }


def export_onnx(predictor: Predictor, metadata: Mapping[str, str]) -> bytes:
    """Return the model as the bytes of an ONNX file.

    Raises:
        DrumgateError: the extra ``onnx`` is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DrumgateError(f"exporting needs onnx and onnxscript: {INSTALL}") from error
    scoring = _Scoring(predictor).eval()
    # Two clips: from one, the exporter would conclude that the batch is always of one.
    example = torch.zeros(2, predictor.features.read_samples)
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            scoring,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=scoring.names,
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    assert program is not None
    made = program.model_proto
    made.producer_name, made.producer_version = "drumgate", __version__
    _strip(made)
    for name, text in metadata.items():
        made.metadata_props.add(key=name, value=text)
    onnx.checker.check_model(made, full_check=True)
    content: bytes = made.SerializeToString(deterministic=True)
    return content


def parity_clips(read_samples: int, read_before: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Return clips that try a front end [shape=(24, read_samples)], float32 in [-1, 1).

    Silence, full scale, one sample that is not zero, noise from -100 to 0 dBFS, and decaying tones
    and bursts that begin at the onset.
    """
    rng = np.random.default_rng(seed)
    clips = np.zeros((24, read_samples), dtype=np.float64)
    clips[1] = np.where(np.arange(read_samples) % 2, -1.0, 1.0) * (1 - 2**-15)
    clips[2, read_before] = 0.5
    for row, level in enumerate(np.linspace(-100.0, 0.0, 7), start=3):
        clips[row] = rng.standard_normal(read_samples) * 10.0 ** (level / 20.0) / 4.0
    left = np.arange(read_samples - read_before)
    for row in range(10, 24):
        decay = np.exp(-left / rng.uniform(0.02, 0.3) / len(left))
        tone = np.sin(left * rng.uniform(0.005, 0.4)) * rng.uniform(0, 1)
        burst = rng.standard_normal(len(left)) * rng.uniform(0, 0.4)
        clips[row, read_before:] = (tone + burst) * decay * rng.uniform(0.05, 0.9)
        clips[row] += 1e-4 * rng.standard_normal(read_samples)
    return np.clip(clips, -1.0, 1.0 - 2**-15).astype(np.float32)


def compare_outputs(
    content: bytes, predictor: Predictor, clips: NDArray[np.float32]
) -> dict[str, dict[str, float]]:
    """Run a file in onnxruntime and in PyTorch; return the largest differences by output.

    ``max_abs_diff`` is the plain one; ``max_diff`` is relative where the value is above 1, as
    unknown scores are. The clips are run in batches of 1, 7 and the rest.

    Raises:
        DrumgateError: onnxruntime is not installed or cannot run the file, or an output is not
            finite.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DrumgateError(f"the parity check needs onnxruntime: {INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        parts = [
            dict(zip(names, session.run(names, {INPUT: part}), strict=True))
            for part in np.split(clips, [1, 8])
            if len(part)
        ]
    except Exception as error:  # onnxruntime's errors share no class of their own
        raise DrumgateError(f"onnxruntime cannot run the exported file: {error}") from error
    found = {name: np.concatenate([part[name] for part in parts]) for name in names}
    kind = "mahalanobis" if predictor.openset is not None else "energy"
    said = predictor.predict(torch.from_numpy(clips), unknown_score=kind)
    expected: dict[str, Any] = {
        "scores": said.scores,
        "logits": said.logits,
        "velocity": said.velocity,
        "openness": said.openness,
        "unknown_score": said.unknown,
    }
    differences = {}
    for name, values in found.items():
        if not (np.isfinite(values).all() and np.isfinite(expected[name]).all()):
            raise DrumgateError(f"{name} is not finite for every clip of the parity check")
        away = np.abs(values.astype(np.float64) - expected[name])
        scaled = away / np.maximum(1.0, np.abs(expected[name]))
        differences[name] = {
            "max_abs_diff": float(away.max()),
            "max_diff": float(scaled.max()),
            "largest_value": float(np.abs(expected[name]).max()),
        }
    return differences


def _strip(model: Any) -> None:
    """Take out what the exporter notes at every node: where in the source, and on what machine."""
    graph = model.graph
    for each in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del each.metadata_props[:]
        each.doc_string = ""
    del graph.metadata_props[:]
    del model.metadata_props[:]
    graph.doc_string = model.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own notes (missing torchvision, its deprecations) from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
