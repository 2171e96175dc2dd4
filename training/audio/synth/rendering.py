"""Render the performances of a manifest on many random kits, with the truth of what is heard.

Layout below the target folder::

    metadata.json              what was rendered, from which manifest, by which parameters
    annotations/events.jsonl   every event, in the order of the recordings
    audio/00001.flac …         one 16-bit mono mix a rendering
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from training.audio.synth.dataset import write_flac
from training.audio.synth.desk import draw_desk, faders_db, mix
from training.audio.synth.dsp import db
from training.audio.synth.kits import Kit, make_kits
from training.audio.synth.played import (
    Key,
    Piece,
    PlayedEvent,
    component_of,
    draw_reading,
    notes_of,
    read_stretches,
    survey,
)
from training.audio.synth.room import MICS, Room, make_rooms, set_stage
from training.audio.synth.session import buses_of, capture, preamps
from training.errors import InputError
from training.ingest.common import Hit, group_hits, joined_techniques
from training.manifest import (
    Event,
    FolderKind,
    describe_file,
    write_json,
    write_jsonl,
)

GENERATOR: Final = "render_performances"
METADATA: Final = "metadata.json"
LEAD_S: Final = 0.3
TAIL_S: Final = 1.5
# A recording is rendered in memory, all instruments at once: some 5 MB a second.
LONGEST_S: Final = 1200.0
# Kits further apart than those of the demo: tom pitches still do not overlap.
KIT_SPREAD: Final = 1.4
ATTRIBUTIONS: Final = {
    "groove": "Groove MIDI Dataset (Gillick et al. 2019), CC BY 4.0",
    "mdb_drums": "MDB Drums (Southall et al. 2017), CC BY-NC-SA 4.0",
}
"""What the licences of public performances ask to be said, by source_set."""
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]


class RenderedEvent(Event, frozen=True, kw_only=True, omit_defaults=True):
    """An event with what the licence of a performance asks for."""

    attribution: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderPlan:
    """How performances are rendered; the fields are the options of `render-performances`."""

    kits: int = 40
    renderings: int = 1
    excerpt_s: float | None = None
    limit: int | None = None
    splits: tuple[str, ...] = ()
    val_drummers: tuple[str, ...] = ()
    merge_ms: float = 30.0
    sample_rate: int = 44_100
    skip_voiceless: bool = False
    attribution: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendering:
    """One performance, or a stretch of one, on one kit in one room."""

    number: int
    piece: Piece
    split: str | None
    stretch_s: tuple[float, float]
    kit: Kit
    room: Room

    @property
    def audio_path(self) -> str:
        """Where its recording lies below the target folder."""
        return f"audio/{self.number:05d}.flac"


def render_performances(
    events: Path,
    target: Path,
    plan: RenderPlan,
    *,
    force: bool = False,
    jobs: int = 1,
    track: Track | None = None,
) -> dict[str, Any]:
    """Render a manifest's performances into the folder `target` and return its metadata.

    The folder appears whole or not at all. Its bytes depend on the manifest and the plan alone,
    not on `jobs`. `track` may wrap the renderings to show progress.

    Raises:
        InputError: the manifest is not usable, the plan does not fit it, or `target` may not be
            replaced or cannot be written to.
    """
    RENDERED.require_replaceable(target, force=force)
    found = survey(events, splits=plan.splits, skip_voiceless=plan.skip_voiceless)
    renderings = plan_renderings(found.pieces, plan)
    wanted: dict[Key, list[tuple[float, float]]] = defaultdict(list)
    for rendering in renderings:
        wanted[rendering.piece.key].append(rendering.stretch_s)
    played = read_stretches(events, wanted)

    def render(rendering: Rendering) -> list[RenderedEvent]:
        return _write(folder, rendering, played[rendering.piece.key], plan)

    rows: dict[int, list[RenderedEvent]] = {}
    with RENDERED.writing(target, force=force) as folder:
        (folder / "audio").mkdir()
        # One kit after the other: its voices are made once.
        in_turn = sorted(renderings, key=lambda r: (r.kit.kit_id, r.number))
        with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
            done: Iterable[Any] = zip(in_turn, pool.map(render, in_turn), strict=True)
            try:
                for rendering, made in track(done, "rendering", len(in_turn)) if track else done:
                    rows[rendering.number] = made
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        everything = [row for number in sorted(rows) for row in rows[number]]
        write_jsonl(folder / "annotations" / "events.jsonl", everything)
        metadata = _metadata(events, plan, renderings, rows, found.voiceless)
        write_json(folder / METADATA, metadata)
    return metadata


def plan_renderings(pieces: Sequence[Piece], plan: RenderPlan) -> tuple[Rendering, ...]:
    """Decide which stretch of which performance is played on which kit, in which room.

    Every drummer has kits that no other drummer has, so that a division by drummer or by session
    is one by kit as well. Rooms may be shared.

    Raises:
        InputError: a drummer named for validation plays nothing, or plays in the test split;
            there are more drummers than kits; or a recording would last over twenty minutes.
    """
    rng = np.random.default_rng(np.random.SeedSequence([plan.seed, 0x7072]))
    _require_val_drummers(pieces, plan)
    if plan.limit is not None and plan.limit < len(pieces):
        chosen = np.sort(rng.permutation(len(pieces))[: plan.limit])
        pieces = [pieces[index] for index in chosen]
    kits = _deal_kits(rng, pieces, plan)
    rooms = _named_rooms(plan)
    renderings: list[Rendering] = []
    for piece in pieces:
        own = kits[piece.player]
        order = rng.permutation(len(own))
        for index in range(plan.renderings):
            split = piece.split
            if plan.val_drummers:
                split = "val" if piece.player in plan.val_drummers else "train"
            renderings.append(
                Rendering(
                    number=len(renderings) + 1,
                    piece=piece,
                    split=split,
                    stretch_s=_stretch(rng, piece.onsets, plan.excerpt_s),
                    kit=own[int(order[index % len(own)])],
                    room=rooms[int(rng.integers(len(rooms)))],
                )
            )
    return tuple(renderings)


def _require_val_drummers(pieces: Sequence[Piece], plan: RenderPlan) -> None:
    if not plan.val_drummers:
        return
    players = {piece.player for piece in pieces}
    for name in plan.val_drummers:
        if name not in players:
            why = f"plays nothing here; there are {', '.join(sorted(players))}"
            raise InputError.at("--val-drummer", why, got=name)
    if not players - set(plan.val_drummers):
        raise InputError.at("--val-drummer", "leaves no drummer to train on")
    if any(piece.split == "test" for piece in pieces):
        why = "would train on performances of the source's test split; add --splits train,val"
        raise InputError.at("--val-drummer", why)


def _deal_kits(
    rng: np.random.Generator, pieces: Sequence[Piece], plan: RenderPlan
) -> dict[str, list[Kit]]:
    """Deal the kits to the drummers in proportion to what they play, at least one each."""
    share = Counter(piece.player for piece in pieces)
    players = sorted(share, key=lambda name: (-share[name], name))
    if plan.kits < len(players):
        why = f"must be at least {len(players)}: every drummer has kits of their own"
        raise InputError.at("--kits", why, got=plan.kits)
    count = dict.fromkeys(players, 1)
    for _ in range(plan.kits - len(players)):
        # Each kit goes to whom it helps most (D'Hondt's rule).
        count[max(players, key=lambda name: share[name] / (count[name] + 1))] += 1
    drawn = make_kits(plan.kits, plan.seed, spread=KIT_SPREAD)
    kits = [replace(kit, kit_id=f"synth_{plan.seed}_{kit.kit_id}") for kit in drawn]
    order = [kits[int(index)] for index in rng.permutation(len(kits))]
    return {name: [order.pop() for _ in range(count[name])] for name in players}


def _named_rooms(plan: RenderPlan) -> list[Room]:
    rooms = make_rooms(max(2, -(-plan.kits // 2)), plan.seed)
    return [replace(room, room_id=f"synth_{plan.seed}_{room.room_id}") for room in rooms]


def _stretch(
    rng: np.random.Generator, onsets: Sequence[float], excerpt_s: float | None
) -> tuple[float, float]:
    """Choose where to listen: everything, or a stretch that starts with some stroke."""
    first, last = min(onsets), max(onsets)
    if excerpt_s is None or last - first <= excerpt_s:
        if last - first > LONGEST_S:
            why = f"is needed for a performance of more than {LONGEST_S:,.0f} s"
            raise InputError.at("--excerpt-s", why, got=round(last - first, 3))
        return first, last
    starts = sorted(onset for onset in onsets if onset <= last - excerpt_s)
    start = starts[int(rng.integers(len(starts)))]
    return start, start + excerpt_s


def _write(
    folder: Path, rendering: Rendering, played: Sequence[PlayedEvent], plan: RenderPlan
) -> list[RenderedEvent]:
    """Render one recording, write it, and return its events."""
    low, high = rendering.stretch_s
    seeds = np.random.SeedSequence([plan.seed, 0x7273, rendering.number]).spawn(4)
    reading, striking, placing, noise = (np.random.default_rng(seed) for seed in seeds)
    kit, rate = rendering.kit, plan.sample_rate
    notes = notes_of(
        [event for event in played if low <= event.onset_time <= high],
        reading,
        kit=kit,
        reading=draw_reading(reading, kit),
        shift_s=LEAD_S - low,
    )
    stage = set_stage(kit, placing)
    n = round((high - low + LEAD_S + TAIL_S) * rate)
    buses = buses_of(kit, [note for note, _ in notes], striking, n, rate)
    for name, fader in faders_db(placing, tuple(buses)).items():
        buses[name] *= np.float32(db(fader))
    raw, bleed = capture(stage, rendering.room, buses, n, rate)
    signal = mix(draw_desk(placing), preamps(noise, raw), rate)
    write_flac(folder / rendering.audio_path, signal, rate)
    travel = {name: min(stage.delay_s(name, mic) for mic in MICS) for name in stage.instruments}
    hits, sources = [], {}
    for note, event in notes:
        hit = Hit(
            onset_s=note.strike_s + travel[note.instrument],
            component=component_of(note),
            techniques=note.techniques,
        )
        hits.append(hit)
        sources[id(hit)] = event
    return [
        _event(rendering, plan, bleed, number, group, sources[id(group[0])])
        for number, group in enumerate(group_hits(hits, merge_ms=plan.merge_ms))
    ]


def _event(
    rendering: Rendering,
    plan: RenderPlan,
    bleed: str,
    number: int,
    group: tuple[Hit, ...],
    event: PlayedEvent,
) -> RenderedEvent:
    source, session, take = rendering.piece.key
    return RenderedEvent(
        sample_id=f"{source_name(source)}:{plan.seed}:{rendering.number:05d}:{number:05d}",
        session_id=session,
        track_id=take,
        onset_time=round(group[0].onset_s, 6),
        components=tuple(hit.component for hit in group),
        techniques=joined_techniques(group),
        drummer_id=rendering.piece.drummer_id,
        kit_id=rendering.kit.kit_id,
        room_id=rendering.room.room_id,
        source_set=source_name(source),
        is_synthetic=True,
        audio_path=rendering.audio_path,
        sample_rate=plan.sample_rate,
        channels=1,
        mix_context="drums_only",
        tempo_bpm=event.tempo_bpm,
        meter=event.meter,
        bar_index=event.bar_index,
        beat_index=event.beat_index,
        bleed_level=cast(Any, bleed),
        split=rendering.split,
        attribution=plan.attribution or ATTRIBUTIONS.get(source),
    )


def source_name(source: str) -> str:
    """Name the source of renderings after that of the performances."""
    return f"{source or 'performances'}_rendered"


def _metadata(
    events: Path,
    plan: RenderPlan,
    renderings: Sequence[Rendering],
    rows: dict[int, list[RenderedEvent]],
    voiceless: Counter[str],
) -> dict[str, Any]:
    durations: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    who: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for rendering in renderings:
        split = str(rendering.split)
        low, high = rendering.stretch_s
        source, session, _ = rendering.piece.key
        durations[split][source_name(source)] += high - low + LEAD_S + TAIL_S
        who[split]["drummers"].add(rendering.piece.player)
        who[split]["kits"].add(rendering.kit.kit_id)
        who[split]["sessions"].add(session)
        for row in rows[rendering.number]:
            labels[split].update(component.label for component in row.components)
    credits = {row.attribution for made in rows.values() for row in made if row.attribution}
    return {
        "schema_version": 1,
        "generator": GENERATOR,
        "seed": plan.seed,
        "parameters": asdict(plan),
        "inputs": {"performances": {"sha256": describe_file(events).sha256}},
        "attributions": sorted(credits),
        "renderings": len(renderings),
        "performances": len({rendering.piece.key for rendering in renderings}),
        "durations_s": {
            split: {source: round(s, 3) for source, s in sorted(row.items())}
            for split, row in sorted(durations.items())
        },
        "splits": {
            split: {name: sorted(ids) for name, ids in sorted(row.items())}
            for split, row in sorted(who.items())
        },
        "sessions_in_several_splits": sessions_in_several_splits(renderings),
        "events_total": sum(map(len, rows.values())),
        "label_counts": {split: dict(sorted(c.items())) for split, c in sorted(labels.items())},
        "strokes_without_a_voice": dict(sorted(voiceless.items())),
    }


def sessions_in_several_splits(renderings: Sequence[Rendering]) -> list[str]:
    """Name the sessions whose performances lie in more than one split."""
    splits: dict[str, set[str | None]] = defaultdict(set)
    for rendering in renderings:
        splits[rendering.piece.key[1]].add(rendering.split)
    return sorted(name for name, held in splits.items() if len(held) > 1)


RENDERED: Final = FolderKind.told_by("set of renderings", METADATA, GENERATOR)
