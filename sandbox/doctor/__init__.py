"""What this machine can apply, why not the rest, and what to do about it in this very place."""
