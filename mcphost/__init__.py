"""mcphost: a sandboxed, multi-tenant runtime for third-party MCP servers.

    async with Runtime(load("policy.yaml")) as runtime:
        result = await runtime.call(tenant="acme", server="time", tool="now", arguments={})

`runtime.asgi` is an ASGI application that serves MCP clients and mounts anywhere.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcphost.policy import load
    from mcphost.runtime import Runtime

__version__ = "0.1.0"

__all__ = ["Runtime", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Import on first use (PEP 562): bundled servers live in this package and must start without all of it."""
    if name == "Runtime":
        from mcphost.runtime import Runtime  # noqa: PLC0415

        return Runtime
    if name == "load":
        from mcphost.policy import load  # noqa: PLC0415

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
