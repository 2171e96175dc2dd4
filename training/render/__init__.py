"""Showing a report: to a terminal, as JSON, as a page, to a CI system."""

from training.render.deliver import RENDERERS, deliver, show

__all__ = ["RENDERERS", "deliver", "show"]
