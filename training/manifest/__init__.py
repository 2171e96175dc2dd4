"""The events contract: its fields, strict reading, exact diagnosis, atomic writing."""

from training.manifest.fields import (
    Component,
    ContextMs,
    Event,
    GroundTruth,
    Loudness,
    Prediction,
    json_schema,
)
from training.manifest.folder import FolderKind
from training.manifest.paths import resolve_inside
from training.manifest.read import (
    InputFile,
    Records,
    describe_file,
    iter_records,
    read_json,
    read_raw,
    read_records,
    reject_duplicates,
)
from training.manifest.write import atomic_write, to_json, write_json, write_jsonl, write_text

__all__ = [
    "Component",
    "ContextMs",
    "Event",
    "FolderKind",
    "GroundTruth",
    "InputFile",
    "Loudness",
    "Prediction",
    "Records",
    "atomic_write",
    "describe_file",
    "iter_records",
    "json_schema",
    "read_json",
    "read_raw",
    "read_records",
    "reject_duplicates",
    "resolve_inside",
    "to_json",
    "write_json",
    "write_jsonl",
    "write_text",
]
