"""COMET (Rei et al., 2022), the paper's second translation metric, in an environment of its own.

unbabel-comet pins numpy<2 and transformers<5 and cannot be installed beside this package, so the
two meet over files: `score` writes segments, `worker` scores them in COMET's environment
(`environment`), and the scores are kept in the run (`stored`).
"""
