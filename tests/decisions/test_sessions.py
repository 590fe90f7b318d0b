"""Legacy sessions against a plain dict: bound to who opened them, bounded in number, ended when idle."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcphost.decisions.identity import Principal
from mcphost.decisions.routing import Endpoint
from mcphost.decisions.sessions import Session, Sessions
from mcphost.errors import Overloaded, SessionNotFound

ACME = Principal("acme", "ci")
HERE = Endpoint("time")

principals = st.builds(Principal, st.sampled_from(["acme", "other"]), st.sampled_from(["ci", "app"]))
endpoints = st.builds(Endpoint, st.sampled_from([None, "time"]), st.sampled_from([None, "acme"]))


@dataclass
class Known:
    """What the model remembers of one session."""

    session: Session
    principal: Principal
    server: str | None
    used_at: float
    calls: int = 0
    cancelled: list[int] = field(default_factory=list)


class SessionsAgainstADict(RuleBasedStateMachine):
    CAP, IDLE = 3, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.sessions = Sessions(per_tenant=self.CAP, idle_seconds=self.IDLE)
        self.known: dict[str, Known] = {}
        self.now = 100.0
        self.made = 0

    def forget_idle(self) -> None:
        for identifier, each in list(self.known.items()):
            if each.used_at <= self.now - self.IDLE:
                if each.calls:
                    each.used_at = self.now
                else:
                    del self.known[identifier]

    @rule(seconds=st.sampled_from([0.5, 4.0, 10.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(principal=principals, endpoint=endpoints)
    def open(self, principal: Principal, endpoint: Endpoint) -> None:
        self.forget_idle()
        self.made += 1
        identifier = f"s{self.made}"
        full = sum(each.principal.tenant == principal.tenant for each in self.known.values()) == self.CAP
        try:
            session = self.sessions.open(identifier, principal, endpoint, version="v", now=self.now)
        except Overloaded:
            assert full
        else:
            assert not full
            self.known[identifier] = Known(session, principal, endpoint.server, self.now)

    @rule(number=st.integers(1, 8), principal=principals, endpoint=endpoints)
    def use(self, number: int, principal: Principal, endpoint: Endpoint) -> None:
        self.forget_idle()
        identifier = f"s{number}"
        each = self.known.get(identifier)
        mine = each is not None and (each.principal, each.server) == (principal, endpoint.server)
        try:
            session = self.sessions.use(identifier, principal, endpoint, now=self.now)
        except SessionNotFound:
            assert not mine
        else:
            assert mine
            assert each is not None
            assert session is each.session
            each.used_at = self.now

    @rule(number=st.integers(1, 8))
    def begin_call(self, number: int) -> None:
        each = self.known.get(f"s{number}")
        if each is not None:
            each.calls += 1
            call = each.calls
            each.session.cancel[b"%d" % call] = lambda: each.cancelled.append(call)

    @rule(number=st.integers(1, 8))
    def end_calls(self, number: int) -> None:
        each = self.known.get(f"s{number}")
        if each is not None:
            each.session.cancel.clear()
            each.calls = 0

    @rule(number=st.integers(1, 8))
    def end(self, number: int) -> None:
        each = self.known.pop(f"s{number}", None)
        if each is not None:
            self.sessions.end(each.session)
            self.sessions.end(each.session)  # once more changes nothing
            assert each.cancelled == list(range(1, each.calls + 1))

    @rule()
    def expire(self) -> None:
        self.forget_idle()
        self.sessions.expire(self.now)
        assert len(self.sessions) == len(self.known)

    @invariant()
    def agree(self) -> None:
        assert len(self.sessions) >= len(self.known)
        total = sum(self.sessions.count(tenant) for tenant in ("acme", "other"))
        assert total == len(self.sessions)
        assert max(self.sessions.count(tenant) for tenant in ("acme", "other")) <= self.CAP


TestSessionsAgainstADict = SessionsAgainstADict.TestCase
TestSessionsAgainstADict.settings = settings(max_examples=50, stateful_step_count=30)


def sessions(cap: int = 5) -> Sessions:
    return Sessions(per_tenant=cap, idle_seconds=10.0)


@pytest.mark.parametrize(
    ("identifier", "principal", "endpoint"),
    [
        ("other", ACME, HERE),
        ("", ACME, HERE),
        ("a", Principal("acme", "app"), HERE),
        ("a", Principal("other", "ci"), HERE),
        ("a", ACME, Endpoint("notes")),
        ("a", ACME, Endpoint(None)),
    ],
)
def test_a_foreign_session_is_refused_like_an_unknown_one(
    identifier: str, principal: Principal, endpoint: Endpoint
) -> None:
    table = sessions()
    table.open("a", ACME, HERE, version="v", now=0.0)
    with pytest.raises(SessionNotFound) as caught:
        table.use(identifier, principal, endpoint, now=1.0)
    assert str(caught.value) == "no such session; initialize again"
    assert table.use("a", ACME, HERE, now=1.0).id == "a"


def test_a_foreign_attempt_does_not_keep_a_session_alive() -> None:
    table = sessions()
    table.open("a", ACME, HERE, version="v", now=0.0)
    with pytest.raises(SessionNotFound):
        table.use("a", Principal("other", "ci"), HERE, now=9.0)
    with pytest.raises(SessionNotFound):
        table.use("a", ACME, HERE, now=10.0)


def test_the_tenant_in_the_path_does_not_make_another_endpoint() -> None:
    table = sessions()
    table.open("a", ACME, HERE, version="v", now=0.0)
    assert table.use("a", ACME, Endpoint("time", "acme"), now=1.0).version == "v"


@pytest.mark.parametrize(("now", "alive"), [(9.999, True), (10.0, False)])
def test_a_session_ends_when_it_was_idle_for_its_whole_time(now: float, alive: bool) -> None:
    table = sessions()
    table.open("a", ACME, HERE, version="v", now=0.0)
    table.expire(now)
    assert (len(table), table.count("acme")) == ((1, 1) if alive else (0, 0))


def test_a_session_with_a_call_in_flight_is_not_idle() -> None:
    table = sessions()
    session = table.open("a", ACME, HERE, version="v", now=0.0)
    session.cancel[b"1"] = lambda: None
    table.expire(50.0)
    del session.cancel[b"1"]
    table.expire(59.0)
    assert len(table) == 1
    table.expire(60.0)
    assert len(table) == 0


def test_a_session_in_use_does_not_keep_a_younger_idle_one_alive() -> None:
    table = sessions()
    table.open("a", ACME, HERE, version="v", now=0.0)
    table.open("b", ACME, HERE, version="v", now=1.0)
    table.use("a", ACME, HERE, now=9.0)
    table.expire(11.0)
    assert len(table) == 1
    assert table.use("a", ACME, HERE, now=11.0).id == "a"


def test_one_tenants_cap_is_not_anothers() -> None:
    table = sessions(cap=1)
    table.open("a", ACME, HERE, version="v", now=0.0)
    with pytest.raises(Overloaded, match="the tenant has 1 open sessions"):
        table.open("b", Principal("acme", "app"), Endpoint(), version="v", now=0.0)
    table.open("c", Principal("other", "ci"), HERE, version="v", now=0.0)
    table.open("d", ACME, HERE, version="v", now=10.0)  # the first is idle by now


def test_ending_a_session_cancels_its_calls_even_as_they_take_themselves_out() -> None:
    table = sessions()
    session = table.open("a", ACME, HERE, version="v", now=0.0)
    ended: list[bytes] = []
    for call in (b"1", b"2", b"3"):
        session.cancel[call] = lambda call=call: ended.append(call) or session.cancel.pop(call)
    table.end(session)
    assert ended == [b"1", b"2", b"3"]


def test_the_repr_counts() -> None:
    table = sessions()
    table.open("a", ACME, HERE, version="v", now=0.0)
    assert repr(table) == "<Sessions 1>"
