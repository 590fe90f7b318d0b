"""Finding out whether workers can be forked from a zygote here, by forking one that does nothing."""

import os
import sys

from sandbox.errors import SandboxError
from sandbox.layers import LayerStatus
from sandbox.oneshot import run
from sandbox.spec import Mount, SandboxSpec, Zygote

# A module of the standard library that imports nothing and, run as a program, says and does nothing.
_MODULE = "keyword"
_SECONDS = 20.0


def attempt() -> LayerStatus:
    """Blocks for some tenths of a second; the reason says how the worker ended, or why there was none."""
    try:
        done = run(_spec(), timeout_seconds=_SECONDS)
    except (SandboxError, OSError) as error:
        return LayerStatus("zygote", "absent", str(error))
    if done.ended.code != 0:
        return LayerStatus("zygote", "absent", f"the worker forked from one {done.ended.reason}")
    return LayerStatus("zygote", "enforced", "a worker was forked from one, and ended well")


def _spec() -> SandboxSpec:
    places = dict.fromkeys(["/usr", os.path.realpath(sys.base_prefix)])
    outermost = [place for place in places if not any(place.startswith(f"{other}/") for other in places)]
    return SandboxSpec(
        name="trial",
        argv=(_MODULE,),
        mounts=tuple(Mount(source=place, target=place) for place in outermost),
        zygote=Zygote(
            interpreter=(os.path.realpath(sys.executable), "-I", "-S"),
            preload=(_MODULE,),
            run=_MODULE,
            argv=(_MODULE,),
        ),
    )
