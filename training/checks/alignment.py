"""The alignment check: read sessions, measure every mic against its anchor, judge the lags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.audio.reading import read_audio, resample
from training.checks.alignment_session import (
    Mic,
    Session,
    read_folder,
    read_manifest,
    read_pairs,
)
from training.errors import DrumgateError, InputError, Problem
from training.gates import (
    GatesSource,
    Interval,
    Measurement,
    Report,
    Verdict,
    judge,
    load_thresholds,
)
from training.gates.model import Threshold
from training.manifest import InputFile, describe_file
from training.metrics.alignment import (
    AlignmentConfig,
    AnchorWindows,
    PairLag,
    measure_prepared,
    prepare_anchor,
    rough_offset_ms,
)
from training.metrics.alignment_channel import ChannelState, inspect_channel
from training.metrics.alignment_types import FloatArray
from training.steps import steps

SERIES_POINTS: Final = 200
LENGTH_TOLERANCE_S: Final = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the alignment check reads and how it measures and judges.

    At least one session comes from `manifests`, `session_dirs` or `mics` (name and file of each mic
    of one session). Gate values of None are those of the gates file. `jobs` sessions are measured
    at the same time.
    """

    manifests: tuple[Path, ...] = ()
    session_dirs: tuple[Path, ...] = ()
    mics: tuple[tuple[str, Path], ...] = ()
    anchor_mic: str | None = None
    max_delay_ms: float | None = None
    max_drift_samples_per_min: float | None = None
    max_jump_ms: float | None = None
    min_support: int | None = None
    max_shift_ms: float = AlignmentConfig().max_shift_ms
    jobs: int = 2
    gates: GatesSource | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recording:
    """One mic's recording, mixed to one channel, with what was found out about it."""

    samples: FloatArray
    sample_rate: int
    channels: int
    duration_s: float
    state: ChannelState
    file: InputFile


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    session: Session
    lags: list[tuple[Mic, PairLag]]
    mics: list[dict[str, Any]]
    files: list[InputFile]
    warnings: list[str]


def run(options: Options) -> Report:
    """Measure and judge the lag, drift and jumps of every mic behind its session's anchor.

    Raises:
        InputError: a manifest or an audio file is missing, malformed or unreadable; all sessions
            are looked at first, and every fault is named.
        DrumgateError: no session was given, or an option is not a usable number.
    """
    thresholds = load_thresholds(
        "alignment",
        overlay=options.gates,
        overrides={
            name: getattr(options, name)
            for name in ("max_delay_ms", "max_drift_samples_per_min", "max_jump_ms", "min_support")
        },
    )
    config = _config(options, thresholds)
    sessions = _sessions(options)
    with ThreadPoolExecutor(max_workers=max(1, options.jobs)) as pool:
        futures = [
            pool.submit(copy_context().run, _measure, session, config) for session in sessions
        ]
        found: list[_Measured] = []
        problems: list[Problem] = []
        for future in steps(futures, "measuring sessions"):
            try:
                found.append(future.result())
            except InputError as error:
                problems.extend(error.problems)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # not one more after an interrupt
                raise
    if problems:
        raise InputError(problems)
    verdicts: list[Verdict] = []
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    for measured in found:
        warnings += measured.warnings
        for mic, lag in measured.lags:
            verdicts += _judge(measured.session, mic, lag, thresholds)
            rows.append(_row(measured.session, mic, lag))
    sources = [m.session.source for m in found if m.session.source is not None]
    return Report(
        tool="align-qc",
        inputs=[*sources, *(file for m in found for file in m.files)],
        parameters=_parameters(options, config),
        metrics={
            "pairs": rows,
            "sessions": [
                {
                    "session_id": m.session.session_id,
                    "anchor": m.session.anchor.name,
                    "mics": m.mics,
                }
                for m in found
            ],
        },
        verdicts=verdicts,
        warnings=warnings,
    )


def _parameters(options: Options, config: AlignmentConfig) -> dict[str, Any]:
    given = asdict(options)
    given["manifests"] = [str(path) for path in options.manifests]
    given["session_dirs"] = [str(path) for path in options.session_dirs]
    given["mics"] = [f"{name}={path}" for name, path in options.mics]
    # How many sessions run at once changes no figure, so it stays out of the report.
    del given["jobs"]
    return {**given, "measurement": asdict(config)}


def _config(options: Options, thresholds: Mapping[str, Threshold]) -> AlignmentConfig:
    try:
        return AlignmentConfig(
            max_shift_ms=options.max_shift_ms, min_support=int(thresholds["min_support"].value)
        )
    except ValueError as error:
        raise DrumgateError(str(error)) from None


def _sessions(options: Options) -> list[Session]:
    sessions: list[Session] = []
    problems: list[Problem] = []
    for path in options.manifests:
        try:
            sessions.append(read_manifest(path, options.anchor_mic))
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(problems)
    sessions += [read_folder(folder, options.anchor_mic) for folder in options.session_dirs]
    if options.mics:
        sessions.append(read_pairs(options.mics, options.anchor_mic))
    if not sessions:
        raise DrumgateError("nothing to check: give --manifest, --session-dir or NAME=PATH")
    names = [session.session_id for session in sessions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DrumgateError(f"session_id {twice!r} stands in two of the sessions given")
    return sessions


def _measure(session: Session, config: AlignmentConfig) -> _Measured:
    """Measure one session, holding no more than two recordings in memory at a time."""
    anchor = _read(session.anchor)
    notes = [*session.warnings, *_notes(session, session.anchor, anchor, anchor)]
    files, mics = [anchor.file], [_mic_row(session.anchor, anchor)]
    lags: list[tuple[Mic, PairLag]] = []
    problems: list[Problem] = []
    try:
        windows = prepare_anchor(anchor.samples, anchor.sample_rate, config)
    except ValueError as error:
        raise InputError.at(session.anchor.path, str(error)) from None
    for mic in steps(session.targets, session.session_id):
        try:
            target = _read(mic)
        except InputError as error:
            problems.extend(error.problems)
            continue
        files.append(target.file)
        mics.append(_mic_row(mic, target))
        notes += _notes(session, mic, target, anchor)
        lag = _lag(windows, anchor, target, mic, config)
        lags.append((mic, lag))
        if lag.polarity_inverted:
            notes.append(f"{session.session_id}: {mic.name}: its polarity is inverted")
    if problems:
        raise InputError(problems)
    return _Measured(session=session, lags=lags, mics=mics, files=files, warnings=notes)


def _read(mic: Mic) -> _Recording:
    samples, rate = read_audio(mic.path)
    state = inspect_channel(samples)
    mixed = samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float32)
    if not state.silent and inspect_channel(mixed).silent:
        state = replace(state, peak_dbfs=None)  # the channels cancel each other
    return _Recording(
        samples=mixed,
        sample_rate=rate,
        channels=len(samples),
        duration_s=samples.shape[1] / rate,
        state=state,
        file=describe_file(mic.path),
    )


def _lag(
    windows: AnchorWindows,
    anchor: _Recording,
    target: _Recording,
    mic: Mic,
    config: AlignmentConfig,
) -> PairLag:
    samples = resample(target.samples, target.sample_rate, anchor.sample_rate)
    if anchor.state.silent or target.state.silent:
        samples = np.zeros_like(samples)
    expected = mic.expected_delay_ms
    lag = measure_prepared(windows, samples, expected_delay_ms=expected, config=config)
    if anchor.state.silent:
        return replace(lag, reason="the anchor mic is silent")
    if target.state.silent:
        return replace(lag, reason="this mic is silent")
    if lag.measured:
        return lag
    offset = rough_offset_ms(anchor.samples, samples, anchor.sample_rate)
    if offset is None or abs(offset - expected) <= config.max_shift_ms:
        return lag
    hint = f"; the loudness of the two fits best at about {offset:.0f} ms (see --max-shift-ms)"
    return replace(lag, reason=lag.reason + hint)


def _notes(session: Session, mic: Mic, found: _Recording, anchor: _Recording) -> list[str]:
    notes = []
    if found.sample_rate != anchor.sample_rate:
        notes.append(f"{found.sample_rate} Hz, resampled to the anchor's {anchor.sample_rate} Hz")
    if found.channels > 1:
        notes.append(f"{found.channels} channels, averaged into one")
    longer = found.duration_s - anchor.duration_s
    if abs(longer) > LENGTH_TOLERANCE_S:
        word = "longer" if longer > 0 else "shorter"
        notes.append(f"{abs(longer):.2f} s {word} than the anchor {session.anchor.name}")
    if found.state.silent:
        notes.append("silent (never above -80 dBFS)")
    if found.state.clipped:
        notes.append(f"clipped: {found.state.clips} flat tops")
    if found.state.offset:
        notes.append(f"a DC offset of {found.state.dc:+.3f} of full scale")
    return [f"{session.session_id}: {mic.name}: {note}" for note in notes]


def _judge(
    session: Session, mic: Mic, lag: PairLag, thresholds: Mapping[str, Threshold]
) -> list[Verdict]:
    subject = f"{session.session_id}/{mic.name}"
    return [
        judge(measurement, thresholds[measurement.name], subject=subject)
        for measurement in _measurements(lag, mic, thresholds)
    ]


def _measurements(
    lag: PairLag, mic: Mic, thresholds: Mapping[str, Threshold]
) -> Sequence[Measurement]:
    names = ("min_support", "max_delay_ms", "max_drift_samples_per_min", "max_jump_ms")
    if not lag.measured:
        return [
            Measurement(name=name, value=None, n=lag.n_windows, detail=lag.reason) for name in names
        ]
    residual, jump = lag.residual_ms, lag.max_jump_ms
    jumps = ", ".join(
        f"{jump.delay_ms:+.3f} ms between {jump.earliest_s:.2f} and {jump.latest_s:.2f} s"
        for jump in lag.jumps
    )
    against = "expected" if mic.declared else "expected, since none is declared"
    where = f"lag {lag.median_delay_ms:.3f} ms, {lag.expected_delay_ms:.3f} ms {against}"
    if lag.jumps:
        where += "; it jumps, so mend the jump first and measure again"
    return [
        Measurement(name="min_support", value=lag.support, unit="hits", n=lag.n_windows),
        Measurement(
            name="max_delay_ms",
            value=None if residual is None else abs(residual),
            n=lag.support,
            ci=_absolute(lag.median_ci_ms, lag.expected_delay_ms),
            detail=where,
        ),
        _drift(lag, thresholds),
        Measurement(name="max_jump_ms", value=jump, n=lag.support, detail=jumps or "no jump"),
        Measurement(
            name="polarity_inverted", value=float(bool(lag.polarity_inverted)), n=lag.support
        ),
    ]


def _drift(lag: PairLag, thresholds: Mapping[str, Threshold]) -> Measurement:
    """Size of the drift with its interval; none when the recording is too short to tell.

    Too short means: the interval reaches beyond the limit, and a drift that large would have moved
    the mic further over the recording than a lag may be.
    """
    name = "max_drift_samples_per_min"
    drift, ci = lag.drift_samples_per_min, _absolute(lag.drift_ci, 0.0)
    minutes = float(lag.times_s[-1] - lag.times_s[0]) / 60.0
    detail = f"{drift:+.2f} samples/min over {minutes:.2f} min"
    limit = thresholds[name].value
    worst_ms = np.inf if ci is None else ci.upper * minutes * 1000.0 / lag.sample_rate
    straddles = ci is None or ci.lower <= limit < ci.upper
    if drift is None or (straddles and worst_ms > thresholds["max_delay_ms"].value):
        told = "not bounded" if ci is None else f"only known to lie below {ci.upper:.2f}"
        why = f"too few hits to tell the drift: {detail}, {told} samples/min"
        return Measurement(name=name, value=None, n=lag.support, detail=why)
    return Measurement(name=name, value=abs(drift), n=lag.support, ci=ci, detail=detail)


def _absolute(bounds: tuple[float, float] | None, centre: float) -> Interval | None:
    """Interval of |figure - centre| from that of the figure; None when it is unbounded."""
    if bounds is None or not np.all(np.isfinite(bounds)):
        return None
    low, high = bounds[0] - centre, bounds[1] - centre
    nearest_zero = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
    return Interval(lower=nearest_zero, upper=max(abs(low), abs(high)))


def _row(session: Session, mic: Mic, lag: PairLag) -> dict[str, Any]:
    shown = np.unique(np.linspace(0, len(lag.times_s) - 1, SERIES_POINTS).round().astype(int))
    points = shown if len(lag.times_s) > SERIES_POINTS else np.arange(len(lag.times_s))
    return {
        "session_id": session.session_id,
        "anchor": session.anchor.name,
        "target": mic.name,
        "median_delay_ms": _rounded(lag.median_delay_ms),
        "expected_delay_ms": _rounded(lag.expected_delay_ms),
        "expected_declared": mic.declared,
        "residual_ms": _rounded(lag.residual_ms),
        "max_abs_delay_ms": _rounded(lag.max_abs_delay_ms),
        "spread_ms": _rounded(lag.spread_ms),
        "drift_samples_per_min": _rounded(lag.drift_samples_per_min),
        "support": lag.support,
        "windows": lag.n_windows,
        "edge_rejected": lag.edge_rejected,
        "confidence": _rounded(lag.confidence),
        "evidence": _rounded(lag.evidence),
        "polarity_inverted": lag.polarity_inverted,
        "jumps": [{name: _rounded(v) for name, v in asdict(jump).items()} for jump in lag.jumps],
        "reason": lag.reason,
        "series": [
            {"time_s": _rounded(lag.times_s[k]), "delay_ms": _rounded(lag.delays_ms[k])}
            for k in points
        ],
    }


def _mic_row(mic: Mic, found: _Recording) -> dict[str, Any]:
    return {
        "name": mic.name,
        "path": str(mic.path),
        "sample_rate": found.sample_rate,
        "channels": found.channels,
        "duration_s": _rounded(found.duration_s),
        "peak_dbfs": _rounded(found.state.peak_dbfs),
        "dc": _rounded(found.state.dc),
        "clips": found.state.clips,
    }


def _rounded(value: float | None) -> float | None:
    """Round to a millionth: far below what is measured, and the same on every machine."""
    return None if value is None else round(float(value), 6)
