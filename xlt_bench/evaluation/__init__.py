"""Evaluation: from the options of `xlt-bench evaluate` to predictions, scores and a record."""
