"""Builds, reads and exports the leaderboard's DuckDB file. Imports no torch."""
