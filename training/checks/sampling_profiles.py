"""Named sets of sampling parameters, and how flags are laid over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from training.dataset.drawn import GroupField
from training.errors import DrumgateError
from training.gates.config import nearest
from training.manifest import Event, read_json
from training.metrics.sampling import Scheme, Weighting
from training.resources import config_path

ONLY_WITH: Final[Mapping[str, str]] = {
    "exponent": "inverse_count",
    "smoothing": "inverse_count",
    "max_events_per_group": "inverse_count",
    "repeat_threshold": "repeat_factor",
    "beta": "effective_number",
}
"""Parameters that mean something to one scheme only."""

_BOUNDS: Final = {"min_weight": 0.05, "max_weight": 0.5}


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named set of parameters in `configs/sampling_profiles.json`.

    `min_weight` and `max_weight` are 0.05 and 0.5 by default where groups are weighed, and null,
    that is unbounded, where classes are.
    """

    description: str
    scheme: Scheme = "inverse_count"
    group_field: GroupField = "session_id"
    dedupe_key: tuple[str, ...] = ("session_id", "onset_time", "components")
    exponent: Annotated[float, Meta(ge=0)] = 0.5
    smoothing: Annotated[float, Meta(ge=0)] = 1.0
    min_weight: Annotated[float, Meta(gt=0)] | UnsetType | None = UNSET
    max_weight: Annotated[float, Meta(gt=0)] | UnsetType | None = UNSET
    max_events_per_group: Annotated[int, Meta(ge=1)] = 512
    min_count: Annotated[int, Meta(ge=1)] = 1
    technique_boost: dict[str, float] = {}
    include_technique: tuple[str, ...] = ()
    exclude_technique: tuple[str, ...] = ()
    repeat_threshold: Annotated[float, Meta(gt=0, le=1)] = 0.05
    beta: Annotated[float, Meta(ge=0, lt=1)] = 0.9999

    def __post_init__(self) -> None:
        for name, bound in _BOUNDS.items():
            if getattr(self, name) is UNSET:
                value = bound if self.scheme == "inverse_count" else None
                msgspec.structs.force_setattr(self, name, value)

    def parameters(self) -> dict[str, Any]:
        """Return everything but the description, as plain values."""
        values = msgspec.structs.asdict(self)
        del values["description"]
        return values


class _Profiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema_version: Literal[1]
    profiles: dict[str, Profile]


def load_profiles(path: Path | None = None) -> dict[str, Profile]:
    """Read sampling profiles; by default the shipped `configs/sampling_profiles.json`.

    Raises:
        InputError: the file is not such a collection.
    """
    return read_json(path or config_path("sampling_profiles.json"), _Profiles).profiles


def choose_parameters(
    name: str | None, profiles_path: Path | None, given: Mapping[str, Any]
) -> Profile:
    """Lay parameters over a profile (or the defaults); None and empty ones change nothing.

    Bounds belong to their scheme: another scheme than the profile's does not take them over.

    Raises:
        DrumgateError: there is no such profile, a field of `dedupe_key` is unknown, or a given
            parameter means nothing to the scheme.
        InputError: the profiles file is missing or malformed.
    """
    base = Profile(description="") if name is None else _profile(name, profiles_path)
    changes = {key: value for key, value in given.items() if value is not None and value != {}}
    for key in ("include_technique", "exclude_technique"):
        if changes.get(key) == ():
            del changes[key]
    if changes.get("scheme", base.scheme) != base.scheme:
        changes = {"min_weight": UNSET, "max_weight": UNSET} | changes
    chosen = msgspec.structs.replace(base, **changes)
    for key, scheme in ONLY_WITH.items():
        if key in changes and chosen.scheme != scheme:
            flag = key.replace("_", "-")
            raise DrumgateError(
                f"--{flag}: means nothing to the scheme {chosen.scheme}, only to {scheme}"
            )
    known = Event.__struct_fields__
    for name in chosen.dedupe_key:
        if name not in known:
            raise DrumgateError(
                f"--dedupe-key {name}: is no field of an event{nearest(name, known)}"
            )
    return chosen


def weighting_of(chosen: Profile) -> Weighting:
    """Return the profile as what the measurement takes.

    Raises:
        DrumgateError: the parameters make no sense together.
    """
    names = set(Weighting.__slots__) & set(chosen.__struct_fields__)
    try:
        return Weighting(**{name: getattr(chosen, name) for name in names})
    except ValueError as error:
        raise DrumgateError(str(error)) from None


def _profile(name: str, path: Path | None) -> Profile:
    profiles = load_profiles(path)
    if name not in profiles:
        raise DrumgateError(
            f"--profile {name}: there is no such profile{nearest(name, profiles)} "
            f"(there are: {', '.join(profiles)})"
        )
    return profiles[name]
