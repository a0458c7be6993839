"""Creates, checks, compares and migrates submissions."""
