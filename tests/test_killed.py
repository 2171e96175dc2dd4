"""SIGKILL at random moments: what stands under a name is the old file or the whole new one."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SESSIONS, EVENTS = 60, 100
KILLS = 5
WRITERS = {
    "dataset-health": "--events events.jsonl --output out.json --html-output out.html",
    "compare-manifests": "events.jsonl base.jsonl --json-output out.json --html-output out.html",
    "merge-manifests": "--input events.jsonl --input other.jsonl --output out.jsonl",
    "merge-manifests, sorted": "--input events.jsonl --input other.jsonl --sort sample_id"
    " --output out.jsonl",
    "derive-sampling-weights": "events.jsonl --output out.json",
    "annotate-techniques": "--input events.jsonl --output out.jsonl",
    "annotate-techniques, in place": "--input events.jsonl --in-place",
    "normalize-openness": "--events events.jsonl --output out.jsonl",
    "generate-boundary-pack": "--events events.jsonl --output out.jsonl",
    "validate-manifest": "events.jsonl --format sarif --output out.json",
    "dataset-health, cached": "--events events.jsonl --cache-dir cache --output out.json",
}
OLD = b'{"old": true}\n'


def lines(prefix: str, *, changed: bool = False) -> Iterator[str]:
    for session in range(SESSIONS):
        for number in range(EVENTS):
            onset = number * 0.03 + (0.004 if changed and number % 7 == 0 else 0.0)
            part: dict[str, object] = {"label": "hihat_open", "velocity": 0.5}
            part["openness_raw"] = number % 128
            # Soft strokes between loud ones: ghost notes, for annotating in place to write.
            snare = {"label": "snare", "velocity": 0.1 if number % 2 else 0.8}
            event = {
                "sample_id": f"{prefix}{session}-{number}",
                "session_id": f"{prefix}{session}",
                "onset_time": onset,
                "components": [snare] if number % 9 == 0 else [part],
                "device_vendor": "Roland",
                "device_model": "TD-50",
                "audio_path": f"{session}.wav",
            }
            yield json.dumps(event) + "\n"


def command(writer: str) -> list[str]:
    arguments = shlex.split(WRITERS[writer])
    return [sys.executable, "-m", "training.cli", writer.partition(",")[0], *arguments]


def fill(folder: Path) -> Path:
    folder.mkdir()
    (folder / "events.jsonl").write_text("".join(lines("a")))
    (folder / "base.jsonl").write_text("".join(lines("a", changed=True)))
    (folder / "other.jsonl").write_text("".join(lines("b")))
    return folder


def shown(folder: Path) -> dict[str, bytes]:
    """The files that have a name to be read by, times of making left out."""
    found = {}
    for path in sorted(folder.glob("*.*")):
        if path.is_file() and not path.name.startswith("."):
            found[path.name] = timeless(path)
    return found


def timeless(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".html":
        assert content == OLD or content.rstrip().endswith(b"</html>"), path
        return b"" if content != OLD else OLD
    if path.suffix == ".json" and content != OLD:
        report = json.loads(content)
        for name in ("provenance", "created", "timing", "duration_s"):
            report.pop(name, None)
        return json.dumps(report).encode()
    return content


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_a_killed_tool_leaves_the_old_or_the_new(writer: str, tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole")
    started = time.perf_counter()
    done = subprocess.run(command(writer), cwd=whole, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    assert done.returncode in (0, 1), done.stderr
    new = shown(whole)
    inputs = shown(fill(tmp_path / "inputs"))
    outputs = {name for name in new if new[name] != inputs.get(name)}
    assert outputs

    moments = random.Random(writer)
    ended = 0
    for attempt in range(KILLS):
        folder = fill(tmp_path / f"kill{attempt}")
        for name in outputs - set(inputs):
            (folder / name).write_bytes(OLD)
        old = shown(folder)
        running = subprocess.Popen(
            command(writer), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Most of the time goes into starting; what is of interest happens late.
        time.sleep(seconds * moments.uniform(0.3, 1.0))
        running.send_signal(signal.SIGKILL)
        ended += running.wait() != -signal.SIGKILL
        after = shown(folder)
        assert set(after) == set(old)
        for name, content in after.items():
            assert content in (old[name], new[name]), f"{name} is neither old nor new"
        # What a killed run left behind must not be in the way of the next one.
        if attempt == 0:
            again = subprocess.run(command(writer), cwd=folder, capture_output=True, text=True)
            assert again.returncode == done.returncode, again.stderr
            assert shown(folder) == new
        shutil.rmtree(folder)
    assert ended < KILLS, "no run was killed before its end"
