"""drumgate: is this drum dataset ready to train on, and is the model ready to release?

`training` holds the gates, the trainer and everything that they share; `tools` holds the command
line tools that make, convert and compare manifests. docs/architecture.md draws the map.
"""

__version__ = "0.1.0"
