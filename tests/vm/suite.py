"""In the machine: every check, as root and as an ordinary user whose groups were delegated to it.

Those of `vm.checks` share a fork server; each of `vm.places` is a process of its own in a fresh group, like a service
just started. Afterwards a group must be as it was: whatever is left in it fails the check. One JSON line for each:
mode, check, whether it holds, and what was seen.
"""

import functools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from vm import checks, places, start

USER = 1000
# Of the group in which all of `vm.checks` were tried.
SHARED = "nothing_is_left_of_all_these"
_TIDY_SECONDS = 5.0  # until the kernel has taken leave of what was killed; then it counts as left behind


def checks_in(module: object) -> dict[str, Callable[..., None]]:
    """The checks of a module by their names."""
    found = vars(module).items()
    return {name.removeprefix("check_"): it for name, it in found if name.startswith("check_")}


def names() -> list[tuple[str, str]]:
    """The pairs of mode and check that a whole run answers."""
    root_only = {it.__name__.removeprefix("check_") for it in places.FOR_ROOT_ONLY}
    every = [*checks_in(checks), SHARED, *checks_in(places)]
    return [(mode, it) for mode in ("root", "user") for it in every if mode == "root" or it not in root_only]


def run_all(mode: str) -> None:
    """As root: become `mode` in a process of its own, and try everything."""
    user = 0 if mode == "root" else USER
    own = start.delegate(f"suite-{mode}", user)
    if os.fork() == 0:
        runner = own / "runner"
        runner.mkdir()
        for path in (runner, runner / "cgroup.procs"):
            os.chown(path, user, user)
        start.enter(runner)
        if user:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        (own / "cgroup.subtree_control").write_text(start.CONTROLLERS)
        tell(mode, SHARED, own / "shared", lambda _: try_shared(mode))
        for of, name in names():
            if of == mode and (check := checks_in(places).get(name)):
                tell(mode, name, own / name, check)
        os._exit(0)
    os.wait()


def try_shared(mode: str) -> None:
    """All checks that need a fork server and nothing else of it."""
    with places.spawning() as spawner:
        for name, check in checks_in(checks).items():
            began = time.monotonic()
            say(mode, name, attempt(functools.partial(check, spawner)), began)


def tell(mode: str, name: str, own: Path, check: Callable[[Path], None]) -> None:
    """Try one check in its group, and say how it went."""
    own.mkdir()
    began = time.monotonic()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)

        def enter_and_check() -> None:
            start.enter(own)
            check(own)

        os.write(writer, attempt(enter_and_check).encode()[-4000:])
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as seen:
        trouble = seen.read().decode(errors="replace")
    os.waitpid(pid, 0)
    say(mode, name, trouble or left_behind(own), began)


def say(mode: str, name: str, trouble: str, began: float) -> None:
    seconds = round(time.monotonic() - began, 1)
    line = {"mode": mode, "check": name, "holds": not trouble, "seen": trouble, "seconds": seconds}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def attempt(check: Callable[[], None]) -> str:
    """What went wrong; empty when all is as claimed."""
    try:
        check()
    except BaseException:  # noqa: BLE001 - the whole point: whatever it is, it is told
        return traceback.format_exc()
    return ""


def left_behind(own: Path) -> str:
    """What is still in a group that must be empty."""
    deadline = time.monotonic() + _TIDY_SECONDS
    while True:
        try:
            own.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                inside = [str(path.relative_to(own)) for path in own.rglob("*") if path.is_dir()]
                return f"left behind: groups {inside}, processes {(own / 'cgroup.procs').read_text().split()}"
            time.sleep(0.02)
        else:
            return ""


def main() -> None:
    """Everything."""
    for mode in ("root", "user"):
        run_all(mode)


if __name__ == "__main__":
    main()
