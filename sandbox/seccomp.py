"""System call filters by name: the shipped profiles, their variants, and the programs they compile to (seccomp(2)).

Numbers that the table of calls does not know are answered as if the kernel did not have them, so that programs fall
back; numbers it knows but the profile does not allow are refused. A test says for itself whether the kernel uses 32 or
64 bits of the argument it looks at (`bpf.Test`).
"""

import json
from functools import cache
from pathlib import Path

from sandbox import bpf
from sandbox.filter_profiles import Overlay, Profile, overlaid, read_overlay, read_profile

_PROFILES = Path(__file__).parent / "profiles"


@cache
def load_profile(name: str) -> Profile:
    """The profile shipped as profiles/<name>.json.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    return read_profile(json.loads((_PROFILES / f"{name}.json").read_text("utf-8")), call_names())


@cache
def overlays() -> dict[str, Overlay]:
    """The shipped overlays by name: `egress`, `zygote`, `no-unix`."""
    values = json.loads((_PROFILES / "variants.json").read_text("utf-8"))
    return {name: read_overlay(value, call_names()) for name, value in values.items()}


@cache
def numbers(machine: str) -> dict[str, int]:
    """Call numbers by name."""
    lines = (_PROFILES / f"{machine}.tbl").read_text("utf-8").splitlines()
    return {
        name: int(number) for number, name in (line.split() for line in lines if not line.startswith("#"))
    }


def call_names() -> frozenset[str]:
    """Every name that a profile may speak of: those of all machines, so that one profile serves each."""
    return frozenset(name for machine in bpf.ARCHITECTURES for name in numbers(machine))


@cache
def compile_named(name: str, machine: str, variants: frozenset[str] = frozenset()) -> bytes:
    """The program of a shipped profile with the named variants, for `machine`, ready to install.

    Raises:
        FileNotFoundError, KeyError: there is no such profile, no such variant.
    """
    return compile_profile(varied(load_profile(name), variants), machine)


def varied(profile: Profile, names: frozenset[str]) -> Profile:
    """The profile with the named variants laid over it. Raises `KeyError` for a variant that does not exist."""
    return overlaid(profile, [overlays()[name] for name in sorted(names)])


def compile_profile(profile: Profile, machine: str) -> bytes:
    """The program of any profile for `machine`. Raises `bpf.ProgramTooLong`."""
    rules = {number: profile.rule(name) for name, number in numbers(machine).items()}
    return bpf.program(rules, profile.unknown, machine)
