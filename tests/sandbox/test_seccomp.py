"""The shipped profiles and their variants: against libseccomp, against what they promise, and against the kernel."""

import itertools
import os

import pyseccomp
import pytest

from sandbox.seccomp import filters
from sandbox.seccomp.bpf import ALLOW, ARCHITECTURES, KILL_PROCESS, Condition, simulate
from sandbox.seccomp.filter_profiles import action
from seccomp_oracle import conditional_filter, plain_filter, their_names

MACHINES = sorted(ARCHITECTURES)
PROFILES = list(filters.SHIPPED)
# Each by itself, what workers get where there are no namespaces, and all at once.
ALL_VARIANTS = frozenset(filters.overlays())
VARIANTS = [
    frozenset(),
    *(frozenset({name}) for name in sorted(ALL_VARIANTS)),
    frozenset({"egress", "no-unix"}),
    frozenset({"no-unix", "host-files", "host-processes"}),
    ALL_VARIANTS,
]
EPERM, ENOSYS, EAFNOSUPPORT = (action(word) for word in ("EPERM", "ENOSYS", "EAFNOSUPPORT"))
# What the variants do to each other is the same for every profile.
CASES = [
    (name, names, machine)
    for name in PROFILES
    for names in VARIANTS
    for machine in MACHINES
    if name == "default" or names in (frozenset(), frozenset({"egress"}), ALL_VARIANTS)
]
IDS = ["+".join([name, *sorted(names), machine]) for name, names, machine in CASES]

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_VSOCK = 1, 2, 10, 16, 40
STREAM, DGRAM, RAW, SEQPACKET, NONBLOCK, CLOEXEC = 1, 2, 3, 5, 0x800, 0x80000


@pytest.mark.parametrize(("name", "names", "machine"), CASES, ids=IDS)
def test_libseccomp_gives_the_same_answers(name, names, machine):
    profile = filters.varied(filters.load_profile(name), names)
    ours, table = filters.filter_for(name, machine, names).plain, filters.numbers(machine)
    shared = their_names(machine, table)
    assert len(shared) > 300
    # What the installed library has no name for on this machine can only be simulated.
    unseen = {table[call] for call in table.keys() - shared.keys()}
    conditional = {call: rule for call, rule in profile.rules.items() if isinstance(rule, Condition)}
    theirs, code = plain_filter(profile, machine, shared), ARCHITECTURES[machine]
    for number in set(range(1024)) - unseen - {table.get(call) for call in conditional}:
        for word in (0, 2**64 - 1):
            arguments = (word,) * 6
            assert simulate(ours, code, number, arguments) == simulate(theirs, code, number, arguments), (
                number
            )
    for call in conditional.keys() & shared.keys():
        theirs = conditional_filter(conditional[call], machine, shared[call])
        for arguments in interesting(conditional[call]):
            found = simulate(ours, code, table[call], arguments)
            assert found == simulate(theirs, code, table[call], arguments), (call, arguments)


def interesting(rule: Condition) -> list[tuple[int, ...]]:
    """Arguments around every value of every test: each bit turned alone, and small changes of all together."""
    tests = [test for alternative in rule.alternatives for test in alternative]
    values = {
        index: {v for test in tests if test.argument == index for v in test.values} for index in range(6)
    }
    some = [sorted(values[index] or {0}) for index in range(6)]
    bases = list(itertools.product(*some))
    found = [
        tuple(word ^ (1 << shift if index == turned else 0) for index, word in enumerate(base))
        for base in bases
        for turned in range(6)
        for shift in range(64)
    ]
    changes = (0, 1, NONBLOCK, CLOEXEC, 1 << 32, 1 << 63)
    shaken = [
        sorted({value ^ change for value in values[index] for change in changes}) or [0] for index in range(6)
    ]
    return [*bases, *found, *itertools.product(*shaken)]


@pytest.mark.parametrize(("name", "names", "machine"), CASES, ids=IDS)
def test_every_call_and_every_number_is_answered_as_the_profile_says(name, names, machine):
    profile = filters.varied(filters.load_profile(name), names)
    program, by_number = (
        filters.filter_for(name, machine, names).plain,
        {v: k for k, v in filters.numbers(machine).items()},
    )
    for number in (*range(1200), 0x3FFFFFFF):
        call = by_number.get(number)
        rule = profile.unknown if call is None else profile.rule(call)
        for arguments in interesting(rule)[:200] if isinstance(rule, Condition) else [(2**64 - 1,) * 6]:
            expected = rule.answer(arguments) if isinstance(rule, Condition) else rule
            assert simulate(program, ARCHITECTURES[machine], number, arguments) == expected
    for number in (0x40000000, 0x400001FF, 0xFFFFFFFF) if machine == "x86_64" else ():
        assert simulate(program, ARCHITECTURES[machine], number) == KILL_PROCESS


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("read", ALLOW),
        ("mount", EPERM),
        ("keyctl", EPERM),
        ("bpf", EPERM),
        ("io_uring_setup", ENOSYS),
        ("clone3", ENOSYS),
        ("sync", action("OK")),
        ("syncfs", action("OK")),
        ("ptrace", EPERM),
        ("memfd_secret", EPERM),
        ("setns", EPERM),
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_default_profile_says_about(machine, call, answer):
    assert asked(machine, call) == answer


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "flag", [0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]
)
def test_no_flag_of_clone_that_makes_a_namespace_gets_through(machine, flag):
    assert asked(machine, "clone", flag | 17) == EPERM
    assert asked(machine, "clone", flag | 1 << 63) == EPERM
    assert asked(machine, "clone", 0x3D0F00) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", PROFILES)
def test_no_worker_may_lease_a_file_that_others_open(machine, name):
    program = filters.filter_for(name, machine, frozenset()).plain
    number, code = filters.numbers(machine)["fcntl"], ARCHITECTURES[machine]
    for command in (1024, 1024 | 1 << 32):
        assert simulate(program, code, number, (3, command, 1, 0, 0, 0)) == EPERM
    for command in (1, 2, 4, 6, 1030, 1025):
        assert simulate(program, code, number, (3, command, 0, 0, 0, 0)) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("names", "allowed", "refused"),
    [
        ((), [(AF_UNIX, STREAM, 0), (AF_UNIX, DGRAM, 0)], [(AF_INET, STREAM, 0), (AF_NETLINK, RAW, 0)]),
        (
            ("egress",),
            [
                (AF_UNIX, DGRAM, 0),
                (AF_INET, STREAM | NONBLOCK | CLOEXEC, 0),
                (AF_INET6, STREAM | CLOEXEC, 6),
            ],
            [
                (AF_INET, DGRAM, 0),
                (AF_INET, RAW, 6),
                (AF_INET6, SEQPACKET, 0),
                (AF_INET, STREAM, 132),
                (AF_INET, STREAM, 262),
                (AF_INET, STREAM | 1 << 4, 0),
                (AF_VSOCK, STREAM, 0),
                (AF_NETLINK, STREAM, 0),
            ],
        ),
        (("no-unix",), [], [(AF_UNIX, STREAM, 0), (AF_UNIX, DGRAM, 0), (AF_INET, STREAM, 0)]),
        (("egress", "no-unix"), [(AF_INET, STREAM, 0)], [(AF_UNIX, STREAM, 0), (AF_INET, DGRAM, 0)]),
    ],
)
def test_sockets_are_let_through_by_family_type_and_protocol(machine, names, allowed, refused):
    for arguments in allowed:
        assert asked(machine, "socket", *arguments, names=names) == ALLOW
    for arguments in refused:
        assert asked(machine, "socket", *arguments, names=names) == EAFNOSUPPORT
        # A high half that the kernel would drop changes nothing.
        raised = tuple(word | 1 << 40 for word in arguments)
        assert asked(machine, "socket", *raised, names=names) == EAFNOSUPPORT


@pytest.mark.parametrize("machine", MACHINES)
def test_without_unix_sockets_only_pairs_that_stay_connected_are_left(machine):
    pairs = {
        kind: asked(machine, "socketpair", AF_UNIX, kind, names=("no-unix",)) for kind in (1, 2, 5, 0x80801)
    }
    assert pairs == {1: ALLOW, 2: EAFNOSUPPORT, 5: ALLOW, 0x80801: ALLOW}


def test_only_the_zygote_variant_may_enter_namespaces():
    assert asked("x86_64", "setns", names=("zygote",)) == ALLOW
    assert {asked("x86_64", "setns", names=names) for names in ((), ("egress",), ("no-unix",))} == {EPERM}


def asked(machine: str, call: str, *arguments: int, names: tuple[str, ...] = ()) -> int:
    program = filters.filter_for("default", machine, frozenset(names)).plain
    padded = (*arguments, *(0,) * 6)[:6]
    return simulate(program, ARCHITECTURES[machine], filters.numbers(machine)[call], padded)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_tables_agree_with_libseccomp(machine):
    arch = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}[machine]
    unlike = []
    for name, number in filters.numbers(machine).items():
        theirs = pyseccomp.resolve_syscall(arch, name)
        # Negative: newer than the installed library, or one it has under no number.
        if theirs >= 0 and theirs != number:
            unlike.append((name, number, theirs))
    assert unlike == []


def test_a_profile_or_variant_that_does_not_exist_is_not_found():
    with pytest.raises(FileNotFoundError):
        filters.load_profile("nothing")
    with pytest.raises(KeyError):
        filters.filter_for("default", "x86_64", frozenset({"nothing"}))


@pytest.mark.kernel
def test_the_kernel_answers_as_the_simulation_does(says):
    program = filters.filter_for("default", os.uname().machine, frozenset()).plain
    table = filters.numbers("x86_64")
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
