"""Command line tools on manifests: making, ingesting, annotating, merging and weighing them."""
