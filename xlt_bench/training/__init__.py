"""Trains adapters by recipe, with one objective or several that alternate, and merges them."""
