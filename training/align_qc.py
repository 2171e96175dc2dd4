"""Command line of the alignment check; the work is done in `training.checks.alignment`."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


class NamedPath(click.ParamType):
    """A NAME=PATH argument."""

    name = "NAME=PATH"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        """Split at the first equals sign; both sides must hold something."""
        name, equals, path = str(value).partition("=")
        if not (name and equals and path):
            self.fail(f"{value!r} is not NAME=PATH", param, ctx)
        return name, Path(path)


@options.command(
    example="drumgate align-qc --manifest sessions/session_001.json"
    " --report reports/session_001_alignment.json --strict"
)
@click.argument("mics", nargs=-1, type=NamedPath())
@click.option(
    "--manifest",
    "manifests",
    type=options.INPUT_FILE,
    multiple=True,
    help="Session manifest (JSON): session_id, anchor_mic and mics. Repeatable.",
)
@click.option(
    "--session-dir",
    "session_dirs",
    type=options.INPUT_DIR,
    multiple=True,
    help="Folder with one audio file a mic, named by its stem. Needs --anchor-mic.",
)
@click.option("--anchor-mic", help="The mic that the others are measured against.")
@click.option(
    "--max-delay-ms",
    type=click.FloatRange(min=0),
    help="Gate: the lag may differ from the expected one by this.",
)
@click.option(
    "--max-drift-samples-per-min",
    type=click.FloatRange(min=0),
    help="Gate: the lag may change by this, in samples of the anchor.",
)
@click.option(
    "--max-jump-ms", type=click.FloatRange(min=0), help="Gate: the lag may not jump by more."
)
@click.option(
    "--min-support", type=click.IntRange(min=3), help="Gate: so many hits must agree on the lag."
)
@click.option(
    "--max-shift-ms",
    type=click.FloatRange(min=1, max=1000),
    default=20.0,
    show_default=True,
    help="Search this far either side of the expected lag.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Sessions at a time."
)
@options.report_options()
def main(
    mics: tuple[tuple[str, Path], ...],
    manifests: tuple[Path, ...],
    session_dirs: tuple[Path, ...],
    anchor_mic: str | None,
    max_delay_ms: float | None,
    max_drift_samples_per_min: float | None,
    max_jump_ms: float | None,
    min_support: int | None,
    max_shift_ms: float,
    jobs: int,
    outputs: options.ReportOutputs,
) -> None:
    """Judge whether the microphones of a session are aligned, and stay so.

    Measures how late each mic hears the hits of the anchor's drum, over the whole recording: the
    lag against the expected one, its drift, jumps (dropped buffers) and inverted polarity. Give
    manifests, folders, or the mics of one session as NAME=PATH (the first is then the anchor).
    Judges always; blocks with --strict.
    """
    from training.checks import alignment

    report = alignment.run(
        alignment.Options(
            manifests=manifests,
            session_dirs=session_dirs,
            mics=mics,
            anchor_mic=anchor_mic,
            max_delay_ms=max_delay_ms,
            max_drift_samples_per_min=max_drift_samples_per_min,
            max_jump_ms=max_jump_ms,
            min_support=min_support,
            max_shift_ms=max_shift_ms,
            jobs=jobs,
            gates=outputs.gates,
        )
    )
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
