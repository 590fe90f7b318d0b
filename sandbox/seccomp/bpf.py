"""Classic BPF as seccomp(2) runs it: from answers by call number to a program, and a machine that runs the program.

The shape of a program (Documentation/userspace-api/seccomp_filter.rst): the architecture is checked first, then x32's
number range, then a balanced tree of comparisons leads from the number to its answer. Nothing here knows names.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache

# include/uapi/linux/seccomp.h
KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000
ERRNO = 0x00050000

# include/uapi/linux/audit.h
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# arch/x86/include/uapi/asm/unistd.h: __X32_SYSCALL_BIT
_X32_FIRST = 0x40000000

# include/uapi/linux/bpf_common.h: LD|W|ABS, JMP|JA, RET|K, JMP|JEQ|K, JMP|JGE|K; ALU|AND|K
_LOAD, _JUMP, _RETURN = 0x20, 0x05, 0x06
_EQUAL, _AT_LEAST, _AND = 0x15, 0x35, 0x54
_MAX_SHORT_JUMP = 255
# BPF_MAXINSNS (include/uapi/linux/bpf_common.h); the kernel refuses a longer program with EINVAL.
MAX_INSTRUCTIONS = 4096

# struct seccomp_data: nr, arch, instruction pointer, six arguments; both architectures are little-endian.
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
ARGUMENTS = 6

_LOW = 0xFFFFFFFF
ALL_BITS = {32: _LOW, 64: 2**64 - 1}
# Six instructions for each value have to fit under one short jump.
MAX_VALUES = 40

Instruction = tuple[int, int, int, int]


class ProgramTooLong(ValueError):
    """A profile that the kernel would not take; the message says how long it came out."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Passes when the looked-at bits of one argument are one of `values`; with `negated` when they are none of them.

    `bits` is how much of the argument the kernel itself uses. With 32 the high half is not looked at, since a caller
    could otherwise slip past by setting a bit there that the kernel then drops; with 64 both halves are compared.
    """

    argument: int
    values: tuple[int, ...]
    mask: int
    bits: int
    negated: bool = False

    def passes(self, arguments: tuple[int, ...]) -> bool:
        """For the whole values of the arguments."""
        seen = arguments[self.argument] & self.mask & ALL_BITS[self.bits]
        return (seen in self.values) != self.negated


@dataclass(frozen=True, slots=True)
class Condition:
    """Allowed when every test of any alternative passes, answered with `otherwise` when not."""

    alternatives: tuple[tuple[Comparison, ...], ...]
    otherwise: int

    def answer(self, arguments: tuple[int, ...]) -> int:
        """The answer for a call with these arguments."""
        passes = any(all(test.passes(arguments) for test in tests) for tests in self.alternatives)
        return ALLOW if passes else self.otherwise


Rule = int | Condition


def program(rules: dict[int, Rule], unknown: int, machine: str) -> bytes:
    """The filter that answers the calls numbered in `rules`, and `unknown` to every other, as an array of sock_filter.

    Every path ends in a return, and every jump goes forward.

    Raises:
        ProgramTooLong: the kernel would refuse it.
    """
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32_FIRST), (_RETURN, 0, 0, KILL_PROCESS)]
    code += _tree(_ranges(rules, unknown))
    if len(code) > MAX_INSTRUCTIONS:
        raise ProgramTooLong(f"{len(code)} instructions, more than {MAX_INSTRUCTIONS}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def simulate(
    code: bytes, architecture: int, number: int, arguments: tuple[int, ...] = (0,) * ARGUMENTS
) -> int:
    """What the kernel would answer: runs the program on one call. For tests, and for explaining a refusal."""
    data = struct.pack("=IIQ6Q", number & _LOW, architecture, 0, *arguments)
    instructions = _decoded(code)
    accumulator, position = 0, 0
    while True:
        opcode, if_true, if_false, value = instructions[position]
        position += 1
        if opcode == _LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif opcode == _RETURN:
            return int(value)
        elif opcode == _JUMP:
            position += value
        elif opcode == _AND:
            accumulator &= value
        elif opcode in {_EQUAL, _AT_LEAST}:
            holds = accumulator == value if opcode == _EQUAL else accumulator >= value
            position += if_true if holds else if_false
        else:
            raise ValueError(f"instruction {opcode:#x} is not of the kind used here")


@lru_cache(16)
def _decoded(code: bytes) -> list[Instruction]:
    return list(struct.iter_unpack("=HBBI", code))


def _ranges(rules: dict[int, Rule], unknown: int) -> list[tuple[int, Rule]]:
    """Where the answer changes, walking up the numbers: (first number, rule), the first at 0, the last without end."""
    ranges: list[tuple[int, Rule]] = []
    for number in range(max(rules, default=-1) + 2):
        rule = rules.get(number, unknown)
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
    code: list[Instruction] = []
    for tests in rule.alternatives:
        code += _alternative(tests)
    return [*code, (_RETURN, 0, 0, rule.otherwise)]


def _alternative(tests: tuple[Comparison, ...]) -> list[Instruction]:
    """Returns ALLOW when every test passes, and runs on behind its end when one does not."""
    code: list[Instruction] = [(_RETURN, 0, 0, ALLOW)]
    for test in reversed(tests):
        code = [*_test(test, len(code)), *code]
    return code


def _test(test: Comparison, length_after: int) -> list[Instruction]:
    """Runs on when the test passes, and jumps over the `length_after` instructions behind it when not."""
    compared = _wide(test) if test.bits == 64 else _narrow(test)  # noqa: PLR2004 - see ALL_BITS
    over: Instruction = (_JUMP, 0, 0, length_after)
    # A value that was found jumps over the first instruction behind the comparisons, one that was not runs into it.
    return [*compared, (_JUMP, 0, 0, 1), over] if test.negated else [*compared, over]


def _narrow(test: Comparison) -> list[Instruction]:
    """Compare the low half; see `_test` for where a hit goes."""
    load: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * test.argument)]
    if test.mask & _LOW != _LOW:
        load.append((_AND, 0, 0, test.mask & _LOW))
    count = len(test.values)
    return load + [(_EQUAL, count - index, 0, value) for index, value in enumerate(test.values)]


def _wide(test: Comparison) -> list[Instruction]:
    """Compare both halves, the high one first; see `_test` for where a hit goes."""
    low = _ARGUMENTS_OFFSET + 8 * test.argument
    each = 6
    code: list[Instruction] = []
    for index, value in enumerate(test.values):
        code += [
            (_LOAD, 0, 0, low + 4),
            (_AND, 0, 0, test.mask >> 32),
            (_EQUAL, 0, 3, value >> 32),
            (_LOAD, 0, 0, low),
            (_AND, 0, 0, test.mask & _LOW),
            (_EQUAL, each * (len(test.values) - index - 1) + 1, 0, value & _LOW),
        ]
    return code
