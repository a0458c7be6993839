"""The command line: one module per group of commands. Importing it imports no torch."""
