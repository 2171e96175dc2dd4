"""Drawing by the artefact of derive-sampling-weights: single events, the sampler, the trainer."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip_makers
import msgspec
import numpy as np
import pytest
import sampling_reference as reference
import strategies
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.checks.sampling import Options, run
from training.checks.sampling_profiles import Profile
from training.dataset.samplers import EpochSampler
from training.dataset.store import ClipStore
from training.dataset.weights import read_sampling_weights, split_weights
from training.errors import DrumgateError, InputError
from training.manifest import write_json

Run = Callable[..., Result]
SCHEMES = ("inverse_count", "repeat_factor", "effective_number")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def derived(manifest: Path, output: Path, **given_: Any) -> dict[str, Any]:
    found = run(Options(manifest=manifest, given=given_))
    write_json(output, found)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    objects=strategies.manifests(max_events=20),
    scheme=st.sampled_from(SCHEMES),
    boost=st.sampled_from([{}, {"flam": 1.5}]),
    exclude=st.sampled_from([(), ("flam",)]),
    min_count=st.integers(1, 2),
)
def test_every_event_weighs_what_the_reference_says(
    objects: list[dict[str, Any]],
    scheme: str,
    boost: dict[str, float],
    exclude: tuple[str, ...],
    min_count: int,
) -> None:
    given_: dict[str, Any] = {
        "scheme": scheme,
        "technique_boost": boost,
        "exclude_technique": exclude,
        "min_count": min_count,
    }
    base = Profile(description="", scheme=scheme)  # type: ignore[arg-type]
    chosen = msgspec.structs.replace(base, **given_)
    with tempfile.TemporaryDirectory() as folder:
        manifest, output = Path(folder) / "events.jsonl", Path(folder) / "w.json"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in objects))
        try:
            derived(manifest, output, **given_)
        except DrumgateError:
            return
        found = split_weights(output, manifest, hashes=[sha256(manifest)])
    rows, places = reference.chosen_events(objects, chosen)
    expected = np.zeros(len(objects))
    expected[places] = reference.event_weights(rows, chosen)[0]
    assert found == pytest.approx(expected, rel=1e-12)


def imbalanced(n: int) -> list[dict[str, Any]]:
    """One session: many kicks, a few crashes, one event in a hundred without a hit."""
    labels = [["crash"] if k % 10 == 3 else [] if k % 100 == 7 else ["kick"] for k in range(n)]
    return [
        {
            "sample_id": f"e{k}",
            "session_id": f"s{k % 3}",
            "onset_time": k / 8,
            "components": [{"label": label} for label in names],
        }
        for k, names in enumerate(labels)
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_sampler_draws_what_the_preview_says(tmp_path: Path, scheme: str) -> None:
    objects = imbalanced(1000)
    manifest, output = tmp_path / "events.jsonl", tmp_path / "w.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in objects))
    more = {"repeat_threshold": 0.5} if scheme == "repeat_factor" else {}
    preview = derived(manifest, output, scheme=scheme, **more)["preview"]
    weights = split_weights(output, manifest, hashes=[sha256(manifest)])
    sampler = EpochSampler(len(weights), 64, 5, weights)
    drawn = np.concatenate([sampler.order(epoch) for epoch in range(40)])
    label = np.array([row["components"][0]["label"] if row["components"] else "(no hit)"
                      for row in objects])[drawn]  # fmt: skip
    for name, row in preview["per_class"].items():
        mean = row["expected_draws"]
        # 40 epochs: five standard errors of a Poisson count
        assert (label == name).sum() / 40 == pytest.approx(mean, abs=5 * (mean / 40) ** 0.5)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path, dict[str, Any]]:
    manifest, output = tmp_path / "events.jsonl", tmp_path / "w.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in imbalanced(30)))
    derived(manifest, output, scheme="repeat_factor")
    return manifest, output, json.loads(output.read_text())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda a: a.update(tool="dataset-health"), "tool: "),
        (lambda a: a.update(schema_version=2), "schema_version: "),
        (lambda a: a.pop("weights"), "weights: is required"),
        (lambda a: a["weights"]["s0"].update(weight=-1), r"weight: must"),
        (lambda a: a["weights"]["s0"].update(weight="1"), r"weight: must"),
        (lambda a: a["weights"].pop("s1"), r'weights: has nothing for 1 of 3 .*"s1"'),
        (lambda a: a["class_factors"].pop("crash"), r'class_factors: has nothing .*"crash"'),
        (lambda a: a["parameters"].update(dedupe_key=["row"]), "names no field of an event"),
        (lambda a: a["parameters"].update(group_field="row"), "parameters.group_field"),
        (lambda a: [g.update(weight=0) for g in a["weights"].values()], "lets no event of"),
        (lambda a: a.update(inputs=[]), "was made from another manifest"),
    ],
)
def test_what_is_no_artefact_of_the_dataset_is_refused(
    written: tuple[Path, Path, dict[str, Any]], change: Callable[[dict[str, Any]], Any], why: str
) -> None:
    manifest, output, artefact = written
    change(artefact)
    output.write_text(json.dumps(artefact))
    with pytest.raises(InputError, match=why):
        split_weights(output, manifest, hashes=[sha256(manifest)])


def test_files_from_before_the_class_factors_are_read(
    written: tuple[Path, Path, dict[str, Any]],
) -> None:
    manifest, output, _ = written
    artefact = derived(manifest, output)
    old = json.loads(output.read_text())
    del old["class_factors"]
    for name in ("scheme", "include_technique", "exclude_technique"):
        del old["parameters"][name]
    output.write_text(json.dumps(old))
    assert read_sampling_weights(output).class_factors == {}
    found = split_weights(output, manifest, hashes=[sha256(manifest)])
    assert set(found.tolist()) == {row["weight"] for row in artefact["weights"].values()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest and a store that is ready."""
    folder = tmp_path_factory.mktemp("made")
    manifest, store = clip_makers.build_store(folder, {"train": 60, "val": 30})
    clip_makers.write_readiness(store / "readiness.json", sha256(manifest))
    (folder / "tiny.toml").write_text(clip_makers.CONFIG)
    return manifest, store


def words(store: Path, output: Path, *more: object) -> list[object]:
    return ["train-classifier", "--dataset", store, "--output", output, "--preset", "fast",
            "--config", store.parent / "tiny.toml", "--device", "cpu", *more]  # fmt: skip


def test_the_trainer_draws_by_the_artefact(
    made: tuple[Path, Path], tmp_path: Path, drumgate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, store = made
    weights, report = tmp_path / "w.json", tmp_path / "run.json"
    result = drumgate("derive-sampling-weights", manifest, "--output", weights,
                      "--scheme", "effective_number")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    used = []

    def watched(sampler: EpochSampler, *given: Any, **more: Any) -> None:
        used.append(given[3])
        made_by(sampler, *given, **more)

    made_by = EpochSampler.__init__
    monkeypatch.setattr(EpochSampler, "__init__", watched)
    out = tmp_path / "models"
    result = drumgate(*words(store, out, "--epochs", 1, "--sampling-weights", weights,
                             "--metrics-json", report))  # fmt: skip
    assert result.exit_code == 0, result.stderr
    train = ClipStore.open(store).split("train")
    expected = split_weights(weights, store / "splits" / "train.jsonl", hashes=[sha256(manifest)])
    assert len(expected) == len(train)
    assert used[0] == pytest.approx(expected)
    card = json.loads((out / "model_card.json").read_text())
    assert card["data"]["sampling_weights_sha256"] == sha256(weights)
    found = json.loads(report.read_text())
    assert found["inputs"][1]["sha256"] == sha256(weights)

    # A run goes on with the weights that it began with, or not at all.
    result = drumgate(*words(store, out, "--epochs", 1, "--resume"))
    assert result.exit_code == 2
    assert "sampling_weights_sha256" in result.stderr
    result = drumgate(*words(store, out, "--epochs", 1, "--resume", "--sampling-weights", weights))
    assert result.exit_code == 0, result.stderr


def test_weights_of_the_split_itself_will_do_and_others_will_not(
    made: tuple[Path, Path], tmp_path: Path, drumgate: Run
) -> None:
    _, store = made
    weights = tmp_path / "w.json"
    derived(store / "splits" / "train.jsonl", weights)
    asked = words(store, tmp_path / "a", "--epochs", 1, "--sampling-weights", weights)
    assert drumgate(*asked).exit_code == 0
    derived(store / "splits" / "val.jsonl", weights)
    result = drumgate(*words(store, tmp_path / "b", "--sampling-weights", weights))
    assert result.exit_code == 2
    assert "was made from another manifest than the dataset" in result.stderr
    assert not (tmp_path / "b").exists()
