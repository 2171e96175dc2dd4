"""Showing a report: to a terminal, as JSON, as a page, to a CI system."""

from training.render.deliver import RENDERERS, deliver

__all__ = ["RENDERERS", "deliver"]
