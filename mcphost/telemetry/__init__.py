"""What the runtime shows of itself: logs and metrics."""
