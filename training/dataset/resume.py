"""Going on with a store: what stands in its place already, and putting what is new there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.dataset import store as layout
from training.dataset.build import STORE, hash_file
from training.dataset.divide import SPLITS
from training.dataset.select import Selection, Track
from training.errors import InputError
from training.manifest import read_json
from training.manifest.folder import swap_folders

_WHERE_ONLY: Final = ("audio_root", "audio_root_map")
"""Parameters that say where recordings lie; what they hold is told by their hashes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What stands in the place of a store that is asked for.

    Attributes:
        metadata: those of a store that was made from the same; None where there is none.
        damaged: its files that are missing or not what was written, sorted.
    """

    metadata: dict[str, Any] | None
    damaged: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether there is nothing left to do."""
        return self.metadata is not None and not self.damaged


def made_from(
    inputs: Mapping[str, Any], parameters: Mapping[str, Any], selection: Selection
) -> dict[str, Any]:
    """Return what decides the content of a store, in the form in which its metadata keep it."""
    return {
        "events": inputs["events"]["sha256"],
        "components": inputs["components"]["sha256"],
        "recordings": sorted([each.audio_path, each.sha256] for each in selection.recordings),
        **{key: value for key, value in parameters.items() if key not in _WHERE_ONLY},
    }


def standing_store(
    target: Path, wanted: Mapping[str, Any], *, force: bool, track: Track
) -> Standing:
    """Look at what stands where a store is to be, and hash it if it is made from what is wanted.

    A folder with nothing but files of a store, its metadata lost, counts as nothing.

    Raises:
        InputError: the place is taken by something else, or, unless `force`, by a store that was
            made from something else.
    """
    if target.is_dir() and not target.is_symlink() and _only_a_store(target):
        metadata = _metadata(target)
        if metadata is None:
            return Standing(metadata=None)
    else:
        STORE.require_replaceable(target, force=True)
        metadata = _metadata(target)
        if metadata is None:
            return Standing(metadata=None)
    was = _was_made_from(metadata)
    differing = sorted(key for key in wanted if key not in was or was[key] != wanted[key])
    if differing:
        if not force:
            why = (
                f"holds a store that was made from something else ({', '.join(differing)}); "
                "--force replaces it, and keeps what is decoded"
            )
            raise InputError.at(target, why)
        return Standing(metadata=None)
    outputs = metadata["outputs"]
    names = track(sorted(outputs), "hashing the store")
    damaged = tuple(name for name in names if _hash(target / name) != outputs[name].get("sha256"))
    return Standing(metadata=metadata, damaged=damaged)


def put_in_place(work: Path, target: Path, metadata: Mapping[str, Any], standing: Standing) -> None:
    """Give a finished store its place: only the damaged files of one that is the same but for them.

    Raises:
        InputError: nothing can be written there.
    """
    old = standing.metadata
    if old is None or old.get("content_sha256") != metadata["content_sha256"]:
        swap_folders(work, target)
        return
    for name in (*sorted(set(metadata["outputs"]) & set(standing.damaged)), layout.METADATA):
        (target / name).parent.mkdir(exist_ok=True)
        (work / name).replace(target / name)


def _only_a_store(folder: Path) -> bool:
    known = {layout.METADATA, layout.COMPONENTS}
    for split in SPLITS:
        known |= {layout.blob_name(split), layout.index_name(split), layout.manifest_name(split)}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return bool(files) and files <= known


def _metadata(folder: Path) -> dict[str, Any] | None:
    """Return the metadata of a store if they can be read and are of this format."""
    try:
        metadata = read_json(folder / layout.METADATA, dict[str, Any])
    except InputError:
        return None
    outputs = metadata.get("outputs")
    known = (
        metadata.get("format") == layout.FORMAT
        and metadata.get("format_version") == layout.FORMAT_VERSION
        and isinstance(outputs, dict)
        and all(isinstance(each, dict) for each in outputs.values())
    )
    return metadata if known else None


def _was_made_from(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what metadata say; what they do not say in the known form is left out."""
    try:
        return {
            **metadata["parameters"],
            "events": metadata["inputs"]["events"]["sha256"],
            "components": metadata["inputs"]["components"]["sha256"],
            "recordings": sorted(
                [each["audio_path"], each["sha256"]]
                for rows in metadata["recordings"].values()
                for each in rows
            ),
        }
    except (KeyError, TypeError, AttributeError):
        return {}


def _hash(path: Path) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None
