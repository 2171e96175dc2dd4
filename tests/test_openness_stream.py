"""Normalising whole manifests: what a stream gives, against the plain way, in any order."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from strategies import manifests

from training.checks import openness as check
from training.cli import main
from training.errors import InputError
from training.manifest import rewrite
from training.metrics import openness

CURVES = {
    ("roland", "td-11"): ("a", [(0, 1.0), (90, 0.0), (127, 0.0)]),
    ("roland", "td-50"): ("b", [(0, 0.0), (127, 1.0)]),
}


def curve_file(path: Path) -> Path:
    curves = [
        {
            "id": name,
            "vendor": vendor,
            "models": [model],
            "polarity": "high_is_closed" if name == "a" else "high_is_open",
            "points": points,
        }
        for (vendor, model), (name, points) in CURVES.items()
    ]
    path.write_text(json.dumps({"schema_version": 1, "curves": curves}))
    return path


def expected(rows: list[dict[str, Any]], *, overwrite: bool) -> list[dict[str, Any]]:
    """Every row with its openness, the plain way: the oracle of these tests."""
    made = []
    for row in rows:
        device = (row.get("device_vendor") or "").lower(), (row.get("device_model") or "").lower()
        parts = []
        for part in row["components"]:
            raw, elsewhere = part.get("openness_raw"), "openness" in part
            if raw is not None and device in CURVES and (overwrite or not elsewhere):
                name, points = CURVES[device]
                x, y = np.array(points).T
                value = round(float(np.interp(raw, x, y)), 4)
                part = {**part, "openness": value, "openness_curve_id": name}
            parts.append(part)
        made.append({**row, "components": parts})
    return made


@given(manifests(), st.booleans(), st.randoms(use_true_random=False))
def test_a_stream_gives_what_memory_gives(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    overwrite: bool,
    shuffler: random.Random,
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    curves = curve_file(folder / "c.json")
    reports = []
    for _ in range(2):
        source, output = folder / "in.jsonl", folder / "out.jsonl"
        text = [json.dumps(row) + "\r\n" for row in rows]
        source.write_bytes("".join(text).encode())
        report = check.run(
            check.Options(events=source, curves=curves, output=output, overwrite=overwrite)
        )
        wanted = expected(rows, overwrite=overwrite)
        written = output.read_bytes().split(b"\n")[:-1]
        assert len(written) == len(rows)
        for before, row, want, after in zip(text, rows, wanted, written, strict=True):
            if want == row:
                assert after + b"\n" == before.encode(), "an unchanged line stays byte for byte"
            else:
                assert json.loads(after) == want
                assert after.endswith(b"\r")
        reports.append(report.metrics)
        shuffler.shuffle(rows)
    assert reports[0] == reports[1], "figures do not depend on the order of lines"
    raw = [(row, part) for row in rows for part in row["components"] if "openness_raw" in part]
    metrics = reports[0]
    counts = metrics["normalized"] + metrics["left_untouched"] + metrics["kept"]
    assert counts == len(raw)
    for name, figures in metrics["devices"].items():
        if figures["curve_id"] is not None:
            values = [
                part["openness"]
                for row in expected(rows, overwrite=overwrite)
                for part in row["components"]
                if "openness_raw" in part and part.get("openness_curve_id") == figures["curve_id"]
            ]
            assert name.startswith("Roland")
            histogram = np.histogram(values, 10, range=(0, 1))[0].tolist()
            assert figures["openness_histogram"] == histogram


def line(**more: Any) -> dict[str, Any]:
    return {
        "sample_id": "a",
        "session_id": "s",
        "onset_time": 0.5,
        "components": [{"label": "hihat_open", "openness_raw": 45}],
        "device_vendor": "Roland",
        "device_model": "TD-11",
        **more,
    }


def test_values_of_a_changed_line_stay_to_the_last_digit(tmp_path: Path) -> None:
    text = (
        '{"x":1.10,"sample_id":"a","session_id":"s","onset_time":0.50,"components":'
        '[{"label":"kick","velocity":0.70},{"pad":1.0,"label":"hihat_open","openness_raw":45.0,'
        '"big":123456789012345678901}],"device_vendor":"Roland","device_model":"TD-11"}\n'
    )
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(text)
    check.run(check.Options(events=source, output=output))
    assert output.read_text() == text.replace(
        "678901}", '678901,"openness":0.5,"openness_curve_id":"roland_td11_v1"}'
    )


def test_a_key_written_with_an_escape_is_found(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(line()).replace("openness_raw", "openness\\u005fraw") + "\n")
    check.run(check.Options(events=source, output=output))
    assert json.loads(output.read_text())["components"][0]["openness"] == 0.5


def test_spellings_of_a_device_are_one_device(tmp_path: Path) -> None:
    rows = [line(), line(device_vendor="ROLAND ", device_model=" td-11")]
    for order in (rows, rows[::-1]):
        source = tmp_path / "in.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in order))
        metrics = check.run(check.Options(events=source)).metrics
        assert [(n, d["components"]) for n, d in metrics["devices"].items()] == [
            ("ROLAND td-11", 2)
        ]


def test_devices_that_read_the_same_stay_apart(tmp_path: Path) -> None:
    rows = [
        line(device_vendor="A B", device_model="C"),
        line(device_vendor="A", device_model="B C"),
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = check.run(check.Options(events=source)).metrics
    assert list(metrics["devices"]) == ["A B C", "A B C (a b / c)"]


def test_the_report_says_how_far_a_curve_can_be_trusted(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(line()) + "\n")
    shipped = check.run(check.Options(events=source)).metrics["curves"]["roland_td11_v1"]
    assert (shipped["components"], shipped["uncertainty"]) == (1, None)
    curves = tmp_path / "c.json"
    fit = {
        "method": "measured", "n": 500, "raw_values": 2, "residual": 0.1, "groups": 9,
        "uncertainty": 0.02, "standard_errors": [0.01, 0.03],
    }  # fmt: skip
    entry = {
        "id": "mine", "vendor": "Roland", "models": ["TD-11"], "polarity": "high_is_closed",
        "points": [[0, 1], [127, 0]], "fit": fit,
    }  # fmt: skip
    curves.write_text(json.dumps({"schema_version": 1, "curves": [entry]}))
    mine = check.run(check.Options(events=source, curves=curves)).metrics["curves"]["mine"]
    assert (mine["uncertainty"], mine["residual"], mine["n"]) == (0.02, 0.1, 500)
    fit["standard_errors"] = [0.01]
    curves.write_text(json.dumps({"schema_version": 1, "curves": [entry]}))
    with pytest.raises(InputError, match=r"fit.standard_errors: must hold one for each"):
        check.load_curves(curves)


@given(st.lists(st.integers(0, 127 * 8).map(lambda value: value / 8), max_size=200))
def test_raw_counts_are_exact_until_there_are_too_many(values: list[float]) -> None:
    exact = openness.RawCounts()
    with mock.patch.object(openness, "EXACT_VALUES", 10):
        coarse = openness.RawCounts()
        for value in values:
            coarse.add(value)
    for value in values:
        exact.add(value)
    found, counts = exact.arrays()
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == Counter(values)
    assert coarse.total == exact.total == len(values)
    assert coarse.coarse == (len(set(values)) > 10)
    wanted = Counter(round(value, 2) if coarse.coarse else value for value in values)
    found, counts = coarse.arrays()
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == wanted


def test_standard_input(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    for tool in (["normalize-openness", "--events"], ["annotate-techniques", "--input"]):
        text = (json.dumps(line()) + "\n").encode()
        arguments = [*tool, "-", "--output", str(output)]
        result = CliRunner().invoke(main, arguments, input=io.BytesIO(text))
        assert result.exit_code == 0, result.stderr
        assert output.exists()
        bad = CliRunner().invoke(main, arguments, input=io.BytesIO(b"{}\n"))
        assert bad.exit_code == 2
        assert bad.stderr.startswith("-:1: sample_id: is required")
    refused = CliRunner().invoke(main, ["annotate-techniques", "--input", "-", "--in-place"])
    assert refused.exit_code == 2
    assert "cannot be changed in place" in refused.stderr


def test_output_may_be_the_input(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(line()) + "\n")
    assert drumgate("normalize-openness", "--events", source, "--output", source).exit_code == 0
    assert json.loads(source.read_text())["components"][0]["openness"] == 0.5


def peak_bytes(folder: Path, events: int) -> int:
    """Peak of Python's allocations over one run."""
    source, output = folder / f"{events}.jsonl", folder / "out.jsonl"
    with source.open("w") as file:
        for number in range(events):
            components = [{"label": "hihat_open", "openness_raw": number % 128}]
            file.write(json.dumps(line(components=components, pad="x" * 200)) + "\n")
    tracemalloc.start()
    try:
        check.run(check.Options(events=source, output=output))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_manifest(tmp_path: Path) -> None:
    with mock.patch.object(rewrite, "BLOCK_BYTES", 2**16):
        peak_bytes(tmp_path, 200)  # what is made once a process
        small, large = peak_bytes(tmp_path, 1000), peak_bytes(tmp_path, 5000)
    assert large - small < 50_000
