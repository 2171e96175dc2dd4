"""Time boundary-eval, calibrate and hard-negative-miner, files to report, beside a short script.

The scripts are what one would write with `json` and scikit-learn for the same job: read both files,
make a matrix, compute the main figures. The tools also validate every field, give every class,
edge and distance its figures, and hash their inputs. Runs are interleaved, medians compared; the
intervals of the boundary script are run on 10 resamples and scaled to 1,000 in proportion.

    python benchmarks/gate_tools.py [--clips 20000] [--classes 12] [--sessions 100] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn import metrics as peer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from training.checks import boundary, calibrate, hard_negatives

RESAMPLES, TRIED = 1000, 10


def write_files(folder: Path, clips: int, classes: int, sessions: int) -> tuple[Path, Path]:
    """Write truth and predictions of clips near seams, about 1.3 labels each."""
    rng = np.random.default_rng(0)
    names = [f"class_{number:02d}" for number in range(classes)]
    truth = rng.random((clips, classes)) < 0.3 / classes
    truth[np.arange(clips), rng.integers(classes, size=clips)] = True
    scores = 1 / (1 + np.exp(-rng.normal(-3, 1.5, truth.shape) - 5 * truth))
    truth_path, predictions_path = folder / "truth.jsonl", folder / "predictions.jsonl"
    with truth_path.open("w") as ours, predictions_path.open("w") as theirs:
        for clip in range(clips):
            row = {
                "sample_id": f"c{clip}",
                "session_id": f"s{clip % sessions}",
                "onset_time": round(clip * 0.21, 3),
                "labels": [names[each] for each in np.flatnonzero(truth[clip])],
                "edge": "start" if clip % 2 else "end",
                "distance_ms": clip % 40,
            }
            ours.write(json.dumps(row) + "\n")
            said = {name: round(float(p), 6) for name, p in zip(names, scores[clip], strict=True)}
            theirs.write(json.dumps({"sample_id": f"c{clip}", "scores": said}) + "\n")
    return truth_path, predictions_path


def matrices(truth: Path, predictions: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
    """Read both files into truth, scores, session of each clip, and the rows."""
    rows = [json.loads(line) for line in truth.open()]
    said = {row["sample_id"]: row["scores"] for row in map(json.loads, predictions.open())}
    names = sorted(next(iter(said.values())))
    y = np.array([[name in row["labels"] for name in names] for row in rows])
    p = np.array([[said[row["sample_id"]][name] for name in names] for row in rows])
    return y, p, np.array([row["session_id"] for row in rows]), rows


def boundary_script(truth: Path, predictions: Path) -> float:
    """Recall, precision and F1 a class, and the session bootstrap of the macro recall."""
    y, p, session, _ = matrices(truth, predictions)
    found = p >= 0.5
    peer.precision_recall_fscore_support(y, found, zero_division=0)
    members = [np.flatnonzero(session == name) for name in np.unique(session)]
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    for _ in range(TRIED):
        drawn = np.concatenate(
            [members[each] for each in rng.integers(len(members), size=len(members))]
        )
        peer.recall_score(y[drawn], found[drawn], average="macro", zero_division=0)
    return (time.perf_counter() - started) * (RESAMPLES / TRIED - 1)


def calibrate_script(truth: Path, predictions: Path) -> float:
    """Platt scaling a class with a threshold by F1, cross-fitted over five folds of sessions."""
    y, p, session, _ = matrices(truth, predictions)
    z = np.log(p) - np.log1p(-p)
    for fitted, held in GroupKFold(5).split(z, groups=session):
        for column in range(y.shape[1]):
            model = LogisticRegression(C=1e6).fit(z[fitted, column, None], y[fitted, column])
            made = model.predict_proba(z[fitted, column, None])[:, 1]
            precision, recall, cuts = peer.precision_recall_curve(y[fitted, column], made)
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            after = model.predict_proba(z[held, column, None])[:, 1]
            peer.f1_score(y[held, column], after >= cuts[np.argmax(f1[:-1])], zero_division=0)
            peer.brier_score_loss(y[held, column], after)
    return 0.0


def mining_script(truth: Path, predictions: Path) -> float:
    """The confident false positives, hardest first, at most 150 a label, with the nearest event."""
    rows = [json.loads(line) for line in truth.open()]
    said = {row["sample_id"]: row["scores"] for row in map(json.loads, predictions.open())}
    onsets: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for label in row["labels"]:
            onsets.setdefault((row["session_id"], label), []).append(row["onset_time"])
    found = [
        (score, row, label)
        for row in rows
        for label, score in said[row["sample_id"]].items()
        if score >= 0.7 and label not in row["labels"]
    ]
    found.sort(key=lambda each: -each[0])
    kept: dict[str, int] = {}
    for _, row, label in found:
        if kept.get(label, 0) < 150:
            kept[label] = kept.get(label, 0) + 1
            near = onsets.get((row["session_id"], label), [])
            min((abs(onset - row["onset_time"]) for onset in near), default=None)
    return 0.0


def tools(truth: Path, predictions: Path) -> dict[str, Callable[[], object]]:
    """Return the three tools as the commands call them."""
    files = {"ground_truth": truth, "predictions": predictions}
    mined = truth.parent / "hard.jsonl"
    return {
        "boundary-eval": lambda: boundary.run(boundary.Options(**files)),
        "calibrate": lambda: calibrate.run(
            calibrate.Options(**files, output=truth.parent / "calibration.json")
        ),
        "hard-negative-miner": lambda: hard_negatives.run(
            hard_negatives.Options(**files, output=mined)
        ),
    }


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call; a number that it returns is added (what was extrapolated)."""
    started = time.perf_counter()
    extra = call()
    return time.perf_counter() - started + (extra if isinstance(extra, float) else 0.0)


def main() -> None:
    """Run the benchmark and print a line a tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    scripts = {
        "boundary-eval": boundary_script,
        "calibrate": calibrate_script,
        "hard-negative-miner": mining_script,
    }
    print(f"{given.clips} clips x {given.classes} classes, {given.sessions} sessions")
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), given.clips, given.classes, given.sessions)
        for name, tool in tools(*files).items():
            ours, theirs = [], []
            for _ in range(given.rounds):
                ours.append(timed(tool))
                theirs.append(timed(lambda script=scripts[name]: script(*files)))
            tracemalloc.start()
            tool()
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            one, other = statistics.median(ours), statistics.median(theirs)
            print(
                f"{name:<20} {one:7.2f} s   script {other:7.2f} s   {other / one:6.1f}x"
                f"   {peak:6.0f} MiB"
            )


if __name__ == "__main__":
    main()
