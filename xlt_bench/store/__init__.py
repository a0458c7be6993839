"""The leaderboard's database: built from submissions/, read by anybody; imports no torch."""
