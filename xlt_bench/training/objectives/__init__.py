"""Training objectives: a loss from a model's outputs; no data, no loop."""
