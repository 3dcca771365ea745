"""Stages for source code: heuristics, syntax, secrets, pylint scores and the verification of rewrites."""
