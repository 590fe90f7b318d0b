"""`volumes` and `data`: what a server's workers keep, and what they are given of the host under another path.

The words are those of a Compose file, its short form `/host:/inside:ro` included, so that a block can be pasted in.
Unlike there, what does not say `rw` is read-only.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import model_validator

from mcphost.policy.faults import Fault, first_repeated
from mcphost.policy.fields import AbsolutePath, Model, PlainName
from mcphost.policy.profiles import GrantedPath
from mcphost.policy.units import ByteSize, at_least
from sandbox import DATA_TARGET, MIN_VOLUME_BYTES

SHORT_FORM = r"[^:]+:/[^:]*(?::(?:ro|rw))?"

VolumeSize = Annotated[ByteSize, at_least(MIN_VOLUME_BYTES)]


class Volume(Model):
    """One place: a path of the host (`source`), or one that the runtime keeps itself (`name`)."""

    source: AbsolutePath | None = None
    """A path of the host. Its own permissions hold, too."""

    name: PlainName | None = None
    """Kept below `runtime.stateDir`, for each tenant and server; for each server where that is shared."""

    target: GrantedPath
    """Where it is seen inside."""

    mode: Literal["ro", "rw"] = "ro"
    """`ro`: read-only. `rw`: readable and writable, never executable."""

    size: VolumeSize | None = None
    """The most that it holds; of a kept one only. 16Mi or more."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not re.fullmatch(SHORT_FORM, value):
            raise Fault(
                "is not of the short form", allowed="/host:/inside, /host:/inside:rw, or name:/inside:rw"
            )
        what, target, *mode = value.split(":")
        if what.startswith((".", "~")):
            raise Fault("must be an absolute path, or the name of a volume")
        kind = "source" if what.startswith("/") else "name"
        return {kind: what, "target": target} | ({"mode": mode[0]} if mode else {})

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.source is None) == (self.name is None):
            raise Fault("takes either a source, a path of the host, or a name, for what the runtime keeps")
        if self.name is not None and self.mode == "ro":
            raise Fault("nothing could ever be written to it; write `mode: rw`")
        if self.source is not None and self.size is not None:
            why = "the size of a path of the host is not ours to bound; give the volume a name in place of a source"
            raise Fault(why, at=("size",))
        return self


class DataSettings(Model):
    """The data directory, /data."""

    size: VolumeSize | None = None
    """The most that it holds. Without it: what its file system has. 16Mi or more."""


def disagreements(volumes: Sequence[Volume]) -> Iterator[Fault]:
    """What is wrong with the volumes of one server taken together, by their index."""
    names = [volume.name or f"/{index}" for index, volume in enumerate(volumes)]
    repeated = first_repeated(names)
    if repeated is not None:
        yield Fault("this name is given to two volumes", at=(repeated,))
    places = [DATA_TARGET]
    for index, volume in enumerate(volumes):
        for other in places:
            if _within(volume.target, other) or _within(other, volume.target):
                why = f"{volume.target} and {other} cannot lie in each other; give it a target apart"
                yield Fault(why, at=(index,))
                break
        places.append(volume.target)


def _within(inner: str, outer: str) -> bool:
    return posixpath.commonpath((inner, outer)) == outer
