"""Drummers: how each one places, strikes and chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

# (low, high) of each habit; see `Drummer` for what they mean.
_HABITS: Final[dict[str, tuple[float, float]]] = {
    "tempo_bpm": (94.0, 152.0),
    "swing": (0.50, 0.60),
    "jitter_ms": (2.0, 6.5),
    "limb_jitter_ms": (0.8, 2.4),
    "snare_bias_ms": (-4.0, 6.0),
    "cymbal_bias_ms": (-4.0, 3.0),
    "strength": (0.86, 1.06),
    "spread": (0.03, 0.09),
    "ghosts": (0.15, 0.70),
    "fills": (0.25, 0.55),
    "ornaments": (0.06, 0.20),
    "barks": (0.15, 0.45),
    "hat_shut": (0.04, 0.14),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Drummer:
    """One drummer's feel.

    `tempo_bpm` is the tempo that comes naturally; `swing` the place of the off-beat within a pair
    (0.5 straight, 0.67 triplet); `jitter_ms` the slow wander around the grid, `limb_jitter_ms` how
    far hands and feet land apart; the biases push (negative) or lay back snare and cymbals;
    `strength` scales velocities and `spread` is their standard deviation; `ghosts`, `ornaments`
    (flams and drags) and `barks` are probabilities where one would fit; `fills` is how much of a
    bar a fill takes; `hat_shut` is how open a closed hi-hat usually is. `leaning` weighs the
    variants of each pattern.
    """

    drummer_id: str
    seed: int
    tempo_bpm: float
    swing: float
    jitter_ms: float
    limb_jitter_ms: float
    snare_bias_ms: float
    cymbal_bias_ms: float
    strength: float
    spread: float
    ghosts: float
    fills: float
    ornaments: float
    barks: float
    hat_shut: float
    leaning: tuple[float, ...]


def make_drummers(count: int, seed: int) -> tuple[Drummer, ...]:
    """Draw `count` drummers, every habit stratified over its range as kits are."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x6472]))
    columns = {
        name: low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
        for name, (low, high) in _HABITS.items()
    }
    return tuple(
        Drummer(
            drummer_id=f"drummer_{index + 1:02d}",
            seed=int(rng.integers(1, 2**31)),
            leaning=tuple(float(w) for w in rng.dirichlet(np.full(4, 2.0))),
            **{name: float(column[index]) for name, column in columns.items()},
        )
        for index in range(count)
    )
