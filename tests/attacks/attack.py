"""What an attack is: a function that runs inside, and what is said about it. Also carried inside, so: nothing else here.

The function is given a dictionary of canaries, and its outcome is judged by how it ends: something true came back:
the attack succeeded (`open`). `Reached`: the kernel's own check was all that stood in the way (`reached`). An
`OSError`, nothing, or death: `blocked`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Canaries = dict[str, Any]
Program = Callable[[Canaries], object]


class Reached(Exception):
    """The call went past every wall of a sandbox into the kernel, which refused it to a user without privilege."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One hostile behaviour.

    `walls` are the layers that stop it, each of them alone; with all of them off it succeeds. A wall that needs a
    version of Landlock is written `landlock:6`, one that only acts where another is missing `landlock!rootfs`. `start`
    is no layer but how every worker is started and ended, which a plain child is not; `kill` is that it is ended when
    that is asked.

    `needs` are what must be there for the attack to be possible at all; `accepted` is why it may succeed; `degraded` why
    it does where there are no namespaces. `alone` gives it a worker of its own, in which it is the `first` process or a
    child of that; a `witness` outside says whether it succeeded, where it cannot know or would not come back to tell.
    """

    name: str
    group: str
    program: Program
    walls: tuple[str, ...]
    needs: tuple[str, ...] = ()
    accepted: str = ""
    degraded: str = ""
    alone: bool = False
    first: bool = False
    witness: str = ""

    @property
    def title(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")


class Rows:
    """The rows of a group as they are written: `@rows(walls...)` above the function of each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attacks: list[Attack] = []

    def __call__(self, *walls: str, **rest: Any) -> Callable[[Program], Program]:
        """Note the function below as stopped by `walls`; the function stays what it is."""

        def note(program: Program) -> Program:
            self.attacks.append(
                Attack(name=program.__name__, group=self.name, program=program, walls=walls, **rest)
            )
            return program

        return note
