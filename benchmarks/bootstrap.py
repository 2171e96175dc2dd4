"""Time the cluster bootstrap against scipy.stats.bootstrap and against a loop over clips.

All three compute the macro F1 on the same data; ours adds six more figures and every class. Their
runs are interleaved and the medians compared. The two slow ones are run on fewer resamples (20 and
1) and scaled to 1,000 in proportion, so their times are extrapolated, start-up included. Times are
CPU seconds of the process, which other work on the machine disturbs less than the clock.

    python benchmarks/bootstrap.py [--clips 100000] [--classes 18] [--sessions 500] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import scipy.stats

from training.metrics.bootstrap import FAMILIES, METRICS, bootstrap
from training.metrics.resampling import Resampling
from training.metrics.scores import BUCKETS, Clips

COUNT_BASED = next(names for names in FAMILIES.values() if "macro_f1" in names)
RANKED = ("map", "velocity_spearman")
SUMS = tuple(name for name in METRICS if name not in RANKED)
ITERATIONS = 1000


def make_clips(n_clips: int, n_classes: int) -> Clips:
    """Draw clips at random, about two labels each."""
    rng = np.random.default_rng(0)
    truth = rng.random((n_clips, n_classes)) < 2 / n_classes
    scores = np.clip(rng.normal(0.25, 0.2, truth.shape) + 0.5 * truth, 0, 1)
    value = rng.random(n_clips)
    found = truth & (rng.random(truth.shape) < 0.9)
    return Clips(
        labels=tuple(f"class_{column}" for column in range(n_classes)),
        truth=truth,
        scores=scores,
        predicted=scores >= 0.5,
        annotated=np.ones_like(truth),
        weight=np.ones(n_clips),
        openness=value,
        openness_pred=np.clip(value + rng.normal(0, 0.1, n_clips), 0, 1),
        velocity=value,
        velocity_pred=np.clip(value + rng.normal(0, 0.1, n_clips), 0, 1),
        bucket=rng.integers(-1, len(BUCKETS), n_clips),
        onsets=np.stack([truth, truth, found, truth], axis=2).astype(np.int32),
    )


def by_scipy(clips: Clips, members: list[np.ndarray], resamples: int) -> None:
    """Draw sessions with scipy; the statistic gathers their clips."""

    def macro_f1(sessions: np.ndarray) -> float:
        rows = np.concatenate([members[session] for session in sessions])
        truth, predicted = clips.truth[rows], clips.predicted[rows]
        tp = (truth & predicted).sum(axis=0)
        return float((2 * tp / (truth.sum(axis=0) + predicted.sum(axis=0))).mean())

    scipy.stats.bootstrap(
        (np.arange(len(members)),),
        macro_f1,
        vectorized=False,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    )


def by_loop(clips: Clips, members: list[np.ndarray], resamples: int) -> None:
    """Count clip by clip and label by label, as a script of one afternoon does."""
    truth, predicted = clips.truth.tolist(), clips.predicted.tolist()
    rng = np.random.default_rng(0)
    n_classes = len(clips.labels)
    for _ in range(resamples):
        tp, fp, fn = [0] * n_classes, [0] * n_classes, [0] * n_classes
        for session in rng.integers(len(members), size=len(members)):
            for row in members[session]:
                for column, (is_there, is_said) in enumerate(
                    zip(truth[row], predicted[row], strict=True)
                ):
                    if is_there and is_said:
                        tp[column] += 1
                    elif is_said:
                        fp[column] += 1
                    elif is_there:
                        fn[column] += 1
        sum(2 * t / (2 * t + p + n) for t, p, n in zip(tp, fp, fn, strict=True))


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def peak_mb(work: Callable[[], object]) -> float:
    """Return the most memory that one call holds beyond what there was, in MB."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    """Run, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("clips", 100_000), ("classes", 18), ("sessions", 500), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    clips = make_clips(given.clips, given.classes)
    session = np.random.default_rng(1).permutation(np.arange(given.clips) % given.sessions)
    each = np.arange(given.clips)
    members = [np.flatnonzero(session == number) for number in range(given.sessions)]
    how = Resampling(iterations=ITERATIONS)

    def ours(cluster: np.ndarray, metrics: tuple[str, ...]) -> tuple[Callable[[], object], float]:
        return lambda: bootstrap(clips, cluster, settings=how, metrics=metrics), 1.0

    # name -> (work, how many times more resamples 1,000 would have been)
    ways: dict[str, tuple[Callable[[], object], float]] = {
        "ours, counts": ours(session, COUNT_BASED),
        f"ours, the {len(SUMS)} figures from sums": ours(session, SUMS),
        f"ours, all {len(METRICS)} figures": ours(session, METRICS),
        "a clip a cluster: counts": ours(each, COUNT_BASED),
        f"a clip a cluster: {len(SUMS)} from sums": ours(each, SUMS),
        f"a clip a cluster: all {len(METRICS)}": ours(each, METRICS),
        "scipy.stats.bootstrap (from 20)": (lambda: by_scipy(clips, members, 20), ITERATIONS / 20),
        "loop over clips (from 1)": (lambda: by_loop(clips, members, 1), float(ITERATIONS)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.rounds):
        for name, (work, scale) in ways.items():
            times[name].append(seconds(work) * scale)
    medians = {name: statistics.median(values) for name, values in times.items()}
    memory = {name: peak_mb(work) for name, (work, _) in list(ways.items())[:6]}

    print(
        f"{given.clips} clips x {given.classes} classes, {given.sessions} sessions, 1,000 resamples"
    )
    for name, value in medians.items():
        ratio = value / medians["ours, counts"]
        spread = f"{min(times[name]):.3f}-{max(times[name]):.3f}"
        peak = f"{memory[name]:8.0f} MB" if name in memory else ""
        print(f"{name:32} {value:10.3f} s  ({spread})  {ratio:10.1f}x {peak}")
    print(json.dumps({"median_cpu_s": medians, "peak_mb": memory}))


if __name__ == "__main__":
    main()
