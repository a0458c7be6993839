"""Mutates and attacks submissions, and judges the results."""
