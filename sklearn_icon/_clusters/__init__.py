"""Solve for partitions: local search, membership models, the limits."""
