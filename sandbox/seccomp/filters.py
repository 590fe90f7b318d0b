"""System call filters by name: the shipped profiles, their variants, and the programs they compile to (seccomp(2)).

Numbers that the table of calls does not know are answered as if the kernel did not have them, so that programs fall
back; numbers it knows but the profile does not allow are refused. A test says for itself whether the kernel uses 32 or
64 bits of the argument it looks at (`bpf.Comparison`).
"""

import errno
import json
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

from sandbox.errors import FilterInvalid
from sandbox.seccomp import bpf
from sandbox.seccomp.bpf import ALLOW, ERRNO, NOTIFY, Condition
from sandbox.seccomp.filter_profiles import Overlay, Profile, overlaid, read_overlay, read_profile

_PROFILES = Path(__file__).parent / "profiles"
SHIPPED = ("default", "strict")


# A specification, which the profile is a part of, has to fit into one packet; the shipped lists have 4 to 6 KiB.
MAX_FILTER_BYTES = 32 * 1024

# What a worker calls between its filter and its program: it says that it is ready and waits for leave to go on.
START_CALLS = frozenset(
    {"brk", "close", "execve", "exit_group", "futex", "mmap", "munmap", "recvfrom", "sendmsg", "sendto"}
)

# More profiles than a policy has; a compiled one is a few KiB.
_MAX_FILTERS = 64


@dataclass(frozen=True, slots=True)
class Filter:
    """A profile ready to install: `plain` refuses by itself, `counting` leaves refusals to its listener.

    `refusals` are the calls that may be refused, by number: the name, and the errno to answer with.
    """

    plain: bytes
    counting: bytes
    refusals: dict[int, tuple[str, int]]


@lru_cache(_MAX_FILTERS)
def load_profile(choice: str) -> Profile:
    """The profile shipped as profiles/<choice>.json, or the one that `choice` is: JSON text, as `encode_filter` gives.

    Raises:
        FileNotFoundError: there is none of that name.
        FilterInvalid: the text is no profile.
    """
    if choice.startswith("{"):
        return _own_profile(choice)
    return read_profile(json.loads((_PROFILES / f"{choice}.json").read_text("utf-8")), call_names())


def encode_filter(value: object) -> str:
    """A profile of the caller's own, decoded JSON in the form of the shipped ones, as text for `SandboxSpec.seccomp`.

    Raises:
        FilterInvalid: with the path of the value that is wrong.
    """
    text = json.dumps(value, separators=(",", ":"))
    load_profile(text)
    return text


def _own_profile(text: str) -> Profile:
    """The profile in `text`, if a worker could be started under it with any variant."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILTER_BYTES:
        raise FilterInvalid((), f"is larger than {MAX_FILTER_BYTES} bytes")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise FilterInvalid((), "is not JSON") from None
    profile = read_profile(value, call_names())
    for call in sorted(START_CALLS):
        if profile.rules.get(call) != ALLOW:
            raise FilterInvalid(("allow",), f"{call} is missing, without which no program can be started")
    try:
        for machine in bpf.ARCHITECTURES:
            compile_profile(varied(profile, frozenset(overlays())), machine)
    except bpf.ProgramTooLong as error:
        raise FilterInvalid((), f"comes to {error}") from None
    return profile


@cache
def overlays() -> dict[str, Overlay]:
    """The shipped overlays by name."""
    values = json.loads((_PROFILES / "variants.json").read_text("utf-8"))
    return {name: read_overlay(value, call_names()) for name, value in values.items()}


@cache
def numbers(machine: str) -> dict[str, int]:
    """Call numbers by name."""
    lines = (_PROFILES / f"{machine}.tbl").read_text("utf-8").splitlines()
    return {
        name: int(number) for number, name in (line.split() for line in lines if not line.startswith("#"))
    }


@cache
def call_names() -> frozenset[str]:
    """Every name that a profile may speak of: those of all machines, so that one profile serves each."""
    return frozenset(name for machine in bpf.ARCHITECTURES for name in numbers(machine))


@lru_cache(_MAX_FILTERS)
def filter_for(choice: str, machine: str, variants: frozenset[str]) -> Filter:
    """The filter of a profile with variants; raises as `load_profile` and `varied` do."""
    profile = varied(load_profile(choice), variants)
    plain, counting = compile_profile(profile, machine), compile_profile(counted(profile), machine)
    return Filter(plain, counting, refusals(profile, machine))


def varied(profile: Profile, names: frozenset[str]) -> Profile:
    """The profile with the named variants laid over it. Raises `KeyError` for a variant that does not exist."""
    return overlaid(profile, [overlays()[name] for name in sorted(names)])


def compile_profile(profile: Profile, machine: str) -> bytes:
    """The program of any profile for `machine`. Raises `bpf.ProgramTooLong`."""
    rules = {number: profile.rule(name) for name, number in numbers(machine).items()}
    return bpf.program(rules, profile.unknown, machine)


def counted(profile: Profile) -> Profile:
    """The profile with every refusal left to whoever holds the filter's listener, who answers as `refusals` says.

    Answers that only pretend (0, or that the kernel has no such call) are no refusals: programs meet them every day.
    """
    rules = {call: _counted(rule) for call, rule in profile.rules.items()}
    return replace(profile, rules=rules, denied=NOTIFY if _is_refusal(profile.denied) else profile.denied)


def refusals(profile: Profile, machine: str) -> dict[int, tuple[str, int]]:
    """Of every call that the profile may refuse, by number: its name, and the errno it is refused with."""
    found: dict[int, tuple[str, int]] = {}
    for name, number in numbers(machine).items():
        rule = profile.rule(name)
        answer = rule.otherwise if isinstance(rule, Condition) else rule
        if _is_refusal(answer):
            found[number] = (name, answer ^ ERRNO)
    return found


def _counted(rule: bpf.Rule) -> bpf.Rule:
    if isinstance(rule, Condition):
        return replace(rule, otherwise=NOTIFY) if _is_refusal(rule.otherwise) else rule
    return NOTIFY if _is_refusal(rule) else rule


def _is_refusal(answer: int) -> bool:
    return answer not in {ALLOW, ERRNO, ERRNO | errno.ENOSYS}
