"""Without a pid namespace everything a worker started ends with it all the same, whoever of us is killed.

What cannot hold: with the init and the fork server killed in the same moment, or, before ABI 6 of Landlock, with the
fork server killed alone, nobody of ours is left to look for a daemon.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks import modes

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def packages() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        modes.copy_package(Path(folder))
        shutil.copy(Path(__file__).with_name("degraded_ends.py"), folder)
        yield folder


@pytest.mark.parametrize(
    ("place", "end", "said"),
    [
        ("container-user", "killed", "killed"),
        # Nothing keeps signals to a worker's own: whoever is left is looked for.
        ("container-user", "killed-unscoped", "killed"),
        ("container-user", "exits", "exited"),
        ("container-user", "init", "signalled"),
        ("container-user", "spawner", None),
        ("container-user", "runtime", None),
        ("container", "killed", "killed"),
        ("container", "init", "signalled"),
    ],
)
def test_daemons_of_a_worker_are_gone_after_its_end(packages, place, end, said):
    where = modes.PLACES[place]
    argv = [modes.interpreter(where), "-I", f"{packages}/degraded_ends.py", packages, end]
    done = subprocess.run(modes.command(where, argv), capture_output=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {"left": [], "said": said}
