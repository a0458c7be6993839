"""Reproduces the paper's tables and figures and prints the results beside its numbers."""
