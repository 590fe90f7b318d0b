"""Finding control groups while others come and go; `Path.glob` fails where one is removed under it."""

import os
from fnmatch import fnmatchcase
from pathlib import Path


def groups_named(pattern: str) -> list[Path]:
    """Every control group of any hierarchy whose name matches."""
    return [
        Path(folder, name)
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if fnmatchcase(name, pattern)
    ]
