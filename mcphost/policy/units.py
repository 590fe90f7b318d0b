"""Quantities as one writes them: `256Mi`, `500m`, `30s`, `120/min`.

Each kind has a parser, a formatter that gives the shortest spelling with the same meaning, and an annotated
type for the models. Bytes are int, CPU is int thousandths of a core, durations are float seconds.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from mcphost.policy.faults import Fault

# Decimal and binary suffixes as Kubernetes defines them (resource.Quantity), largest first.
_BYTES: Mapping[str, int] = {
    "Ti": 2**40, "Gi": 2**30, "Mi": 2**20, "Ki": 2**10, "T": 10**12, "G": 10**9, "M": 10**6, "k": 10**3,
}  # fmt: skip
_MILLISECONDS: Mapping[str, int] = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_PERIODS: Mapping[str, int] = {"s": 1, "min": 60, "h": 3600, "day": 86_400}

# The kernel's limits are signed 64-bit numbers.
_MAX_BYTES = 2**63 - 1
# A year: more is a mistake in the unit.
_MAX_MILLISECONDS = 366 * 86_400_000
# More cores than any machine has: a forgotten `m`.
_MAX_CPU_MILLIS = 4096 * 1000

_BYTES_PATTERN = re.compile(r"(0|[1-9][0-9]{0,17})(Ti|Gi|Mi|Ki|T|G|M|k)?")
_CPU_PATTERN = re.compile(r"(?:([1-9][0-9]{0,8})m|(0|[1-9][0-9]{0,5})(?:\.([0-9]{1,3}))?)")
_DURATION_PATTERN = re.compile(r"(0|[1-9][0-9]{0,11})(ms|s|m|h|d)")
_RATE_PATTERN = re.compile(r"([1-9][0-9]{0,8})/(s|min|h|day)")

_BYTES_ALLOWED = "a number of bytes, with Ki, Mi, Gi, Ti or k, M, G, T"
_CPU_ALLOWED = "cores such as 500m, 0.5 or 2"
_DURATION_ALLOWED = "a whole number with ms, s, m, h or d"
_RATE_ALLOWED = "calls per s, min, h or day, such as 120/min"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many permits in each period of so many seconds."""

    permits: int
    period: float

    @property
    def per_second(self) -> float:
        """Permits that come back each second."""
        return self.permits / self.period

    def __str__(self) -> str:
        return format_rate(self)


def parse_bytes(text: str) -> int:
    """Bytes of `256Mi`, `8M` or `1024`."""
    found = _BYTES_PATTERN.fullmatch(text)
    if found is None:
        raise Fault("is not a size", allowed=_BYTES_ALLOWED, suggestion=_nearby_size(text))
    return _at_most(int(found[1]) * _BYTES.get(found[2] or "", 1), _MAX_BYTES, "size")


def format_bytes(count: int) -> str:
    """The shortest exact spelling of so many bytes."""
    return _shortest(count, _BYTES) if count else "0"


def parse_cpu(text: str) -> int:
    """Thousandths of a core of `500m`, `0.5` or `2`."""
    found = _CPU_PATTERN.fullmatch(text)
    if found is None:
        raise Fault("is not an amount of CPU", allowed=_CPU_ALLOWED)
    millis = int(found[1]) if found[1] else int(found[2]) * 1000 + int((found[3] or "").ljust(3, "0"))
    if millis == 0:
        raise Fault("no CPU at all", allowed=_CPU_ALLOWED)
    return _at_most(millis, _MAX_CPU_MILLIS, "amount of CPU")


def format_cpu(millis: int) -> str:
    """Whole cores as `2`, all else as `1500m`."""
    return f"{millis}m" if millis % 1000 else str(millis // 1000)


def parse_duration(text: str) -> float:
    """Seconds of `500ms`, `30s`, `10m`, `1h` or `2d`."""
    found = _DURATION_PATTERN.fullmatch(text)
    if found is None:
        unitless = text.isascii() and text.isdigit()
        raise Fault(
            "a duration needs its unit" if unitless else "is not a duration",
            allowed=_DURATION_ALLOWED,
            suggestion=f"{text}s" if unitless else None,
        )
    return _at_most(int(found[1]) * _MILLISECONDS[found[2]], _MAX_MILLISECONDS, "duration") / 1000


def format_duration(seconds: float) -> str:
    """The shortest exact spelling of a duration of whole milliseconds."""
    milliseconds = round(seconds * 1000)
    return _shortest(milliseconds, _MILLISECONDS) if milliseconds else "0s"


def parse_rate(text: str) -> Rate:
    """`120/min` as 120 permits every 60 seconds."""
    found = _RATE_PATTERN.fullmatch(text)
    if found is None:
        raise Fault("is not a rate", allowed=_RATE_ALLOWED)
    return Rate(int(found[1]), float(_PERIODS[found[2]]))


def format_rate(rate: Rate) -> str:
    """`120/min`; the period must be one of those that can be written."""
    units = {float(seconds): unit for unit, seconds in _PERIODS.items()}
    return f"{rate.permits}/{units[rate.period]}"


def _at_most(number: int, bound: int, what: str) -> int:
    if number > bound:
        raise Fault(f"no {what} can be as large as this")
    return number


def _shortest(number: int, units: Mapping[str, int]) -> str:
    spellings = [f"{number // size}{unit}" for unit, size in units.items() if number % size == 0]
    return min([*spellings, str(number)] if 1 not in units.values() else spellings, key=len)


def _nearby_size(text: str) -> str | None:
    """`256MB`, `256 mib` and `64K` have an obvious meaning; it is suggested and not assumed."""
    found = re.fullmatch(r"([1-9][0-9]{0,17})\s*([kmgt])(i?)b?", text, re.IGNORECASE)
    if found is None:
        return None
    return f"{found[1]}{found[2].upper()}i"


def _reads(parse: Callable[[str], object]) -> BeforeValidator:
    """Text, and integers as they stand in a file, go through the parser; anything else is for the model."""

    def read(value: object) -> object:
        if isinstance(value, str | int) and not isinstance(value, bool):
            return parse(str(value))
        return value

    return BeforeValidator(read)


def _schema(pattern: re.Pattern[str], *kinds: str) -> WithJsonSchema:
    kind = list(kinds) if len(kinds) > 1 else kinds[0]
    return WithJsonSchema({"type": kind, "pattern": f"^(?:{pattern.pattern})$"})


def at_least(count: int) -> AfterValidator:
    """The lower bound of a size, told as one would write it."""

    def check(size: int) -> int:
        if size < count:
            raise Fault(f"must be at least {format_bytes(count)}")
        return size

    return AfterValidator(check)


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise Fault("must be longer than zero")
    return seconds


ByteSize = Annotated[
    int,
    _reads(parse_bytes),
    PlainSerializer(format_bytes, when_used="json"),
    _schema(_BYTES_PATTERN, "string", "integer"),
]
"""A size in bytes."""

CpuMillis = Annotated[
    int,
    _reads(parse_cpu),
    PlainSerializer(format_cpu, when_used="json"),
    # `0.5` without quotes is a number to an editor, and text to us.
    _schema(_CPU_PATTERN, "string", "number"),
]
"""CPU in thousandths of a core; a plain number counts cores."""

Duration = Annotated[
    float,
    _reads(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    _schema(_DURATION_PATTERN, "string"),
]
"""A span of time in seconds, zero included."""

Timeout = Annotated[Duration, AfterValidator(_positive)]
"""A span of time in seconds, longer than zero."""

RateLimit = Annotated[
    Rate,
    _reads(parse_rate),
    PlainSerializer(format_rate, when_used="json"),
    _schema(_RATE_PATTERN, "string"),
]
"""Permits for each period."""


def _daily(rate: Rate) -> Rate:
    if rate.period != _PERIODS["day"]:
        raise Fault("a quota is for one day", allowed="calls per day, such as 50000/day")
    return rate


Quota = Annotated[
    Rate,
    _reads(parse_rate),
    AfterValidator(_daily),
    PlainSerializer(format_rate, when_used="json"),
    _schema(re.compile(r"([1-9][0-9]{0,8})/day"), "string"),
]
"""Permits for each day."""
