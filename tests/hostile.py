"""Broken manifests: what goes wrong in real ones, and what readers are known to let pass.

A *fault* takes the bytes of a valid line and gives the bytes of a line that is not an event.
Whether the result is one is never taken on trust: `is_event` decides, from the published JSON
Schema and a JSON parser that sees every pair, neither of which the product reads manifests with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from strategies import event_objects

from training.resources import config_path

_SCHEMA = Draft202012Validator(
    json.loads(config_path("schemas/event.schema.json").read_text("utf-8"))
)
_WHOLE = ("sample_rate", "channels", "bar_index")
MAX_BYTES = 16 * 2**20
BOM = b"\xef\xbb\xbf"

Fault = Callable[[bytes], bytes]


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs) if len(dict(pairs)) == len(pairs) else _refuse("a key stands twice")


def is_event(line: bytes) -> bool:
    """Tell whether a line is a valid event, by means other than the product's."""
    if len(line) > MAX_BYTES:
        return False
    try:
        text = line.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails for half a surrogate pair
    except (ValueError, RecursionError):
        return False
    if not _SCHEMA.is_valid(value):
        return False
    # JSON Schema counts 1.0 as whole and knows no order between two fields.
    whole = all(isinstance(value.get(name), int | None) for name in _WHOLE)
    return whole and (value.get("offset_time") or math.inf) >= value["onset_time"]


def _with(name: str, text: str) -> Fault:
    """Replace a field, or add it, by JSON text of any kind."""

    def change(line: bytes) -> bytes:
        rest = {key: value for key, value in json.loads(line).items() if key != name}
        inner = json.dumps(rest)[1:-1]
        return f"{{{json.dumps(name)}: {text}{', ' if inner else ''}{inner}}}".encode()

    return change


def _without(name: str) -> Fault:
    return lambda line: json.dumps(
        {key: value for key, value in json.loads(line).items() if key != name}
    ).encode()


def _added(text: bytes) -> Fault:
    return lambda line: line[:-1] + b", " + text + b"}"


FAULTS: dict[str, Fault] = {
    "a number as text": _with("onset_time", '"0.5"'),
    "a number as id": _with("sample_id", "7"),
    "a flag as text": _with("is_synthetic", '"false"'),
    "a flag as number": _with("is_synthetic", "0"),
    "a number as flag": _with("tempo_bpm", "true"),
    "NaN": _with("onset_time", "NaN"),
    "Infinity": _with("tempo_bpm", "Infinity"),
    "-Infinity in an unknown field": _with("x_unknown", "[-Infinity]"),
    "a trailing comma": lambda line: line[:-1] + b",}",
    "a trailing comma in a list": _with("x_unknown", "[1,]"),
    "a leading zero": _with("onset_time", "01.5"),
    "a bare point": _with("onset_time", "1."),
    "a plus sign": _with("onset_time", "+1"),
    "a number out of range": _with("tempo_bpm", "1e999"),
    "an unknown number out of range": _with("x_unknown", "1e999"),
    "a whole number out of range": _with("bar_index", "9" * 30),
    "a fraction for a whole number": _with("sample_rate", "44100.5"),
    "1.0 for a whole number": _with("channels", "1.0"),
    "a negative onset": _with("onset_time", "-0.001"),
    "an end before the onset": lambda line: _with("offset_time", "0.25")(
        _with("onset_time", "0.5")(line)
    ),
    "velocity above 1": _with("components", '[{"label": "kick", "velocity": 1.0001}]'),
    "velocity as text": _with("components", '[{"label": "kick", "velocity": "1"}]'),
    "an unknown bucket": _with("components", '[{"label": "kick", "dynamic_bucket": "loud"}]'),
    "a component without label": _with("components", '[{"velocity": 0.5}]'),
    "an empty label": _with("components", '[{"label": ""}]'),
    "components as object": _with("components", '{"label": "kick"}'),
    "components null": _with("components", "null"),
    "a number among techniques": _with("techniques", '["flam", 5]'),
    "techniques as text": _with("techniques", '"flam"'),
    "no session": _without("session_id"),
    "no id": _without("sample_id"),
    "an empty id": _with("sample_id", '""'),
    "a key twice": lambda line: line[:-1] + b', "sample_id": "again"}',
    "a key twice, once null": _added(b'"x_a": null, "x_a": 1'),
    "a key twice, escaped": lambda line: line[:-1] + b', "\\u0073ample_id": "again"}',
    "a key twice in a component": _with("components", '[{"label": "kick", "label": "snare"}]'),
    "a key twice, deep": _added(b'"x_a": [{"b": {"c": 1, "c": 1}}]'),
    "text that is not UTF-8": _added(b'"x_a": "\xff\xfe"'),
    "half a surrogate": _added(b'"split": "\\ud800"'),
    "a control character": _added(b'"x_a": "\x01"'),
    "deep nesting": _added(b'"x_a": ' + b"[" * 3000 + b"]" * 3000),
    "cut short": lambda line: line[: len(line) // 2],
    "two objects": lambda line: line + b" " + line,
    "an array": lambda line: b"[" + line + b"]",
    "a bare string": lambda line: b'"event"',
    "null": lambda line: b"null",
    "a comment": lambda line: line + b" // yes",
    "single quotes": lambda line: line.replace(b'"', b"'"),
    "a byte order mark inside": lambda line: b"\xef\xbb\xbf " + line,
    "UTF-16": lambda line: line.decode().encode("utf-16-le"),
}
"""Every one of them makes any valid line invalid."""


@st.composite
def broken_manifests(draw: st.DrawFn) -> bytes:
    """A manifest in which some lines are broken and some are blank, with any kind of line end."""
    lines: list[bytes] = []
    for number in range(draw(st.integers(1, 6))):
        event = {**draw(event_objects()), "sample_id": f"id{number}"}
        lines.append(json.dumps(event).encode())
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(lines) - 1))
        if is_event(lines[where]):
            lines[where] = FAULTS[draw(st.sampled_from(sorted(FAULTS)))](lines[where])
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from([b"", b"  ", b"\t"])))
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    return end.join(lines) + draw(st.sampled_from([b"", end]))


def bad_lines(manifest: bytes) -> list[int]:
    """The numbers of the lines that hold something, and that something is no event."""
    found = []
    for number, line in enumerate(manifest.removeprefix(BOM).split(b"\n"), start=1):
        text = line.strip(b" \t\r\n")
        if text and not is_event(text):
            found.append(number)
    return found
