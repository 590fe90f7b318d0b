"""What a worker with a way out may reach, and the sans-I/O readers of what it says on that way."""
