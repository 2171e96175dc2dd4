"""Whole synthesised sessions: is what the events say what the microphones hear?"""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from training.audio.synth import (
    MICS,
    SIMULTANEOUS_S,
    SessionAudio,
    SessionSpec,
    make_drummers,
    make_kits,
    make_rooms,
    render_session,
    session_spec,
)
from training.audio.synth.dsp import SPEED_OF_SOUND_M_S
from training.audio.synth.patterns import HAT_OPEN_AT
from training.audio.synth.performance import Performance, instrument_of, perform
from training.audio.synth.plan import MIN_DURATION_S
from training.audio.synth.room import lead_samples, paths, set_stage

RATE = 44_100
FEET = {"kick", "hihat_pedal"}


@pytest.fixture(scope="module")
def session() -> SessionAudio:
    return render_session(session_spec(seed=11, duration_s=20.0))


@pytest.fixture(scope="module")
def played() -> list[Performance]:
    drummers = make_drummers(6, 0)
    return [
        perform(
            np.random.default_rng(seed),
            drummers[seed % 6],
            duration_s=30.0,
            effect="china",
            metric_modulation=True,
            variable_meter=True,
        )
        for seed in range(24)
    ]


def test_same_spec_same_samples(session: SessionAudio) -> None:
    again = render_session(session_spec(seed=11, duration_s=20.0))
    for name in MICS:
        np.testing.assert_array_equal(session.mics[name], again.mics[name])
    np.testing.assert_array_equal(session.mix, again.mix)
    assert session.events == again.events
    assert render_session(session_spec(seed=12, duration_s=20.0)).events != session.events


def test_levels_and_shapes(session: SessionAudio) -> None:
    assert tuple(session.mics) == MICS
    for signal in (*session.mics.values(), session.mix):
        assert signal.shape == (20 * RATE,)
        assert signal.dtype == np.float32
        assert np.isfinite(signal).all()
        assert -3.01 <= 20 * np.log10(np.abs(signal).max()) <= -1.0
        assert abs(float(signal.mean())) < 1e-3


def test_the_mix_is_the_sum_of_the_microphones(session: SessionAudio) -> None:
    total = sum(session.mix_gains[name] * session.mics[name].astype(float) for name in MICS)
    np.testing.assert_allclose(session.mix, total, atol=1e-5)


def test_events_are_in_order_and_apart(session: SessionAudio) -> None:
    onsets = [event.onset_s for event in session.events]
    assert onsets == sorted(onsets)
    strikes = [min(c.strike_s for c in e.components) for e in session.events if e.components]
    assert min(np.diff(strikes)) > SIMULTANEOUS_S - 2e-6
    for event in session.events:
        times = [c.strike_s for c in event.components]
        assert not times or max(times) - min(times) <= SIMULTANEOUS_S + 2e-6
        for c in event.components:
            assert 0.0 < c.velocity <= 1.0
            if c.label == "hihat_open":
                assert c.openness is not None
                assert c.openness >= HAT_OPEN_AT
            if c.label == "hihat_closed":
                assert c.openness is not None
                assert c.openness < HAT_OPEN_AT


def test_nothing_is_heard_before_the_first_onset_and_something_right_after(
    session: SessionAudio,
) -> None:
    first = next(e for e in session.events if e.components)
    # The first event is a flam: its grace note may come up to 40 ms before.
    start = round((first.onset_s - 0.045) * RATE)
    floor = np.abs(session.mix[:start]).max()
    at = round(first.onset_s * RATE)
    assert np.abs(session.mix[at : at + RATE // 200]).max() > 20 * floor


def test_onset_is_exact_where_an_instrument_plays_alone() -> None:
    """The sharpest check of time: strike + distance / c, for percussion in a silent room."""
    audio = render_session(session_spec(seed=5, duration_s=14.0, unknown=True))
    cowbell = [e for e in audio.events if e.components and e.components[0].variant == "cowbell"]
    errors = []
    for event in cowbell:
        at = round(event.onset_s * RATE)
        before = np.abs(audio.mix[at - 200 : at - 20]).max()
        rise = np.abs(audio.mix[at - 20 : at + 200])
        late = np.argmax(rise > max(0.1 * rise.max(), 3 * before)) - 20
        errors.append(late)
    assert len(errors) >= 4
    assert abs(np.median(errors)) <= 12  # samples: about a quarter of a millisecond


def test_negative_examples_have_nothing_around_them(session: SessionAudio) -> None:
    strikes = np.array([c.strike_s for e in session.events for c in e.components])
    quiet = [e for e in session.events if not e.components]
    assert len(quiet) >= 3
    for event in quiet:
        gap = strikes - event.onset_s
        assert not np.any((gap > -0.24) & (gap < 0.59))


def test_every_microphone_hears_the_kick_when_its_manifest_says(session: SessionAudio) -> None:
    from training.metrics.alignment import measure_pair

    for name in MICS[1:]:
        lag = measure_pair(
            session.mics["kick_in"],
            session.mics[name],
            RATE,
            expected_delay_ms=session.kick_delay_ms[name],
        )
        assert lag.residual_ms is not None, lag.reason
        assert abs(lag.residual_ms) < 0.05
        assert not lag.polarity_inverted


def test_paths_have_the_delay_and_the_level_of_their_distance() -> None:
    kit, room = make_kits(1, 0)[0], make_rooms(1, 0)[0]
    stage = set_stage(kit, np.random.default_rng(0))
    responses = paths(stage, room, ("snare", "ride"), RATE)
    for i, instrument in enumerate(("snare", "ride")):
        for m, mic in enumerate(MICS):
            distance = stage.distance_m(instrument, mic)
            expected = distance / SPEED_OF_SOUND_M_S * RATE + lead_samples()
            if mic == "kick_in":  # behind the shell: softened
                continue
            head = np.abs(responses[i, m, : int(expected) + 12])
            assert np.argmax(head) == pytest.approx(expected, abs=0.6)
    near = np.abs(responses[0, MICS.index("snare_top")]).max()
    far = np.abs(responses[0, MICS.index("overhead_l")]).max()
    assert near > 4 * far


def test_a_drier_room_dies_sooner() -> None:
    kit = make_kits(1, 0)[0]
    stage = set_stage(kit, np.random.default_rng(0))
    rooms = sorted(make_rooms(6, 1), key=lambda room: room.t60_s)
    late = []
    for room in (rooms[0], rooms[-1]):
        energy = paths(stage, room, ("snare",), RATE)[0, MICS.index("room")].astype(float) ** 2
        late.append(energy[int(0.08 * RATE) :].sum() / energy.sum())
    assert late[0] < 0.5 * late[1]


def test_two_hands_and_two_feet_can_play_it(played: list[Performance]) -> None:
    for performance in played:
        for event in performance.events:
            by_moment = Counter((n.bar_index, round(n.beat, 4)) for n in event)
            for moment in by_moment:
                here = [n for n in event if (n.bar_index, round(n.beat, 4)) == moment]
                hands = [n for n in here if n.label not in FEET]
                assert len(hands) <= 2
                things = [n.instrument for n in here]
                assert len(things) == len(set(things))
                if any(n.graces for n in hands):
                    assert len(hands) <= 2
            assert all(n.instrument == instrument_of(n.label, n.variant) for n in event)


def test_every_label_and_every_required_technique_occurs(played: list[Performance]) -> None:
    labels = Counter(n.label for p in played for e in p.events for n in e)
    assert len(labels) == 12
    assert min(labels.values()) >= 100
    for performance in played:
        techniques = {t for e in performance.events for n in e for t in n.techniques}
        assert {
            "hihat_bark",
            "metric_modulation",
            "variable_meter",
            "multi_cymbal_same_class",
        } <= techniques


@pytest.mark.parametrize("seed", range(12))
def test_the_shortest_sessions_have_their_changes_too(seed: int) -> None:
    for index, drummer in enumerate(make_drummers(6, seed)):
        performance = perform(
            np.random.default_rng([seed, index]),
            drummer,
            duration_s=MIN_DURATION_S,
            effect="splash",
            metric_modulation=True,
            variable_meter=True,
        )
        techniques = {t for e in performance.events for n in e for t in n.techniques}
        assert techniques >= {
            "hihat_bark",
            "metric_modulation",
            "variable_meter",
            "multi_cymbal_same_class",
        }


def test_a_metric_modulation_changes_the_tempo_by_a_ratio(played: list[Performance]) -> None:
    for performance in played:
        notes = [n for e in performance.events for n in e]
        changed = min(n.bar_index for n in notes if "metric_modulation" in n.techniques)
        before = next(n.tempo_bpm for n in notes if n.bar_index < changed)
        after = next(n.tempo_bpm for n in notes if n.bar_index == changed)
        assert min(abs(after / before - r) for r in (3 / 2, 4 / 3, 3 / 4, 2 / 3)) < 1e-9


def test_a_variable_meter_varies(played: list[Performance]) -> None:
    for performance in played:
        meters = {
            n.meter for e in performance.events for n in e if "variable_meter" in n.techniques
        }
        assert len(meters) >= 2


def test_a_bark_is_shut_soon(played: list[Performance]) -> None:
    for performance in played:
        for note in (n for e in performance.events for n in e):
            if "hihat_bark" in note.techniques:
                assert note.stop_s is not None
                assert 0.04 < note.stop_s - note.strike_s < 0.30


def test_flams_and_drags_have_their_grace_notes(played: list[Performance]) -> None:
    seen = Counter[str]()
    for note in (n for p in played for e in p.events for n in e):
        for technique, count in (("flam", 1), ("drag", 2)):
            if technique in note.techniques:
                seen[technique] += 1
                assert len(note.graces) == count
                for when, velocity in note.graces:
                    assert 0.015 < note.strike_s - when < 0.070
                    assert velocity < note.velocity
        if "ghost_note" in note.techniques:
            seen["ghost_note"] += 1
            assert note.velocity < 0.30
    assert min(seen[t] for t in ("flam", "drag", "ghost_note")) >= 10


def test_two_cymbals_of_one_class_are_two_components(session: SessionAudio) -> None:
    both = [e for e in session.events if "multi_cymbal_same_class" in e.techniques]
    assert both
    for event in both:
        assert sum(c.label == "crash" for c in event.components) == 2
        assert len({c.variant for c in event.components if c.label == "crash"}) == 2


def test_unknown_sessions_hold_unknown_percussion_only() -> None:
    audio = render_session(session_spec(seed=2, duration_s=12.0, unknown=True))
    components = [c for e in audio.events for c in e.components]
    assert {c.label for c in components} == {"aux_percussion"}
    assert {c.variant for c in components} >= {"cowbell", "clap"}


@pytest.mark.parametrize("rate", [22_050, 48_000])
def test_other_sample_rates(rate: int) -> None:
    audio = render_session(session_spec(seed=3, duration_s=10.0, sample_rate=rate))
    assert audio.mix.shape == (10 * rate,)
    assert np.isfinite(audio.mix).all()


def test_a_minute_is_rendered_in_seconds() -> None:
    spec = session_spec(seed=21, duration_s=60.0)
    start = time.process_time()
    render_session(spec)
    # Under 2 s on one core of a desktop machine; the bound leaves room for a slow runner.
    assert time.process_time() - start < 6.0


def test_choked_cymbal_is_short() -> None:
    kit, drummer = make_kits(1, 1)[0], make_drummers(1, 1)[0]
    seen = 0
    for seed in range(30):
        spec = SessionSpec(
            session_id="s",
            seed=seed,
            kit=kit,
            drummer=drummer,
            room=make_rooms(1, 1)[0],
            duration_s=10.0,
        )
        audio = render_session(spec)
        last = [e for e in audio.events if e.components][-1]
        if any(c.choke for c in last.components):
            seen += 1
            at = round((last.onset_s + 1.1) * RATE)
            ring = float(np.sqrt(np.mean(audio.mix[at : at + RATE // 10] ** 2)))
            struck = round(last.onset_s * RATE)
            loud = float(np.sqrt(np.mean(audio.mix[struck : struck + RATE // 10] ** 2)))
            assert ring < 0.02 * loud
        if seen == 2:
            break
    assert seen == 2
