"""What is struck (component labels with their aliases) and how (the catalogue of techniques)."""

from training.taxonomy.components import ComponentEntry, ComponentTaxonomy, load_components

__all__ = ["ComponentEntry", "ComponentTaxonomy", "load_components"]
