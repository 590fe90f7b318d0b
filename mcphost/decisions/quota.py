"""How much on one day: a count that begins anew at midnight UTC."""

from typing import Final

DAY_SECONDS: Final = 86_400  # POSIX time has no leap seconds


class Quota:
    """Decides for one party. Its count is in memory, so a process that starts again begins anew."""

    def __init__(self, per_day: int) -> None:
        self._per_day = per_day
        self._day = 0
        self._used = 0

    def __repr__(self) -> str:
        return f"<Quota {self._used} of {self._per_day} on day {self._day}>"

    def wait(self, wall: float) -> float:
        """0.0 if one more may go on at `wall`, seconds since 1970; else the seconds until one may."""
        day, passed = divmod(wall, DAY_SECONDS)
        if int(day) != self._day or self._used < self._per_day:
            return 0.0
        return DAY_SECONDS - passed

    def take(self, wall: float) -> None:
        """Count one."""
        day = int(wall // DAY_SECONDS)
        if day != self._day:  # earlier too, where the clock was put back: else nothing would ever be left
            self._day, self._used = day, 0
        self._used += 1
