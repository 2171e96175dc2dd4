"""Reading the artefact of `derive-sampling-weights` as the weights of single events.

An event is drawn in proportion to the weight of its group times the largest class factor among its
labels (no factors: 1). Events that the artefact's technique filters or its `dedupe_key` leave out
get weight 0.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from training.dataset.drawn import Choice, Drawn, GroupField, choose_events
from training.errors import InputError
from training.manifest import Event, read_json
from training.manifest.engine import Engine, open_engine
from training.manifest.scan import Scan, scan_events

FloatArray = NDArray[np.float64]

_Weight = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
_SHOWN: Final = 5


class _Input(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    sha256: str


class _Group(msgspec.Struct, frozen=True, kw_only=True):
    count: Annotated[int, Meta(ge=1)]
    weight: _Weight


class _Factor(msgspec.Struct, frozen=True, kw_only=True):
    factor: _Weight


class _Parameters(msgspec.Struct, frozen=True, kw_only=True):
    scheme: str = "inverse_count"
    group_field: GroupField
    dedupe_key: tuple[str, ...]
    include_technique: tuple[str, ...] = ()
    exclude_technique: tuple[str, ...] = ()


class SamplingWeights(msgspec.Struct, frozen=True, kw_only=True):
    """What a trainer needs of the artefact; the preview and the rest are not looked at."""

    schema_version: Literal[1]
    tool: Literal["derive-sampling-weights"]
    parameters: _Parameters
    inputs: tuple[_Input, ...]
    weights: dict[str, _Group]
    class_factors: dict[str, _Factor] = {}


def read_sampling_weights(path: Path) -> SamplingWeights:
    """Read an artefact.

    Raises:
        InputError: the file is missing or is none.
    """
    found = read_json(path, SamplingWeights)
    for name in found.parameters.dedupe_key:
        if name not in Event.__struct_fields__:
            field = "parameters.dedupe_key"
            raise InputError.at(path, "names no field of an event", field=field, got=name)
    return found


def split_weights(
    path: Path, manifest: Path, *, hashes: Collection[str], memory_limit: str | None = None
) -> FloatArray:
    """Return the weight of each event of a store's split, in its order [shape=(n_events,)].

    Args:
        path: the artefact.
        manifest: the split's manifest, `splits/NAME.jsonl` of the store.
        hashes: SHA-256 of the manifests that the artefact may have been made from: the store's
            input, or the split's manifest itself.
        memory_limit: see `training.manifest.engine.open_engine`.

    Raises:
        InputError: the file is no such artefact, is of another manifest, knows nothing of a group
            or class of the split, or lets no event of it be drawn.
    """
    artefact = read_sampling_weights(path)
    made_from = [item.sha256 for item in artefact.inputs]
    if not set(made_from) & set(hashes):
        why = "was made from another manifest than the dataset: derive the weights again"
        raise InputError.at(path, why, field="inputs")
    with open_engine(memory_limit) as engine:
        scan = scan_events(engine, [manifest])
        return event_weights(artefact, engine, scan, path=path)


def event_weights(
    artefact: SamplingWeights, engine: Engine, scan: Scan, *, path: Path
) -> FloatArray:
    """Return the weight of each event of a manifest, in its order [shape=(n_events,)].

    `path` is the artefact's, for messages.

    Raises:
        InputError: an event has a group or class that the artefact does not know, or none can be
            drawn.
    """
    chosen = artefact.parameters
    drawn = choose_events(
        engine.connection,
        scan,
        Choice(
            group_field=chosen.group_field,
            dedupe_key=chosen.dedupe_key,
            include_technique=chosen.include_technique,
            exclude_technique=chosen.exclude_technique,
        ),
    )
    _require(path, "weights", drawn.groups, artefact.weights)
    of_group = np.array([artefact.weights[name].weight for name in drawn.groups])
    row, group, kind = drawn.rows()
    weights = np.zeros(scan.rows)
    weights[row] = of_group[group]
    if artefact.parameters.scheme != "inverse_count":
        weights[row] *= _kind_factors(path, artefact, drawn, of_group)[kind]
    if not weights.any():
        raise InputError.at(path, f"lets no event of {scan.sources[0].path} be drawn")
    return weights


def _kind_factors(
    path: Path, artefact: SamplingWeights, drawn: Drawn, of_group: FloatArray
) -> FloatArray:
    """Return the largest class factor of each kind [shape=(n_kinds,)].

    A class that only groups of weight 0 hold need not have one.
    """
    held = drawn.class_counts(of_group > 0) > 0
    names = [name for name, is_held in zip(drawn.classes, held, strict=True) if is_held]
    _require(path, "class_factors", names, artefact.class_factors)
    absent = _Factor(factor=0.0)
    factor = np.array([artefact.class_factors.get(n, absent).factor for n in drawn.classes])
    return drawn.largest_of_kind(factor)


def _require(path: Path, field: str, names: list[str], known: Collection[str]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        why = f"has nothing for {len(missing)} of {len(names)} in the dataset{more}"
        raise InputError.at(path, why, field=field, got=missing[:_SHOWN])
