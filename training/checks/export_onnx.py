"""Write a model as ONNX, if and only if onnxruntime says of it what PyTorch says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from training.gates import GatesSource, Measurement, Report, judge, load_thresholds
from training.manifest import atomic_write, describe_file
from training.model.checkpoint import MODEL_FORMAT, load_checkpoint
from training.model.inference import Predictor
from training.model.onnx_export import (
    OPSET,
    compare_outputs,
    export_onnx,
    onnx_metadata,
    parity_clips,
)

TOOL = "export-onnx"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to write, and how far it may be from the original."""

    model: Path
    output: Path
    max_diff: float | None = None
    """None: as the gates file says."""
    gates: GatesSource | None = None
    seed: int = 0


def run(options: Options) -> Report:
    """Export a model, compare, and write the file where the comparison passes.

    A file that differs is not written, whatever the exit code will be.

    Raises:
        InputError: the model is not usable, or the file cannot be written there.
        DrumgateError: the extra ``onnx`` is not installed, or onnxruntime cannot run the file.
    """
    thresholds = load_thresholds(
        "onnx", overlay=options.gates, overrides={"max_diff": options.max_diff}
    )
    predictor = Predictor.load(options.model)
    card = load_checkpoint(options.model, format=MODEL_FORMAT).get("card")
    metadata = onnx_metadata(predictor, card if isinstance(card, dict) else {})
    content = export_onnx(predictor, metadata)
    features = predictor.features
    clips = parity_clips(features.read_samples, features.read_before, seed=options.seed)
    differences = compare_outputs(content, predictor, clips)
    worst = max(differences, key=lambda name: differences[name]["max_diff"])
    verdict = judge(
        Measurement(
            name="max_diff",
            value=differences[worst]["max_diff"],
            n=len(clips),
            detail=f"largest for {worst}, over {len(clips)} clips",
        ),
        thresholds["max_diff"],
    )
    if verdict.passed:
        with atomic_write(options.output, binary=True) as file:
            file.write(content)
    warnings = []
    if predictor.openset is None:
        warnings.append("the model has no open-set statistics: the file has no unknown_score")
    if not verdict.passed:
        warnings.append(f"{options.output} was not written: it would say something else")
    return Report(
        tool=TOOL,
        inputs=[describe_file(options.model)],
        parameters={**asdict(options), "opset": OPSET},
        metrics={
            "differences": differences,
            "bytes": len(content),
            "inputs": {"audio": ["batch", features.read_samples]},
            "outputs": list(differences),
            "metadata": metadata,
            "written": verdict.passed,
        },
        verdicts=[verdict],
        warnings=warnings,
        seed=options.seed,
    )
