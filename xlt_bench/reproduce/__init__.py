"""The paper's own tables and figures: what they consist of, run and laid beside its numbers."""
