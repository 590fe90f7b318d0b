"""Structured logs: JSON lines for machines, a console form for people. Secrets never get here.

Events are short fixed names (`call_finished`, `worker_ready`), everything else is keys. Values that come from
servers and clients are escaped before any terminal sees them.
"""

import logging
import sys
from typing import Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from mcphost.telemetry.sink import LogSink

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

MAX_VALUE_CHARACTERS = 2000


def configure(log_format: Format, level: Level, *, stream: TextIO = sys.stderr) -> LogSink:
    """Set up logging for the process; `auto` is console on a terminal, else JSON.

    Gives the sink that the lines go through, to be closed at the end.
    """
    sink = LogSink(stream)
    if log_format == "auto":
        log_format = "console" if stream.isatty() else "json"
    renderer: Processor = structlog.processors.JSONRenderer()
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _harmless,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", sink)),
        cache_logger_on_first_use=True,
    )
    # uvicorn logs through the standard library; what it has to say beyond our own lines are warnings.
    logging.basicConfig(stream=sink, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    return sink


def logger() -> FilteringBoundLogger:
    """The logger of the process."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def printable(text: str) -> str:
    """Text of others made safe to show: control characters escaped, length bounded."""
    cut = text[:MAX_VALUE_CHARACTERS]
    if cut.isprintable():
        return cut
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in cut
    )


def _harmless(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}
