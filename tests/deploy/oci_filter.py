"""Put this process under a container's filter, as an ordinary user, and then run a command.

    python oci_filter.py PACKAGES PROFILE.json LEFT-OUT UID ARGV...

The filter is the OCI profile's, compiled by the sandbox's own compiler; rules whose names are in LEFT-OUT (separated by
commas) are left out of it, to see what they are for.
"""

import json
import os
import sys

sys.path.insert(0, sys.argv[1])

from sandbox import syscalls
from sandbox.seccomp import bpf, filters

_ERRNO = 0x00050000


def compiled(profile: dict, left_out: frozenset[str], machine: str) -> bytes:
    """The profile as a program; a rule with an argument passes for exactly that value (all 64 bits, libseccomp)."""
    refused = _ERRNO | profile["defaultErrnoRet"]
    tests: dict[str, list[tuple[bpf.Comparison, ...]]] = {}
    plain = set()
    for rule in profile["syscalls"]:
        assert rule["action"] == "SCMP_ACT_ALLOW", rule
        for name in rule["names"]:
            if name in left_out:
                continue
            if "args" not in rule:
                plain.add(name)
                continue
            (test,) = rule["args"]
            assert test["op"] == "SCMP_CMP_EQ", rule
            comparison = bpf.Comparison(test["index"], (test["value"],), bpf.ALL_BITS[64], 64)
            tests.setdefault(name, []).append((comparison,))
    rules: dict[int, bpf.Rule] = {}
    for name, number in filters.numbers(machine).items():
        if name in plain:
            rules[number] = bpf.ALLOW
        elif name in tests:
            rules[number] = bpf.Condition(tuple(tests[name]), refused)
        else:
            rules[number] = refused
    return bpf.program(rules, refused, machine)


def main(profile: str, left_out: str, uid: str, *argv: str) -> None:
    with open(profile, encoding="utf-8") as file:
        program = compiled(json.load(file), frozenset(left_out.split(",")), syscalls.MACHINE)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(int(uid), int(uid), int(uid))
        os.setresuid(int(uid), int(uid), int(uid))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp_filter(program)
    os.chdir("/")
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(*sys.argv[2:])
