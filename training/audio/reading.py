"""Read audio files into arrays, and say plainly what is wrong with a file that cannot be read.

Every tool reads audio through this module, so that a damaged file gives one message everywhere.
Files are decoded by libsndfile (through soundfile) and resampled by libsoxr; both are imported
when first needed, so importing this module costs nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from training.errors import InputError

if TYPE_CHECKING:
    import soundfile

__all__ = ["AudioInfo", "audio_info", "read_audio", "resample"]

FloatArray = npt.NDArray[np.floating[Any]]

# Writers that do not know the length when they start (a pipe) leave one of these in the header.
_STREAMING_SIZES = frozenset({0, 0x7FFFFFFF, 0x7FFFFFFE, 0xFFFFFFFF, 0xFFFFFFFE})
_SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND)\s*:\s*(\d+)\s*\(should be\s*(\d+)\)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioInfo:
    """What a file's header says, without its audio having been decoded.

    `sample_rate` in Hz; `frames` is the number of samples in each of the `channels`; `duration_s`
    is ``frames / sample_rate``; `subtype` says how samples are stored, in libsndfile's words
    (``PCM_16``, ``FLOAT``, ``VORBIS``…).
    """

    sample_rate: int
    channels: int
    frames: int
    duration_s: float
    subtype: str


def audio_info(path: Path | str) -> AudioInfo:
    """Read the header of an audio file.

    Raises InputError when the file is missing, empty, not audio, cut short, or holds no frames.
    """
    path = Path(path)
    _require_file(path)
    with _open(path) as sound:
        _require_whole(path, sound)
        return AudioInfo(
            sample_rate=int(sound.samplerate),
            channels=int(sound.channels),
            frames=int(sound.frames),
            duration_s=sound.frames / sound.samplerate,
            subtype=str(sound.subtype),
        )


def read_audio(
    path: Path | str,
    *,
    sample_rate: int | None = None,
    mono: bool = False,
    start_s: float = 0.0,
    duration_s: float | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> tuple[FloatArray, int]:
    """Decode an audio file, or a stretch of it, into floating point in about [-1, 1].

    Any format that libsndfile reads will do (WAV, FLAC, AIFF, OGG, MP3…). `sample_rate` is the
    wanted rate in Hz: the audio is resampled (soxr HQ) when the file's differs; ``None`` keeps the
    file's. `mono` averages the channels into one. `start_s` and `duration_s` choose a stretch, in
    seconds from the start of the file; one that runs past the end is returned as far as it goes,
    and a duration of ``None`` reads to the end. `dtype` is ``float32`` or ``float64``.

    Returns the samples, of shape (channels, n), or (n,) when `mono`, and their rate in Hz.

    Raises InputError when the file is missing, empty, not audio, cut short, holds no frames or a
    sample that is not finite, or ends before `start_s`; ValueError when an argument makes no sense.
    """
    path = Path(path)
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, got {kind}")
    if sample_rate is not None and sample_rate <= 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate}")
    if not (np.isfinite(start_s) and start_s >= 0.0):
        raise ValueError(f"start_s must be finite and >= 0, got {start_s}")
    if duration_s is not None and not (np.isfinite(duration_s) and duration_s > 0.0):
        raise ValueError(f"duration_s must be finite and > 0, got {duration_s}")

    _require_file(path)
    with _open(path) as sound:
        _require_whole(path, sound)
        file_rate = int(sound.samplerate)
        frames = int(sound.frames)
        first = round(start_s * file_rate)
        if first >= frames:
            why = f"ends at {frames / file_rate:.3f} s, before the wanted start at {start_s:.3f} s"
            raise InputError.at(path, why)
        wanted = frames - first
        if duration_s is not None:
            wanted = min(wanted, max(1, round(duration_s * file_rate)))
        samples = _decode(path, sound, first=first, wanted=wanted, dtype=kind, mono=mono)

    if sample_rate is not None and sample_rate != file_rate:
        return resample(samples, file_rate, sample_rate), sample_rate
    return samples, file_rate


def resample(samples: FloatArray, rate: int, new_rate: int) -> FloatArray:
    """Change the sampling rate along the last axis (soxr HQ: linear phase, no added delay).

    `samples` has shape (n,) or (channels, n) and keeps its dtype; the result has about
    ``n * new_rate / rate`` samples.
    """
    if rate == new_rate:
        return samples
    import soxr

    moved = soxr.resample(np.ascontiguousarray(samples.T), rate, new_rate, quality="HQ")
    result: FloatArray = np.ascontiguousarray(moved.T)
    return result


def _require_file(path: Path) -> None:
    if not path.exists():
        raise InputError.at(path, "no such file")
    if not path.is_file():
        raise InputError.at(path, "not a file")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError.at(path, f"cannot be read ({error.strerror})") from error
    if size == 0:
        raise InputError.at(path, "is empty (0 bytes)")


def _open(path: Path) -> soundfile.SoundFile:
    import soundfile

    try:
        return soundfile.SoundFile(str(path))
    except soundfile.LibsndfileError as error:
        raise InputError.at(path, f"not readable audio ({_reason(error)})") from error
    except (TypeError, OSError) as error:  # TypeError: a headerless .raw file
        raise InputError.at(path, f"not readable audio ({error})") from error


def _require_whole(path: Path, sound: soundfile.SoundFile) -> None:
    """Refuse a file without frames, or whose header promises more audio than the file holds.

    libsndfile quietly shortens such a file; its log keeps what the header had promised.
    """
    if sound.frames <= 0:
        raise InputError.at(path, "holds no audio (0 frames)")
    short = _SHORT_CHUNK.search(sound.extra_info)
    if short is None:
        return
    declared, present = int(short[1]), int(short[2])
    if declared > present and declared not in _STREAMING_SIZES:
        why = f"is truncated (its header promises {declared} bytes of audio, {present} are there)"
        raise InputError.at(path, why)


def _decode(
    path: Path,
    sound: soundfile.SoundFile,
    *,
    first: int,
    wanted: int,
    dtype: np.dtype[Any],
    mono: bool,
) -> FloatArray:
    import soundfile

    try:
        if first:
            sound.seek(first)
        frames: FloatArray = sound.read(wanted, dtype=dtype.name, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError.at(path, f"cannot be decoded ({_reason(error)})") from error
    if len(frames) < wanted:
        got = first + len(frames)
        why = f"is truncated (its header promises {sound.frames} frames, decoding ends at {got})"
        raise InputError.at(path, why)
    # One NaN or infinity makes the sum not finite, and the sum needs no array of flags.
    with np.errstate(invalid="ignore"):
        total = np.sum(frames, dtype=np.float64)
    if not np.isfinite(total):
        where = int(np.argmin(np.isfinite(frames).all(axis=1)))
        bad = frames[where][~np.isfinite(frames[where])][0]
        seconds = (first + where) / sound.samplerate
        raise InputError.at(path, f"holds a sample that is not finite ({bad} at {seconds:.6f} s)")
    if mono:
        if frames.shape[1] == 1:
            return np.ascontiguousarray(frames[:, 0])
        mixed: FloatArray = frames.mean(axis=1, dtype=dtype)
        return mixed
    return np.ascontiguousarray(frames.T)


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).strip().rstrip(".")
