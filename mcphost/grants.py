"""What a policy grants, to whom: its patterns compiled, explained with their places, and held to its own `tests`.

Pure. `mcphost explain` and the tests of a policy ask the very `Permissions` that answer clients.
"""

from dataclasses import dataclass
from typing import Final

from mcphost.decisions.permissions import Permissions, Rule, Verdict
from mcphost.errors import PolicyInvalid
from mcphost.policy import Fault, Place, Policy, Tenant
from mcphost.policy.faults import must_be_known
from mcphost.policy.places import KeyPath, show_path

_ANSWERS: Final = {True: "allowed", False: "denied"}


def whole(tenant: Tenant) -> Permissions:
    """What a tenant may, and each of its tokens without patterns of its own."""
    return Permissions(tenant.allow, tenant.deny)


def by_token(tenant: Tenant) -> dict[str, Permissions]:
    """What each token of a tenant may, by its id."""
    granted = whole(tenant)
    return {
        token.id: granted
        if token.allow is None and not token.deny
        else Permissions(token.allow, token.deny, within=granted)
        for token in tenant.tokens
    }


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule with its path in the policy and the place where it is written, or would be."""

    path: KeyPath
    place: Place
    pattern: str | None

    def __str__(self) -> str:
        said = "no pattern matches" if self.pattern is None else f"{self.pattern} matches"
        return f"{self.place}: {show_path(self.path)}: {said}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether somebody may use an item, and the rules that decide: one that denies, or all that allow."""

    who: str
    server: str
    name: str
    allowed: bool
    rules: tuple[PlacedRule, ...]

    def text(self) -> str:
        """One line with the answer, and one for each rule."""
        answer = f"{_ANSWERS[self.allowed]}: {self.server}/{self.name} to {self.who}"
        return "\n".join([answer, *(f"  {rule}" for rule in self.rules)])

    def to_wire(self) -> dict[str, object]:
        """The same for programs; `pattern` is null where no pattern of a list matches."""
        return {
            "who": self.who,
            "server": self.server,
            "name": self.name,
            "allowed": self.allowed,
            "rules": [
                {
                    "path": show_path(rule.path),
                    "pattern": rule.pattern,
                    "file": rule.place.file,
                    "line": rule.place.line,
                    "column": rule.place.column,
                }
                for rule in self.rules
            ],
        }


def explain(policy: Policy, who: str, item: str) -> Explanation:
    """Whether `who`, a tenant or TENANT/TOKEN, may use `item`, a server's item as SERVER/NAME.

    Raises:
        Fault: there is no such tenant, token or server, or no such form; with what there is.
    """
    tenant, slash, token = who.partition("/")
    if tenant not in policy.tenants:
        raise must_be_known(tenant, policy.tenants, "tenant")
    ids = [each.id for each in policy.tenants[tenant].tokens]
    if slash and token not in ids:
        raise must_be_known(token, ids, f"token of {tenant}")
    server, _, name = item.partition("/")
    if server not in policy.servers:
        raise must_be_known(server, policy.servers, "server")
    if not name:
        raise Fault("the tool, prompt or resource is missing", allowed=f"{server}/NAME")
    return _explained(policy, tenant, token if slash else None, (server, name))


def refuse_failing_tests(policy: Policy) -> None:
    """Refuse a policy that does not grant what it says of itself.

    Raises:
        PolicyInvalid: each test that fails, at its place, with the rules that decide.
    """
    problems = []
    for index, test in enumerate(policy.tests):
        found = _explained(policy, test.tenant, test.token, test.item)
        if _ANSWERS[found.allowed] != test.expect:
            why = "; ".join(map(str, found.rules))
            fault = Fault(
                f"this test fails: {found.server}/{found.name} is {_ANSWERS[found.allowed]} to {found.who}, by {why}"
            )
            problems.append(policy.problem(("tests", index), fault))
    if problems:
        raise PolicyInvalid(problems)


def _explained(policy: Policy, tenant: str, token: str | None, item: tuple[str, str]) -> Explanation:
    settings = policy.tenants[tenant]
    permissions = whole(settings) if token is None else by_token(settings)[token]
    verdict: Verdict = permissions.judge(*item)
    of_token: KeyPath = ()
    if token is not None:
        of_token = ("tokens", [each.id for each in settings.tokens].index(token))
    rules = tuple(
        _placed(policy, ("tenants", tenant, *(of_token if rule.of_token else ())), rule)
        for rule in verdict.rules
    )
    return Explanation(tenant if token is None else f"{tenant}/{token}", *item, verdict.allowed, rules)


def _placed(policy: Policy, holder: KeyPath, rule: Rule) -> PlacedRule:
    path: KeyPath = (*holder, rule.key)
    if rule.index is None:
        return PlacedRule(path, policy.place(*path), None)
    path = (*path, rule.index)
    return PlacedRule(path, policy.place(*path), rule.pattern)
