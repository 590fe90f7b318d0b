"""Python workers forked from a process that has imported already, itself confined."""
