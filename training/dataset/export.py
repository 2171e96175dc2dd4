"""One WAV file a clip, for those who want files: cut out of a store, each class with its context.

The trainer does not read these files, and knows nothing of context windows a class: a window that
depends on what is in it tells the model the answer, and at the time of prediction nobody knows it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.dataset import store as layout
from training.dataset.select import Track
from training.dataset.store import ClipStore, StoreSplit
from training.errors import InputError
from training.manifest import Event, FolderKind, read_raw, write_jsonl
from training.resources import config_path
from training.taxonomy import ComponentTaxonomy, load_components

CLIPS: Final = "clips.jsonl"
EXPORT: Final = FolderKind("folder of clips", lambda folder: (folder / CLIPS).is_file())
LONGEST_MS: Final = 60_000.0


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much audio a clip holds before and after its onset, in ms; None: as the default."""

    pre_ms: float | None = None
    post_ms: float | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    default: Window
    labels: dict[str, Window] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextWindows:
    """Context around an onset by label, in ms: ``{label: (pre, post)}``, and for all others."""

    default: tuple[float, float]
    labels: Mapping[str, tuple[float, float]]

    def of(self, event: Event, taxonomy: ComponentTaxonomy) -> tuple[float, float]:
        """Return the context of an event: its own `context_ms`, else the longest of its labels'."""
        names = [taxonomy.canonical(component.label) for component in event.components]
        each = [self.labels.get(name or "", self.default) for name in names] or [self.default]
        pre, post = max(pre for pre, _ in each), max(post for _, post in each)
        own = event.context_ms
        if own is not None:
            pre = pre if own.pre is None else min(own.pre, LONGEST_MS)
            post = post if own.post is None else min(own.post, LONGEST_MS)
        return pre, post


def load_windows(path: Path | None, taxonomy: ComponentTaxonomy) -> ContextWindows:
    """Read context windows from TOML; by default the shipped `configs/clip_windows.toml`.

    Raises:
        InputError: the file is not such TOML, names a label that the taxonomy does not know or one
            twice, or a time is out of its range.
    """
    source = path or config_path("clip_windows.toml")
    try:
        read = msgspec.convert(tomllib.loads(source.read_text(encoding="utf-8")), _File)
    except OSError as error:
        raise InputError.at(source, f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError.at(source, f"not TOML ({error})") from None
    except msgspec.ValidationError as error:
        why, _, where = str(error).partition(" - at `$.")
        raise InputError.at(source, why, field=where.rstrip("`") or None) from None
    if read.default.pre_ms is None or read.default.post_ms is None:
        raise InputError.at(source, "must have pre_ms and post_ms", field="default")
    default = _checked(source, "default", read.default.pre_ms, read.default.post_ms)
    labels: dict[str, tuple[float, float]] = {}
    for name, window in read.labels.items():
        label, field = taxonomy.canonical(name), f"labels.{name}"
        if label is None:
            raise InputError.at(source, "is not in the taxonomy", field=field)
        if label in labels:
            raise InputError.at(source, f"names {label} a second time", field=field)
        pre = default[0] if window.pre_ms is None else window.pre_ms
        post = default[1] if window.post_ms is None else window.post_ms
        labels[label] = _checked(source, field, pre, post)
    return ContextWindows(default=default, labels=labels)


def export_wavs(
    store: ClipStore, target: Path, windows: ContextWindows, *, force: bool, track: Track
) -> dict[str, Any]:
    """Write each clip of a store as a 16-bit WAV, with a manifest of them all, ``clips.jsonl``.

    The manifest holds the events as they stand in the store, `audio_path`, `onset_time`,
    `offset_time`, `context_ms`, `sample_rate` and `channels` telling of the file. Past the ends of
    its recording a clip is silent. Returns how many clips, and how many bytes of audio.

    Raises:
        InputError: the folder may not be written; the store is damaged.
    """
    taxonomy = load_components(store.directory / layout.COMPONENTS)
    sizes: list[int] = []
    with EXPORT.writing(target, force=force) as folder:
        lines = _write_all(store, folder, windows, taxonomy, track, sizes)
        write_jsonl(folder / CLIPS, lines)
    return {"clips": len(sizes), "audio_bytes": sum(sizes)}


def _write_all(
    store: ClipStore,
    folder: Path,
    windows: ContextWindows,
    taxonomy: ComponentTaxonomy,
    track: Track,
    sizes: list[int],
) -> Iterable[dict[str, Any]]:
    import soundfile

    rate = store.sample_rate
    for name in store.split_names:
        split = store.split(name)
        rows = read_raw(store.directory / layout.manifest_name(name), Event).rows
        if [event.sample_id for event, _ in rows] != split.sample_ids:
            raise InputError.at(store.directory, f"the table of {name} is not of its manifest")
        (folder / name).mkdir()
        for row in track(range(len(rows)), f"writing the clips of {name}"):
            event, raw = rows[row]
            pre, post = (round(ms * rate / 1000.0) for ms in windows.of(event, taxonomy))
            clip = _cut(split, row, pre, max(post, 1))
            file = f"{name}/{row:06d}_{_plain(event.sample_id)}.wav"
            soundfile.write(folder / file, clip, rate, subtype="PCM_16")
            sizes.append(clip.nbytes)
            yield _moved(raw, event, file, rate, pre, len(clip) - pre)


def _cut(split: StoreSplit, row: int, pre: int, post: int) -> NDArray[np.int16]:
    """Return the samples around an onset, int16 ``(pre + post,)``, silent past its recording."""
    onset, start, stop = (
        int(column[row]) for column in (split.onset, split.segment_start, split.segment_stop)
    )
    clip = np.zeros(pre + post, dtype=np.int16)
    first, last = max(start, onset - pre), min(stop, onset + post)
    clip[first - (onset - pre) : last - (onset - pre)] = split.blob[first:last]
    return clip


def _moved(
    raw: Mapping[str, Any], event: Event, file: str, rate: int, pre: int, post: int
) -> dict[str, Any]:
    """Return the event as it lies in its clip."""
    moved = {
        **raw,
        "audio_path": file,
        "onset_time": pre / rate,
        "sample_rate": rate,
        "channels": 1,
        "context_ms": {"pre": 1000.0 * pre / rate, "post": 1000.0 * post / rate},
    }
    if event.offset_time is not None:
        moved["offset_time"] = pre / rate + max(0.0, event.offset_time - event.onset_time)
    return moved


def _plain(name: str) -> str:
    """Return a name that every file system takes; the row before it keeps files apart."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80].strip(".") or "clip"


def _checked(source: Path, field: str, pre: float, post: float) -> tuple[float, float]:
    if not (0 <= pre <= LONGEST_MS and 0 < post <= LONGEST_MS):
        why = f"needs 0 <= pre_ms and 0 < post_ms, both at most {LONGEST_MS:g}"
        raise InputError.at(source, why, field=field, got={"pre_ms": pre, "post_ms": post})
    return float(pre), float(post)
