"""Broken and hostile submissions: what changes them, what attacks, and what judges the result."""
