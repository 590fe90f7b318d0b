"""Places for a worker to write to, of a size that holds."""
