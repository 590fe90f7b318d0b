"""Our profiles as libseccomp compiles them, for comparison. Needs pyseccomp; nothing here uses our compiler."""

import itertools
import tempfile

import pyseccomp

from sandbox.seccomp.bpf import ALLOW, ERRNO, Comparison, Condition
from sandbox.seccomp.filter_profiles import Profile

ARCHITECTURES = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}


def their_action(answer: int) -> int:
    return pyseccomp.ALLOW if answer == ALLOW else pyseccomp.ERRNO(answer & 0xFFFF)


def their_names(machine: str, table: dict[str, int]) -> dict[str, int]:
    """The calls that the installed library knows on both this machine and `machine`: it names rules by our number."""
    native = {name: pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) for name in table}
    known = {name: pyseccomp.resolve_syscall(ARCHITECTURES[machine], name) for name in table}
    return {name: native[name] for name in table if native[name] >= 0 and known[name] >= 0}


def export(default: int, machine: str, rules: list[tuple[int, int, list[pyseccomp.Arg]]]) -> bytes:
    """The program of a filter of (action, number, comparisons)."""
    theirs = pyseccomp.SyscallFilter(default)
    if ARCHITECTURES[machine] != pyseccomp.system_arch():
        theirs.add_arch(ARCHITECTURES[machine])
        theirs.remove_arch(pyseccomp.system_arch())
    for action, number, comparisons in rules:
        if action != default:
            theirs.add_rule_exactly(action, number, *comparisons)
    with tempfile.TemporaryFile() as file:
        theirs.export_bpf(file)
        file.seek(0)
        return file.read()


def plain_filter(profile: Profile, machine: str, numbers: dict[str, int]) -> bytes:
    """Every call whose answer does not depend on its arguments."""
    rules = [(their_action(rule), numbers[name], []) for name in numbers if (rule := _plain(profile, name))]
    return export(their_action(profile.unknown), machine, rules)


def conditional_filter(rule: Condition, machine: str, number: int) -> bytes:
    """One call with its condition; what it answers to other calls means nothing."""
    first = rule.alternatives[0]
    if len(rule.alternatives) == 1 and all(test.negated for test in first):
        answer = their_action(rule.otherwise)
        refused = [(answer, number, [_equals(test, value)]) for test in first for value in test.values]
        return export(pyseccomp.ALLOW, machine, refused)
    allowed = [
        (pyseccomp.ALLOW, number, each) for tests in rule.alternatives for each in _equal_comparisons(tests)
    ]
    return export(their_action(rule.otherwise), machine, allowed)


def _plain(profile: Profile, name: str) -> int:
    rule = profile.rules.get(name, profile.denied)
    return 0 if isinstance(rule, Condition) else rule


def _equal_comparisons(tests: tuple[Comparison, ...]) -> list[list[pyseccomp.Arg]]:
    """The alternative as lists of equal-comparisons; libseccomp takes one comparison per argument and has no or.

    Negated tests are taken out of the values of the positive ones of the same argument.
    """
    assert {test.argument for test in tests if test.negated} <= {
        test.argument for test in tests if not test.negated
    }
    positive = [test for test in tests if not test.negated]
    negative = [test for test in tests if test.negated]
    choices: list[list[pyseccomp.Arg]] = []
    for argument in sorted({test.argument for test in positive}):
        first, *rest = [test for test in positive if test.argument == argument]
        others = rest + [test for test in negative if test.argument == argument]
        fits = [value for value in first.values if all(other.passes((value,) * 6) for other in others)]
        choices.append([_equals(first, value) for value in fits])
    return [list(each) for each in itertools.product(*choices)]


def _equals(test: Comparison, value: int) -> pyseccomp.Arg:
    return pyseccomp.Arg(test.argument, pyseccomp.MASKED_EQ, test.mask, value)


assert pyseccomp.ERRNO(0) == ERRNO
