"""The tasks: one module each, the registry that lists them, and lm-eval's task files."""
