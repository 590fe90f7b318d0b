"""What a Python program runs, found without running it."""

from pathlib import Path

import pytest

from mcphost.policy import Entry, Fault, find_entry, loads

PIP = """#!/venv/bin/python
# -*- coding: utf-8 -*-
import re
import sys
from {module} import {name}
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit({call}())
"""
SETUPTOOLS = "#!/venv/bin/python\nimport sys\nfrom served.cli import run as start\n\nsys.exit(start())\n"
LONG_PATH = (
    "#!/bin/sh\n'''exec' \"/a very/long path/python\" \"$0\" \"$@\"\n' '''\n" + SETUPTOOLS.partition("\n")[2]
)
LOADER = "import sys\nfrom importlib.metadata import entry_points\nsys.exit(entry_points()['x'].load()())\n"


def entry(tmp_path: Path, text: str, *arguments: str) -> Entry:
    script = tmp_path / "served"
    script.write_text(text)
    return find_entry(("/venv/bin/python3.12", "-X", "utf8", "-u", str(script), *arguments))


@pytest.mark.parametrize(
    ("text", "run"),
    [
        (PIP.format(module="served", name="main", call="main"), "served:main"),
        (PIP.format(module="served.app", name="app", call="app.run"), "served.app:app.run"),
        (SETUPTOOLS, "served.cli:run"),
        (LONG_PATH, "served.cli:run"),
    ],
)
def test_an_installed_script_names_its_function(tmp_path: Path, text: str, run: str) -> None:
    found = entry(tmp_path, text, "--flag")
    assert (found.run, found.module) == (run, run.partition(":")[0])
    assert found.interpreter == ("/venv/bin/python3.12", "-X", "utf8", "-u")
    assert found.argv == (str(tmp_path / "served"), "--flag")


def test_a_module_is_what_follows_m() -> None:
    found = find_entry(("/usr/bin/python3", "-I", "-m", "served.app", "-v"))
    assert found == Entry(("/usr/bin/python3", "-I"), "served.app", "served.app", ("served.app", "-v"))


@pytest.mark.parametrize(
    "text", ["print('hello')", LOADER, "import sys\nfrom x import y\nsys.exit(y(1))", "no python", "\0"]
)
def test_any_other_script_is_refused_with_the_remedy(tmp_path: Path, text: str) -> None:
    with pytest.raises(Fault, match="cannot be forked") as caught:
        entry(tmp_path, text)
    assert caught.value.at == ("spawn",)
    assert "spawn: exec" in str(caught.value.allowed)


@pytest.mark.parametrize(
    "command",
    [("/usr/bin/node", "x.js"), ("/usr/bin/python3",), ("/usr/bin/python3", "-c", "1"),
     ("/usr/bin/python3", "-m"), ("/usr/bin/python3", "-m", "not-a-module"), ("/usr/bin/python3", "/nowhere")],
)  # fmt: skip
def test_what_is_no_python_program_is_refused(command: tuple[str, ...]) -> None:
    with pytest.raises(Fault, match="cannot be forked"):
        find_entry(command)


def test_what_to_import_without_a_zygote_has_no_effect_and_is_refused() -> None:
    with pytest.raises(Exception, match="no effect without spawn: zygote"):
        loads("version: 1\nmcpServers: {x: {command: x, preload: [json]}}", file="p.yaml")
