"""Profiles of system calls as data: reading them strictly, and laying small overlays over them.

A profile is a JSON object: `allow` lists calls, `answer` gives others an answer of their own (an errno's name, or OK
for a 0 without any effect), `conditions` allows calls by their arguments, `denied` answers the other calls that exist
and `unknown` the numbers that do not. An overlay changes a profile for one kind of worker; the shipped ones are in
profiles/variants.json. What cannot be meant is refused, with the path of the value that is wrong.
"""

import difflib
import errno
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import cast

from sandbox.errors import FilterInvalid
from sandbox.seccomp.bpf import ALL_BITS, ALLOW, ARGUMENTS, ERRNO, MAX_VALUES, Comparison, Condition, Rule

# Bounds on what is written, so that what comes out stays small enough to be judged by a person.
MAX_CALLS = 1024
MAX_CONDITIONS = 64
MAX_ALTERNATIVES = 16
MAX_TESTS = 8

Path = tuple[str | int, ...]

_ERRNO_NAMES = frozenset(errno.errorcode.values())
# Words of a test, and the keys each needs beside `argument`, `bits` and `test`.
_TESTS = {
    "any-of": {"values"},
    "none-of": {"values"},
    "masked-equal": {"mask", "values"},
    "no-bits": {"mask"},
}


@dataclass(frozen=True, slots=True)
class Profile:
    """Answers by call name; `denied` for other names of the table, `unknown` for numbers without a name."""

    name: str
    rules: dict[str, Rule]
    denied: int
    unknown: int

    def rule(self, call: str) -> Rule:
        """What is said of `call`, which exists."""
        return self.rules.get(call, self.denied)


@dataclass(frozen=True, slots=True)
class Overlay:
    """A small change to a profile: `widen` and `allow` let more through, `narrow` and `refuse` then take away."""

    allow: frozenset[str] = frozenset()
    widen: dict[str, Condition] = field(default_factory=dict)
    narrow: dict[str, Condition] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)


def action(word: str) -> int:
    """The filter's return value for an errno name, or for OK, which answers 0 without doing anything."""
    return ERRNO | (0 if word == "OK" else cast("int", getattr(errno, word)))


def read_profile(value: object, calls: frozenset[str]) -> Profile:
    """The profile that `value`, decoded JSON, means. `calls` are the names that exist.

    Raises:
        FilterInvalid: a key, a name, an answer or a number that cannot be meant.
    """
    known = {"name", "source", "denied", "unknown", "allow", "answer", "conditions"}
    fields = _object(value, (), known, needed={"name", "denied", "unknown", "allow"})
    rules: dict[str, Rule] = dict.fromkeys(_calls(fields["allow"], ("allow",), calls), ALLOW)
    for call, word in _object(fields.get("answer", {}), ("answer",)).items():
        _once(call, rules, ("answer", call))
        rules[_call(call, ("answer", call), calls, on_key=True)] = _answer(word, ("answer", call))
    rules |= _conditions(fields.get("conditions", []), ("conditions",), calls, rules)
    return Profile(
        _text(fields["name"], ("name",)),
        rules,
        _answer(fields["denied"], ("denied",)),
        _answer(fields["unknown"], ("unknown",)),
    )


def read_overlay(value: object, calls: frozenset[str]) -> Overlay:
    """The overlay that `value`, decoded JSON, means; raises `FilterInvalid` as `read_profile` does."""
    fields = _object(value, (), {"why", "allow", "widen", "narrow", "refuse"}, needed={"why"})
    refuse = _object(fields.get("refuse", {}), ("refuse",))
    return Overlay(
        frozenset(_calls(fields.get("allow", []), ("allow",), calls)),
        _conditions(fields.get("widen", []), ("widen",), calls, {}),
        _conditions(fields.get("narrow", []), ("narrow",), calls, {}),
        {
            _call(call, ("refuse", call), calls, on_key=True): _answer(word, ("refuse", call))
            for call, word in refuse.items()
        },
    )


def overlaid(profile: Profile, overlays: Iterable[Overlay]) -> Profile:
    """The profile with every overlay laid over it. The order does not matter: all widen before any narrows."""
    rules = dict(profile.rules)
    chosen = list(overlays)
    for overlay in chosen:
        rules |= dict.fromkeys(overlay.allow, ALLOW)
        for call, more in overlay.widen.items():
            rules[call] = _widened(rules.get(call, profile.denied), more)
    for overlay in chosen:
        for call, less in overlay.narrow.items():
            rules[call] = _narrowed(rules.get(call, profile.denied), less)
        rules |= {call: answer for call, answer in overlay.refuse.items() if _lets_through(rules.get(call))}
    return replace(profile, rules=rules)


def _lets_through(rule: Rule | None) -> bool:
    return rule == ALLOW or isinstance(rule, Condition)


def _widened(rule: Rule, more: Condition) -> Rule:
    if rule == ALLOW:
        return ALLOW
    before = rule.alternatives if isinstance(rule, Condition) else ()
    return Condition((*before, *more.alternatives), more.otherwise)


def _narrowed(rule: Rule, less: Condition) -> Rule:
    if rule == ALLOW:
        return less
    if not isinstance(rule, Condition):
        return rule
    both = tuple((*mine, *theirs) for mine in rule.alternatives for theirs in less.alternatives)
    return Condition(both, less.otherwise)


def _conditions(
    value: object, path: Path, calls: frozenset[str], taken: dict[str, Rule]
) -> dict[str, Condition]:
    found: dict[str, Condition] = {}
    for index, item in enumerate(_array(value, path, MAX_CONDITIONS)):
        at = (*path, index)
        fields = _object(
            item, at, {"call", "when", "otherwise", "why"}, needed={"call", "when", "otherwise", "why"}
        )
        call = _call(fields["call"], (*at, "call"), calls)
        _once(call, {**taken, **found}, (*at, "call"))
        alternatives = _array(fields["when"], (*at, "when"), MAX_ALTERNATIVES, least=1)
        found[call] = Condition(
            tuple(_alternative(tests, (*at, "when", number)) for number, tests in enumerate(alternatives)),
            _answer(fields["otherwise"], (*at, "otherwise")),
        )
    return found


def _alternative(value: object, path: Path) -> tuple[Comparison, ...]:
    tests = _array(value, path, MAX_TESTS, least=1)
    return tuple(_comparison(item, (*path, index)) for index, item in enumerate(tests))


def _comparison(value: object, path: Path) -> Comparison:
    fields = _object(
        value,
        path,
        {"argument", "bits", "test", "mask", "values"},
        needed={"argument", "bits", "test"},
    )
    word = fields["test"]
    if not isinstance(word, str) or word not in _TESTS:
        raise _unknown(word, (*path, "test"), "no test has this name", _TESTS)
    wanted = _TESTS[str(word)]
    if wrong := (fields.keys() - {"argument", "bits", "test"}) ^ wanted:
        raise FilterInvalid(path, f"a test {word} has {' and '.join(sorted(wanted))}: {min(wrong)} is wrong")
    bits = _number(fields["bits"], (*path, "bits"), 64)
    if bits not in ALL_BITS:
        raise FilterInvalid((*path, "bits"), "32 or 64 is expected: how much of the argument the kernel uses")
    most = ALL_BITS[bits]
    mask = _number(fields["mask"], (*path, "mask"), most) if "mask" in fields else most
    values = _array(fields.get("values", [0]), (*path, "values"), MAX_VALUES, least=1)
    return Comparison(
        argument=_number(fields["argument"], (*path, "argument"), ARGUMENTS - 1),
        values=tuple(
            _within(_number(item, (*path, "values", index), most), mask, (*path, "values", index))
            for index, item in enumerate(values)
        ),
        mask=mask,
        bits=bits,
        negated=word == "none-of",
    )


def _within(value: int, mask: int, path: Path) -> int:
    if value & ~mask:
        raise FilterInvalid(path, "has bits outside the mask, so that no argument could ever equal it")
    return value


def _number(value: object, path: Path, most: int) -> int:
    """A whole number, or one in hexadecimal as text, since JSON has none."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            value = int(value, 16)
        except ValueError:
            raise FilterInvalid(path, "is no hexadecimal number") from None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise FilterInvalid(path, f"a whole number from 0 to {most} (or hexadecimal, as text) is expected")
    return value


def _answer(value: object, path: Path) -> int:
    if value == "OK":
        return ERRNO
    if not isinstance(value, str) or value not in _ERRNO_NAMES:
        raise _unknown(value, path, "no errno has this name", {*_ERRNO_NAMES, "OK"})
    return action(value)


def _calls(value: object, path: Path, calls: frozenset[str]) -> list[str]:
    found: list[str] = []
    for index, item in enumerate(_array(value, path, MAX_CALLS)):
        name = _call(item, (*path, index), calls)
        _once(name, found, (*path, index))
        found.append(name)
    return found


def _call(value: object, path: Path, calls: frozenset[str], *, on_key: bool = False) -> str:
    if not isinstance(value, str) or value not in calls:
        raise _unknown(value, path, "no system call has this name", calls, on_key=on_key)
    return value


def _once(call: str, taken: Iterable[str], path: Path) -> None:
    if call in taken:
        raise FilterInvalid(path, f"{call} is written twice; one place says what becomes of a call")


def _object(
    value: object, path: Path, known: set[str] | None = None, needed: Iterable[str] = ()
) -> dict[str, object]:
    if not isinstance(value, dict):
        raise FilterInvalid(path, "an object is expected")
    fields = cast("dict[str, object]", value)
    for key in fields if known is not None else ():
        if key not in cast("set[str]", known):
            raise _unknown(key, (*path, key), "no key has this name", cast("set[str]", known), on_key=True)
    for key in sorted(set(needed) - fields.keys()):
        raise FilterInvalid((*path, key), "is required")
    return fields


def _array(value: object, path: Path, most: int, *, least: int = 0) -> list[object]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise FilterInvalid(path, f"an array of {least} to {most} items is expected")
    return cast("list[object]", value)


def _text(value: object, path: Path) -> str:
    if not isinstance(value, str) or not value:
        raise FilterInvalid(path, "text is expected")
    return value


def _unknown(
    word: object, path: Path, problem: str, known: Iterable[str], *, on_key: bool = False
) -> FilterInvalid:
    near = difflib.get_close_matches(word, list(known), n=1) if isinstance(word, str) else []
    return FilterInvalid(path, problem, suggestion=near[0] if near else None, on_key=on_key)
