"""What is struck (component labels with their aliases) and how (the catalogue of techniques)."""

from training.taxonomy.components import ComponentEntry, ComponentTaxonomy, load_components
from training.taxonomy.techniques import Technique, TechniqueCatalogue, load_techniques

__all__ = [
    "ComponentEntry",
    "ComponentTaxonomy",
    "Technique",
    "TechniqueCatalogue",
    "load_components",
    "load_techniques",
]
