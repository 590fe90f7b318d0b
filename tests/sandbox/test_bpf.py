"""The filter compiler against the plain reading of the same rules, and against the kernel that has to take its programs."""

import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import syscalls
from sandbox.seccomp import bpf
from sandbox.seccomp.bpf import ALLOW, ARCHITECTURES, ERRNO, KILL_PROCESS, Comparison, Condition, simulate

MACHINES = sorted(ARCHITECTURES)
WORDS = {32: st.integers(0, 2**32 - 1), 64: st.integers(0, 2**64 - 1)}
ANSWERS = st.sampled_from([ALLOW, ERRNO | 1, ERRNO | 38, ERRNO])
LOAD, JUMP, RETURN = 0x20, 0x05, 0x06


@st.composite
def comparisons(draw) -> Comparison:
    bits = draw(st.sampled_from([32, 64]))
    mask = draw(WORDS[bits] | st.just(bpf.ALL_BITS[bits]))
    values = draw(st.lists(WORDS[bits] | st.integers(0, 8), min_size=1, max_size=6))
    kept = tuple(value & mask for value in values)
    return Comparison(draw(st.integers(0, 5)), kept, mask, bits, negated=draw(st.booleans()))


CONDITIONS = st.builds(
    Condition,
    alternatives=st.lists(
        st.lists(comparisons(), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4
    ).map(tuple),
    otherwise=st.sampled_from([ERRNO | 1, ERRNO | 97]),
)
RULES = st.dictionaries(st.integers(0, 600), ANSWERS | CONDITIONS, max_size=120)


def near(rules) -> st.SearchStrategy[int]:
    """Words that a test of these rules could be about, changed a little."""
    conditions = [rule for rule in rules.values() if isinstance(rule, Condition)]
    tests = [test for rule in conditions for tests in rule.alternatives for test in tests]
    values = sorted({value for test in tests for value in test.values}) or [0]
    flips = st.sampled_from([0, *(1 << shift for shift in range(64))])
    return st.builds(lambda value, flip: value ^ flip, st.sampled_from(values), flips) | WORDS[64]


@settings(max_examples=60)
@given(data=st.data(), rules=RULES)
def test_any_program_answers_as_its_rules_are_read(data, rules):
    for machine in MACHINES:
        program = bpf.program(rules, ERRNO | 38, machine)
        for number in [*data.draw(st.lists(st.integers(0, 700), max_size=3)), *list(rules)[:4]]:
            arguments = data.draw(st.tuples(*[near(rules)] * 6))
            rule = rules.get(number, ERRNO | 38)
            expected = rule.answer(arguments) if isinstance(rule, Condition) else rule
            assert simulate(program, ARCHITECTURES[machine], number, arguments) == expected


@settings(max_examples=40)
@given(RULES)
def test_every_jump_lands_inside_and_the_end_is_a_return(rules):
    program = list(struct.iter_unpack("=HBBI", bpf.program(rules, ERRNO, "x86_64")))
    for position, (code, yes, no, value) in enumerate(program):
        assert position + 1 + (value if code == JUMP else max(yes, no)) < len(program) or code == RETURN
        if code == LOAD:
            assert value <= 60
            assert value % 4 == 0
    assert program[-1][0] == RETURN


@given(comparisons().filter(lambda test: test.bits == 32), WORDS[64])
def test_a_test_of_32_bits_never_sees_the_high_half(test, word):
    arguments = (word,) * 6
    assert test.passes(arguments) == test.passes((word & 0xFFFFFFFF,) * 6)


@given(WORDS[64], st.integers(0, 63))
def test_a_test_of_64_bits_sees_every_single_bit(value, bit):
    only = {7: Condition(((Comparison(2, (value,), 2**64 - 1, 64),),), ERRNO | 1)}
    program = bpf.program(only, ERRNO | 38, "aarch64")
    other = value ^ 1 << bit
    for word, answer in ((value, ALLOW), (other, ERRNO | 1)):
        assert simulate(program, ARCHITECTURES["aarch64"], 7, (0, 0, word, 0, 0, 0)) == answer


def test_a_condition_with_as_many_values_as_there_may_be_reaches_each():
    for bits in (32, 64):
        values = tuple(range(100, 100 + bpf.MAX_VALUES))
        for negated in (False, True):
            rule = Condition(
                ((Comparison(5, values, bpf.ALL_BITS[bits], bits, negated=negated),),), ERRNO | 1
            )
            program = bpf.program({3: rule}, ERRNO, "x86_64")
            for word in range(98, 102 + bpf.MAX_VALUES):
                answer = simulate(program, ARCHITECTURES["x86_64"], 3, (0, 0, 0, 0, 0, word))
                assert answer == (ALLOW if (word in values) != negated else ERRNO | 1)


def test_a_program_longer_than_the_kernel_takes_is_refused_by_name():
    wide = Comparison(0, tuple(range(bpf.MAX_VALUES)), 2**64 - 1, 64)
    rules = {number: Condition(((wide,),), ERRNO | number + 1) for number in range(20)}
    with pytest.raises(bpf.ProgramTooLong, match="more than 4096"):
        bpf.program(rules, ERRNO, "x86_64")


def test_an_instruction_of_another_kind_is_not_simulated():
    with pytest.raises(ValueError, match="0x25"):
        simulate(struct.pack("=HBBI", 0x25, 0, 0, 0), 0, 0)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_foreign_architecture_is_killed(machine):
    others = [ARCHITECTURES[other] for other in MACHINES if other != machine]
    program = bpf.program({0: ALLOW}, ERRNO, machine)
    for code in (0x40000003, 0x0, 0xFFFFFFFF, *others):
        assert simulate(program, code, 0) == KILL_PROCESS


@pytest.mark.parametrize("number", [0x40000000, 0x40000001, 0x400001FF, 0xFFFFFFFF])
def test_x32_is_killed(number):
    program = bpf.program({0: ALLOW}, ERRNO, "x86_64")
    assert simulate(program, ARCHITECTURES["x86_64"], number) == KILL_PROCESS


@pytest.mark.kernel
@settings(max_examples=40)
@given(RULES)
def test_the_kernel_takes_any_program(rules):
    # Our own calls between the filter and the end have to stay possible, whatever the rules say of them.
    program = bpf.program({**rules, 231: ALLOW}, ALLOW, os.uname().machine)
    assert installed(program) == 0


@pytest.mark.kernel
def test_the_kernel_refuses_a_program_whose_jump_leaves_it():
    program = bpf.program({0: ALLOW}, ERRNO, os.uname().machine)
    assert installed(struct.pack("=HBBI", 0x15, 200, 0, 0) + program) == 22


def installed(program: bytes) -> int:
    """Install it in a child that then ends; the errno of the kernel, 0 when it was taken."""
    child = os.fork()
    if child == 0:
        answer = 0
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.seccomp_filter(program)
        except OSError as error:
            answer = error.errno or 255
        finally:
            os._exit(answer)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
