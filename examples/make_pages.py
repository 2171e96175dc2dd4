"""Make the page of every kind of report again: `python examples/make_pages.py [TOOL …]`.

Each folder `examples/<tool>/` holds the `report.json` of one run and the `page.html` made from it
alone; the readiness run has an `index.html` with the pages of its checks beside it. What differs
from run to run (when, where, how long) is replaced by fixed words, so that only a change of a tool
or of its page changes these files.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from click.testing import CliRunner

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from training.cli import main as drumgate  # noqa: E402
from training.render import RENDERERS  # noqa: E402

# Where to stand, and what to run there, one after the other; the last one writes the report.
RUNS: Final[Mapping[str, tuple[str, ...]]] = {
    "align-qc": (
        "align_qc/fail/jump",
        "align-qc --manifest session.json --strict --report {out}/report.json",
    ),
    "annotate-techniques": (
        "annotate_techniques/pass/one_session",
        "annotate-techniques --input events.jsonl --output {out}/annotated.jsonl"
        " --report {out}/report.json",
    ),
    "bootstrap-eval": (
        "bootstrap_eval/fail/worse_than_baseline",
        "bootstrap-eval --ground-truth test.jsonl --predictions predictions.jsonl"
        " --baseline-predictions baseline.jsonl --iterations 200 --strict"
        " --report {out}/report.json",
    ),
    "boundary-eval": (
        "boundary_eval/fail/loses_against_the_whole",
        "boundary-eval --ground-truth labels.jsonl --predictions predictions.jsonl"
        " --reference-predictions whole.jsonl --strict --report {out}/report.json",
    ),
    "build-training-dataset": (
        "build_training_dataset/pass/by_session",
        "build-training-dataset events.jsonl {out}/store --audio-root audio --sample-rate 8000"
        " --val-ratio 0.17 --test-ratio 0.17 --split-by session"
        " --summary-json {out}/report.json",
    ),
    "calibrate": (
        "calibrate/fail/noise",
        "calibrate --ground-truth validation.jsonl --predictions predictions.jsonl"
        " --output {out}/calibration.json --strict --report {out}/report.json",
    ),
    "compare-health-reports": (
        "compare_health_reports/fail/thinned_and_louder",
        "compare-health-reports --baseline baseline.json --candidate candidate.json"
        " --max-drop 60 --ignore-label aux_percussion --json-output {out}/report.json",
    ),
    "compare-manifests": (
        "compare_manifests/fail/removed",
        "compare-manifests base.jsonl candidate.jsonl --fail-on removed --fail-on relabelled=5"
        " --json-output {out}/report.json",
    ),
    "dataset-health": (
        ".",
        "dataset-health --events events_health_example.jsonl"
        " --dataset-metadata metadata_health_example.json --min-class-count 6"
        " --require-technique flam --require-technique blast_beat --max-duplication-rate 0.005"
        " --split-isolation session,drummer --output {out}/report.json",
    ),
    "export-onnx": (
        "export_onnx",
        "export-onnx --model model.pth --output {out}/model.onnx --report {out}/report.json",
    ),
    "generate-boundary-pack": (
        "generate_boundary_pack/pass/near_a_seam",
        "generate-boundary-pack --events events.jsonl --output {out}/labels.jsonl"
        " --window-ms 2048 --hop-ms 512 --margin-ms 40 --report {out}/report.json",
    ),
    "hard-negative-miner": (
        "hard_negative_miner/pass/audit_page",
        "hard-negative-miner --predictions predictions.jsonl --ground-truth events.jsonl"
        " --output {out}/hard_negatives.jsonl --audit-html {out}/audit.html --audit-clips 3"
        " --max-session-share 1 --report {out}/report.json",
    ),
    "normalize-openness": (
        "normalize_openness/pass/two_devices",
        "normalize-openness --events events.jsonl --output {out}/normalized.jsonl"
        " --report {out}/report.json",
    ),
    "openset-eval": (
        "openset_eval/fail/overlapping",
        "openset-eval --ground-truth labels.jsonl --predictions predictions.jsonl --strict"
        " --report {out}/report.json",
    ),
    "predict": (
        "build_training_dataset/pass/by_session",
        "train-classifier --dataset ../../../train_classifier/pass/ready/dataset --preset fast"
        " --config ../../../train_classifier/pass/ready/tiny.toml --device cpu --output {out}",
        "predict --model {out}/best_drum_classifier.pth --events events.jsonl --audio-root audio"
        " --device cpu --output {out}/predictions.jsonl --report {out}/report.json",
    ),
    "run-readiness-checks": (
        ".",
        "run-readiness-checks --alignment-manifest align_qc/fail/jump/session.json"
        " --health-events events_health_example.jsonl --health-min-class-count 6"
        " --openset-ground-truth openset_labels_example.jsonl"
        " --openset-predictions openset_predictions_example.jsonl"
        " --bootstrap-ground-truth bootstrap_eval/fail/two_bad_sessions/test.jsonl"
        " --bootstrap-predictions bootstrap_eval/fail/two_bad_sessions/predictions.jsonl"
        " --report {out}/report.json --html-output {out}/index.html",
    ),
    "summarize-manifest": (
        ".",
        "summarize-manifest events_health_example.jsonl --format json --output {out}/report.json",
    ),
    "train-classifier": (
        "train_classifier/pass/ready",
        "train-classifier --dataset dataset --preset fast --config tiny.toml --device cpu"
        " --output {out}/models --metrics-json {out}/report.json",
    ),
}
# What a tool needs that is not installed everywhere: without it, its report stays as it is, and its
# page is made from that.
NEEDED: Final = {"export-onnx": ("onnx", "onnxscript", "onnxruntime")}


def make(tool: str) -> dict[str, str]:
    """Run the tool and return the files of its folder, by name."""
    if not can_run(tool):
        kept = (HERE / tool.replace("-", "_") / "report.json").read_text(encoding="utf-8")
        return {"report.json": kept, "page.html": RENDERERS["html"](json.loads(kept))}
    where, *commands = RUNS[tool]
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as out:
        try:
            os.chdir(HERE / where)
            for command in commands:
                _run(command.replace("{out}", out))
            said = commands[-1].replace("{out}/", "")
            found = {"report.json": _settled(Path(out, "report.json"), out, said)}
            name = "index.html" if tool == "run-readiness-checks" else "page.html"
            found[name] = RENDERERS["html"](json.loads(found["report.json"]))
            if tool == "hard-negative-miner":
                found["audit.html"] = Path(out, "audit.html").read_text(encoding="utf-8")
            if tool == "run-readiness-checks":
                found |= _parts(Path(out), said)
        finally:
            os.chdir(before)
    return found


def can_run(tool: str) -> bool:
    """Whether all that a tool needs is installed."""
    return all(importlib.util.find_spec(name) for name in NEEDED.get(tool, ()))


def sample() -> dict[str, str]:
    """Return the report and the page of `reports/sample/`, by name."""
    command = (
        "openset-eval --ground-truth openset_labels_example.jsonl"
        " --predictions openset_predictions_example.jsonl"
    )
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as out:
        try:
            os.chdir(HERE)
            _run(f"{command} --report {out}/openset.json")
        finally:
            os.chdir(before)
        said = f"{command} --report openset.json --html-output openset.html"
        report = _settled(Path(out, "openset.json"), out, said)
    return {"openset.json": report, "openset.html": RENDERERS["html"](json.loads(report))}


def _run(command: str) -> None:
    found = CliRunner().invoke(drumgate, shlex.split(command), prog_name="drumgate")
    if found.exit_code not in (0, 1):
        raise SystemExit(f"{command}\n{found.output}")


def _parts(out: Path, command: str) -> dict[str, str]:
    """Return the pages of the checks of a readiness run."""
    pages = sorted(path for path in out.glob("*.html") if path.name != "index.html")
    names = [path.stem for path in pages]
    flags = " ".join(f"--{name}-report {shlex.quote(str(out / name))}.json" for name in names)
    _run(f"{command.partition(' --report')[0]} {flags}")
    return {
        f"{name}.html": RENDERERS["html"](
            json.loads(_settled(out / f"{name}.json", str(out), command))
        )
        for name in names
    }


def _settled(path: Path, out: str, command: str) -> str:
    """Return a report in which nothing differs from run to run."""
    written = path.read_text(encoding="utf-8")
    for folder in (out, HERE.parent):
        written = written.replace(f"{folder}/", "")
    report: dict[str, Any] = json.loads(written)
    report["provenance"] = {
        "created_at": "2026-01-01T00:00:00+00:00",
        "elapsed_s": 0.0,
        "command": f"drumgate {command}",
    }
    if report["tool"] == "train-classifier":
        _without_times(report["metrics"])
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


def _without_times(values: Any) -> None:
    """Set what was timed to 0."""
    for name, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            _without_times(value)
        elif str(name).endswith(("_s", "_per_s", "seconds")):
            values[name] = 0.0


def main() -> None:
    """Write the files of the tools named, or of all."""
    for name, text in () if sys.argv[1:] else sample().items():
        (HERE.parent / "reports" / "sample" / name).write_text(text, encoding="utf-8")
    for tool in sys.argv[1:] or RUNS:
        for name, text in make(tool).items():
            path = HERE / tool.replace("-", "_") / name
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(HERE)}: {len(text) / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
