"""`mcphost-server-clock`: what time it is somewhere, and what a time there is elsewhere."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mcphost.servers.stdio import Answer, Parameter, Server, Tool, ToolFailed, serve

VERSION = "1.0"
INSTRUCTIONS = "Tells the current time in a time zone, and converts times between time zones."
ZONE = "an IANA time zone name, such as Europe/Berlin, America/New_York or UTC"


def main() -> None:
    """Serve until standard input ends."""
    sys.exit(serve(Server("mcphost-clock", VERSION, instructions=INSTRUCTIONS, tools=TOOLS)))


def now(arguments: Mapping[str, str]) -> Answer:
    """The current time in a zone."""
    name = arguments["timezone"]
    moment = datetime.now(_zone(name)).replace(microsecond=0)
    return Answer(f"{moment:%A}, {moment.isoformat()} in {name}", _facts(name, moment))


def convert(arguments: Mapping[str, str]) -> Answer:
    """A time in one zone as the time in another."""
    source, target = _zone(arguments["from"]), _zone(arguments["to"])
    there = _local(arguments["time"], source, arguments["from"])
    here = _elsewhere(there, target)
    text = f"{there.isoformat()} in {arguments['from']} is {here.isoformat()} in {arguments['to']}"
    if _is_ambiguous(there):
        text += " (the clocks go back over this time; the first of the two is meant)"
    data = {"from": _facts(arguments["from"], there), "to": _facts(arguments["to"], here)}
    return Answer(text, data)


TOOLS = (
    Tool(
        "now",
        "Tell the current time in a time zone.",
        (Parameter("timezone", ZONE, "UTC"),),
        now,
        idempotent=False,
    ),
    Tool(
        "convert",
        "Convert a time from one time zone to another.",
        (
            Parameter("time", "an ISO 8601 date and time (2026-07-28T14:30), or a time of today (14:30)"),
            Parameter("from", f"the zone the time is in: {ZONE}"),
            Parameter("to", f"the zone wanted: {ZONE}"),
        ),
        convert,
    ),
)


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # ValueError: not a plain name (absolute, or leading out of the zone files). OSError: a folder of zones.
        raise ToolFailed(f"unknown time zone {name!r}: give {ZONE}") from None


def _local(text: str, zone: tzinfo, zone_name: str) -> datetime:
    """The moment that a wall clock in the zone calls by this text."""
    try:
        moment = datetime.combine(datetime.now(zone).date(), time.fromisoformat(text))
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ToolFailed(f"{text!r} is no time: write 2026-07-28T14:30, or 14:30 for today") from None
    if moment.tzinfo is not None:
        raise ToolFailed(
            f"{text!r} carries an offset, and 'from' names a zone: give the time without the offset"
        )
    moment = moment.replace(tzinfo=zone)
    if _elsewhere(_elsewhere(moment, UTC), zone).replace(fold=0) != moment:
        raise ToolFailed(f"{text!r} does not exist in {zone_name}: the clocks go forward over it")
    return moment


def _elsewhere(moment: datetime, zone: tzinfo) -> datetime:
    try:
        return moment.astimezone(zone)
    except OverflowError:
        raise ToolFailed(f"{moment.isoformat()} is too far away to convert") from None


def _is_ambiguous(moment: datetime) -> bool:
    return moment.utcoffset() != moment.replace(fold=1).utcoffset()


def _facts(zone_name: str, moment: datetime) -> dict[str, object]:
    return {
        "timezone": zone_name,
        "time": moment.isoformat(),
        "weekday": f"{moment:%A}",
        "daylightSaving": bool(moment.dst() or timedelta()),
    }
