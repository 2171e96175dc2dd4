"""How often does the paired release gate block a model that is as good as the last, or worse?

Two models are simulated on the same clips: a clip is answered rightly when its ease (its session's,
its own, and each model's own luck with that session and clip) lies above what the model finds hard.
The candidate is as good as the baseline, or worse by so much that its macro F1 over very many
sessions is 0.05 or 0.10 lower. `training.metrics.bootstrap.compare` then judges one test set after
another, with the defaults of `bootstrap-eval`.

    python benchmarks/release_gate.py [--datasets 1000] [--sessions 8 15 30 60]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from training.gates import load_thresholds
from training.metrics.bootstrap import compare
from training.metrics.resampling import Resampling
from training.metrics.scores import Clips

CLASSES = 6
CLIPS = 40
EASE = 1.2
SESSION_SD = 0.4
"""How much sessions differ in ease, for both models alike."""
MODEL_SD = 0.125
"""How much each model does better or worse on a session of its own accord."""
SHARED = 0.7
"""How much of what makes a clip hard is the same for both models."""
Answers = NDArray[np.intp]


def draw(rng: np.random.Generator, sessions: int, handicap: float) -> tuple[Answers, ...]:
    """Draw the truth, the candidate's answers and the baseline's [shape=(sessions, CLIPS)]."""
    shape = (sessions, CLIPS)
    truth = rng.integers(0, CLASSES, shape)
    session = rng.normal(0.0, SESSION_SD, (sessions, 1))
    clip = rng.normal(size=shape)
    said = []
    for harder in (handicap, 0.0):
        own = rng.normal(0.0, MODEL_SD, (sessions, 1)) + np.sqrt(1 - SHARED) * rng.normal(
            size=shape
        )
        right = EASE - harder + session + np.sqrt(SHARED) * clip + own > 0.0
        other = (truth + rng.integers(1, CLASSES, shape)) % CLASSES
        said.append(np.where(right, truth, other))
    return truth, *said


def macro_f1(truth: Answers, said: Answers) -> float:
    """Macro F1 by hand."""
    f1 = []
    for label in range(CLASSES):
        there, found = truth == label, said == label
        f1.append(2 * (there & found).sum() / (there.sum() + found.sum()))
    return float(np.mean(f1))


def handicap_for(drop: float) -> float:
    """Find the handicap that lowers the macro F1 of very many sessions by `drop`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        truth, candidate, baseline = draw(np.random.default_rng(1), 4000, middle)
        lower = macro_f1(truth, baseline) - macro_f1(truth, candidate) < drop
        low, high = (middle, high) if lower else (low, middle)
    return low


def clips_of(truth: Answers, said: Answers) -> Clips:
    """Put answers into the form that is judged."""
    there, predicted = (each.ravel()[:, None] == np.arange(CLASSES) for each in (truth, said))
    nothing = np.full(len(there), np.nan)
    return Clips(
        labels=tuple(f"class_{label}" for label in range(CLASSES)),
        truth=there,
        scores=predicted.astype(float),
        predicted=predicted,
        annotated=np.ones_like(there),
        weight=np.ones(len(there)),
        openness=nothing,
        openness_pred=nothing,
        velocity=nothing,
        velocity_pred=nothing,
    )


def judge(sessions: int, drop: float, handicap: float, datasets: int) -> list[float]:
    """Return the shares of test sets with each outcome; see the heads of the table."""
    limit = load_thresholds("bootstrap")["max_macro_f1_drop"].value
    rng = np.random.default_rng(sessions)
    session = np.repeat(np.arange(sessions), CLIPS)
    outcomes = []
    for seed in range(datasets):
        truth, candidate, baseline = draw(rng, sessions, handicap)
        found = compare(
            clips_of(truth, candidate),
            clips_of(truth, baseline),
            session,
            settings=Resampling(seed=seed),
            metrics=("macro_f1",),
        ).overall["macro_f1"]
        assert found.lower is not None
        assert found.upper is not None
        assert found.p_value is not None
        least, most = -found.upper, -found.lower
        outcomes.append((least > limit, found.p_value < 0.05, most > limit, least <= drop <= most))
    return np.mean(outcomes, axis=0).tolist()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--datasets", type=int, default=1000)
    parser.add_argument("--sessions", type=int, nargs="+", default=[8, 15, 30, 60])
    given = parser.parse_args()
    print("| sessions | true drop | blocked | p < 0.05 | blocked, decide_on = upper | covered |")
    print("|---:|---:|---:|---:|---:|---:|")
    for drop in (0.0, 0.05, 0.10):
        handicap = handicap_for(drop) if drop else 0.0
        for sessions in given.sessions:
            shares = judge(sessions, drop, handicap, given.datasets)
            row = " | ".join(f"{share:.3f}" for share in shares)
            print(f"| {sessions} | {drop:.2f} | {row} |", flush=True)


if __name__ == "__main__":
    main()
