"""Two MCP servers that come with the runtime, to have something useful to host from the first minute.

They are ordinary third-party servers as far as the runtime can tell: separate programs that speak MCP on
standard input and output, need only the standard library, and import nothing of `mcphost` outside this folder.
"""
