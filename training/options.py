"""What every command shares: its options and its output; how it ends is in `training.exits`."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from training import __version__
from training.exits import EXIT_BAD_INPUT as EXIT_BAD_INPUT
from training.exits import EXIT_BLOCKED as EXIT_BLOCKED
from training.exits import EXIT_OK as EXIT_OK
from training.exits import ExitCodes, for_github
from training.exits import say as say
from training.outputs import refuse_overlaps
from training.progress import more_said, shown
from training.progress import progress as progress
from training.progress import track as track

if TYPE_CHECKING:
    from training.gates import Report

Function = Callable[..., Any]

# Whether a path exists is left to the readers, so that every message has the same form.
INPUT_FILE: Final = click.Path(path_type=Path)
INPUT_DIR: Final = click.Path(path_type=Path)
OUTPUT_FILE: Final = click.Path(path_type=Path, dir_okay=False)
OUTPUT_DIR: Final = click.Path(path_type=Path, file_okay=False)


class Command(ExitCodes):
    """A drumgate command; its help ends with an example."""

    def __init__(
        self,
        *args: Any,
        example: str = "",
        own_display: bool = False,
        rewrites: tuple[str, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.own_display = own_display
        self.rewrites = rewrites

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, once every number is known to be finite: click lets NaN through."""
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise click.BadParameter(f"{number} is not a finite number", ctx, parameter)
        refuse_overlaps(ctx, OUTPUT_FILE, self.rewrites)
        if self.own_display:
            return super().invoke(ctx)
        with shown(self.name or "working"):
            return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example below the options."""
        if self.example:
            with formatter.section("Example"):
                for line in self.example.strip().splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


class Group(ExitCodes, click.Group):
    """A group whose every ending goes through `exit_codes`."""


def command(
    *, example: str, own_display: bool = False, rewrites: tuple[str, ...] = ()
) -> Callable[[Function], Command]:
    """Make a function a drumgate command: `-v`, `--version`, exit codes, an example in its help.

    A command with a display of its own (`own_display`) gets none of ours while it runs. No output
    may be an input, but for those parameters that `rewrites` names.
    """

    def decorate(function: Function) -> Command:
        verbose = click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=lambda _context, _option, value: more_said.set(value),
            help="Say more; show a traceback for internal errors.",
        )
        version = click.version_option(__version__, prog_name="drumgate")
        made = click.command(
            cls=Command,
            example=example,
            own_display=own_display,
            rewrites=rewrites,
            context_settings=_CONTEXT,
        )
        return made(version(verbose(function)))

    return decorate


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOutputs:
    """Where a command's report goes, as its options say."""

    report: Path | None
    html_output: Path | None
    junit: Path | None
    markdown: Path | None
    github: bool
    format: str
    strict: bool
    gates: Path | None


def report_options(
    report: str = "--report", *, strict: bool = True, html: str = "--html-output"
) -> Callable[[Function], Function]:
    """Add the options of a tool that judges; the command gets them as one `outputs` argument.

    Args:
        report: another name of `--report`, the flag for the JSON report.
        strict: whether a blocking verdict needs `--strict` to set the exit code; without the flag
            the command always blocks and `outputs.strict` is true.
        html: the name of the flag for the HTML page.
    """
    options: list[Callable[[Function], Function]] = [
        click.option(
            *dict.fromkeys((report, "--report")),
            "report",
            type=OUTPUT_FILE,
            help="Write the JSON report here.",
        ),
        click.option(html, "html_output", type=OUTPUT_FILE, help="Write the HTML page here."),
        click.option("--junit", type=OUTPUT_FILE, help="Write the verdicts as JUnit XML here."),
        click.option(
            "--markdown",
            type=OUTPUT_FILE,
            help="Write Markdown for a comment on a pull request here.",
        ),
        click.option(
            "--github",
            is_flag=True,
            help="In GitHub Actions: print annotations, write the step's summary and outputs.",
        ),
        click.option(
            "--format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="What to print on stdout.",
        ),
        click.option(
            "--gates", type=INPUT_FILE, help="TOML file with thresholds of your own, with reasons."
        ),
    ]
    if strict:
        blocks = "Exit 1 when a gate fails or could not be measured."
        options.append(click.option("--strict", is_flag=True, help=blocks))

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def collect(**kwargs: Any) -> Any:
            fields = {name: kwargs.pop(name) for name in ReportOutputs.__slots__ if name in kwargs}
            fields.setdefault("strict", True)
            for_github.set(bool(fields.get("github")))
            return function(outputs=ReportOutputs(**fields), **kwargs)

        wrapped: Function = collect
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def seed_option(default: int = 0) -> Callable[[Function], Function]:
    """Add `--seed`."""
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=default,
        show_default=True,
        help="Seed of everything drawn at random.",
    )


threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="A label is predicted when its score reaches this.",
)

calibration_option = click.option(
    "--calibration",
    type=INPUT_FILE,
    help="From calibrate.py: scores are calibrated and each class gets its threshold from here;"
    " --threshold is left for classes that the file lacks.",
)

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes a GPU where there is one.",
)


def manifest_inputs(
    context: click.Context, parameter: click.Parameter, values: Sequence[str] | str | None
) -> tuple[Path, ...]:
    """Read paths, patterns such as "parts/*.jsonl" and "-" (standard input): a click callback.

    What a pattern matches is taken in the order of the names; a name that exists is no pattern.

    Raises:
        click.BadParameter: a pattern matches nothing, or standard input is named twice.
    """
    from glob import glob, has_magic

    found: list[Path] = []
    for value in (values,) if isinstance(values, str) else values or ():
        if has_magic(value) and not Path(value).exists():
            matches = sorted(glob(value, recursive=True))
            if not matches:
                raise click.BadParameter(f"{value!r} matches no file", context, parameter)
            found += map(Path, matches)
        else:
            found.append(Path(value))
    if sum(str(path) == "-" for path in found) > 1:
        raise click.BadParameter("standard input can be read only once", context, parameter)
    return tuple(found)


MANIFESTS: Final[dict[str, Any]] = {"type": click.Path(), "callback": manifest_inputs}
"""What an option or argument for manifests needs; the type lets a shell complete names of files."""


def audio_root_options(default: str) -> Callable[[Function], Function]:
    """Add `--audio-root`, and `--audio-root-map`, which the command gets as `audio_roots`.

    Args:
        default: the folder that counts where none is given, in words.
    """

    def roots(
        context: click.Context, parameter: click.Parameter, values: Sequence[str]
    ) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for value in values:
            source, equals, folder = value.partition("=")
            if not (source and equals and folder):
                raise click.BadParameter(f"must be SOURCE=DIR (got {value!r})", context, parameter)
            if source in found:
                raise click.BadParameter(f"source {source!r} is given twice", context, parameter)
            found[source] = Path(folder)
        return found

    one = click.option(
        "--audio-root",
        type=INPUT_DIR,
        help=f"Folder that audio_path is relative to.  [default: {default}]",
    )
    many = click.option(
        "--audio-root-map",
        "audio_roots",
        multiple=True,
        metavar="SOURCE=DIR",
        callback=roots,
        help="Another folder for the events of a source_set; repeatable.",
    )
    return lambda function: one(many(function))


def engine_options(function: Function) -> Function:
    """Add `--memory-limit` and `--cache-dir`, for tools that read whole manifests."""
    for option in (
        click.option(
            "--cache-dir",
            type=OUTPUT_DIR,
            envvar="DRUMGATE_CACHE_DIR",
            show_envvar=True,
            help="Keep validated manifests here and use them when the content is the same.",
        ),
        click.option(
            "--memory-limit",
            metavar="SIZE",
            help="Memory for the engine, such as 512MiB; more is spilled to TMPDIR."
            "  [default: a quarter of the machine's, at most 1GiB]",
        ),
    ):
        function = option(function)
    return function


def split_commas(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> tuple[str, ...]:
    """Read `--x a,b --x c` as a, b, c, each once: a click callback for repeatable options.

    Raises:
        click.BadParameter: a name is empty; `--checks ""` must not come to mean "judge nothing".
    """
    names = [name.strip() for value in values for name in value.split(",")]
    if not all(names):
        raise click.BadParameter("holds an empty name", context, parameter)
    return tuple(dict.fromkeys(names))


def comma_names(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    """Read `a,b,c`, as `split_commas` does; () when the option was not given: a click callback."""
    return () if value is None else split_commas(context, parameter, [value])


def finish(
    report: Report,
    outputs: ReportOutputs,
    *,
    blocking: bool | None = None,
    around: AbstractContextManager[object] | None = None,
) -> None:
    """Write a report wherever it was asked for, print it, and end with its exit code.

    Args:
        report: what was measured and judged.
        outputs: where it goes.
        blocking: whether a blocking verdict sets exit code 1; by default `outputs.strict`.
        around: entered before anything is written and left once the report has been delivered;
            an error on the way in or while writing reaches it.
    """
    from training.render import deliver

    with around or nullcontext():
        deliver(report, outputs)
    blocking = outputs.strict if blocking is None else blocking
    raise click.exceptions.Exit(EXIT_BLOCKED if blocking and report.blocks else EXIT_OK)


def echo(text: str = "") -> None:
    """Print a line for a person on stdout."""
    say(f"{text}\n")


def warn(text: str) -> None:
    """Print a warning on stderr."""
    say(f"warning: {text}\n", err=True)


def share_cores() -> None:
    """Let idle threads of PyTorch sleep rather than spin; call it before anything imports torch.

    OpenMP's threads otherwise burn the cores that a second process on the machine needs: two
    trainings side by side on two cores then run at a third of their speed or less, and alone
    nothing is gained (docs/training.md). A value set by the user stands.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def debug(text: str) -> None:
    """Print a detail on stderr when the user asked for more with `-v`."""
    if more_said.get():
        say(f"{text}\n", err=True)
