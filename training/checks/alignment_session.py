"""Sessions for the alignment check: manifests, folders and NAME=PATH arguments made one form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from training.errors import DrumgateError, InputError, Problem
from training.gates import nearest
from training.manifest import InputFile, describe_file, read_json, resolve_inside
from training.metrics.alignment import SPEED_OF_SOUND_M_PER_S

AUDIO_SUFFIXES: Final = frozenset(
    {".wav", ".flac", ".aif", ".aiff", ".ogg", ".mp3", ".w64", ".caf"}
)
FARTHEST_M: Final = 100.0
LARGEST_DELAY_MS: Final = 1000.0 * FARTHEST_M / SPEED_OF_SOUND_M_PER_S

Name = Annotated[str, Meta(min_length=1, max_length=200)]


class MicEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One microphone of a session manifest.

    `path` is relative to the manifest's folder. At most one of `expected_delay_ms`, how much later
    than the anchor it hears the anchor's drum, and `distance_m`, how much longer the way is, is
    given.
    """

    name: Name
    path: Name
    expected_delay_ms: float | None = None
    distance_m: float | None = None


class SessionManifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session manifest: which recordings were made together, and which mic the others follow."""

    session_id: Name
    anchor_mic: Name
    mics: Annotated[tuple[MicEntry, ...], Meta(min_length=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mic:
    """One microphone: its file, and its delay behind the anchor (`declared` or taken as 0)."""

    name: str
    path: Path
    expected_delay_ms: float
    declared: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Microphones recorded together; `source` is the manifest, where there is one."""

    session_id: str
    anchor: Mic
    targets: tuple[Mic, ...]
    source: InputFile | None
    warnings: tuple[str, ...] = ()


def read_manifest(path: Path, anchor_mic: str | None = None) -> Session:
    """Read a session manifest; `anchor_mic` takes the place of the one that it names.

    The delays of the other mics are then those declared less that of the new anchor.

    Raises:
        InputError: the manifest is missing or malformed, a name stands twice, the anchor is not
            among the mics, a path leads outside the manifest's folder, or a mic has no audio file.
    """
    manifest = read_json(path, SessionManifest)
    problems = _problems(path, manifest)
    mics = []
    for index, entry in enumerate(manifest.mics):
        field = f"mics[{index}].path"
        try:
            found = resolve_inside(path.parent, entry.path, source=path, field=field)
        except InputError as error:
            problems.extend(error.problems)
            continue
        if not found.is_file():
            problems.append(Problem(str(path), "no such audio file", None, field, entry.path))
        delay = entry.expected_delay_ms
        if delay is None and entry.distance_m is not None:
            delay = 1000.0 * entry.distance_m / SPEED_OF_SOUND_M_PER_S
        # The path is kept as the user would write it, so that reports are the same anywhere.
        mics.append(
            Mic(
                name=entry.name,
                path=path.parent / entry.path,
                expected_delay_ms=delay or 0.0,
                declared=delay is not None,
            )
        )
    if problems:
        raise InputError(problems)
    session = _session(manifest.session_id, mics, manifest.anchor_mic, describe_file(path))
    if anchor_mic is None or anchor_mic == manifest.anchor_mic:
        return session
    return _with_anchor(session, anchor_mic, path)


def read_folder(folder: Path, anchor_mic: str | None) -> Session:
    """Take every audio file of a folder as a mic, named by its stem.

    Raises:
        InputError: there is no such folder, it holds fewer than two audio files or two of one name.
        DrumgateError: no anchor was named, or none of these.
    """
    if not folder.is_dir():
        raise InputError.at(folder, "no such folder")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in AUDIO_SUFFIXES)
    if len(files) < 2:
        raise InputError.at(folder, f"needs at least two audio files, holds {len(files)}")
    if anchor_mic is None:
        names = ", ".join(file.stem for file in files)
        raise DrumgateError(f"--session-dir {folder}: say which mic is the --anchor-mic: {names}")
    name = folder.resolve().name
    return _from_files(name, [(file.stem, file) for file in files], anchor_mic, str(folder))


def read_pairs(pairs: Sequence[tuple[str, Path]], anchor_mic: str | None) -> Session:
    """Take NAME=PATH arguments as the mics of one session; the first is the anchor by default.

    Raises:
        DrumgateError: there are fewer than two, a name stands twice, or the anchor is none of them.
        InputError: a file is missing.
    """
    if len(pairs) < 2:
        raise DrumgateError("NAME=PATH: at least two mics are needed")
    return _from_files("command_line", pairs, anchor_mic or pairs[0][0], "NAME=PATH")


def _problems(path: Path, manifest: SessionManifest) -> list[Problem]:
    problems = []

    def wrong(field: str, why: str, got: object) -> None:
        problems.append(Problem(str(path), why, None, field, got))

    names = [mic.name for mic in manifest.mics]
    if len(names) < 2:
        wrong("mics", "at least two mics are needed", names)
    for index, mic in enumerate(manifest.mics):
        at = f"mics[{index}]"
        if mic.name in names[:index]:
            wrong(f"{at}.name", f"stands already in mics[{names.index(mic.name)}]", mic.name)
        if mic.expected_delay_ms is not None and mic.distance_m is not None:
            wrong(f"{at}.distance_m", "give this or expected_delay_ms, not both", mic.distance_m)
        for field, limit in (("expected_delay_ms", LARGEST_DELAY_MS), ("distance_m", FARTHEST_M)):
            value = getattr(mic, field)
            if value is None:
                continue
            if not math.isfinite(value) or abs(value) > limit:
                wrong(f"{at}.{field}", f"must lie within ±{limit:.4g}", value)
            elif mic.name == manifest.anchor_mic and value != 0.0:
                wrong(f"{at}.{field}", "must be 0 or left out for the anchor mic itself", value)
    if manifest.anchor_mic not in names:
        hint = nearest(manifest.anchor_mic, names)
        wrong("anchor_mic", f"is none of the mics{hint}", manifest.anchor_mic)
    return problems


def _session(
    session_id: str, mics: Sequence[Mic], anchor: str, source: InputFile | None
) -> Session:
    return Session(
        session_id=session_id,
        anchor=next(mic for mic in mics if mic.name == anchor),
        targets=tuple(mic for mic in mics if mic.name != anchor),
        source=source,
    )


def _with_anchor(session: Session, name: str, path: Path) -> Session:
    mics = (session.anchor, *session.targets)
    _require_anchor(name, [mic.name for mic in mics], str(path))
    new = next(mic for mic in mics if mic.name == name)
    moved = [
        Mic(
            name=mic.name,
            path=mic.path,
            expected_delay_ms=mic.expected_delay_ms - new.expected_delay_ms,
            declared=mic.declared or mic is session.anchor,
        )
        for mic in mics
    ]
    changed = _session(session.session_id, moved, name, session.source)
    warning = (
        f"{session.session_id}: delays were declared behind {session.anchor.name} and are taken "
        f"less that of {name}, which holds for the drum of {session.anchor.name} only"
    )
    return Session(
        session_id=changed.session_id,
        anchor=changed.anchor,
        targets=changed.targets,
        source=changed.source,
        warnings=(warning,),
    )


def _from_files(
    session_id: str, files: Sequence[tuple[str, Path]], anchor: str, what: str
) -> Session:
    names = [name for name, _ in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DrumgateError(f"{what}: two mics are named {twice!r}")
    _require_anchor(anchor, names, what)
    missing = [Problem(str(path), "no such file") for _, path in files if not path.is_file()]
    if missing:
        raise InputError(missing)
    mics = [
        Mic(name=name, path=path, expected_delay_ms=0.0, declared=False) for name, path in files
    ]
    return _session(session_id, mics, anchor, None)


def _require_anchor(anchor: str, names: Sequence[str], what: str) -> None:
    if anchor not in names:
        hint = nearest(anchor, names)
        raise DrumgateError(f"{what}: --anchor-mic {anchor!r} is none of the mics{hint}")
