"""Killing parts of a running product at random moments, and looking for what is left: `python -m chaos`, from tests/."""
