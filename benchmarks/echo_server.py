"""A server written with the official Python SDK: one tool, nothing else."""

from mcp.server import MCPServer

server = MCPServer("echo")


@server.tool()
def echo(text: str) -> str:
    """Give the text back."""
    return text


def main() -> None:
    """Serve on standard input and output."""
    server.run("stdio")


if __name__ == "__main__":
    main()
