"""Write a demo dataset: audio, alignment manifests, events, and the open-set ground truth.

Layout below the target folder::

    metadata.json                      what was made, by which parameters; durations and counts
    annotations/events.jsonl           every event of every session on the kit
    annotations/ood.jsonl              ground truth of the open-set gate: the struck events of the
                                       test split, and percussion that no class stands for
    sessions/session_001.json          alignment manifest of one session
    sessions/session_001/kick_in.flac  … one file a microphone, and mix.flac

Audio is 16-bit FLAC: it costs a few hundredths of a second a minute more than WAV and is smaller.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, cast

from training.audio.synth.dsp import Signal
from training.audio.synth.patterns import HAT_OPEN_AT
from training.audio.synth.performance import BUCKETS, SIMULTANEOUS_S
from training.audio.synth.plan import UNKNOWN_SOURCE, DatasetPlan, PlannedSession, plan_sessions
from training.audio.synth.room import ANCHOR, MICS
from training.audio.synth.session import SessionAudio, SynthEvent, render_session
from training.errors import InputError
from training.manifest import Component, Event, FolderKind, write_json, write_jsonl
from training.taxonomy import load_components

GENERATOR: Final = "make_demo_dataset"
METADATA: Final = "metadata.json"
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]


def make_dataset(
    target: Path,
    plan: DatasetPlan,
    *,
    force: bool = False,
    jobs: int = 1,
    track: Track | None = None,
) -> dict[str, Any]:
    """Synthesise a dataset into `target` and return its metadata.

    The folder appears whole or not at all.  Its bytes depend on the plan alone, not on `jobs`.
    `track` may wrap the sessions to show progress: it gets them, a description and their number.

    Raises:
        InputError: `target` is a file, or holds something and `force` is not set, or holds
            something that this function did not write (which not even `force` replaces), or cannot
            be written to.
    """
    target = Path(target)
    planned = plan_sessions(plan)
    events: list[Event] = []
    with DATASET.writing(target, force=force) as folder:
        # Sessions are rendered by threads (NumPy's FFTs and loops release the lock) and taken in
        # order.
        with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
            done: Iterable[Any] = pool.map(lambda p: _write_session(folder, p), planned)
            try:
                for rows in track(done, "synthesising", len(planned)) if track else done:
                    events += rows
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        events.sort(key=lambda event: (event.session_id, event.onset_time))
        write_jsonl(folder / "annotations" / "ood.jsonl", _open_set(events))
        # What no class stands for is met by the open-set gate alone: neither in training nor where
        # the classes are judged.
        events = [event for event in events if event.source_set != UNKNOWN_SOURCE]
        write_jsonl(folder / "annotations" / "events.jsonl", events)
        metadata = _metadata(plan, [p for p in planned if not p.spec.unknown], events)
        write_json(folder / METADATA, metadata)
    return metadata


def _write_session(folder: Path, planned: PlannedSession) -> list[Event]:
    """Render one session, write its audio and its manifest, and return its events."""
    spec = planned.spec
    audio = render_session(spec)
    home = folder / "sessions" / spec.session_id
    home.mkdir(parents=True)
    for name, signal in {**audio.mics, "mix": audio.mix}.items():
        write_flac(home / f"{name}.flac", signal, spec.sample_rate)
    write_json(folder / "sessions" / f"{spec.session_id}.json", _session_manifest(planned, audio))
    return [
        _event(planned, audio, index, event) for index, event in enumerate(audio.events, start=1)
    ]


def write_flac(path: Path, signal: Signal, sample_rate: int) -> None:
    """Write a mono signal as 16-bit FLAC."""
    import soundfile

    try:
        soundfile.write(path, signal, sample_rate, format="FLAC", subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError.at(path, f"cannot be written: {error}") from None


def _session_manifest(planned: PlannedSession, audio: SessionAudio) -> dict[str, Any]:
    spec = planned.spec
    return {
        "session_id": spec.session_id,
        "anchor_mic": ANCHOR,
        "mics": [
            {
                "name": name,
                "path": f"{spec.session_id}/{name}.flac",
                # When the kick, which is what the anchor hears, arrives after it did there.
                "expected_delay_ms": round(audio.kick_delay_ms[name], 4),
            }
            for name in MICS
        ],
    }


def _event(planned: PlannedSession, audio: SessionAudio, index: int, event: SynthEvent) -> Event:
    spec, taxonomy = planned.spec, load_components()
    components = tuple(
        Component(
            label=c.label,
            velocity=c.velocity,
            dynamic_bucket=cast(Any, c.dynamic_bucket),
            openness=c.openness,
            choke=True if c.choke else None,
            instrument_variant=c.variant,
        )
        for c in event.components
    )
    return Event(
        sample_id=f"{spec.session_id}_{index:04d}",
        session_id=spec.session_id,
        onset_time=event.onset_s,
        components=components,
        track_id=spec.session_id,
        drummer_id=spec.drummer.drummer_id,
        kit_id=spec.kit.kit_id,
        room_id=spec.room.room_id,
        source_set=planned.source_set,
        is_synthetic=True,
        audio_path=f"sessions/{spec.session_id}/mix.flac",
        sample_rate=spec.sample_rate,
        channels=1,
        tempo_bpm=event.tempo_bpm,
        meter=event.meter,
        bar_index=event.bar_index,
        beat_index=event.beat_index,
        techniques=event.techniques,
        bleed_level=cast(Any, audio.bleed_level),
        mix_context="percussion_only" if spec.unknown else "drums_only",
        negative_example=None if components else True,
        split=planned.split,
        annotated_labels=tuple(sorted(taxonomy.known)),
    )


def _open_set(events: list[Event]) -> Iterator[dict[str, Any]]:
    """One row for each struck event of the test split: known drums and unknown percussion."""
    known = frozenset(load_components().targets)
    for event in events:
        if event.split != "test" or not event.components:
            continue
        is_known = all(label in known for label in event.labels)
        variants = {c.instrument_variant for c in event.components if c.label not in known}
        yield {
            "sample_id": event.sample_id,
            "session_id": event.session_id,
            "labels": list(event.labels),
            "is_known": is_known,
            "unknown_group": None if is_known else "+".join(sorted(v for v in variants if v)),
            "audio_path": event.audio_path,
            "onset_time": event.onset_time,
            "components": event.components,
        }


def _metadata(
    plan: DatasetPlan, planned: Sequence[PlannedSession], events: list[Event]
) -> dict[str, Any]:
    durations: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    who: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for p in planned:
        durations[p.split][p.source_set] += p.spec.duration_s
        who[p.split]["drummers"].add(p.spec.drummer.drummer_id)
        who[p.split]["kits"].add(p.spec.kit.kit_id)
        who[p.split]["rooms"].add(p.spec.room.room_id)
        who[p.split]["sessions"].add(p.spec.session_id)
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    techniques: Counter[str] = Counter()
    for event in events:
        labels[str(event.split)].update(c.label for c in event.components)
        techniques.update(event.techniques)
    return {
        "schema_version": 1,
        "generator": GENERATOR,
        "seed": plan.seed,
        "parameters": asdict(plan),
        "conventions": {
            "onset_time": "when the first full stroke of the event is first heard in the mix: "
            "its strike plus the way to the nearest microphone; grace notes come before it",
            "simultaneous_ms": 1e3 * SIMULTANEOUS_S,
            "hihat_open_from_openness": HAT_OPEN_AT,
            "dynamic_buckets": {name: bound for bound, name in BUCKETS},
        },
        "durations_s": {
            split: {source: round(s, 3) for source, s in sorted(row.items())}
            for split, row in durations.items()
        },
        "splits": {
            split: {name: sorted(ids) for name, ids in sorted(row.items())}
            for split, row in who.items()
        },
        "events_total": len(events),
        "negative_examples": sum(not event.components for event in events),
        "label_counts": {split: dict(sorted(c.items())) for split, c in labels.items()},
        "technique_counts": dict(sorted(techniques.items())),
        "kits": {
            p.spec.kit.kit_id: {
                "effect": p.spec.kit.effect,
                **{name: round(v, 4) for name, v in p.spec.kit.parameters.items()},
            }
            for p in sorted(planned, key=lambda p: p.spec.kit.kit_id)
        },
    }


DATASET: Final = FolderKind.told_by("dataset", METADATA, GENERATOR)
