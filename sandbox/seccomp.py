"""System call filters: profiles are data, this module compiles them to classic BPF and can run the result itself.

The shape of a program (seccomp(2), Documentation/userspace-api/seccomp_filter.rst): the architecture is checked
first, then x32's number range, then a balanced tree of comparisons leads from the number to its answer. Numbers that
the table does not know are answered as if the kernel did not have them, so that programs fall back; numbers it knows
but the profile does not allow are refused. Conditions look at the low 32 bits of one argument, which is all the kernel
itself uses of every argument tested here; testing all 64 would let a caller slip past with a high bit set.
"""

import errno
import json
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

# include/uapi/linux/seccomp.h
KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

# include/uapi/linux/audit.h
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# arch/x86/include/uapi/asm/unistd.h: __X32_SYSCALL_BIT
_X32_FIRST = 0x40000000

# include/uapi/linux/bpf_common.h: LD|W|ABS, JMP|JA, RET|K, JMP|JEQ|K, JMP|JGT|K, JMP|JGE|K, JMP|JSET|K; ALU|AND|K
_LOAD, _JUMP, _RETURN = 0x20, 0x05, 0x06
_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT, _AND = 0x15, 0x25, 0x35, 0x45, 0x54
_MAX_SHORT_JUMP = 255
_MAX_INSTRUCTIONS = 4096

# struct seccomp_data: nr, arch, instruction pointer, six arguments; both architectures are little-endian.
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16

_PROFILES = Path(__file__).parent / "profiles"

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Condition:
    """Allowed when the low 32 bits of an argument pass the test, answered with `otherwise` when not."""

    argument: int
    test: Literal["any-of", "none-of", "no-bits"]
    values: tuple[int, ...]
    otherwise: int

    def answer(self, argument: int) -> int:
        """The answer for the whole value of the argument."""
        low = argument & 0xFFFFFFFF
        if self.test == "no-bits":
            passes = not any(low & bits for bits in self.values)
        else:
            passes = (low in self.values) == (self.test == "any-of")
        return ALLOW if passes else self.otherwise


Rule = int | Condition


@dataclass(frozen=True, slots=True)
class Profile:
    """Answers by call name; `denied` for other names of the table, `unknown` for numbers without a name."""

    name: str
    rules: dict[str, Rule]
    denied: int
    unknown: int


def action(word: str) -> int:
    """The filter's return value for an errno name, or for OK, which answers 0 without doing anything."""
    return _ERRNO | (0 if word == "OK" else cast("int", getattr(errno, word)))


@cache
def load_profile(name: str) -> Profile:
    """The profile shipped as profiles/<name>.json.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    value = json.loads((_PROFILES / f"{name}.json").read_text("utf-8"))
    rules: dict[str, Rule] = dict.fromkeys(value["allow"], ALLOW)
    rules |= {call: action(word) for call, word in value["answer"].items()}
    for item in value["conditions"]:
        values = tuple(item["values"])
        rules[item["call"]] = Condition(item["argument"], item["test"], values, action(item["otherwise"]))
    return Profile(value["name"], rules, action(value["denied"]), action(value["unknown"]))


@cache
def numbers(machine: str) -> dict[str, int]:
    """Call numbers by name."""
    lines = (_PROFILES / f"{machine}.tbl").read_text("utf-8").splitlines()
    return {
        name: int(number) for number, name in (line.split() for line in lines if not line.startswith("#"))
    }


@cache
def compile_named(name: str, machine: str) -> bytes:
    """The program of a shipped profile for `machine`, ready to install."""
    return assemble(compile_profile(load_profile(name), numbers(machine), machine))


def compile_profile(profile: Profile, table: dict[str, int], machine: str) -> list[Instruction]:
    """The filter's instructions. Every path ends in a return, and every jump goes forward."""
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32_FIRST), (_RETURN, 0, 0, KILL_PROCESS)]
    program += _tree(_ranges(profile, table))
    if len(program) > _MAX_INSTRUCTIONS:
        raise ValueError(
            f"profile {profile.name} needs {len(program)} instructions, more than {_MAX_INSTRUCTIONS}"
        )
    return program


def assemble(program: list[Instruction]) -> bytes:
    """The instructions as an array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def simulate(program: bytes, machine_code: int, number: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
    """What the kernel would answer: runs `program` on one call. For tests, and for explaining a refusal."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, machine_code, 0, *arguments)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, position = 0, 0
    while True:
        opcode, if_true, if_false, value = code[position]
        position += 1
        if opcode == _LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif opcode == _RETURN:
            return int(value)
        elif opcode == _JUMP:
            position += value
        elif opcode == _AND:
            accumulator &= value
        else:
            position += if_true if _holds(opcode, accumulator, value) else if_false


def _holds(opcode: int, accumulator: int, value: int) -> bool:
    if opcode == _EQUAL:
        return accumulator == value
    if opcode == _AT_LEAST:
        return accumulator >= value
    if opcode == _GREATER:
        return accumulator > value
    if opcode == _ANY_BIT:
        return bool(accumulator & value)
    raise ValueError(f"instruction {opcode:#x} is not of the kind used here")


def _ranges(profile: Profile, table: dict[str, int]) -> list[tuple[int, Rule]]:
    """Where the answer changes, walking up the numbers: (first number, rule), the first at 0, the last without end."""
    by_number = {number: profile.rules.get(name, profile.denied) for name, number in table.items()}
    ranges: list[tuple[int, Rule]] = []
    for number in range(max(by_number, default=-1) + 2):
        rule = by_number.get(number, profile.unknown)
        if not ranges or ranges[-1][1] != rule:
            ranges.append((number, rule))
    return ranges


def _tree(ranges: list[tuple[int, Rule]]) -> list[Instruction]:
    if len(ranges) == 1:
        return _leaf(ranges[0][1])
    middle = len(ranges) // 2
    low, high = _tree(ranges[:middle]), _tree(ranges[middle:])
    first = ranges[middle][0]
    if len(low) <= _MAX_SHORT_JUMP:
        return [(_AT_LEAST, len(low), 0, first), *low, *high]
    return [(_AT_LEAST, 0, 1, first), (_JUMP, 0, 0, len(low)), *low, *high]


def _leaf(rule: Rule) -> list[Instruction]:
    if isinstance(rule, int):
        return [(_RETURN, 0, 0, rule)]
    opcode = _ANY_BIT if rule.test == "no-bits" else _EQUAL
    hit, miss = (ALLOW, rule.otherwise) if rule.test == "any-of" else (rule.otherwise, ALLOW)
    count = len(rule.values)
    # Every test jumps over the tests after it and over the return for a miss.
    tests = [(opcode, count - index, 0, value) for index, value in enumerate(rule.values)]
    return [
        (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * rule.argument),
        *tests,
        (_RETURN, 0, 0, miss),
        (_RETURN, 0, 0, hit),
    ]
