"""The configuration of a readiness run: what it may say, and what it is told when it may not."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from readiness_cases import CASES, stores, table

from training.checks.readiness_checks import CHECKS, USUAL
from training.checks.readiness_config import CheckTable, read_config
from training.checks.readiness_plan import Options, make_plan
from training.errors import InputError
from training.gates import GateEntry, load_thresholds
from training.run_readiness_checks import CHECK_FLAGS
from training.run_readiness_checks import USUAL as FLAGS_USUAL

__all__ = ["stores"]  # a fixture
HOSTILE = "<script>alert(1)</script>\x1b[2J\"'&::error::x"


def read(folder: Path, text: str, **more: Any) -> Any:
    path = folder / "readiness.toml"
    path.write_text(text)
    return read_config(path, **more)


def faults(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


def test_the_command_knows_the_checks() -> None:
    assert [name.replace("-", "_") for name in CHECK_FLAGS] == list(CHECKS)
    assert FLAGS_USUAL == USUAL
    for check in CHECKS.values():
        for group in check.needs:
            flags = CHECK_FLAGS[check.name.replace("_", "-")]
            assert check.flag(group[0]).removeprefix(f"--{check.name}-".replace("_", "-")) in flags


def test_the_shipped_configuration_is_true_to_the_checks() -> None:
    config = read_config(ROOT / "configs" / "readiness.toml")
    assert set(config.checks) == set(CHECKS)
    assert config.root == ROOT
    for name, each in config.checks.items():
        assert all(entry.reason for entry in each.gates.values()), name
    # nothing of what it names is in this repository
    assert all(each.absent for each in config.checks.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[helth]", "helth: is not a check; did you mean 'health'?"),
        ("rot = '.'\n[health]", "rot: is not a check; did you mean 'root'?"),
        ("health = 1", "health: must be a table (got 1)"),
        ("[health]\ninput = {}", "health.input: is not a key of a check; did you mean 'inputs'?"),
        ("[health.inputs]\nevent = 'e'", "did you mean 'events'?"),
        ("[health.options]\nskip_invald = true", "did you mean 'skip_invalid'?"),
        ("[health.options]\nevents = 'e'", "is an input: give it in [health.inputs]"),
        ("[health.options]\nmin_kits = 2", "is a gate: give [health.gates.min_kits]"),
        ("[health.options]\ncache_dir = 'x'", "health.options.cache_dir: is not an option"),
        ("[health.gates.min_kit]\nreason = 'x'", "did you mean 'min_kits'?"),
        ("[health.gates.min_kits]\nreasn = 'x'", "did you mean 'reason'?"),
        ("[health.gates.min_kits]\nvalue = 2", "health.gates.min_kits.reason: is required"),
        ("[health.gates.min_kits]\nreason = ' '", "health.gates.min_kits.reason: is required"),
        ("[health.gates.min_kits]\nvalue = '2'\nreason = 'x'", 'must be a number (got "2")'),
        ("[health.gates.min_kits]\nvalue = inf\nreason = 'x'", "must be a finite number"),
        ("[health.gates.min_kits]\ndecide_on = 'best'\nreason = 'x'", "is not one of the values"),
        ("[health]\ndecide_on = 'lower'", "health.decide_on: is that of the gates listed"),
        ("[health]\nrequired = false", "health.reason: is needed"),
        ("[health]\nseverity = 'warn'\nreason = ' '", "health.reason: is needed"),
        ("[health]\nseverity = 'none'\nreason = 'x'", "health.severity: is not one of the values"),
        ("[health]\nrequired = 'no'", "health.required: must be true or false"),
        ("[health.inputs]\nevents = 3", "health.inputs.events: must be"),
        ("[health.inputs]\nevents = []", "health.inputs.events: must not be empty"),
        ("[health.inputs]\nevents = ''", "health.inputs.events: must be a text"),
        ("[health.inputs]\nevents = '-'", "standard input can be named in flags only"),
        ('[health.inputs]\nevents = "a\\u0000b"', "health.inputs.events: must be a text"),
        ("[health.inputs]\ncomponents = ['a', 'b']", "components: must be one path"),
        ("[health.options]\nengine = 3", "health.options.engine: must be a string"),
        ("[boundary.options]\nthreshold = nan", "must be a finite number"),
        ("[boundary.options]\ndistance_bins_ms = [1.0, inf]", "must be a finite number"),
        ("[bootstrap.options]\nmethod = 'bcb'", "must be 'expanded' or 'percentile' or 'bca'"),
        ("[bootstrap.options]\nseed = true", "bootstrap.options.seed: must be a whole number"),
        ("[bootstrap.options]\nlabels = 'kick'", "bootstrap.options.labels: must be a list"),
        ("[bootstrap.options]\niterations = 0", "must be at least 1 (got 0)"),
        ("[bootstrap.options]\nconfidence = 1", "must be above 0 and below 1 (got 1)"),
        (
            "[openset.gates.max_fpr_at_95tpr]\nvalue = 10\nreason = 'percent'",
            "must be at least 0 and at most 1",
        ),
        ("[health.gates.min_kits]\nvalue = -1\nreason = 'x'", "must be at least 0 (got -1"),
        ("root = 3\n[health]", "root: must be a text that is not empty"),
        ("root = '/'\n[health]", "root: must be relative to this file"),
        ("waivers = '../w.toml'\n[health]", "waivers: leads outside"),
        ("", "is empty"),
        ("# nothing", "names no check"),
        ("[health", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in faults(tmp_path, text)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    said = faults(tmp_path, "[helth]\n[openset]\nx = 1\n[boundary.inputs]\npredictions = '/p'\n")
    assert said.count("\n") == 2


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "link/x", "../*.json"])
def test_no_path_leads_out_of_the_root(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "x").touch()
    (inside / "link").symlink_to(tmp_path)
    for check, key in (("health", "events"), ("openset", "predictions")):
        said = faults(inside, f"[{check}.inputs]\n{key} = {json.dumps(name)}\n")
        assert "leads outside" in said or "must be a relative path" in said


def test_a_link_is_followed_before_the_way_up(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "a" / "x").touch()
    config = read(tmp_path, "[health.inputs]\ncomponents = 'link/../x'\n")
    found = config.checks["health"]
    assert found.given["components"].samefile(tmp_path / "a" / "x")
    assert not found.absent


def test_what_a_pattern_matches_stays_inside_too(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "x.json").touch()
    (inside / "y.json").symlink_to(tmp_path / "x.json")
    assert "leads outside" in faults(inside, "[alignment.inputs]\nmanifests = '*.json'\n")


def test_paths_belong_to_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "data").mkdir()
    for name in ("b.json", "a.json", "c.txt"):
        (tmp_path / "data" / name).touch()
    text = "[alignment.inputs]\nmanifests = ['data/*.json', 'data/c.txt', 'none/*']\n"
    config = read(tmp_path / "configs", f"root = '..'\n{text}")
    found = config.checks["alignment"]
    assert found.given["manifests"] == tuple(
        tmp_path / "data" / name for name in ("a.json", "b.json", "c.txt")
    )
    assert found.absent == {"manifests": "none/* (matches no file)"}
    same = read(tmp_path / "configs", text, root=tmp_path)
    assert same.checks["alignment"].given == found.given
    monkeypatch.chdir(tmp_path)  # paths are short where they can be
    near = read_config(Path("configs/readiness.toml"), Path())
    assert near.checks["alignment"].given["manifests"][0] == Path("data/a.json")


def test_thresholds_lie_over_the_shipped_ones_and_flags_over_both(tmp_path: Path) -> None:
    path = tmp_path / "readiness.toml"
    path.write_text(
        "[openset]\ndecide_on = 'lower'\n"
        "[openset.gates.min_auroc]\nvalue = 0.7\nreason = 'why'\n"
        "[openset.gates.max_fpr_at_95tpr]\ndecide_on = 'point'\nreason = 'so'\n"
    )
    shipped = load_thresholds("openset")["min_auroc"].value

    def planned(**more: Any) -> Any:
        return make_plan(Options(config=path, **more)).checks[0].thresholds()

    found = planned()["min_auroc"]
    assert (found.value, found.reason, found.production) == (0.7, "why", shipped)
    assert found.decide_on == "lower"
    assert planned()["max_fpr_at_95tpr"].decide_on == "point"
    own = tmp_path / "gates.toml"
    own.write_text("[openset.min_auroc]\nvalue = 0.6\nreason = 'over'\n")
    found = planned(gates=own)["min_auroc"]
    assert (found.value, found.reason, found.decide_on) == (0.6, "over", "lower")
    assert found.production == shipped
    found = planned(gates=own, given={"openset": {"min_auroc": 0.5}})["min_auroc"]
    assert (found.value, found.production) == (0.5, shipped)
    found = planned(settings=["openset.min_auroc=0.4"])["min_auroc"]
    assert found.value == 0.4


def test_only_the_gates_of_health_that_are_asked_for_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "readiness.toml"
    path.write_text(
        "[health.inputs]\nrequire_labels_files = ['l.txt']\n"
        "[health.options]\nsplit_isolation = ['session']\n"
        "[health.gates.min_kits]\nreason = 'why'\n"
    )
    plan = make_plan(Options(config=path, given={"health": {"min_class_count": 3}}))
    assert set(plan.checks[0].thresholds()) == {
        "min_kits",
        "split_isolation",
        "require_labels",
        "min_class_count",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "openset"], "--set openset: is not CHECK.NAME=VALUE"),
        (["--set", "openset.method"], "is not CHECK.NAME=VALUE"),
        (
            ["--set", "opensett.method=a"],
            "the check is not part of this run; did you mean 'openset'?",
        ),
        (["--set", "health.engine=spark"], "the check is not part of this run"),
        (["--set", "openset.methid=a"], "did you mean 'method'?"),
        (["--set", "openset.iterations=many"], "must be a whole number (got many)"),
        (["--set", "openset.iterations="], "must not be empty"),
        (["--set", "openset.gates=x"], "is not an option of openset"),
        (["--set", "openset.min_auroc=nan"], "must be a finite number"),
        (["--set", "openset.max_fpr_at_95tpr=10"], "must be at least 0 and at most 1"),
        (
            ["--openset-min-auroc", "90"],
            "--openset-min-auroc: must be at least 0 and at most 1 (got 90)",
        ),
        (["--allow-missing", "opensett"], "did you mean 'openset'?"),
        (["--allow-missing", "health"], "is not part of this run"),
        (["--checks", "opensett"], "did you mean 'openset'?"),
        (["--jobs", "0"], "0 is not in the range"),
        (["--today", "tomorrow"], "tomorrow"),
        (["--config", "none.toml"], "none.toml: no such file"),
        (["--waivers", "none.toml"], "none.toml: no such file"),
    ],
)
def test_flags_are_checked(
    drumgate: Callable[..., Result], tmp_path: Path, stores: Path, words: list[str], said: str
) -> None:
    config = tmp_path / "readiness.toml"
    config.write_text(table(CASES["openset"], "good", stores))
    result = drumgate("run-readiness-checks", "--config", config, "--root", "/", *words)
    assert (result.exit_code, said in result.stderr) == (2, True), result.output


def test_a_root_without_a_configuration_is_refused(drumgate: Callable[..., Result]) -> None:
    result = drumgate("run-readiness-checks --root .")
    assert (result.exit_code, "--root" in result.stderr) == (2, True)


def test_what_a_flag_gives_goes_before(
    drumgate: Callable[..., Result], tmp_path: Path, stores: Path
) -> None:
    case = CASES["openset"]
    config, report = tmp_path / "readiness.toml", tmp_path / "r.json"
    config.write_text(table(case, "bad", stores))
    words = ["run-readiness-checks", "--config", config, "--root", "/", "--report", report]
    assert drumgate(*words).exit_code == 1
    for name, path in case.good.items():
        words += [f"--openset-{name.replace('_', '-')}", path]
    words += ["--set", "openset.iterations=7", "--set", "openset.rejection_field=unknown_score"]
    assert drumgate(*words).exit_code == 0
    assert json.loads(report.read_text())["parameters"]["openset"]["iterations"] == 7


def test_a_flag_replaces_an_input_that_is_not_there(
    drumgate: Callable[..., Result], tmp_path: Path
) -> None:
    config = tmp_path / "readiness.toml"
    config.write_text("[openset.inputs]\nground_truth = 'gone'\npredictions = 'gone'\n")
    words = ["run-readiness-checks", "--config", config]
    for name, path in CASES["openset"].good.items():
        words += [f"--openset-{name.replace('_', '-')}", path]
    assert drumgate(*words).exit_code == 0
    # What a flag names must be there; unless it was said that it may be missing.
    words += ["--openset-predictions", "gone"]
    assert drumgate(*words).exit_code == 2
    assert drumgate(*words, "--allow-missing", "openset").exit_code == 0


COMMANDS = {
    "alignment": "align_qc",
    "health": "dataset_health",
    "boundary": "boundary_eval",
    "openset": "openset_eval",
    "bootstrap": "bootstrap_eval",
    "calibration": "calibrate",
    "health_compare": "compare_health_reports",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_options_take_what_those_of_the_command_take(name: str) -> None:
    check = CHECKS[name]
    command = importlib.import_module(f"training.{COMMANDS[name]}").main
    for parameter in command.params:
        field = check.fields.get(parameter.name)
        kind = parameter.type
        if field is None or not isinstance(kind, click.IntRange | click.FloatRange):
            continue
        low, high = kind.min, kind.max
        inner = [] if low is None or high is None else [(low + high) / 2]
        ends = [each for each in (low, high) if each is not None]
        for value in [*inner, *ends, *(end - 1 for end in ends), *(end + 1 for end in ends)]:
            try:
                kind.convert(type(value)(value), None, None)
                wanted = True
            except click.BadParameter:
                wanted = False
            holds = field.range is None or field.range.holds(value)
            assert holds is wanted, (parameter.name, value, str(field.range))


def test_hostile_names_stay_text(drumgate: Callable[..., Result], tmp_path: Path) -> None:
    for text in (
        f"[{json.dumps(HOSTILE)}]\n",
        f"[health]\n{json.dumps(HOSTILE)} = 1\n",
        f"[health.inputs]\n{json.dumps(HOSTILE)} = 'x'\n",
        f"[health.gates.{json.dumps(HOSTILE)}]\nvalue = 1\n",
        f"root = {json.dumps('../' + HOSTILE)}\nwaivers = {json.dumps('../' + HOSTILE)}\n[health]",
    ):
        config = tmp_path / "readiness.toml"
        config.write_text(text)
        result = drumgate("run-readiness-checks", "--config", config)
        assert result.exit_code in (1, 2), result.output
        assert "\x1b" not in result.output
    config.write_text(f"[health.inputs]\nevents = {json.dumps(HOSTILE)}\n")
    page = tmp_path / "index.html"
    result = drumgate(
        "run-readiness-checks", "--config", config, "--html-output", page, "--dry-run"
    )
    assert (result.exit_code, "\x1b" in result.output) == (0, False)
    result = drumgate("run-readiness-checks", "--config", config, "--html-output", page)
    assert (result.exit_code, "\x1b" in result.output) == (1, False)
    assert "<script>alert" not in page.read_text()


keys = st.sampled_from(
    ["health", "openset", "inputs", "options", "gates", "required", "severity", "root", "waivers"]
) | st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, max_size=4))
def test_whatever_stands_there_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("any") / "readiness.toml"
    path.write_text(toml(data), encoding="utf-8", errors="surrogatepass")
    with suppress(InputError):
        assert read_config(path).checks


def toml(data: dict[str, Any]) -> str:
    """Write a mapping as inline TOML; what TOML has no word for is left out."""
    return "".join(f"{json.dumps(key)} = {inline(value)}\n" for key, value in data.items())


def inline(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(k)} = {inline(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def test_keys_are_documented() -> None:
    page = (ROOT / "docs" / "tools" / "run_readiness_checks.md").read_text()
    for key in (*CheckTable.__struct_fields__, *GateEntry.__struct_fields__, "root", "waivers"):
        assert f"`{key}`" in page, key
    for check in CHECKS:
        assert f"`{check}`" in page, check
