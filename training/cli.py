"""The `drumgate` console script: every tool as a subcommand, loaded only when it is called."""

from __future__ import annotations

import difflib
import importlib
from typing import Final

import click

from training import __version__
from training.options import Group

SECTIONS: Final[dict[str, dict[str, str]]] = {
    "Judge a dataset": {
        "align-qc": "training.align_qc",
        "dataset-health": "training.dataset_health",
        "compare-health-reports": "training.compare_health_reports",
        "run-readiness-checks": "training.run_readiness_checks",
        "show-report": "training.show_report",
    },
    "Judge a model": {
        "generate-boundary-pack": "training.generate_boundary_pack",
        "boundary-eval": "training.boundary_eval",
        "openset-eval": "training.openset_eval",
        "bootstrap-eval": "training.bootstrap_eval",
        "calibrate": "training.calibrate",
        "hard-negative-miner": "training.hard_negative_miner",
    },
    "Train": {
        "build-training-dataset": "training.build_training_dataset",
        "train-classifier": "training.train_classifier",
        "predict": "training.predict",
        "predict-floor": "training.predict_floor",
        "export-onnx": "training.export_onnx",
    },
    "Make and change manifests": {
        "make-demo-dataset": "tools.make_demo_dataset",
        "render-performances": "tools.render_performances",
        "ingest-mdb-drums": "tools.ingest_mdb_drums",
        "ingest-groove": "tools.ingest_groove",
        "annotate-techniques": "tools.annotate_techniques",
        "normalize-openness": "training.normalize_openness",
        "derive-sampling-weights": "tools.derive_sampling_weights",
        "merge-manifests": "tools.merge_manifests",
        "compare-manifests": "tools.compare_manifests",
        "validate-manifest": "tools.validate_manifest",
        "summarize-manifest": "tools.summarize_manifest",
        "cache": "tools.cache",
    },
}
MODULES: Final = {name: module for tools in SECTIONS.values() for name, module in tools.items()}


class LazyGroup(Group):
    """Imports a tool when it is called, so that one tool never pays for another's libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all tools."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a tool; None for an unknown name."""
        if cmd_name not in MODULES:
            return None
        made = importlib.import_module(MODULES[cmd_name]).main
        if not isinstance(made, click.Command):
            raise TypeError(f"{MODULES[cmd_name]}.main is not a command")
        made.name = cmd_name
        return made

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the tool that is called; of an unknown one, say which name is nearest."""
        slip = args[0] not in MODULES and not args[0].startswith("-")
        if slip and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0].replace("_", "-"), MODULES, n=1)
            advice = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{advice}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the tools by what they are for."""
        for title, tools in SECTIONS.items():
            with formatter.section(title):
                rows = [(name, self._summary(ctx, name)) for name in tools]
                formatter.write_dl(rows)

    def _summary(self, ctx: click.Context, name: str) -> str:
        tool = self.get_command(ctx, name)
        return tool.get_short_help_str(limit=150) if tool else ""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="drumgate")
def main() -> None:
    """Say whether a drum dataset is ready to train on, and a drum model ready to release.

    Exit codes: 0 every required gate passes, 1 a gate blocks, 2 bad usage or bad input,
    70 a fault of drumgate itself, 130 interrupted.
    """


if __name__ == "__main__":
    main()
