"""Scores translations with COMET (Rei et al., 2022), which runs in an environment of its own.

unbabel-comet requires numpy<2 and transformers<5, so it cannot share this package's environment,
and the two exchange files: `score` writes segments, `worker` scores them in COMET's environment,
which `environment` sets up, and `stored` keeps the scores in the run.
"""
