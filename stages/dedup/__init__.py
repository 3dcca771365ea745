"""Duplicates: exact, near, substring."""
