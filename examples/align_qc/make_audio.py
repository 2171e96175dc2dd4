"""Make the audio of these examples again: `python examples/align_qc/make_audio.py`.

A kick drum at 8 kHz, heard from inside, by an overhead 1.5 ms later and by a room mic 3 m further
away. Everything is drawn from one seed, so the files are the same each time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

HERE = Path(__file__).parent
RATE = 8_000
SECONDS = 4.4
HITS_S = np.arange(0.2, SECONDS - 0.3, 0.4)
OVERHEAD_MS = 1.5
ROOM_MS = 1000.0 * 3.0 / 343.0


def mic(delay_ms: float, level: float, *, jump_ms: float = 0.0, seed: int = 0) -> np.ndarray:
    """Hear every hit `delay_ms` late; after 2.1 s by `jump_ms` more."""
    audio = np.zeros(round(SECONDS * RATE))
    for number, at in enumerate(HITS_S):
        hit = np.random.default_rng([1, number])
        time = np.arange(600) / RATE
        click = hit.standard_normal(len(time)) * np.exp(-time / 0.004)
        drum = np.sin(2 * np.pi * 70 * time) * np.exp(-time / 0.015) + 0.6 * click
        late = delay_ms + (jump_ms if at > 2.1 else 0.0)
        start = (at + late / 1000.0) * RATE
        whole = int(start)
        # The delay is a fraction of a sample too: a phase slope in the frequency domain.
        spectrum = np.fft.rfft(drum, 2048)
        turned = spectrum * np.exp(-2j * np.pi * np.arange(1025) * (start - whole) / 2048)
        audio[whole : whole + 700] += level * np.fft.irfft(turned, 2048)[:700]
    noise = np.random.default_rng([2, seed]).standard_normal(len(audio))
    return audio + 1e-5 * noise


def write(path: Path, audio: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> None:
    """Write one file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(audio, -1.0, 1.0), rate, subtype=subtype)


def main() -> None:
    """Write the audio of every case."""
    kick = mic(0.0, 0.5)
    overhead = mic(OVERHEAD_MS, 0.25, seed=1)
    room = mic(ROOM_MS, 0.1, seed=2)
    shared = HERE.parent / "session_manifest_example_audio"
    for name, audio in (("kick_in", kick), ("overhead", overhead), ("room", room)):
        write(shared / f"{name}.flac", audio)
    for case, other in {
        "pass/aligned": overhead,
        "pass/inverted_warns": -overhead,
        "pass/not_strict": mic(OVERHEAD_MS + 1.0, 0.25, seed=1),
        "pass/session_dir": mic(0.0, 0.25, seed=1),
        "fail/late_by_1_ms": mic(OVERHEAD_MS + 1.0, 0.25, seed=1),
        "fail/jump": mic(OVERHEAD_MS, 0.25, jump_ms=3.0, seed=1),
        "fail/silent": np.zeros(len(kick)),
        "fail/no_delay_declared": room,
    }.items():
        write(HERE / case / "kick_in.flac", kick)
        write(HERE / case / "overhead.flac", other)
    write(HERE / "bad_input/nan_sample/kick_in.flac", kick[:800])
    broken = np.zeros(100)
    broken[50] = np.nan
    soundfile.write(HERE / "bad_input/nan_sample/overhead.wav", broken, RATE, subtype="FLOAT")
    for case in ("truncated_audio", "not_audio", "empty_audio"):
        write(HERE / f"bad_input/{case}/kick_in.flac", kick[:800])
    cut = HERE / "bad_input/truncated_audio/overhead.wav"
    write(cut, overhead[:400])
    cut.write_bytes(cut.read_bytes()[:300])
    (HERE / "bad_input/not_audio/overhead.wav").write_text("This is not audio.\n")
    (HERE / "bad_input/empty_audio/overhead.wav").write_bytes(b"")


if __name__ == "__main__":
    main()
