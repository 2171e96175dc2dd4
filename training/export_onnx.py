"""Command line that writes a model as ONNX; the work is done in `training.checks.export_onnx`."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


@options.command(
    example="drumgate export-onnx --model models/best_drum_classifier.pth"
    " --output models/best_drum_classifier.onnx"
)
@click.option("--model", type=options.INPUT_FILE, required=True, help="Model file of a training.")
@click.option("--output", type=options.OUTPUT_FILE, required=True, help="The ONNX file.")
@click.option(
    "--max-diff",
    type=click.FloatRange(min=0),
    help="Gate: how far onnxruntime may be from PyTorch.  [default: 1e-4, from the gates file]",
)
@options.seed_option()
@options.report_options(strict=False)
def main(
    model: Path,
    output: Path,
    max_diff: float | None,
    seed: int,
    outputs: options.ReportOutputs,
) -> None:
    """Write a trained model as one ONNX file that takes audio and gives scores.

    The file is run in onnxruntime beside PyTorch on clips made from --seed, and is written only if
    both say the same. Needs the extra: pip install 'drumgate[onnx]'.
    """
    options.share_cores()
    from training.checks import export_onnx

    report = export_onnx.run(
        export_onnx.Options(
            model=model, output=output, max_diff=max_diff, gates=outputs.gates, seed=seed
        )
    )
    if outputs.format == "text":
        for name, found in report.metrics["differences"].items():
            options.echo(f"{name:<16}max abs diff {found['max_abs_diff']:.2e}")
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
