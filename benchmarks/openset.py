"""Time the resampled open-set figures against measuring each resample written out.

Both give the same five figures of the same resamples. Their runs are interleaved and the medians
compared; the slow one is run on 20 resamples, with scikit-learn on 5, and scaled to 1,000 in
proportion, so those times are extrapolated.

    python benchmarks/openset.py [--clips 5000] [--sessions 50] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from sklearn import metrics as peer

from training.metrics import openset
from training.metrics.openset_intervals import estimate
from training.metrics.resampling import Resampling

ITERATIONS = 1000


def by_measure(scores: openset.Floats, truth: openset.Bools, rows: list[np.ndarray]) -> None:
    """Gather the clips of each resample and measure them."""
    for chosen in rows:
        openset.measure(scores[chosen], truth[chosen])


def by_peer(scores: openset.Floats, truth: openset.Bools, rows: list[np.ndarray]) -> None:
    """The same with scikit-learn, the three figures that it has."""
    for chosen in rows:
        peer.roc_auc_score(truth[chosen], scores[chosen])
        peer.average_precision_score(truth[chosen], scores[chosen])
        peer.average_precision_score(~truth[chosen], -scores[chosen])


def timed(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Print the medians and their ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    truth = rng.random(options.clips) < 0.4
    scores = rng.normal(size=options.clips) + 1.5 * truth
    session = rng.integers(options.sessions, size=options.clips)
    members = [np.flatnonzero(session == number) for number in range(options.sessions)]

    def resamples(count: int) -> list[np.ndarray]:
        picks = rng.integers(options.sessions, size=(count, options.sessions))
        return [np.concatenate([members[pick] for pick in row]) for row in picks]

    settings = Resampling(iterations=ITERATIONS)
    times: dict[str, list[float]] = {"estimate": [], "measure": [], "scikit_learn": []}
    for _ in range(options.rounds):
        few, fewer = resamples(20), resamples(5)
        times["estimate"].append(timed(lambda: estimate(scores, truth, session, settings=settings)))
        slow = timed(lambda rows=few: by_measure(scores, truth, rows))  # type: ignore[misc]
        times["measure"].append(slow * ITERATIONS / 20)
        slowest = timed(lambda rows=fewer: by_peer(scores, truth, rows))  # type: ignore[misc]
        times["scikit_learn"].append(slowest * ITERATIONS / 5)
    medians = {name: statistics.median(values) for name, values in times.items()}
    relative = {name: value / medians["estimate"] for name, value in medians.items()}
    print(json.dumps({"seconds": times, "median_s": medians, "relative": relative}, indent=2))


if __name__ == "__main__":
    main()
