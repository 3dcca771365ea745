"""Heuristic filters: each names a drop reason, none removes a row."""
