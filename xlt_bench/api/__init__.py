"""The Python interface: what the command line does, on names or objects, with data frames."""
