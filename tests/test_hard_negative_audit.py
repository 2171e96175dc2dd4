"""The miner's audit page: what is heard and seen is the clip, and the page needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
from click.testing import Result
from clip_makers import NAMES, write_recordings
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonl import read, write
from PIL import Image
from scipy.signal import correlate, resample_poly

from training.audio.excerpt import band_position, read_excerpt, to_flac
from training.audio.logmel import FEATURE_PRESETS
from training.checks import hard_negatives, hard_negatives_audit
from training.errors import InputError
from training.metrics import hard_negatives as hn
from training.render.audit import Heard, embed
from training.render.picture import png

RATE = FEATURE_PRESETS["default"].sample_rate
HOSTILE = '<script>alert(1)</script>"&\x1b[2J'


class Page(HTMLParser):
    """The tags of a page, what they point at, and its words."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.players: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.targets += [value or "" for key, value in attrs if key.endswith(("href", "src"))]
        assert not [key for key in given if key.startswith("on")]
        if tag == "audio":
            self.players.append(given)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def sounds(self) -> list[tuple[np.ndarray, int]]:
        """Decode every sound of the page."""
        found = []
        for player in self.players:
            kind, _, coded = (player["src"] or "").partition(";base64,")
            assert kind == "data:audio/flac"
            found.append(soundfile.read(io.BytesIO(base64.b64decode(coded, validate=True))))
        return found


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two recordings of twelve hits; the model hears a wrong drum at every second one."""
    truth = write_recordings(tmp_path / "data", {"one": 12, "two": 12})
    rows = []
    for index, event in enumerate(read(truth)):
        have = {component["label"] for component in event["components"]}
        absent = sorted(set(NAMES) - have)
        scores = dict.fromkeys(NAMES, 0.1) | dict.fromkeys(have, 0.9)
        if index % 2 == 0:
            scores[absent[0]] = 0.7 + index / 100
        rows.append({"sample_id": event["sample_id"], "scores": scores})
    return truth, write(tmp_path / "p.jsonl", rows)


def mine(files: tuple[Path, Path], **fields: Any) -> tuple[Page, Any, list[dict[str, Any]]]:
    folder = files[1].parent
    fields = {"max_session_share": 1.0, "timing_tolerance_ms": 0.0} | fields
    report = hard_negatives.run(
        hard_negatives.Options(
            predictions=files[1],
            ground_truth=files[0],
            output=folder / "hard.jsonl",
            audit_html=folder / "audit.html",
            **fields,
        )
    )
    return Page(folder / "audit.html"), report, read(folder / "hard.jsonl")


def test_every_row_is_heard_at_its_own_onset(files: tuple[Path, Path]) -> None:
    page, report, rows = mine(files, audit_context_ms=200.0)
    assert len(rows) == 12
    assert report.metrics["audit"]["clips"] == 12
    assert report.metrics["audit"]["clips_without_sound"] == 0
    by_rank = {
        int(found[1]): player
        for player in page.players
        if (found := re.match(r"Clip (\d+),", player["aria-label"] or ""))
    }
    assert sorted(by_rank) == list(range(1, 13))
    events = {row["sample_id"]: row for row in read(files[0])}
    for row in rows:
        label = by_rank[row["rank"]]["aria-label"] or ""
        assert f"at {events[row['sample_id']]['onset_time']:.3f} s" in label
        assert f"said {row['label']}" in label
        coded = (by_rank[row["rank"]]["src"] or "").partition(",")[2]
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(coded)))
        assert rate == RATE
        assert len(sound) == pytest.approx(0.4 * RATE, abs=400)
        # an oracle of its own: read the whole file, resample, cut
        whole, own_rate = soundfile.read(files[0].parent / row["audio_path"])
        whole = resample_poly(whole, RATE // 100, own_rate // 100)
        middle = round(row["onset_time"] * RATE)
        half = len(sound) // 2
        start = max(middle - half, 0)
        expected = whole[start : middle + half]
        heard = sound[start - (middle - half) :][: len(expected)]
        # the two resamplers differ near 4 kHz, where the hi-hat is loudest
        assert np.corrcoef(heard, expected)[0, 1] > 0.95
        lags = correlate(heard, expected, mode="same")
        assert abs(int(lags.argmax()) - len(expected) // 2) <= 1


def test_a_true_sound_of_the_label_stands_beside_for_comparison(files: tuple[Path, Path]) -> None:
    page, _, rows = mine(files)
    labels = {row["label"] for row in rows}
    assert page.text.count(", to compare") == len(labels)
    events = {row["sample_id"]: row for row in read(files[0])}
    for label in labels:
        found = re.search(rf"A true {label}, to compare .*? (one_\d+|two_\d+) ", page.text)
        assert found is not None
        assert label in {c["label"] for c in events[found[1]]["components"]}


def test_the_page_is_whole_and_asks_for_nothing(files: tuple[Path, Path]) -> None:
    page, _, _ = mine(files)
    assert not {"script", "link", "iframe", "form", "object"} & set(page.tags)
    assert all(t.startswith(("data:audio/flac;", "data:image/png;", "#")) for t in page.targets)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:;" in (
        page.source
    )
    assert "url(" not in page.source
    assert all("controls" in player and player["aria-label"] for player in page.players)
    anchors = {target[1:] for target in page.targets if target.startswith("#")}
    assert all(f'id="{name}"' in page.source for name in anchors)
    assert "prefers-color-scheme: dark" in page.source


def test_hostile_text_is_shown_as_text(files: tuple[Path, Path]) -> None:
    events = read(files[0])
    for event in events:
        event["session_id"] = HOSTILE
        event["sample_id"] += HOSTILE
        event["components"][0]["label"] = HOSTILE
    said = read(files[1])
    for row in said:
        row["sample_id"] += HOSTILE
        row["scores"] = {HOSTILE + "2": 0.9} | row["scores"]
    write(files[0], events)
    write(files[1], said)
    page, _, _ = mine(files, audit_clips=6)
    assert "script" not in page.tags
    assert "\x1b" not in page.source
    assert "&lt;script&gt;alert(1)" in page.source


def test_the_page_is_the_same_from_run_to_run(files: tuple[Path, Path]) -> None:
    assert mine(files)[0].source == mine(files)[0].source


def test_both_limits_are_kept_and_said(files: tuple[Path, Path]) -> None:
    page, report, rows = mine(files, audit_clips=5)
    assert report.metrics["audit"]["clips"] == 5
    shown = "shows 5 of 12 rows, each label's hardest first: it holds at most 5 clips"
    assert any(shown in text for text in report.warnings)
    assert shown in page.text
    hardest = {row["label"]: row["rank"] for row in reversed(rows)}
    assert all(f'id="clip-{rank}"' in page.source for rank in hardest.values())

    page, report, _ = mine(files, audit_max_mb=0.2)
    assert 0 < report.metrics["audit"]["clips"] < 12
    assert report.metrics["audit"]["embedded_bytes"] <= 200_000
    assert (
        sum(len(t) for t in page.targets if t.startswith("data:"))
        == (report.metrics["audit"]["embedded_bytes"])
    )
    assert any("at most 0.2 MB (--audit-max-mb)" in text for text in report.warnings)

    page, report, _ = mine(files, audit_max_mb=1e-6)
    assert report.metrics["audit"]["clips"] == 0
    assert "leave no clip to show" in page.text


def test_a_clip_that_cannot_be_heard_says_why(files: tuple[Path, Path]) -> None:
    events = read(files[0])
    events[0]["audio_path"] = "gone.wav"
    del events[2]["audio_path"]
    events[4]["onset_time"] = 99.0
    write(files[0], events)
    page, report, _ = mine(files)
    assert report.metrics["audit"]["clips_without_sound"] == 3
    (said,) = [text for text in report.warnings if "cannot be heard" in text]
    for why in ("no such file", "audio_path is missing", "before the onset at 99.000 s"):
        assert why in said
    assert "Not to be heard: no such file" in page.text


@pytest.mark.parametrize("path", ["gone.wav", "../p.jsonl", "/etc/passwd"])
def test_when_nothing_can_be_heard_nothing_is_written(
    files: tuple[Path, Path], drumgate: Callable[..., Result], path: str
) -> None:
    events = read(files[0])
    for event in events:
        event["audio_path"] = path
    write(files[0], events)
    out = files[1].parent / "out"
    command = ["hard-negative-miner", "--predictions", files[1], "--ground-truth", files[0]]
    command += ["--output", out / "h.jsonl", "--audit-html", out / "a.html"]
    result = drumgate(*command, "--report", out / "r.json")
    assert result.exit_code == 2
    assert not out.exists()
    assert drumgate(*command, "--audio-root", out).exit_code == 2
    assert "no such folder" in drumgate(*command, "--audio-root", out).stderr
    dry = drumgate(*command, "--dry-run")
    assert dry.exit_code == 0
    assert not out.exists()


def test_no_hard_negative_is_a_page_that_says_so(files: tuple[Path, Path]) -> None:
    page, report, rows = mine(files, min_confidence=0.999)
    assert rows == []
    assert report.metrics["audit"] == {"clips": 0, "clips_without_sound": 0, "embedded_bytes": 0}
    assert "No label scores 0.999 or more where it is not." in page.text


def test_the_report_is_as_before_without_a_page(files: tuple[Path, Path]) -> None:
    report = hard_negatives.run(
        hard_negatives.Options(
            predictions=files[1], ground_truth=files[0], output=None, dry_run=True
        )
    )
    assert "audit" not in report.metrics


def test_the_picture_is_librosas_and_silence_lies_beyond_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = 0.2 * rng.standard_normal(RATE)
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    config = replace(FEATURE_PRESETS["default"], top_db=None)
    excerpt = read_excerpt(path, 0.5, before_s=0.2, after_s=0.3)
    assert (excerpt.before_s, excerpt.after_s) == pytest.approx((0.2, 0.3), abs=0.0023)
    start = round((0.5 - excerpt.before_s) * RATE)
    assert np.allclose(excerpt.sound, samples[start : start + len(excerpt.sound)], atol=1e-6)
    around = samples[start - 1024 : start + len(excerpt.sound) + 1024]
    power = librosa.feature.melspectrogram(
        y=around.astype(np.float32),
        sr=RATE,
        n_fft=config.n_fft,
        hop_length=config.hop,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
        center=False,
    )
    assert np.abs(excerpt.decibels - librosa.power_to_db(power)).max() < 0.01

    edge = read_excerpt(path, 0.0, before_s=0.1, after_s=0.1)
    half = len(edge.sound) // 2
    assert not edge.sound[:half].any()
    assert edge.sound[half:].any()
    end = read_excerpt(path, 0.99, before_s=0.1, after_s=0.1)
    assert not end.sound[-round(0.08 * RATE) :].any()
    with pytest.raises(InputError, match=r"ends at 1\.000 s, before the onset at 1\.000 s"):
        read_excerpt(path, 1.0, before_s=0.1, after_s=0.1)
    with pytest.raises(ValueError, match="positive"):
        read_excerpt(path, 0.5, before_s=0.0, after_s=0.1)


def test_faint_clips_are_raised_and_silence_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for peak, gain in ((0.8, 0.0), (0.05, 20.0), (1e-4, 30.0), (0.0, 0.0)):
        samples = np.zeros(RATE)
        samples[RATE // 2] = peak
        soundfile.write(path, samples, RATE, subtype="FLOAT")
        excerpt = read_excerpt(path, 0.5, before_s=0.1, after_s=0.1)
        assert excerpt.gain_db == pytest.approx(gain, abs=1e-4)
        assert np.abs(excerpt.sound).max() == pytest.approx(peak * 10 ** (gain / 20), rel=1e-4)
        assert np.isfinite(excerpt.decibels).all()


def test_flac_holds_the_sound() -> None:
    sound = np.sin(np.arange(4410) / 20)
    decoded, rate = soundfile.read(io.BytesIO(to_flac(sound, RATE)))
    assert rate == RATE
    assert np.abs(decoded - sound).max() < 1e-4


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 3000.0, 10000.0])
def test_the_scale_beside_the_picture_names_the_loudest_band(
    tmp_path: Path, frequency: float
) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE), RATE)
    decibels = read_excerpt(path, 0.5, before_s=0.1, after_s=0.1).decibels
    loudest = int(decibels.mean(axis=1).argmax())
    assert band_position(frequency) * len(decibels) == pytest.approx(loudest + 0.5, abs=1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_picture_decodes_to_its_matrix(rows: int, columns: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    picture = Image.open(io.BytesIO(png(values)))
    assert picture.size == (columns, rows)
    seen = np.asarray(picture)[::-1]
    span = values.max() - values.min()
    expected = np.zeros_like(values) if span == 0 else (values - values.min()) / span * 63
    assert np.abs(seen - expected).max() <= 0.5 + 1e-9
    grey = np.asarray(picture.convert("L"), dtype=int).ravel()
    assert (np.diff(grey[np.argsort(np.asarray(picture).ravel(), kind="stable")]) >= 0).all()


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.array([[np.nan]])])
def test_what_is_no_picture_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite matrix"):
        png(bad)


def test_names_above_the_picture_never_overlap() -> None:
    rng = np.random.default_rng(0)
    events = [(0.0, "snare")] + [
        (float(at), "hihat_closed") for at in rng.uniform(-0.6, 0.6, size=30)
    ]
    media = embed(
        Heard(
            flac=b"",
            decibels=np.zeros((4, 4)),
            before_s=0.6,
            after_s=0.6,
            gain_db=0.0,
            events=events,
        )
    )
    named = [event for event in media.events if event["y"] is not None]
    assert sum(event["own"] for event in named) == 1
    assert len(media.events) == 31
    assert len(named) >= 6
    for a in named:
        for b in named:
            if a is not b and a["y"] == b["y"]:
                assert abs(a["at"] - b["at"]) > a["half"] + b["half"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_labels_take_turns(labels: list[str]) -> None:
    rows = [
        hn.HardNegative(
            example=hn.Example(sample_id=str(index), labels=frozenset()),
            label=label,
            score=1 - index / 100,
            reason="confident_false_positive",
            detail="",
        )
        for index, label in enumerate(labels)
    ]
    turned = hard_negatives_audit.in_turn(rows)
    assert sorted(row.example.sample_id for row in turned) == sorted(map(str, range(len(rows))))
    for n in range(len(turned)):
        counts = {label: [row.label for row in turned[:n]].count(label) for label in set(labels)}
        for label, count in counts.items():
            # behind another only when it has no more to give
            assert count >= max(counts.values()) - 1 or count == labels.count(label)
    for label in set(labels):
        own = [int(row.example.sample_id) for row in turned if row.label == label]
        assert own == sorted(own)
