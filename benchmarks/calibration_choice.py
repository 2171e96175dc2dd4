"""What does the calibration that `calibrate` chooses do on sessions that it has never seen?

Scores of twelve classes are simulated that are right, that are too sure all alike, or that lean one
way in some classes and the other way in others; sessions differ besides. Each way to calibrate is
fitted on a few sessions, and the NLL and the macro F1 of 120 other sessions are averaged.

    python benchmarks/calibration_choice.py [--datasets 40] [--sessions 3 5 8 12 15 20 40]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from training.checks.calibration_choice import choose
from training.metrics import calibration as cal
from training.metrics import calibration_fit as cf
from training.metrics import classification as cl
from training.metrics.calibration import Scored
from training.metrics.operating_points import Goal, Objective

SHARE = 1.3 * np.array([0.3, 0.25, 0.2, 0.08, 0.06, 0.05, 0.04, 0.03, 0.03, 0.02, 0.02, 0.01])
CLIPS = 60
APART = 2.6
SESSION_SD = 0.5
SCORES = {
    "right": (1.0, np.zeros(12)),
    "too sure": (1.7, np.zeros(12)),
    "leaning": (1.2, np.linspace(-1.2, 1.2, 12)),
}
FITTED: tuple[tuple[cf.Method, Objective], ...] = (
    *((method, "keep") for method in get_args(cf.Method)),
    ("platt", "f1"),
)


def draw(
    rng: np.random.Generator, sessions: int, slope: float, bias: NDArray[np.float64]
) -> tuple[Scored, NDArray[np.intp]]:
    """Draw clips whose log odds are known, and turn them by `slope` and `bias`."""
    session = np.repeat(np.arange(sessions), CLIPS)
    truth = rng.random((len(session), len(SHARE))) < SHARE
    odds = np.where(truth, 1.0, -1.0) * APART**2 / 2 + APART * rng.normal(size=truth.shape)
    odds += np.log(SHARE / (1 - SHARE))
    odds += SESSION_SD * rng.normal(size=(sessions, len(SHARE)))[session]
    scored = Scored(
        labels=tuple(f"class_{column}" for column in range(len(SHARE))),
        scores=expit(slope * odds + bias),
        truth=truth,
        annotated=np.ones_like(truth),
        weight=np.ones(len(session)),
    )
    return scored, session


def on_others(others: Scored, fit: cf.Fit) -> tuple[float, float]:
    """NLL and macro F1 of a fit on sessions that it has not seen."""
    after = cf.apply(others, fit.slope, fit.intercept)
    counts = cl.clip_counts(after.truth, after.scores >= fit.threshold)
    nll, f1 = cal.measure(after).nll, cl.summarise(counts, after.labels).macro.f1
    assert nll is not None
    assert f1 is not None
    return nll, f1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--datasets", type=int, default=40)
    parser.add_argument("--sessions", type=int, nargs="+", default=[3, 5, 8, 12, 15, 20, 40])
    given = parser.parse_args()
    ways = [f"{method}, {objective}" for method, objective in FITTED] + ["auto"]
    print("| scores | sessions | " + " | ".join(ways) + " |")
    print("|---|---:|" + "---:|" * len(ways))
    for name, (slope, bias) in SCORES.items():
        others, _ = draw(np.random.default_rng(99), 120, slope, bias)
        for sessions in given.sessions:
            found: list[list[tuple[float, float]]] = [[] for _ in ways]
            for seed in range(given.datasets):
                scored, session = draw(np.random.default_rng(seed), sessions, slope, bias)
                for place, (method, objective) in enumerate(FITTED):
                    recipe = cf.Recipe(method=method, goal=Goal(objective=objective))
                    found[place].append(on_others(others, cf.fit(scored, recipe)))
                chosen = choose(
                    scored,
                    cf.folds(session, sessions, 5, 0),
                    sessions,
                    method="auto",
                    objective="auto",
                    recipe=cf.Recipe(),
                )
                found[-1].append(on_others(others, cf.fit(scored, chosen.recipe)))
            cells = [f"{nll:.4f} / {f1:.3f}" for nll, f1 in np.mean(found, axis=1)]
            print(f"| {name} | {sessions} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
