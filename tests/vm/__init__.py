"""A small machine with control groups of version 2 only, and what is tried in it."""
