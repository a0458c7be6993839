"""Scores as pure functions of predictions and references; one file a metric."""
