"""The same sandbox on x86_64 and aarch64: numbers, and everything else that could differ between the two."""

import re
from pathlib import Path

import pytest

from sandbox import syscalls
from sandbox.seccomp import filters

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
# Calls that were there on only one of the two when numbers became common (arch/x86/entry/syscalls/syscall_64.tbl).
FIRST_COMMON = 424


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_number_that_is_called_here_is_the_tables(machine):
    table = filters.numbers(machine)
    ours = {**syscalls.NUMBERS_BY_MACHINE[machine], **syscalls.COMMON_NUMBERS}
    assert {name: table.get(name) for name in ours} == ours


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_table_has_every_call_of_the_kernels_own_header(machine):
    """The generic header is what aarch64 uses; where it is older than the table, the rest is newer calls only."""
    if not HEADERS[machine].exists():
        pytest.skip("needs the kernel's headers for programs (Debian: linux-libc-dev)")
    text = HEADERS[machine].read_text()
    theirs = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", text)}
    theirs |= generic_names(text) if machine == "aarch64" else {}
    theirs = {
        name: number
        for name, number in theirs.items()
        if name not in NOT_CALLS and not (machine == "aarch64" and number in ONLY_32_BITS)
    }
    table = filters.numbers(machine)
    assert {name: table.get(name) for name in theirs} == theirs
    newest = max(theirs.values())
    ours = {name for name, number in table.items() if number <= newest}
    assert ours - NEWER_BUT_LOW[machine] == set(theirs)


# Times of 64 bits for machines of 32.
ONLY_32_BITS = range(403, 424)
# Linux 6.11 and 6.14 filled places that x86 had left free.
NEWER_BUT_LOW = {"x86_64": {"uprobe", "uretprobe"}, "aarch64": set()}
# Ends of ranges, and places that only other machines of the generic table fill.
NOT_CALLS = {"syscalls", "arch_specific_syscall", "sync_file_range2"}


def generic_names(text: str) -> dict[str, int]:
    """The header numbers calls of two widths as __NR3264_x and gives them their 64-bit names at its end."""
    wide = dict(re.findall(r"#define __NR3264_(\w+)\s+(\d+)", text))
    sixty_four = text[text.index("#if __BITS_PER_LONG == 64 && !defined(__SYSCALL_COMPAT)") :]
    named = re.findall(r"#define __NR_(\w+)\s+__NR3264_(\w+)", sixty_four.partition("#else")[0])
    return {name: int(wide[number]) for name, number in named if number in wide}


def test_newer_calls_have_one_number_on_both():
    x86, arm = filters.numbers("x86_64"), filters.numbers("aarch64")
    later = lambda table: {name: number for name, number in table.items() if FIRST_COMMON <= number < 1000}
    assert later(x86) == later(arm)


@pytest.mark.parametrize("name", filters.SHIPPED)
def test_what_only_an_older_machine_has_is_let_through_by_its_newer_name_too(name):
    """aarch64 has no open, pipe or select; a profile that listed only these would leave it without files."""
    rules = filters.load_profile(name).rules
    for old, new in {
        "open": "openat", "pipe": "pipe2", "select": "pselect6", "poll": "ppoll", "epoll_wait": "epoll_pwait",
        "dup2": "dup3", "stat": "newfstatat", "readlink": "readlinkat", "mkdir": "mkdirat", "rename": "renameat2",
        "unlink": "unlinkat", "access": "faccessat", "eventfd": "eventfd2", "symlink": "symlinkat",
    }.items():  # fmt: skip
        assert rules[old] == rules[new]
        assert old not in filters.numbers("aarch64")
        assert new in filters.numbers("aarch64")
