"""The alignment check: read sessions, measure every mic against its anchor, judge the lags."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.audio.reading import read_audio, resample
from training.checks.alignment_judge import judge_pair, lost_stretches, told
from training.checks.alignment_report import Recording, mic_row, pair_row
from training.checks.alignment_session import (
    Mic,
    Session,
    read_folder,
    read_manifest,
    read_pairs,
)
from training.errors import DrumgateError, InputError, Problem
from training.gates import GatesSource, Report, Verdict, load_thresholds
from training.gates.model import Threshold
from training.manifest import InputFile, describe_file
from training.metrics.alignment import (
    AlignmentConfig,
    AnchorWindows,
    PairLag,
    measure_prepared,
    prepare_anchor,
    rough_lag_ms,
)
from training.metrics.alignment_channel import inspect_channel
from training.steps import steps

LENGTH_TOLERANCE_S: Final = 0.1
UNHEARD_S: Final = 30.0
UNHEARD_SHARE: Final = 0.25


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
            verdicts += judge_pair(measured.session, mic, lag, thresholds)
            rows.append(pair_row(measured.session, mic, lag))
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
    files, mics = [anchor.file], [mic_row(session.anchor, anchor)]
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
        mics.append(mic_row(mic, target))
        notes += _notes(session, mic, target, anchor)
        lag = _lag(windows, anchor, target, mic, config)
        lags.append((mic, lag))
        notes += _lag_notes(session, mic, lag, anchor, config)
        if target.file.sha256 == anchor.file.sha256:
            same = f"the same file as the anchor {session.anchor.name}"
            notes.append(f"{session.session_id}: {mic.name}: {same}")
    if problems:
        raise InputError(problems)
    return _Measured(session=session, lags=lags, mics=mics, files=files, warnings=notes)


def _read(mic: Mic) -> Recording:
    samples, rate = read_audio(mic.path)
    state = inspect_channel(samples)
    mixed = samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float32)
    if not state.silent and inspect_channel(mixed).silent:
        state = replace(state, peak_dbfs=None)  # the channels cancel each other
    return Recording(
        samples=mixed,
        sample_rate=rate,
        channels=len(samples),
        duration_s=samples.shape[1] / rate,
        state=state,
        file=describe_file(mic.path),
    )


def _lag(
    windows: AnchorWindows,
    anchor: Recording,
    target: Recording,
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
    rough = rough_lag_ms(anchor.samples, samples, anchor.sample_rate)
    if rough is None or abs(rough - expected) <= config.max_shift_ms:
        return lag
    hint = f"; the loudness of the two fits best at about {rough:.0f} ms (see --max-shift-ms)"
    return replace(lag, reason=lag.reason + hint)


def _lag_notes(
    session: Session, mic: Mic, lag: PairLag, anchor: Recording, config: AlignmentConfig
) -> list[str]:
    """What the gates do not judge: polarity, short stretches astray, and how far the hits reach."""
    if not lag.measured:
        return []
    notes = ["its polarity is inverted"] if lag.polarity_inverted else []
    notes += [
        f"{told(stretch)}: another drum, or a jump too short to judge"
        for stretch in lost_stretches(lag, config.min_support)[1]
        if stretch.step_ms is not None
    ]
    first = min([float(lag.times_s[0]), *(stretch.start_s for stretch in lag.lost)])
    last = max([float(lag.times_s[-1]), *(stretch.stop_s for stretch in lag.lost)])
    for begin, end in ((0.0, first), (last, anchor.duration_s)):
        if end - begin > max(UNHEARD_S, UNHEARD_SHARE * anchor.duration_s):
            notes.append(
                f"no hit to compare from {begin:.1f} to {end:.1f} s: nothing is known of the lag "
                "there"
            )
    return [f"{session.session_id}: {mic.name}: {note}" for note in notes]


def _notes(session: Session, mic: Mic, found: Recording, anchor: Recording) -> list[str]:
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
