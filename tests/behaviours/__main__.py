"""Prints the page docs/protocol.md."""

from behaviours.manifest import page

print(page(), end="")
