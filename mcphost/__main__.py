"""`python -m mcphost`."""

from mcphost.cli import main

if __name__ == "__main__":
    main()
