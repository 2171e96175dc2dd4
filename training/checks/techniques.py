"""Adding inferred techniques to a manifest: find them, write them, say how many."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from training.errors import InputError, clip
from training.gates import Report
from training.manifest import InputFile, atomic_write
from training.manifest.rewrite import Track, open_raw, quiet
from training.taxonomy.annotate import Additions, Annotator, annotated_lines
from training.taxonomy.rules import RULES
from training.taxonomy.techniques import load_techniques

__all__ = ["Options", "Outcome", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is annotated, with which rules, and where it goes.

    `output` may be the manifest itself, or None: then nothing is written.
    """

    source: Path
    output: Path | None = None
    in_place: bool = False
    dry_run: bool = False
    rules: tuple[str, ...] = tuple(RULES)

    @property
    def target(self) -> Path | None:
        """The file that is written, if any."""
        if self.dry_run:
            return None
        return self.source.resolve() if self.in_place else self.output


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What was found, and the file that was written (None where nothing was)."""

    options: Options
    source: InputFile
    additions: Additions
    written: Path | None

    @property
    def report(self) -> Report:
        """The figures as a report."""
        found = self.additions
        metrics = {
            "events_total": len(found.masks),
            "events_changed": found.changed,
            "events_of_scattered_performances": found.gathered,
            "sessions_of_several_files": len(found.mixed),
            "added": dict(found.added),
            "present": dict(sorted(found.present.items())),
            "unknown_techniques": dict(sorted(found.unknown.items())),
        }
        return Report(
            tool="annotate-techniques",
            inputs=[self.source],
            parameters=asdict(self.options),
            metrics=metrics,
            warnings=self.warnings,
        )

    @property
    def warnings(self) -> list[str]:
        """What a reader should know."""
        found = self.additions
        warnings = []
        if found.unknown:
            most = found.unknown.most_common(5)
            names = ", ".join(f"{clip(name)} ({count:,})" for name, count in most)
            warnings.append(f"{len(found.unknown)} techniques are not in the catalogue: {names}")
        if found.mixed:
            warnings.append(
                f"{len(found.mixed):,} sessions name several audio files and no track: if these"
                " are takes of their own, state track_id, or strokes of different takes are taken"
                " for one figure"
            )
        return warnings


def run(options: Options, *, track: Track = quiet) -> Outcome:
    """Add to each event the techniques that the rules find and that it does not name yet.

    The whole manifest is checked before anything is written. With `in_place`, a manifest to which
    nothing is added is not touched.

    Args:
        options: see there.
        track: wraps each pass over the manifest, to show how far it is.

    Raises:
        InputError: the manifest is missing or malformed, is packed and is to be changed in place,
            changes meanwhile, or the output cannot be written.
    """
    if options.in_place and str(options.source) == "-":
        raise InputError.at("-", "is standard input, which cannot be changed in place")
    with open_raw(options.source, track=track) as manifest:
        if options.in_place and manifest.packing != "plain":
            why = "is packed: --in-place needs plain JSON Lines, use --output"
            raise InputError.at(options.source, why)
        additions = Annotator(catalogue=load_techniques(), rules=options.rules).find(manifest)
        source = manifest.describe(len(additions.masks))
        target = options.target
        if options.in_place and not additions.changed:
            target = None
        if target is not None:
            with atomic_write(target, binary=True) as file:
                file.writelines(annotated_lines(manifest, additions))
    return Outcome(options=options, source=source, additions=additions, written=target)
