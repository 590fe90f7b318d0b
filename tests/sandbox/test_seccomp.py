"""The filter compiler against its own profile, against libseccomp, and against the kernel."""

import io
import os
import tempfile

import pyseccomp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import seccomp
from sandbox.seccomp import (
    ALLOW,
    ARCHITECTURES,
    KILL_PROCESS,
    Condition,
    Profile,
    assemble,
    compile_profile,
    simulate,
)

MACHINES = sorted(ARCHITECTURES)
EPERM, ENOSYS = seccomp.action("EPERM"), seccomp.action("ENOSYS")
ANSWERS = st.sampled_from([ALLOW, EPERM, ENOSYS, seccomp.action("OK")])
CONDITIONS = st.builds(
    Condition,
    argument=st.integers(0, 5),
    test=st.sampled_from(["any-of", "none-of", "no-bits"]),
    values=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5).map(tuple),
    otherwise=st.sampled_from([EPERM, ENOSYS]),
)
WORDS = st.integers(0, 2**64 - 1)


def expected(profile: Profile, table: dict[str, int], number: int, arguments: tuple[int, ...]) -> int:
    """What the profile says, looked up the plain way."""
    name = {value: key for key, value in table.items()}.get(number)
    rule = profile.unknown if name is None else profile.rules.get(name, profile.denied)
    return rule.answer(arguments[rule.argument]) if isinstance(rule, Condition) else rule


@given(
    rules=st.dictionaries(st.integers(0, 600), ANSWERS | CONDITIONS, max_size=150),
    others=st.sets(st.integers(0, 600), max_size=50),
    number=st.integers(0, 700),
    arguments=st.tuples(*[WORDS | st.integers(0, 8)] * 6),
)
def test_any_profile_answers_as_written(rules, others, number, arguments):
    table = {f"call{value}": value for value in {*rules, *others}}
    profile = Profile("any", {f"call{value}": rule for value, rule in rules.items()}, EPERM, ENOSYS)
    for machine in MACHINES:
        program = assemble(compile_profile(profile, table, machine))
        found = simulate(program, ARCHITECTURES[machine], number, arguments)
        assert found == expected(profile, table, number, arguments)


@given(CONDITIONS, WORDS)
def test_only_the_low_half_of_an_argument_matters(condition, word):
    assert condition.answer(word) == condition.answer(word & 0xFFFFFFFF)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_jump_of_the_default_filter_lands_inside_it(machine):
    program = compile_profile(seccomp.load_profile("default"), seccomp.numbers(machine), machine)
    for position, (code, yes, no, value) in enumerate(program):
        if code == 0x05:
            assert position + 1 + value < len(program)
        elif code & 0x07 == 0x05:
            assert position + 1 + max(yes, no) < len(program)
    assert program[-1][0] == 0x06


@pytest.mark.parametrize("machine", MACHINES)
def test_a_foreign_architecture_is_killed(machine):
    program = seccomp.compile_named("default", machine)
    for code in (
        0x40000003,
        0x0,
        0xFFFFFFFF,
        *(ARCHITECTURES[other] for other in MACHINES if other != machine),
    ):
        assert simulate(program, code, 0) == KILL_PROCESS


@pytest.mark.parametrize("number", [0x40000000, 0x40000001, 0x400001FF, 0xFFFFFFFF])
def test_x32_is_killed(number):
    program = seccomp.compile_named("default", "x86_64")
    assert simulate(program, ARCHITECTURES["x86_64"], number) == KILL_PROCESS


def library_filter(profile: Profile, table: dict[str, int]) -> bytes:
    """The same profile as libseccomp compiles it."""
    actions = {
        ALLOW: pyseccomp.ALLOW,
        **{
            seccomp.action(word): pyseccomp.ERRNO(code)
            for word, code in (("EPERM", 1), ("ENOSYS", 38), ("OK", 0))
        },
        seccomp.action("EAFNOSUPPORT"): pyseccomp.ERRNO(97),
    }
    theirs = pyseccomp.SyscallFilter(pyseccomp.ERRNO(38))
    for name, number in table.items():
        rule = profile.rules.get(name, profile.denied)
        if isinstance(rule, Condition):
            add_condition(theirs, actions, number, rule)
        elif actions[rule] != pyseccomp.ERRNO(38):
            theirs.add_rule_exactly(actions[rule], number)
    with tempfile.TemporaryFile() as file:
        theirs.export_bpf(file)
        file.seek(0, io.SEEK_SET)
        return file.read()


def add_condition(theirs, actions, number: int, rule: Condition) -> None:
    low = 0xFFFFFFFF
    passes, fails = actions[ALLOW], actions[rule.otherwise]
    if rule.test == "no-bits":
        # Every way in which no bit is set is one rule; every single bit set is another.
        (bits,) = rule.values
        theirs.add_rule_exactly(passes, number, pyseccomp.Arg(rule.argument, pyseccomp.MASKED_EQ, bits, 0))
        for bit in (1 << shift for shift in range(32) if bits >> shift & 1):
            theirs.add_rule_exactly(
                fails, number, pyseccomp.Arg(rule.argument, pyseccomp.MASKED_EQ, bit, bit)
            )
        return
    named = passes if rule.test == "any-of" else fails
    for value in rule.values:
        theirs.add_rule_exactly(named, number, pyseccomp.Arg(rule.argument, pyseccomp.MASKED_EQ, low, value))


def test_libseccomp_compiles_the_default_profile_to_the_same_answers():
    machine = os.uname().machine
    profile, table = seccomp.load_profile("default"), seccomp.numbers(machine)
    ours, theirs = seccomp.compile_named("default", machine), library_filter(profile, table)
    conditions = {table[name]: rule for name, rule in profile.rules.items() if isinstance(rule, Condition)}
    code = ARCHITECTURES[machine]
    for number in range(1024):
        rule = conditions.get(number)
        # Where libseccomp has no rule for the other half of a condition its default answers; compared below by value.
        for word in (*interesting(rule), 0) if rule else (0, 2**64 - 1):
            arguments = tuple(
                word if index == (rule.argument if rule else index) else 0 for index in range(6)
            )
            found, other = simulate(ours, code, number, arguments), simulate(theirs, code, number, arguments)
            if rule and rule.test != "no-bits" and other == ENOSYS:
                other = rule.otherwise if rule.test == "any-of" else ALLOW
            assert found == other, (number, hex(word))


def interesting(rule: Condition) -> list[int]:
    near = {value + step for value in rule.values for step in (-1, 0, 1, 1 << 32, 1 << 63)}
    single = {1 << shift for shift in range(64)}
    return sorted(word for word in near | single if 0 <= word < 2**64)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("read", ALLOW),
        ("mount", EPERM),
        ("keyctl", EPERM),
        ("bpf", EPERM),
        ("io_uring_setup", EPERM),
        ("clone3", ENOSYS),
        ("sync", 0x50000),
        ("syncfs", 0x50000),
        ("ptrace", EPERM),
        ("memfd_secret", EPERM),
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_default_profile_says_about(machine, name, answer):
    program = seccomp.compile_named("default", machine)
    assert simulate(program, ARCHITECTURES[machine], seccomp.numbers(machine)[name]) == answer


def test_every_name_in_the_profile_is_in_a_table():
    names = {name for machine in MACHINES for name in seccomp.numbers(machine)}
    assert set(seccomp.load_profile("default").rules) <= names


def test_the_tables_agree_with_libseccomp():
    unknown = []
    for name, number in seccomp.numbers("x86_64").items():
        theirs = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name)
        # Negative: newer than the installed library, or one it has under no number.
        if theirs >= 0 and theirs != number:
            unknown.append((name, number, theirs))
    assert unknown == []


def test_a_profile_that_does_not_exist_is_not_found():
    with pytest.raises(FileNotFoundError):
        seccomp.load_profile("nothing")


@pytest.mark.kernel
def test_the_kernel_answers_as_the_simulation_does(says):
    program = seccomp.compile_named("default", os.uname().machine)
    table = seccomp.numbers("x86_64")
    # Calls that do nothing when refused, with arguments that do nothing when let through.
    names = [
        "bpf",
        "keyctl",
        "ptrace",
        "clone3",
        "io_uring_setup",
        "kcmp",
        "userfaultfd",
        "mount",
        "setns",
        "getppid",
    ]
    numbers = [table[name] for name in names] + [470, 600, 1000]
    seen = says(
        "import ctypes, sys; c = ctypes.CDLL(None, use_errno=True)\n"
        "print([0 if c.syscall(int(n), -1, -1, -1, -1, -1) >= 0 else ctypes.get_errno() for n in sys.argv[1:]])",
        *map(str, numbers),
    )
    answers = [simulate(program, ARCHITECTURES["x86_64"], number) for number in numbers]
    assert seen == str([0 if answer == ALLOW else answer & 0xFFFF for answer in answers])
