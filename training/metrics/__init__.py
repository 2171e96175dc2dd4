"""Pure measurements: arrays and tables in, frozen dataclasses out. Nothing here reads a file."""
