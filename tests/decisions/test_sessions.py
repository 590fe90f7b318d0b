"""Legacy sessions against a plain model: bound to who opened them, bounded in number, ended when idle, opened again."""

import itertools
from dataclasses import dataclass
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Raw

from mcphost.decisions import ended as ended_module
from mcphost.decisions.ended import Ended
from mcphost.decisions.identity import Principal
from mcphost.decisions.routing import Endpoint
from mcphost.decisions.sealing import KEY_BYTES, Sealer
from mcphost.decisions.sessions import (
    MAX_AGE_SECONDS,
    MAX_CAPABILITIES_BYTES,
    MAX_ID_CHARACTERS,
    MAX_INFO_BYTES,
    MAX_SKEW_SECONDS,
    SPARED_SECONDS,
    Agreed,
    Now,
    Session,
    SessionLimits,
    Sessions,
    Terms,
)
from mcphost.errors import Overloaded, SessionNotFound

ACME = Principal("acme", "ci")
HERE = Endpoint("time")
AGREED = Agreed("2025-11-25", Raw(b'{"roots":{}}'), Raw(b'{"name":"c"}'))

principals = st.builds(Principal, st.sampled_from(["acme", "other"]), st.sampled_from(["ci", "app"]))
endpoints = st.builds(Endpoint, st.sampled_from([None, "time"]), st.sampled_from([None, "acme"]))


@dataclass
class Work:
    """What a user of sessions attaches: calls, and whether they were told of the end."""

    calls: int = 0
    ends: int = 0

    @property
    def is_busy(self) -> bool:
        return self.calls > 0

    def end(self) -> None:
        self.ends += 1
        self.calls = 0


def sealer(key: int = 0) -> Sealer:
    nonces = itertools.count()
    return Sealer(bytes([key] * KEY_BYTES), lambda count: next(nonces).to_bytes(count, "big"))


def table(boot: str = "one", *, cap: int = 5, idle: float = 10.0, key: int = 0) -> Sessions[Work]:
    return Sessions(SessionLimits(cap, idle), sealer(key), boot, lambda _: Work())


def begun(
    sessions: Sessions[Work], nonce: str = "a", principal: Principal = ACME, *, at: float = 0.0
) -> Session[Work]:
    now = Now(at, 1000.0 + at)
    return sessions.open(sessions.terms(principal, HERE, AGREED, nonce, now), Work(), now)


def used(sessions: Sessions[Work], identifier: str, *, at: float = 0.0) -> Session[Work]:
    return sessions.use(identifier, ACME, HERE, Now(at, 1000.0 + at))


@dataclass
class Known:
    """What the model remembers of one session; `sealed` is one that only its id still knows."""

    id: str
    principal: Principal
    server: str | None
    issued_at: float
    used_at: float
    work: Work
    state: Literal["open", "sealed", "ended"] = "open"


class SessionsAgainstAModel(RuleBasedStateMachine):
    CAP, IDLE = 3, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.sealer = sealer()
        self.boots = 0
        self.sessions = self.booted()
        self.known: list[Known] = []
        self.time = 100.0

    def booted(self) -> Sessions[Work]:
        self.boots += 1
        limits = SessionLimits(self.CAP, self.IDLE)
        return Sessions(limits, self.sealer, f"boot {self.boots}", lambda _: Work())

    @property
    def now(self) -> Now:
        return Now(self.time, 1e6 + self.time)

    def open_ones(self, tenant: str | None = None) -> list[Known]:
        mine = [each for each in self.known if each.state == "open"]
        return [each for each in mine if tenant is None or each.principal.tenant == tenant]

    def forget_idle(self) -> None:
        for each in self.open_ones():
            if each.used_at <= self.time - self.IDLE:
                if each.work.is_busy:
                    each.used_at = self.time
                else:
                    each.state = "ended"

    @rule(seconds=st.sampled_from([0.5, 4.0, 10.0, 25.0, 50_000.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds

    @rule(principal=principals, endpoint=endpoints)
    def open(self, principal: Principal, endpoint: Endpoint) -> None:
        self.forget_idle()
        full = len(self.open_ones(principal.tenant)) == self.CAP
        terms = self.sessions.terms(principal, endpoint, AGREED, str(len(self.known)), self.now)
        work = Work()
        try:
            session = self.sessions.open(terms, work, self.now)
        except Overloaded:
            assert full
            return
        assert not full
        known = Known(session.id, principal, endpoint.server, self.now.wall, self.time, work)
        self.known.append(known)

    @rule(number=st.integers(0, 8), principal=principals, endpoint=endpoints)
    def use(self, number: int, principal: Principal, endpoint: Endpoint) -> None:
        if number < len(self.known):
            self.used(self.known[number], principal, endpoint)

    @rule(number=st.integers(0, 8), tenant=st.sampled_from([None, "acme"]))
    def use_its_own(self, number: int, tenant: str | None) -> None:
        if number < len(self.known):
            each = self.known[number]
            self.used(each, each.principal, Endpoint(each.server, tenant))

    def used(self, each: Known, principal: Principal, endpoint: Endpoint) -> None:
        self.forget_idle()
        mine = each.state != "ended" and (each.principal, each.server) == (principal, endpoint.server)
        if each.state == "sealed" and self.now.wall - each.issued_at > MAX_AGE_SECONDS:
            mine = False
        full = each.state == "sealed" and len(self.open_ones(principal.tenant)) == self.CAP
        try:
            session = self.sessions.use(each.id, principal, endpoint, self.now)
        except SessionNotFound:
            assert not mine
        except Overloaded:
            assert mine
            assert full
        else:
            assert mine
            assert not full
            if each.state == "sealed":
                each.work, each.state = session.attached, "open"
            assert session.attached is each.work
            each.used_at = self.time

    @rule(number=st.integers(0, 8))
    def begin_call(self, number: int) -> None:
        if number < len(self.known) and self.known[number].state == "open":
            self.known[number].work.calls += 1

    @rule(number=st.integers(0, 8))
    def end_calls(self, number: int) -> None:
        if number < len(self.known):
            self.known[number].work.calls = 0

    @rule(number=st.integers(0, 8))
    def end(self, number: int) -> None:
        self.forget_idle()
        if number < len(self.known) and self.known[number].state == "open":
            each = self.known[number]
            session = self.sessions.use(each.id, each.principal, Endpoint(each.server), self.now)
            self.sessions.end(session)
            self.sessions.end(session)  # once more changes nothing
            each.state = "ended"
            assert each.work.ends == 1

    @rule()
    def restart(self) -> None:
        """Whatever ended is forgotten with the process, so within its age every id opens again."""
        self.sessions = self.booted()
        for each in self.known:
            each.state = "sealed"

    @rule()
    def expire(self) -> None:
        self.forget_idle()
        self.sessions.expire(self.time)
        assert len(self.sessions) == len(self.open_ones())

    @invariant()
    def agree(self) -> None:
        assert len(self.sessions) >= len(self.open_ones())
        counts = [self.sessions.count(tenant) for tenant in ("acme", "other")]
        assert sum(counts) == len(self.sessions)
        assert max(counts) <= self.CAP


TestSessionsAgainstAModel = SessionsAgainstAModel.TestCase
TestSessionsAgainstAModel.settings = settings(max_examples=50, stateful_step_count=30)


# --- who an id opens for ------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("principal", "endpoint"),
    [
        (Principal("acme", "app"), HERE),
        (Principal("other", "ci"), HERE),
        (ACME, Endpoint("notes")),
        (ACME, Endpoint(None)),
    ],
)
def test_an_id_opens_only_for_its_own_principal_and_endpoint(
    principal: Principal, endpoint: Endpoint, restarted: bool
) -> None:
    sessions = table()
    identifier = begun(sessions).id
    if restarted:
        sessions = table("two")
    with pytest.raises(SessionNotFound):
        sessions.use(identifier, principal, endpoint, Now(1.0, 1001.0))
    assert used(sessions, identifier).terms.nonce == "a"


def test_the_tenants_prefix_is_not_part_of_the_binding() -> None:
    sessions = table()
    session = begun(sessions)
    assert sessions.use(session.id, ACME, Endpoint("time", "acme"), Now(1.0, 1001.0)) is session


# --- an id of another process --------------------------------------------------------------------------


def test_a_session_opens_again_on_the_terms_that_its_id_holds() -> None:
    made = begun(table())
    later = table("two")
    session = used(later, made.id)
    assert session.terms == made.terms
    assert bytes(session.terms.capabilities) == b'{"roots":{}}'
    assert used(later, made.id) is session, "and is opened once only"


def test_an_id_of_another_key_or_purpose_or_form_opens_nothing() -> None:
    made = begun(table())
    later = table("two")
    seal = sealer().seal
    good = msgspec.json.encode(made.terms)
    not_ours = [
        begun(table(key=1)).id,
        seal("cursor", good),
        seal("session", b"[]"),
        seal("session", good[:-1]),
        seal("session", b'{"tenant":"acme"}'),
        made.id[:-1],
        made.id + "A",
        made.id + "=",
        "",
        "é",
        "A" * (MAX_ID_CHARACTERS + 1),
    ]
    for identifier in not_ours:
        with pytest.raises(SessionNotFound):
            used(later, identifier)
    assert used(later, made.id)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_an_id_that_was_changed_anywhere_opens_nothing(place: int, change: int) -> None:
    made = begun(table()).id
    place %= len(made)
    changed = made[:place] + chr((ord(made[place]) + change) % 256) + made[place + 1 :]
    if changed != made:
        with pytest.raises(SessionNotFound):
            used(table("two"), changed)


def test_the_process_that_made_an_id_goes_by_its_table_alone() -> None:
    sessions = table()
    ended, idle = begun(sessions, "a"), begun(sessions, "b")
    sessions.end(ended)
    for identifier in (ended.id, idle.id):
        with pytest.raises(SessionNotFound):
            used(sessions, identifier, at=10.0)


def test_a_session_that_was_opened_again_and_ended_stays_ended() -> None:
    made = begun(table())
    later = table("two")
    later.end(used(later, made.id))
    with pytest.raises(SessionNotFound):
        used(later, made.id)
    idle = begun(table(), "b")
    used(later, idle.id, at=1.0)
    with pytest.raises(SessionNotFound):
        used(later, idle.id, at=11.0)


@pytest.mark.parametrize(
    ("age", "opens"),
    [
        (MAX_AGE_SECONDS, True),
        (MAX_AGE_SECONDS + 1, False),
        (-MAX_SKEW_SECONDS, True),
        (-MAX_SKEW_SECONDS - 1, False),
    ],
)
def test_an_id_opens_again_for_a_day_and_not_before_it_was_made(age: float, opens: bool) -> None:
    made = begun(table())
    later = table("two")
    now = Now(0.0, 1000.0 + age)
    if opens:
        assert later.use(made.id, ACME, HERE, now)
    else:
        with pytest.raises(SessionNotFound):
            later.use(made.id, ACME, HERE, now)


def test_what_is_opened_again_counts_towards_the_tenants_cap() -> None:
    earlier = table()
    one, two = begun(earlier, "a"), begun(earlier, "b")
    later = table("two", cap=1)
    used(later, one.id)
    with pytest.raises(Overloaded):
        used(later, two.id)


# --- bounds ---------------------------------------------------------------------------------------------


def test_an_id_is_visible_ascii_and_bounded_by_the_longest_names_and_parts() -> None:
    principal = Principal("t" * 63, "i" * 63)
    agreed = Agreed(
        "2025-11-25",
        Raw(b"[" + b"1," * (MAX_CAPABILITIES_BYTES // 2 - 1) + b"1]"),
        Raw(b'"' + b"x" * (MAX_INFO_BYTES - 2) + b'"'),
    )
    now = Now(0.0, 1e10)
    sessions = table("b" * 32)
    session = sessions.open(sessions.terms(principal, Endpoint("s" * 32), agreed, "n" * 32, now), Work(), now)
    assert len(session.id) <= MAX_ID_CHARACTERS
    assert all(0x21 <= ord(character) <= 0x7E for character in session.id)


def test_no_two_ids_are_the_same_and_none_shows_what_it_holds() -> None:
    sessions = table()
    one, two = begun(sessions, "a"), begun(sessions, "b")
    assert one.id != two.id
    assert "acme" not in one.id


def test_one_tenants_cap_is_not_anothers() -> None:
    sessions = table(cap=1)
    begun(sessions, "a")
    with pytest.raises(Overloaded, match="the tenant has 1 open sessions"):
        begun(sessions, "b", Principal("acme", "app"))
    begun(sessions, "c", Principal("other", "ci"))
    begun(sessions, "d", at=10.0)  # the first is idle by now


def test_at_the_cap_the_longest_idle_session_gives_way_to_a_new_one() -> None:
    sessions = table(cap=2, idle=1000.0)
    busy, idle = begun(sessions, "a"), begun(sessions, "b", at=1.0)
    busy.attached.calls = 1
    with pytest.raises(Overloaded):
        begun(sessions, "c", at=SPARED_SECONDS)
    late = begun(sessions, "d", at=1.0 + SPARED_SECONDS)
    assert idle.attached.ends == 1
    assert used(sessions, busy.id, at=62.0) is busy
    assert used(sessions, late.id, at=62.0) is late
    with pytest.raises(SessionNotFound):
        used(sessions, idle.id, at=62.0)


def test_no_session_gives_way_to_another_tenants() -> None:
    sessions = table(cap=1, idle=1000.0)
    theirs = begun(sessions, "a", Principal("other", "ci"))
    begun(sessions, "b", at=500.0)
    with pytest.raises(Overloaded):
        begun(sessions, "c", at=501.0)
    assert theirs.attached.ends == 0


def test_a_session_with_a_call_in_flight_is_not_idle() -> None:
    sessions = table()
    session = begun(sessions)
    session.attached.calls = 1
    sessions.expire(50.0)
    assert len(sessions) == 1
    session.attached.calls = 0
    sessions.expire(59.0)
    assert len(sessions) == 1
    sessions.expire(60.0)
    assert len(sessions) == 0
    assert session.attached.ends == 1


def test_a_session_in_use_does_not_keep_a_younger_idle_one_alive() -> None:
    sessions = table()
    first = begun(sessions, "a", at=0.0)
    begun(sessions, "b", at=1.0)
    used(sessions, first.id, at=9.0)
    sessions.expire(11.0)
    assert len(sessions) == 1
    assert used(sessions, first.id, at=11.0) is first


def test_idle_time_counts_from_the_end_of_a_call_and_an_ended_session_stays_ended() -> None:
    sessions = table()
    session = begun(sessions)
    sessions.touch(session, 9.0)
    sessions.expire(11.0)
    assert len(sessions) == 1
    sessions.end(session)
    sessions.touch(session, 12.0)
    assert len(sessions) == 0


def test_the_next_expiry_is_that_of_the_least_recently_used() -> None:
    sessions = table()
    assert sessions.next_expiry(5.0) == 10.0
    begun(sessions, "a", at=0.0)
    begun(sessions, "b", at=4.0)
    assert sessions.next_expiry(5.0) == 5.0
    assert sessions.next_expiry(50.0) == 0.0


def test_the_repr_counts() -> None:
    sessions = table()
    begun(sessions)
    assert repr(sessions) == "<Sessions 1>"


# --- the memory of ended sessions ------------------------------------------------------------------------


@given(st.lists(st.integers(0, 20), max_size=40))
def test_an_ended_session_never_comes_back_however_many_end(dates: list[int]) -> None:
    ended = Ended()
    most = 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ended_module, "MAX_ENDED", most)
        for number, date in enumerate(dates):
            ended.add(str(number), date)
            assert len(ended) <= most
    assert all(ended.holds(str(number), date) for number, date in enumerate(dates))


def test_a_session_that_is_younger_than_all_forgotten_ones_still_opens() -> None:
    ended = Ended()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ended_module, "MAX_ENDED", 2)
        for number in range(4):
            ended.add(str(number), float(number))
    assert not ended.holds("another", 1.5)
    assert ended.holds("another", 1.0)


def test_terms_are_what_is_sealed() -> None:
    terms = begun(table()).terms
    assert msgspec.json.decode(msgspec.json.encode(terms), type=Terms) == terms
