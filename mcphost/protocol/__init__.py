"""MCP without I/O: bytes in, values out.

Nothing in this package waits, reads a clock, logs, or knows of sockets and processes. A message's envelope
is parsed once; `params` and `result` are carried as the bytes they came in, cut apart only as far as a
name, a URI or a progress token has to be read or rewritten.
"""
