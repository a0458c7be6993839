"""Submissions: packing a run, and checking what others packed."""
