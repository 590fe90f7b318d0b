"""What reads bytes that others wrote, fed with bytes that nobody meant: `python -m fuzz`, from tests/."""
