"""Caps on a worker and everything it starts, by control groups of either version."""
