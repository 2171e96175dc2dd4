"""How far the boundary figures lie from their oracles; the table of docs/gates.md.

    python benchmarks/boundary_accuracy.py [--packs 400]

The oracles of parity are the loops over single cells of tests/test_boundary_parity.py.
"""

from __future__ import annotations

import sys
import warnings
from fractions import Fraction
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def figures(packs: int) -> tuple[int, float]:
    """Compare precision, recall and F1 with scikit-learn; return how many, and the worst."""
    from sklearn.metrics import precision_recall_fscore_support

    from training.metrics import boundary
    from training.metrics import classification as cl

    seen, worst = 0, 0.0
    for seed in range(packs):
        rng = np.random.default_rng(seed)
        n, classes = int(rng.integers(2, 200)), int(rng.integers(2, 9))
        truth, said = rng.random((2, n, classes)) < 0.5
        weight, edge = rng.choice([0.25, 0.5, 1, 2.5], n), rng.choice(["start", "end"], n)
        distance = rng.uniform(0, 60, n)
        found = boundary.boundary_figures(
            cl.clip_counts(truth, said, weights=weight),
            tuple(map(str, range(classes))),
            edges=list(edge),
            distances_ms=distance,
        )
        parts = [(found.summary, np.ones(n, bool))]
        parts += [(each.summary, edge == each.edge) for each in found.per_edge]
        parts += [
            (each.summary, (distance > each.lower_ms) & (distance <= (each.upper_ms or np.inf)))
            for each in found.by_distance
        ]
        for summary, rows in parts:
            labels = np.flatnonzero(truth[rows].any(axis=0))
            if not labels.size:
                continue
            for average in ("macro", "micro", None):
                theirs = precision_recall_fscore_support(
                    truth[rows],
                    said[rows],
                    labels=None if average == "micro" else labels,
                    average=average,
                    sample_weight=weight[rows],
                    zero_division=0,
                )[:3]
                ours = (
                    [getattr(summary, average)]
                    if average
                    else [summary.per_class[label] for label in labels]
                )
                mine = np.array([[x.precision or 0, x.recall or 0, x.f1 or 0] for x in ours])
                off = np.abs(mine - np.array(theirs, dtype=float).reshape(3, -1).T)
                seen, worst = seen + off.size, max(worst, float(off.max()))
    return seen, worst


def rows(layouts: int) -> tuple[int, int]:
    """Compare the pack with a walk over all windows; return its rows, and onsets that differ."""
    from training.metrics import boundary_pack as bp

    rng = np.random.default_rng(1)
    seen = wrong = 0
    for _ in range(layouts):
        window, hop, margin = (int(rng.integers(low, 500)) for low in (1, 1, 0))
        offset, onset_us = int(rng.integers(0, hop)), int(rng.integers(0, 4_000_000))
        layout = bp.layout_from_ms(
            window_ms=window, hop_ms=hop, margin_ms=margin, offsets_ms=(offset,)
        )
        ours = [
            (p.window_index, p.edge, Fraction(p.distance_us, 1000))
            for p in bp.placements(onset_us / 1e6, layout)
        ]
        onset, theirs, k = Fraction(onset_us, 1000), [], 0
        while offset + k * hop <= onset:
            start = Fraction(offset + k * hop)
            sides = (("start", onset - start), ("end", start + window - onset))
            if onset < start + window:
                theirs += [(k, edge, side) for edge, side in sides if side <= margin]
            k += 1
        seen, wrong = seen + len(theirs), wrong + (ours != theirs)
    return seen, wrong


def parity(packs: int) -> tuple[float, int, int]:
    """Compare with loops: worst weighted count, packs whose duplicates or guards differ."""
    import test_boundary_parity as oracle  # type: ignore[import-not-found,unused-ignore]

    from training.metrics import boundary_overlap as overlap
    from training.metrics import boundary_parity

    worst, duplicates, guards = 0.0, 0, 0
    for seed in range(packs):
        c = oracle.random_clips(seed, 1 + seed % 60)
        marked = overlap.find_duplicates(c.cells, c.event, c.index, c.distance, c.edge)
        duplicates += {(int(r), int(k)) for r, k in np.argwhere(marked)} != (
            oracle.plain_duplicates(c)
        )
        for edge in ("start", "end"):
            ours = overlap.guard(c.cells, edge, c.edge, c.distance, oracle.WINDOW).guard_ms
            guards += ours != oracle.plain_guard(c, edge)
        lost = sum(
            float(c.weight[r])
            for r in range(len(c.edge))
            for k in range(3)
            if c.annotated[r, k] and c.truth[r, k] and c.whole[r, k] and not c.window[r, k]
        )
        worst = max(worst, abs(boundary_parity.loss(c.cells).lost - lost))
    return worst, duplicates, guards


@click.command()
@click.option("--packs", default=400, show_default=True, help="Random packs of each comparison.")
def main(packs: int) -> None:
    """Print how far the boundary figures lie from their oracles."""
    warnings.simplefilter("ignore")  # scikit-learn warns of labels that were never predicted
    seen, worst = figures(packs)
    click.echo(f"precision, recall, F1 against scikit-learn: {seen} figures, worst {worst:.2g}")
    seen, wrong = rows(5 * packs)
    click.echo(f"rows of packs against a walk over all windows: {seen} rows, {wrong} onsets differ")
    worst, duplicates, guards = parity(5 * packs)
    click.echo(
        f"parity against loops: {5 * packs} packs, lost differs by {worst:.2g} at worst, "
        f"duplicates in {duplicates}, guards in {guards}"
    )


if __name__ == "__main__":
    main()
