"""Models, adapters and chat templates, and the lm-eval LM that runs them."""
