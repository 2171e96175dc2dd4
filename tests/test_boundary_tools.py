"""The boundary pack and its evaluation from files to exit code."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import ROOT
from jsonl import read, write
from sklearn.metrics import precision_recall_fscore_support

from training.checks import boundary, boundary_pack
from training.errors import DrumgateError, InputError
from training.gates import Status
from training.manifest import GroundTruth, read_records

LABELS = ("kick", "snare", "hihat_closed", "ride")


def event(name: str, onset: float, *labels: str, **more: object) -> dict[str, Any]:
    components = [{"label": label} for label in labels]
    return {
        "sample_id": name,
        "session_id": "s",
        "onset_time": onset,
        "components": components,
        **more,
    }


def events(seed: int = 0, n: int = 600) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        event(
            f"e{i}",
            round(float(rng.uniform(0, 200)), 4),
            *rng.choice(LABELS, rng.integers(1, 3), replace=False).tolist(),
            session_id=f"s{i % 12}",
            audio_path=f"audio/s{i % 12}.wav",
            split="test",
        )
        for i in range(n)
    ]


def pack(tmp_path: Path, rows: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    source = write(tmp_path / "events.jsonl", rows)
    output = tmp_path / "labels.jsonl"
    boundary_pack.run(boundary_pack.Options(events=source, output=output, **fields))
    return read(output)


def test_a_row_says_all_that_a_model_needs(tmp_path: Path) -> None:
    rows = pack(
        tmp_path,
        [
            event(
                "hit",
                2.06,
                "kick",
                "ride",
                audio_path="a/b.wav",
                split="val",
                annotated_labels=["kick", "ride"],
                source_set="mdb",
            )
        ],
    )
    assert rows == [
        {
            "sample_id": "hit@o0w4start",
            "event_id": "hit",
            "session_id": "s",
            "labels": ["kick", "ride"],
            "components": [{"label": "kick"}, {"label": "ride"}],
            "window_index": 4,
            "window_start_s": 2.048,
            "window_size_ms": 2048.0,
            "hop_size_ms": 512.0,
            "offset_ms": 0.0,
            "edge": "start",
            "distance_ms": 12.0,
            "onset_ms": 12.0,
            "onset_time": 2.06,
            "audio_path": "a/b.wav",
            "source_set": "mdb",
            "split": "val",
            "annotated_labels": ["kick", "ride"],
        }
    ]
    truth = read_records(tmp_path / "labels.jsonl", GroundTruth)
    assert truth.rows[0].label_set == {"kick", "ride"}


def test_rows_equal_a_plain_walk_and_ids_are_distinct(tmp_path: Path) -> None:
    source = events()
    rows = pack(
        tmp_path, source, window_ms=100.0, hop_ms=30.0, margin_ms=25.0, offsets_ms=(0.0, 12.5)
    )
    expected = Counter()
    for row in source:
        onset = round(row["onset_time"] * 1e6)
        for offset in (0, 12_500):
            for k in range(7000):
                start = offset + k * 30_000
                if start <= onset < start + 100_000:
                    if onset - start <= 25_000:
                        expected[row["sample_id"], offset, k, "start"] += 1
                    if start + 100_000 - onset <= 25_000:
                        expected[row["sample_id"], offset, k, "end"] += 1
    found = Counter(
        (r["event_id"], round(r["offset_ms"] * 1000), r["window_index"], r["edge"]) for r in rows
    )
    assert found == expected
    assert len({row["sample_id"] for row in rows}) == len(rows) > 1000
    for row in rows:
        inside = (row["onset_time"] - row["window_start_s"]) * 1000
        assert row["onset_ms"] == pytest.approx(inside, abs=1e-3)
        wanted = {"start": row["onset_ms"], "end": row["window_size_ms"] - row["onset_ms"]}
        assert row["distance_ms"] == pytest.approx(wanted[row["edge"]], abs=1e-6)


def test_caps_filters_edges_and_seed(tmp_path: Path) -> None:
    everything = pack(tmp_path, events())
    capped = pack(tmp_path, events(), max_per_edge=5, seed=3)
    counts = Counter((row["edge"], label) for row in capped for label in row["labels"])
    assert set(counts.values()) <= {4, 5}
    assert max(counts.values()) == 5
    assert capped == pack(tmp_path, events(), max_per_edge=5, seed=3)
    assert capped != pack(tmp_path, events(), max_per_edge=5, seed=4)
    assert [row for row in everything if row in capped] == capped
    # not the first of the file
    assert max(int(row["event_id"][1:]) for row in capped) > 400

    only = pack(tmp_path, events(), include_labels=("ride",), exclude_labels=("kick",))
    assert all("ride" in row["labels"] and "kick" not in row["labels"] for row in only)
    assert len(only) == sum("ride" in r["labels"] and "kick" not in r["labels"] for r in everything)
    ends = pack(tmp_path, events(), edges=("end",))
    assert ends == [row for row in everything if row["edge"] == "end"]


def test_dry_run_counts_what_the_real_run_writes(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    source = write(tmp_path / "events.jsonl", events())
    arguments = ["generate-boundary-pack", "--events", source, "--max-per-edge", 7]
    dry = drumgate(*arguments, "--dry-run", "--output", tmp_path / "x.jsonl")
    assert dry.exit_code == 0
    assert not (tmp_path / "x.jsonl").exists()
    wet = drumgate(*arguments, "--output", tmp_path / "x.jsonl")
    assert wet.stdout == dry.stdout
    written = read(tmp_path / "x.jsonl")
    assert f"{len(written)} rows of " in wet.stdout


def test_a_packed_manifest_gives_the_same_pack(tmp_path: Path) -> None:
    plain = pack(tmp_path, events())
    packed = tmp_path / "events.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "events.jsonl").read_bytes()))
    output = tmp_path / "again.jsonl"
    boundary_pack.run(boundary_pack.Options(events=packed, output=output))
    assert read(output) == plain


def test_a_parquet_manifest_gives_the_same_pack_and_names_every_bad_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = events(n=100)
    plain = pack(tmp_path, rows)
    table = tmp_path / "events.parquet"
    output = tmp_path / "again.jsonl"
    pq.write_table(pa.Table.from_pylist(rows), table)
    boundary_pack.run(boundary_pack.Options(events=table, output=output))
    assert read(output) == plain
    rows[3]["onset_time"] = rows[7]["onset_time"] = -1.0
    pq.write_table(pa.Table.from_pylist(rows), table)
    with pytest.raises(InputError) as caught:
        boundary_pack.run(boundary_pack.Options(events=table, output=output))
    assert [problem.line for problem in caught.value.problems] == [4, 8]


def test_events_without_labels_are_counted_and_unknown_filters_named(tmp_path: Path) -> None:
    source = write(tmp_path / "events.jsonl", [event("a", 0.01, "kick"), event("b", 0.02)])
    report = boundary_pack.run(
        boundary_pack.Options(
            events=source, output=tmp_path / "labels.jsonl", exclude_labels=("zurna",)
        )
    )
    assert report.metrics["events_without_labels"] == 1
    assert report.metrics["rows_without_audio"] == 1
    assert any("--exclude-label zurna" in text for text in report.warnings)


def test_a_bad_line_late_in_the_file_leaves_the_old_pack(tmp_path: Path) -> None:
    output = tmp_path / "labels.jsonl"
    output.write_text("old")
    source = write(tmp_path / "events.jsonl", [*events(), {"sample_id": "x"}, event("y", -1.0)])
    with pytest.raises(InputError) as caught:
        boundary_pack.run(boundary_pack.Options(events=source, output=output))
    assert [problem.line for problem in caught.value.problems] == [601, 602]
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "labels.jsonl"]


# --- evaluation ---------------------------------------------------------------------------------


def predictions(rows: list[dict[str, Any]], keep: float, seed: int = 1) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    made = []
    for row in rows:
        scores = {}
        for label in LABELS:
            right = rng.random() < keep
            there = label in row["labels"]
            high = there if right else not there
            scores[label] = float(rng.uniform(0.5, 1) if high else rng.uniform(0, 0.499))
        made.append({"sample_id": row["sample_id"], "scores": scores})
    return made


def evaluate(
    tmp_path: Path, truth: list[dict[str, Any]], predicted: list[dict[str, Any]], **fields: Any
) -> Any:
    return boundary.run(
        boundary.Options(
            ground_truth=write(tmp_path / "truth.jsonl", truth),
            predictions=write(tmp_path / "predicted.jsonl", predicted),
            **fields,
        )
    )


def test_figures_equal_scikit_learn_with_weights_and_missing_rows(tmp_path: Path) -> None:
    truth = pack(tmp_path, events())
    rng = np.random.default_rng(5)
    for row in truth:
        row["weight"] = float(rng.choice([0.5, 1.0, 2.0]))
    predicted = predictions(truth, 0.85)[:-7]
    report = evaluate(tmp_path, truth, predicted)
    said = {row["sample_id"]: row["scores"] for row in predicted}
    reference = np.array([[label in row["labels"] for label in LABELS] for row in truth])
    guess = np.array(
        [[said.get(r["sample_id"], {}).get(label, 0) >= 0.5 for label in LABELS] for r in truth]
    )
    weight = np.array([row["weight"] for row in truth])
    edge = np.array([row["edge"] for row in truth])
    for part, mask in [
        (report.metrics, np.ones(len(truth), bool)),
        (report.metrics["per_edge"]["start"], edge == "start"),
        (report.metrics["per_edge"]["end"], edge == "end"),
    ]:
        for average in ("macro", "micro"):
            expected = precision_recall_fscore_support(
                reference[mask], guess[mask], sample_weight=weight[mask], average=average
            )[:3]
            ours = [part[average][name] for name in ("precision", "recall", "f1")]
            np.testing.assert_allclose(ours, expected, atol=1e-12)
    assert report.metrics["missing_predictions_total"] == 7
    assert report.metrics["missing_predictions"] == [row["sample_id"] for row in truth[-7:]]
    assert any("count as misses" in text for text in report.warnings)
    verdict = report.verdicts[0]
    assert verdict.name == "boundary.min_macro_recall"
    assert verdict.status is Status.FAIL
    interval = report.metrics["macro_recall_interval"]
    assert interval["lower"] < verdict.observed < interval["upper"]
    assert interval["n_sessions"] == 12


def test_the_gate_passes_fails_and_obeys_its_flags(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    truth = pack(tmp_path, events())
    write(tmp_path / "predicted.jsonl", predictions(truth, 0.9))
    files = [
        "--ground-truth",
        tmp_path / "labels.jsonl",
        "--predictions",
        tmp_path / "predicted.jsonl",
    ]
    assert drumgate("boundary-eval", *files).exit_code == 0
    assert drumgate("boundary-eval", *files, "--strict").exit_code == 1
    assert drumgate("boundary-eval", *files, "--strict", "--min-macro-recall", 0.85).exit_code == 0
    lower = ["--strict", "--gate", "min_macro_recall=0.85"]
    assert drumgate("boundary-eval", *files, *lower).exit_code == 0
    gates = tmp_path / "gates.toml"
    gates.write_text(
        '[boundary.min_macro_recall]\nvalue = 0.85\nreason = "a test"\ndecide_on = "lower"\n'
    )
    outcome = drumgate("boundary-eval", *files, "--strict", "--gates", gates)
    assert "lower bound" in outcome.stdout
    for wrong in ("min_macro_recall", "min_macro_recall=x", "min_macro_recall=nan", "x=2"):
        assert drumgate("boundary-eval", *files, "--gate", wrong).exit_code == 2
    assert drumgate("boundary-eval", *files, "--distance-bins-ms", "9,3").exit_code == 2


def test_distance_bins_and_edges_show_where_events_are_lost(tmp_path: Path) -> None:
    truth = pack(tmp_path, events(n=2000), offsets_ms=(0.0, 128.0, 256.0))
    lost = [
        {
            "sample_id": row["sample_id"],
            "labels": [] if row["edge"] == "end" and row["distance_ms"] <= 10 else row["labels"],
        }
        for row in truth
    ]
    metrics = evaluate(tmp_path, truth, lost).metrics
    assert metrics["per_edge"]["start"]["macro"]["recall"] == 1.0
    bins = metrics["per_edge"]["end"]["by_distance"]
    assert [(b["upper_ms"], b["macro"]["recall"]) for b in bins] == [
        (5.0, 0.0),
        (10.0, 0.0),
        (20.0, 1.0),
        (40.0, 1.0),
    ]
    assert sum(b["n_clips"] for b in metrics["by_distance"]) == len(truth)


def test_top_k_limits_what_is_predicted(tmp_path: Path) -> None:
    truth = [
        {"sample_id": "a", "labels": ["kick"], "session_id": "s"},
        {"sample_id": "b", "labels": ["snare"], "session_id": "t"},
    ]
    predicted = [
        {"sample_id": "a", "probabilities": {"kick": 0.9, "snare": 0.8}},
        {"sample_id": "b", "probabilities": {"kick": 0.7, "snare": 0.6}},
    ]
    assert evaluate(tmp_path, truth, predicted).metrics["micro"]["recall"] == 1.0
    assert evaluate(tmp_path, truth, predicted, top_k=1).metrics["micro"]["recall"] == 0.5
    assert evaluate(tmp_path, truth, predicted, threshold=0.65).metrics["micro"]["recall"] == 0.5


def test_unannotated_and_background_labels_are_not_held_against_a_model(tmp_path: Path) -> None:
    truth = [
        {"sample_id": "a", "labels": ["kick"], "annotated_labels": ["kick", "snare"]},
        {"sample_id": "b", "labels": ["snare", "aux_percussion"]},
        {"sample_id": "c", "labels": ["aux_percussion"]},
    ]
    predicted = [
        {"sample_id": "a", "labels": ["kick", "ride"]},
        {"sample_id": "b", "labels": ["snare"]},
        {"sample_id": "c", "labels": []},
        {"sample_id": "z", "labels": []},
    ]
    report = evaluate(tmp_path, truth, predicted)
    assert report.metrics["micro"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert report.metrics["background_labels_left_out"] == {"aux_percussion": 2}
    assert report.metrics["surplus_predictions_total"] == 1
    assert report.metrics["macro_recall_interval"]["reason"] == "3 rows have no session_id"
    text = " ".join(report.warnings)
    assert "aux_percussion (2 rows)" in text
    assert "1 predictions are of no row" in text
    assert "name no edge" in text


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([[], []], "no reference event"),
        ([["kick"], ["kick"]], "1 class only"),
        ([["aux_percussion"], ["aux_percussion"]], "no reference event"),
    ],
)
def test_what_cannot_be_measured_blocks(tmp_path: Path, labels: list[list[str]], why: str) -> None:
    truth = [
        {"sample_id": f"r{i}", "labels": each, "session_id": f"s{i}"}
        for i, each in enumerate(labels)
    ]
    said = [{"sample_id": row["sample_id"], "labels": row["labels"]} for row in truth]
    report = evaluate(tmp_path, truth, said)
    for verdict in report.verdicts:
        assert verdict.status is Status.NOT_MEASURED
        assert why in verdict.detail
    assert report.blocks
    if why == "1 class only":
        silence = {"sample_id": "quiet", "labels": [], "session_id": "s0"}
        few = {"min_classes": 1, "min_events": 2}
        assert not evaluate(tmp_path, [*truth, silence], [*said, silence], **few).blocks


def test_zero_weights_measure_nothing(tmp_path: Path) -> None:
    truth = [{"sample_id": x, "labels": [x], "weight": 0} for x in ("kick", "snare")]
    said = [{"sample_id": row["sample_id"], "labels": row["labels"]} for row in truth]
    assert evaluate(tmp_path, truth, said).verdicts[0].status is Status.NOT_MEASURED


def test_bad_options_are_refused(tmp_path: Path) -> None:
    truth = [{"sample_id": "a", "labels": ["kick"]}]
    with pytest.raises(DrumgateError, match="did you mean 'min_macro_recall'"):
        evaluate(tmp_path, truth, truth, gate_values={"min_macro_recal": 0.5})
    with pytest.raises(DrumgateError, match="bins"):
        evaluate(tmp_path, truth, truth, distance_bins_ms=(0.0,))
    with pytest.raises(DrumgateError, match="--output is required"):
        boundary_pack.run(
            boundary_pack.Options(
                events=write(tmp_path / "e.jsonl", [event("a", 0, "kick")]), output=None
            )
        )


def test_the_report_is_the_same_from_run_to_run_and_in_any_order(tmp_path: Path) -> None:
    truth = pack(tmp_path, events())
    predicted = predictions(truth, 0.9)

    def body(rows: list[dict[str, Any]]) -> dict[str, Any]:
        whole = evaluate(tmp_path, rows, predicted[::-1]).to_dict()
        return {key: whole[key] for key in ("gating_results", "metrics", "warnings", "parameters")}

    assert body(truth) == body(truth) == body(truth[::-1])


def test_the_example_files_work(drumgate: Callable[..., Result]) -> None:
    outcome = drumgate(
        "boundary-eval",
        "--ground-truth",
        ROOT / "examples/boundary_labels_example.jsonl",
        "--predictions",
        ROOT / "examples/boundary_predictions_example.jsonl",
        "--strict",
    )
    assert outcome.exit_code == 0, outcome.output
    assert "PASS" in outcome.stdout


def test_a_pack_of_real_recordings(shared_data: Path, tmp_path: Path) -> None:
    annotations = sorted((shared_data / "mdb_drums").rglob("*_class.txt"))
    if not annotations:
        pytest.skip("no MDB Drums class annotations at hand")
    rows = []
    for path in annotations:
        for number, line in enumerate(path.read_text().splitlines()):
            onset, label = line.split()[:2]
            name = f"{path.stem}_{number}"
            rows.append(event(name, float(onset), label.lower(), session_id=path.stem))
    made = pack(tmp_path, rows)
    seams = np.arange(0, 2_000) * 512_000
    near = 0
    for row in rows:
        onset = round(row["onset_time"] * 1e6)
        near += bool(np.any((seams <= onset) & (onset - seams <= 40_000)))
        # each seam from 2.048 s on is also the end of a window
        near += bool(np.any((seams >= 2_048_000) & (seams > onset) & (seams - onset <= 40_000)))
    assert len(made) == near > 500
