"""Drum kits: the numbers that make one kit sound unlike another.

A kit is drawn from ranges that real kits cover (drum sizes, tunings, muffling, cymbal weights).
The parameters of a set of kits are stratified: over K kits every parameter visits K equal parts of
its range once, in an order of its own.  So kits differ in every respect at once, and a kit that is
kept for testing has a tuning that no training kit has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

# (low, high) of every parameter. Tom pitches do not overlap: what makes a tom high, mid or low on
# a three-tom kit is its pitch (10", 12" and 14-16" drums in common tunings).
RANGES: Final[dict[str, tuple[float, float]]] = {
    "kick_f0_hz": (46.0, 64.0),
    "kick_t60_s": (0.20, 0.48),
    "kick_glide": (0.25, 0.80),
    "kick_click_db": (-14.0, -4.0),
    "kick_click_hz": (2000.0, 4600.0),
    "snare_f0_hz": (165.0, 245.0),
    "snare_t60_s": (0.10, 0.26),
    "snare_ring_db": (-34.0, -20.0),
    "snare_ring_hz": (620.0, 1250.0),
    "wire_db": (-6.0, 2.0),
    "wire_t60_s": (0.13, 0.30),
    "wire_tilt_db": (-4.5, -0.5),
    "stick_f0_hz": (430.0, 640.0),
    "stick_t60_s": (0.030, 0.060),
    "tom_high_f0_hz": (164.0, 205.0),
    "tom_mid_f0_hz": (112.0, 142.0),
    "tom_low_f0_hz": (70.0, 96.0),
    "tom_t60_s": (0.45, 1.05),
    "tom_glide": (0.03, 0.14),
    "tom_attack_db": (-20.0, -10.0),
    "hat_size": (0.85, 1.20),
    "hat_bright_db": (-4.0, 4.0),
    "hat_closed_t60_s": (0.055, 0.11),
    "hat_open_t60_s": (0.9, 1.7),
    "ride_size": (0.85, 1.18),
    "ride_bright_db": (-3.5, 3.5),
    "ride_wash_db": (-16.0, -8.0),
    "ride_t60_s": (1.8, 3.2),
    "bell_f0_hz": (560.0, 860.0),
    "crash_size": (0.85, 1.20),
    "crash_bright_db": (-4.0, 4.0),
    "crash_t60_s": (1.5, 2.8),
    "stick_tip_hz": (3200.0, 6200.0),
}
# The third crash-class cymbal of a kit, by kit in turn.
EFFECTS: Final = ("splash", "china")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kit:
    """One drum kit.

    `parameters` holds a value for every key of `RANGES`; `effect` says whether its third
    crash-class cymbal is a splash or a china; `seed` fixes everything that parameters leave open
    (which cymbal modes, the grain of the noise, where exactly the stands are).
    """

    kit_id: str
    seed: int
    effect: str
    parameters: dict[str, float]

    def __hash__(self) -> int:
        return hash((self.kit_id, self.seed))

    def __getitem__(self, name: str) -> float:
        return self.parameters[name]


def make_kits(count: int, seed: int, *, spread: float = 1.0) -> tuple[Kit, ...]:
    """Draw `count` kits that differ from each other in every parameter.

    `spread` widens (above 1) every range about its middle; up to 1.4 all values stay above 0 where
    they must, and the toms of any two kits in order.  The first kits of a longer list are not
    those of a shorter one: the strata depend on `count`.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x6B69]))
    columns = {
        name: low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
        for name, (low, high) in _widened(spread).items()
    }
    seeds = rng.integers(1, 2**31, size=count)
    first = int(rng.integers(len(EFFECTS)))
    return tuple(
        Kit(
            kit_id=f"kit_{index + 1:02d}",
            seed=int(seeds[index]),
            effect=EFFECTS[(first + index) % len(EFFECTS)],
            parameters={name: float(column[index]) for name, column in columns.items()},
        )
        for index in range(count)
    )


def _widened(spread: float) -> dict[str, tuple[float, float]]:
    if spread == 1.0:
        return RANGES
    more = {name: 0.5 * (spread - 1.0) * (high - low) for name, (low, high) in RANGES.items()}
    return {name: (low - more[name], high + more[name]) for name, (low, high) in RANGES.items()}
