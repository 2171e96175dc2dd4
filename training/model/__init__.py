"""The drum CNN: its trunk and heads, its losses, its checkpoints, and what it says of clips."""
