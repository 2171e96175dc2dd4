"""The built-in drum synthesiser: multi-microphone sessions with exact ground truth.

>>> from training.audio.synth import render_session, session_spec
>>> session = render_session(session_spec(seed=1, duration_s=4.0))
>>> sorted(session.mics)
['kick_in', 'overhead_l', 'overhead_r', 'room', 'snare_top']
"""

from training.audio.synth.drummers import Drummer, make_drummers
from training.audio.synth.kits import Kit, make_kits
from training.audio.synth.performance import SIMULTANEOUS_S
from training.audio.synth.room import ANCHOR, MICS, Room, make_rooms
from training.audio.synth.session import (
    SessionAudio,
    SessionSpec,
    SynthComponent,
    SynthEvent,
    render_session,
    session_spec,
)

__all__ = [
    "ANCHOR",
    "MICS",
    "SIMULTANEOUS_S",
    "Drummer",
    "Kit",
    "Room",
    "SessionAudio",
    "SessionSpec",
    "SynthComponent",
    "SynthEvent",
    "make_drummers",
    "make_kits",
    "make_rooms",
    "render_session",
    "session_spec",
]
