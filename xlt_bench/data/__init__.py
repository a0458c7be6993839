"""Reads the publishers' files, in their own layout under one data folder; a module per data set."""
