"""What one worker used over its life, as its control groups counted it."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Counted by the kernel; None where nothing counted."""

    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    oom_kills: int | None = None
    pids_denied: int | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None

    def counted(self) -> dict[str, object]:
        """What was counted, for a log line."""
        return {key: round(value, 3) for key, value in asdict(self).items() if value is not None}
