"""The machine works while the other tests run: emulated, it needs two minutes of one processor and nothing of this one."""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from vm import machine
from vm.__main__ import EVERYTHING

HERE = Path(__file__).parent


class Ahead:
    """A machine that was started and will be asked later."""

    def __init__(self) -> None:
        self._files = ExitStack()
        self._said: IO[bytes] = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed by `close`
        self._trouble: IO[bytes] = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vm.machine", *EVERYTHING],
            cwd=HERE.parent,
            env=dict(os.environ) | {"PYTHONPATH": str(HERE.parents[1])},
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._trouble,
        )

    def answer(self) -> machine.Answer:
        """Wait for its end."""
        status = self._process.wait(machine.SECONDS + 30)
        said, trouble = (self._text(file) for file in (self._said, self._trouble))
        if status == machine.EX_UNAVAILABLE:
            pytest.skip(f"the machine cannot be made: {trouble}")
        assert "Traceback" not in trouble, trouble
        return machine.Answer(said.splitlines(), status)

    def close(self) -> None:
        """Leave nothing running, and no file."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self._files.close()

    @staticmethod
    def _text(file: IO[bytes]) -> str:
        file.seek(0)
        return file.read().decode("utf-8", "replace")


STARTED = pytest.StashKey[Ahead]()


def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = any(HERE in item.path.parents for item in session.items)
    # Of several processes that share the tests the first has those of this folder, as a rule.
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    if wanted and first and not session.config.option.collectonly:
        session.config.stash[STARTED] = Ahead()


def pytest_unconfigure(config: pytest.Config) -> None:
    if (ahead := config.stash.get(STARTED, None)) is not None:
        ahead.close()


@pytest.fixture(scope="session")
def answer(request: pytest.FixtureRequest) -> machine.Answer:
    """What came of everything that is tried in the machine."""
    if STARTED not in request.config.stash:
        request.config.stash[STARTED] = Ahead()
    return request.config.stash[STARTED].answer()
