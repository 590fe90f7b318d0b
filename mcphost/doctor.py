"""`mcphost doctor`: what of the sandbox holds on this machine, what to do about the rest, and what a policy makes of it.

The findings are `sandbox.diagnose`'s. Here they are put beside a policy: its `require`, and what its servers ask for.
"""

import os
from dataclasses import asdict, dataclass
from typing import Final

from mcphost.decisions.wants import Answer, Want, answered, wants_of
from mcphost.plan import Plan, ServerPlan, sized_places
from mcphost.policy import DEFAULT_REQUIRE, load
from mcphost.preflight import make_plan, volume_directory
from sandbox import Diagnosis, Finding, diagnose, shown

# Raised only when a key changes its meaning or goes away; new keys may come at any time.
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Report:
    """A diagnosis judged by what is required; `servers` is empty without a policy."""

    diagnosis: Diagnosis
    policy: str | None
    require: tuple[str, ...]
    servers: dict[str, tuple[Answer, ...]]

    @property
    def unmet(self) -> tuple[Finding, ...]:
        """The required layers that cannot be enforced here."""
        return self.diagnosis.unmet(frozenset(self.require))

    @property
    def ok(self) -> bool:
        """Whether `mcphost run` would get what it needs."""
        refused = any(answer.refused for answers in self.servers.values() for answer in answers)
        return not self.unmet and not refused

    def to_wire(self) -> dict[str, object]:
        """The report as JSON has it; `docs/operations.md` describes it."""
        return {
            "format": FORMAT,
            **self.diagnosis.to_wire(),
            "policy": self.policy,
            "require": list(self.require),
            "unmet": [each.layer for each in self.unmet],
            "servers": {name: [asdict(each) for each in answers] for name, answers in self.servers.items()},
            "ok": self.ok,
        }

    def text(self, columns: int) -> str:
        """The report for a person."""
        lines = [shown(self.diagnosis, columns=columns), ""]
        for name, answers in self.servers.items():
            lines.append(f"server {name} asks for")
            lines.extend(f"  {_verdict(each):8}{each.what}{_lacks(each)}" for each in answers)
            lines.append("")
        source = self.policy or "by default"
        lines.append(f"required ({source}): {', '.join(self.require) or 'nothing'}")
        unmet = ", ".join(each.layer for each in self.unmet)
        lines.append(f"not met: {unmet}" if unmet else "all of it is met")
        return "\n".join(lines)


def examine(path: str | None) -> Report:
    """Look at this machine, and at the policy at `path` if there is one.

    Raises:
        PolicyError: the policy is wrong, or names a program that is not there.
        SandboxError: the machine could not be looked at.
    """
    if path is None:
        return Report(diagnose(), None, DEFAULT_REQUIRE, {})
    plan = make_plan(load(path), os.environ)
    return compare(plan, diagnose(directory=volume_directory(plan.policy)), path)


def compare(plan: Plan, diagnosis: Diagnosis, source: str) -> Report:
    """A diagnosis beside what a plan asks for."""
    sized = frozenset(name for name, _ in sized_places(plan))
    servers = {name: answered(_wants(each, sized), diagnosis) for name, each in plan.servers.items()}
    return Report(diagnosis, source, tuple(plan.policy.require), servers)


def _wants(server: ServerPlan, sized: frozenset[str]) -> tuple[Want, ...]:
    needed = {
        "zygote": server.sandbox.zygote is not None,
        "sized-volumes": server.name in sized,
        "egress": server.egress is not None,
    }
    abilities = [ability for ability, is_needed in needed.items() if is_needed]
    return wants_of(server.sandbox.limits, syscalls=str(server.sandbox.syscalls), abilities=abilities)


def _verdict(answer: Answer) -> str:
    if answer.met:
        return "met"
    return "refused" if answer.refused else "not met"


def _lacks(answer: Answer) -> str:
    return f" (lacks {', '.join(answer.lacks)})" if answer.lacks else ""
