"""What an epoch will hold when events are drawn by their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.dataset.drawn import Drawn
from training.metrics.classification import FloatArray
from training.metrics.sampling import Clamped, IntArray
from training.metrics.sampling_draw import Draw, draw, entropy_bits, total_variation


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What a scheme made of the chosen events."""

    groups: Clamped
    classes: Clamped
    kind_factor: FloatArray
    """Of each kind the largest factor of its classes [shape=(n_kinds,)]."""
    kind_unclamped: FloatArray
    """The same of the factors without clamping."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Strata:
    """Events that weigh the same; see `training.metrics.sampling_draw`."""

    count: IntArray
    first: IntArray
    key: IntArray
    """Rising: the code of the group weight times the number of kind codes, plus the kind code."""
    n_kind_codes: int
    found: Draw
    plain: Draw

    def probability(self, group_code: IntArray, kind_code: IntArray) -> FloatArray:
        at = np.searchsorted(self.key, group_code * self.n_kind_codes + kind_code)
        drawn: FloatArray = self.found.probability[at]
        return drawn


def preview(drawn: Drawn, weights: Weights, n_draws: int) -> dict[str, Any]:
    """Say what drawing `n_draws` events will give.

    Raises:
        ValueError: nothing can be drawn.
    """
    strata = _strata(drawn, weights, n_draws)
    found, plain = strata.found, strata.plain
    per_class = _per_class(drawn, strata, n_draws)
    class_draws = np.array([row["expected_draws"] for row in per_class.values()])
    return {
        "draws": n_draws,
        "effective_sample_size": found.effective_sample_size,
        "group_entropy_bits": entropy_bits(_group_share(drawn, strata)),
        "group_entropy_bits_at_most": math.log2(len(drawn.groups)),
        "class_entropy_bits": entropy_bits(class_draws / class_draws.sum()),
        "expected_distinct_events": found.expected_distinct,
        "most_repeated": _most_repeated(drawn, strata, n_draws),
        "groups_total": len(drawn.groups),
        "groups_left_out": int((weights.groups.weight == 0).sum()),
        "clamping": {
            "groups_raised_to_min": int(weights.groups.raised.sum()),
            "groups_lowered_to_max": int(weights.groups.lowered.sum()),
            "classes_raised_to_min": int(weights.classes.raised.sum()),
            "classes_lowered_to_max": int(weights.classes.lowered.sum()),
            "draws_moved_share": total_variation(
                strata.count, found.probability, plain.probability
            ),
            "effective_sample_size_without": plain.effective_sample_size,
        },
        "per_class": per_class,
        "per_technique": _per_technique(drawn, strata, n_draws),
        "class_source_dynamics": _table(drawn, strata, n_draws),
    }


def _strata(drawn: Drawn, weights: Weights, n_draws: int) -> _Strata:
    """Put events that weigh the same together, and leave their counts in the table `tally`."""
    group_code, group_weight, group_plain = _codes(weights.groups.weight, weights.groups.unclamped)
    kind_code, kind_weight, kind_plain = _codes(weights.kind_factor, weights.kind_unclamped)
    drawn.register("group_codes", gid=np.arange(len(group_code)), gcode=group_code)
    drawn.register("kind_codes", kid=np.arange(len(kind_code)), kcode=kind_code)
    drawn.connection.execute(
        "CREATE OR REPLACE TEMP TABLE tally AS "
        'SELECT gcode, kcode, kid, count(*) AS n, min("row") AS first '
        "FROM drawn JOIN group_codes USING (gid) JOIN kind_codes USING (kid) GROUP BY ALL"
    )
    gcode, kcode, count, first = drawn.numbers(
        "SELECT gcode, kcode, sum(n)::BIGINT, min(first) FROM tally GROUP BY ALL ORDER BY ALL"
    )
    return _Strata(
        count=count,
        first=first,
        key=gcode * len(kind_weight) + kcode,
        n_kind_codes=len(kind_weight),
        found=draw(count, group_weight[gcode] * kind_weight[kcode], first, n_draws),
        plain=draw(count, group_plain[gcode] * kind_plain[kcode], first, n_draws),
    )


def _codes(weight: FloatArray, unclamped: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """Number the different (weight, unclamped) pairs; return the numbers, and what they stand for.

    Rising weights get rising numbers, so that sums over them run in one order whatever the order
    of the manifest.
    """
    pairs, code = np.unique(np.stack([weight, unclamped], axis=1), axis=0, return_inverse=True)
    return code.astype(np.int64).reshape(-1), pairs[:, 0], pairs[:, 1]


def _group_share(drawn: Drawn, strata: _Strata) -> FloatArray:
    gid, gcode, kcode, count = drawn.numbers(
        "SELECT gid, gcode, kcode, count(*) FROM drawn JOIN group_codes USING (gid) "
        "JOIN kind_codes USING (kid) GROUP BY ALL ORDER BY ALL"
    )
    share = np.bincount(gid, weights=count * strata.probability(gcode, kcode))
    return np.asarray(share, dtype=np.float64)


def _most_repeated(drawn: Drawn, strata: _Strata, n_draws: int) -> dict[str, Any]:
    top = strata.found.most_repeated
    row = int(strata.first[top])
    query = (
        f'SELECT e.sample_id, g.name FROM "{drawn.view}" e JOIN drawn d USING ("row") '
        'JOIN groups g USING (gid) WHERE e."row" = ?'
    )
    sample, group = drawn.connection.execute(query, [row]).fetchone() or (None, None)
    expected = float(strata.found.probability[top] * n_draws)
    return {"sample_id": sample, "group": group, "expected_draws": expected}


def _expected(
    drawn: Drawn, strata: _Strata, query: str, size: int, n_draws: int
) -> tuple[IntArray, FloatArray]:
    """Return events and expected draws of each of `size` things that a query counts by stratum."""
    thing, gcode, kcode, count = drawn.numbers(f"{query} GROUP BY ALL ORDER BY ALL")
    draws = count * strata.probability(gcode, kcode) * n_draws
    events = np.bincount(thing, weights=count, minlength=size)
    expected = np.bincount(thing, weights=draws, minlength=size)
    return events.astype(np.int64), np.asarray(expected, dtype=np.float64)


def _per_class(drawn: Drawn, strata: _Strata, n_draws: int) -> dict[str, dict[str, float | int]]:
    """Events and expected draws of each class; an event with two labels counts for both."""
    query = "SELECT cid, gcode, kcode, sum(n)::BIGINT FROM tally JOIN kind_class USING (kid)"
    events, draws = _expected(drawn, strata, query, len(drawn.classes), n_draws)
    return {
        name: {
            "events": count,
            "expected_draws": expected,
            "expected_draws_unweighted": count / drawn.n_events * n_draws,
        }
        for name, count, expected in zip(
            drawn.classes, events.tolist(), draws.tolist(), strict=True
        )
        if count
    }


def _per_technique(drawn: Drawn, strata: _Strata, n_draws: int) -> dict[str, float]:
    query = "SELECT tid, gcode, kcode, sum(n)::BIGINT FROM tally JOIN kind_technique USING (kid)"
    _, draws = _expected(drawn, strata, query, len(drawn.techniques), n_draws)
    return dict(zip(drawn.techniques, draws.tolist(), strict=True))


def _table(drawn: Drawn, strata: _Strata, n_draws: int) -> list[dict[str, Any]]:
    """Expected draws of each class x source x dynamics, most first."""
    drawn.connection.execute(
        "CREATE OR REPLACE TEMP TABLE cells AS SELECT cid, source, dynamics, "
        "(row_number() OVER (ORDER BY cid, source, dynamics) - 1)::INTEGER AS cell FROM "
        "(SELECT DISTINCT cid, source, dynamics FROM kind_hit JOIN kinds USING (kid))"
    )
    cells = drawn.connection.execute(
        "SELECT cid, source, dynamics FROM cells ORDER BY cell"
    ).fetchall()
    query = (
        "SELECT cell, gcode, kcode, sum(n)::BIGINT FROM tally JOIN kinds USING (kid) "
        "JOIN kind_hit USING (kid) JOIN cells USING (cid, source, dynamics)"
    )
    events, draws = _expected(drawn, strata, query, len(cells), n_draws)
    rows = [
        {
            "class": drawn.classes[cid],
            "source": source,
            "dynamics": dynamics,
            "events": count,
            "expected_draws": expected,
        }
        for (cid, source, dynamics), count, expected in zip(
            cells, events.tolist(), draws.tolist(), strict=True
        )
    ]
    # Equal cells may differ in the last bit; they stand in the order of their names all the same.
    return sorted(
        rows,
        key=lambda row: (
            -float(f"{row['expected_draws']:.12e}"),
            row["class"],
            row["source"],
            row["dynamics"],
        ),
    )
