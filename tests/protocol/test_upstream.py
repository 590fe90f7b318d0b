"""Our side of a worker's connection, paired with small servers of every era and fed with what a hostile one says."""

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Raw

from mcphost.protocol import upstream
from mcphost.protocol.upstream import (
    Answered,
    Asked,
    EraChoice,
    Notified,
    Offence,
    Opened,
    OpenFailed,
    Progressed,
    Upstream,
)

MODERN = "2026-07-28"
INFO = Raw(b'{"name":"mcphost","version":"1"}')

Server = Callable[[dict], dict | None]


# --- the servers that are spoken to -------------------------------------------------------------------


def ok(asked: dict, result: object) -> dict:
    return {"jsonrpc": "2.0", "id": asked["id"], "result": result}


def no(asked: dict, code: int, message: str = "no") -> dict:
    return {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": code, "message": message}}


def legacy_server(asked: dict) -> dict | None:
    if asked["method"] == "initialize":
        capabilities = {"tools": {"listChanged": True}}
        info = {"name": "old"}
        return ok(asked, {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info})
    return no(asked, -32601)


def silent_server(asked: dict) -> dict | None:
    return legacy_server(asked) if asked["method"] == "initialize" else None


def modern_server(asked: dict) -> dict | None:
    if asked["method"] == "server/discover":
        meta = {"io.modelcontextprotocol/serverInfo": {"name": "new"}}
        return ok(asked, {"supportedVersions": [MODERN], "capabilities": {"prompts": {}}, "_meta": meta,
                          "instructions": "be kind"})  # fmt: skip
    return no(asked, -32022)


def dual_server() -> Server:
    """Takes the era of the first message it reads, as both official SDKs do."""
    chosen: list[Server] = []

    def answer(asked: dict) -> dict | None:
        if not chosen:
            chosen.append(modern_server if asked["method"] == "server/discover" else legacy_server)
        return chosen[0](asked)

    return answer


def opened(server: Server, era: EraChoice = "auto", *, swap: bool = False) -> tuple[Upstream, list[object]]:
    """A connection after its handshake, and what the machine said of each answer."""
    machine: Upstream[str] = Upstream(era=era, client_info=INFO)
    asked = [json.loads(line) for line in machine.open().splitlines()]
    answers = [answer for each in asked if (answer := server(each)) is not None]
    return machine, [told(machine, answer) for answer in (reversed(answers) if swap else answers)]


def told(machine: Upstream, message: dict) -> object:
    return machine.receive(json.dumps(message).encode())


def ready() -> Upstream:
    machine, _ = opened(modern_server)
    return machine


def sent(machine: Upstream, entry: str) -> int:
    identifier = machine.reserve()
    line = json.loads(machine.request(identifier, "tools/call", {}, entry))
    assert line == {"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": {}}
    return identifier


# --- finding the era ----------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", [False, True], ids=["in order", "swapped"])
@pytest.mark.parametrize(
    ("make", "era", "version"),
    [
        (lambda: legacy_server, "legacy", "2025-06-18"),
        (lambda: silent_server, "legacy", "2025-06-18"),
        (lambda: modern_server, "modern", MODERN),
        (dual_server, "modern", MODERN),
    ],
    ids=["legacy", "silent", "modern", "dual"],
)
def test_the_era_is_found_whatever_the_order_of_the_answers(
    make: Callable[[], Server], era: str, version: str, swap: bool
) -> None:
    machine, events = opened(make(), swap=swap)
    openings = [event for event in events if isinstance(event, Opened)]
    assert [(each.facts.era, each.facts.version) for each in openings] == [(era, version)]
    assert [event for event in events if event is not None] == openings
    assert machine.facts == openings[0].facts


def test_a_dual_server_that_reads_initialize_first_is_legacy_and_stays_so() -> None:
    machine: Upstream[str] = Upstream(era="auto", client_info=INFO)
    server = dual_server()
    discover, initialize = (json.loads(line) for line in machine.open().splitlines())
    late = [server(initialize), server(discover)]
    assert [type(told(machine, each)) for each in late] == [Opened, type(None)]
    assert machine.facts is not None
    assert machine.facts.era == "legacy"


@pytest.mark.parametrize("swap", [False, True])
def test_of_two_good_answers_the_first_stands(swap: bool) -> None:
    machine, events = opened(lambda asked: legacy_server(asked) if asked["method"] == "initialize" else modern_server(asked), swap=swap)  # fmt: skip
    assert [type(event) for event in events] == [Opened, type(None)]
    assert machine.facts is not None
    assert machine.facts.era == ("legacy" if swap else "modern")


@pytest.mark.parametrize(
    ("era", "methods"),
    [
        ("auto", ["server/discover", "initialize"]),
        ("modern", ["server/discover"]),
        ("legacy", ["initialize"]),
    ],
)
def test_a_pinned_era_sends_one_message_and_auto_sends_both(era: EraChoice, methods: list[str]) -> None:
    machine: Upstream[str] = Upstream(era=era, client_info=INFO)
    lines = [json.loads(line) for line in machine.open().splitlines()]
    assert [line["method"] for line in lines] == methods
    assert len({line["id"] for line in lines}) == len(lines)


def test_the_probes_say_who_we_are_and_that_we_offer_nothing() -> None:
    machine: Upstream[str] = Upstream(era="auto", client_info=INFO)
    discover, initialize = (json.loads(line)["params"] for line in machine.open().splitlines())
    assert initialize == {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "mcphost", "version": "1"},
    }  # fmt: skip
    prefix = "io.modelcontextprotocol/"
    assert discover == {"_meta": {
        f"{prefix}protocolVersion": MODERN, f"{prefix}clientInfo": {"name": "mcphost", "version": "1"},
        f"{prefix}clientCapabilities": {},
    }}  # fmt: skip


@pytest.mark.parametrize(("era", "server"), [("modern", legacy_server), ("legacy", modern_server)])
def test_a_server_of_another_era_than_the_pinned_one_fails_to_open(era: EraChoice, server: Server) -> None:
    machine, events = opened(server, era)
    assert [type(event) for event in events] == [OpenFailed]
    assert machine.facts is None


def test_an_initialize_refused_for_its_version_waits_for_the_discover_answer() -> None:
    machine: Upstream[str] = Upstream(era="auto", client_info=INFO)
    discover, initialize = (json.loads(line) for line in machine.open().splitlines())
    assert told(machine, no(initialize, -32022)) is None
    assert isinstance(told(machine, modern_server(discover) or {}), Opened)


@pytest.mark.parametrize("swap", [False, True])
def test_when_both_are_refused_both_reasons_are_told_and_cut(swap: bool) -> None:
    _, events = opened(lambda asked: no(asked, -32000, asked["method"][0] * 5000), swap=swap)
    assert events[0] is None
    assert isinstance(events[1], OpenFailed)
    assert "server/discover: error -32000 'sss" in events[1].message
    assert "initialize: error -32000 'iii" in events[1].message
    assert len(events[1].message) < 600


@pytest.mark.parametrize(
    "result",
    [None, [], {}, {"supportedVersions": []}, {"supportedVersions": ["2025-11-25"]}, {"supportedVersions": MODERN},
     {"supportedVersions": [MODERN, 5]}, {"supportedVersions": [MODERN], "capabilities": None},
     {"supportedVersions": [MODERN], "_meta": "x"}],
)  # fmt: skip
def test_a_discover_answer_that_names_no_modern_revision_is_no_evidence(result: object) -> None:
    machine, events = opened(lambda asked: ok(asked, result), "modern")
    assert [type(event) for event in events] == [OpenFailed]
    assert machine.facts is None


@pytest.mark.parametrize(
    "result", [None, [], {}, {"protocolVersion": 5}, {"protocolVersion": "x", "capabilities": []}]
)
def test_an_initialize_answer_without_a_revision_opens_nothing(result: object) -> None:
    _, events = opened(lambda asked: ok(asked, result), "legacy")
    assert [type(event) for event in events] == [OpenFailed]


def test_what_a_server_says_of_itself_is_kept_as_it_said_it() -> None:
    facts = ready().facts
    assert facts is not None
    assert (bytes(facts.info), facts.instructions) == (b'{"name": "new"}', "be kind")
    assert {key: bytes(value) for key, value in facts.capabilities.items()} == {"prompts": b"{}"}
    old = opened(legacy_server)[0].facts
    assert old is not None
    assert (bytes(old.info), old.instructions) == (b'{"name": "old"}', None)


def test_a_server_that_says_nothing_of_itself_has_an_empty_name() -> None:
    facts = opened(lambda asked: ok(asked, {"protocolVersion": "2025-11-25"}), "legacy")[0].facts
    assert facts is not None
    assert (bytes(facts.info), facts.capabilities) == (b"{}", {})


def test_only_a_legacy_handshake_is_confirmed_and_only_once_it_is_open() -> None:
    line = b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
    assert opened(legacy_server)[0].confirm() == line
    assert opened(modern_server)[0].confirm() == b""
    assert Upstream(era="legacy", client_info=INFO).confirm() == b""


def test_a_second_answer_to_a_probe_is_an_offence_and_changes_nothing() -> None:
    machine: Upstream[str] = Upstream(era="modern", client_info=INFO)
    (discover,) = (json.loads(line) for line in machine.open().splitlines())
    answer = modern_server(discover) or {}
    assert isinstance(told(machine, answer), Opened)
    assert told(machine, answer) == Offence("unknown-id")


# --- requests and answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations([0, 1, 2])))
def test_answers_in_any_order_reach_their_own_requests(order: tuple[int, ...]) -> None:
    machine = ready()
    ids = [sent(machine, entry) for entry in "abc"]
    for place in order:
        event = told(machine, {"jsonrpc": "2.0", "id": ids[place], "result": {"n": place}})
        assert isinstance(event, Answered)
        assert event.entry == "abc"[place]
        assert json.loads(bytes(event.message.body)) == {"n": place}
    assert len(machine) == 0


def test_a_servers_error_is_an_answer_too() -> None:
    machine = ready()
    event = told(machine, no({"id": sent(machine, "a")}, -32602))
    assert isinstance(event, Answered)
    assert (event.entry, event.message.kind) == ("a", "error")


@pytest.mark.parametrize("spell", ['"{}"', "{}.0", "{}e0", "-{}", "[{}]", "null", '{{"id":{}}}', "1{:020}"])
def test_an_id_that_only_resembles_ours_matches_nothing(spell: str) -> None:
    machine = ready()
    identifier = sent(machine, "a")
    line = f'{{"jsonrpc":"2.0","id":{spell.format(identifier)},"result":{{}}}}'
    assert machine.receive(line.encode()) == Offence("unknown-id")
    assert len(machine) == 1


def test_an_answer_without_an_id_and_one_to_a_reserved_id_are_offences() -> None:
    machine = ready()
    assert machine.receive(b'{"jsonrpc":"2.0","result":{}}') == Offence("unknown-id")
    assert told(machine, {"jsonrpc": "2.0", "id": machine.reserve(), "result": {}}) == Offence("unknown-id")


def test_a_second_answer_is_an_offence() -> None:
    machine = ready()
    answer = {"jsonrpc": "2.0", "id": sent(machine, "a"), "result": {}}
    assert isinstance(told(machine, answer), Answered)
    assert told(machine, answer) == Offence("unknown-id")


def test_a_late_answer_to_a_cancelled_request_is_no_offence_the_first_time() -> None:
    machine = ready()
    identifier = sent(machine, "a")
    assert json.loads(machine.cancel(identifier, 'gone\n"')) == {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": identifier, "reason": 'gone\n"'},
    }
    answer = {"jsonrpc": "2.0", "id": identifier, "result": {}}
    assert [told(machine, answer), told(machine, answer)] == [None, Offence("unknown-id")]


def test_cancelling_what_was_answered_says_nothing() -> None:
    machine = ready()
    identifier = sent(machine, "a")
    told(machine, {"jsonrpc": "2.0", "id": identifier, "result": {}})
    assert machine.cancel(identifier, "late") == b""


def test_draining_gives_every_request_in_flight_once() -> None:
    machine = ready()
    for entry in "abc":
        sent(machine, entry)
    assert machine.drain() == ["a", "b", "c"]
    assert machine.drain() == []


# --- progress, questions, notifications ---------------------------------------------------------------


def progress(token: object) -> dict:
    return {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": token, "progress": 1},
    }


def test_progress_reaches_the_request_whose_token_it_carries_and_leaves_it_waiting() -> None:
    machine = ready()
    sent(machine, "a")
    event = told(machine, progress(sent(machine, "b")))
    assert isinstance(event, Progressed)
    assert event.entry == "b"
    assert bytes(event.params["progress"]) == b"1"
    assert len(machine) == 2


@pytest.mark.parametrize("token", [0, -1, 999, "3", 3.0, None, [3], {"a": 3}, 10**30])
def test_progress_under_a_token_that_is_none_of_ours_is_an_offence(token: object) -> None:
    machine = ready()
    assert sent(machine, "a") == 3
    assert told(machine, progress(token)) == Offence("unknown-token")


def test_progress_of_a_cancelled_request_is_no_offence_until_it_is_answered() -> None:
    machine = ready()
    identifier = sent(machine, "a")
    machine.cancel(identifier, "gone")
    assert told(machine, progress(identifier)) == Notified("notifications/progress")
    assert told(machine, {"jsonrpc": "2.0", "id": identifier, "result": {}}) is None
    assert told(machine, progress(identifier)) == Offence("unknown-token")


@pytest.mark.parametrize("params", ["[]", "null", '"x"', "5"])
def test_progress_without_an_object_is_no_mcp(params: str) -> None:
    line = f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}'
    assert ready().receive(line.encode()) == Offence("not-json-rpc")


def test_progress_without_any_params_is_under_no_token() -> None:
    assert ready().receive(b'{"jsonrpc":"2.0","method":"notifications/progress"}') == Offence("unknown-token")


@pytest.mark.parametrize("identifier", [1, "x\n", "ä"])
def test_a_ping_is_answered_with_the_servers_own_id_on_one_line(identifier: object) -> None:
    event = told(ready(), {"jsonrpc": "2.0", "id": identifier, "method": "ping"})
    assert isinstance(event, Asked)
    assert event.reply.count(b"\n") == 1
    assert json.loads(event.reply) == {"jsonrpc": "2.0", "id": identifier, "result": {}}


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "roots/list", "x"])
def test_any_other_question_is_refused_for_we_offered_nothing(method: str) -> None:
    event = told(ready(), {"jsonrpc": "2.0", "id": 9, "method": method, "params": {}})
    assert isinstance(event, Asked)
    assert event.method == method
    assert json.loads(event.reply)["error"]["code"] == -32601


def test_a_question_under_an_id_of_ours_does_not_answer_our_request() -> None:
    machine = ready()
    identifier = sent(machine, "a")
    told(machine, {"jsonrpc": "2.0", "id": identifier, "method": "ping"})
    assert len(machine) == 1


def test_other_notifications_are_told_by_their_method() -> None:
    message = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    assert told(ready(), message) == Notified("notifications/tools/list_changed")


# --- hostile servers ----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("aé\n\"\\\u2028"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
members = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": st.integers(-1, 5) | json_values,
        "method": st.sampled_from(["ping", "notifications/progress", "initialize"]) | json_values,
        "params": json_values | st.fixed_dictionaries({"progressToken": st.integers(0, 5) | json_values}),
        "result": json_values
        | st.fixed_dictionaries({"protocolVersion": json_values, "capabilities": json_values}),
        "error": json_values | st.fixed_dictionaries({"code": json_values, "message": json_values}),
    },
)
lines = st.binary(max_size=40) | members.map(lambda value: json.dumps(value).encode())


@settings(max_examples=150)
@given(st.lists(lines, max_size=8), st.sampled_from(["auto", "modern", "legacy"]), st.booleans())
def test_no_line_ever_raises_or_makes_two_lines_of_ours(
    said: list[bytes], era: EraChoice, early: bool
) -> None:
    machine: Upstream[str] = Upstream(era=era, client_info=INFO)
    machine.open()
    if not early:
        sent(machine, "a")
    for line in said:
        event = machine.receive(line)
        assert event is None or isinstance(
            event, Opened | OpenFailed | Answered | Progressed | Asked | Notified | Offence
        )
        if isinstance(event, Asked):
            assert event.reply.endswith(b"\n")
            assert not set(b"\r\n") & set(event.reply[:-1])


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_garbage_between_answers_hurts_no_call(garbage: list[bytes]) -> None:
    machine = ready()
    identifier = sent(machine, "a")
    for line in garbage:
        assert isinstance(machine.receive(line), Offence)
    assert isinstance(told(machine, {"jsonrpc": "2.0", "id": identifier, "result": {}}), Answered)


class UpstreamAgainstADict(RuleBasedStateMachine):
    """Calls, cancellations, answers and progress in any order, against what a dict would say."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = ready()
        self.waiting: dict[int, str] = {}
        self.cancelled: set[int] = set()

    some_id = st.integers(0, 8)

    @rule()
    def call(self) -> None:
        entry = f"call {len(self.waiting)}"
        self.waiting[sent(self.machine, entry)] = entry

    @rule(identifier=some_id)
    def cancel(self, identifier: int) -> None:
        line = self.machine.cancel(identifier, "why")
        assert bool(line) == (identifier in self.waiting)
        if self.waiting.pop(identifier, None):
            self.cancelled.add(identifier)

    @rule(identifier=some_id, error=st.booleans())
    def answer(self, identifier: int, error: bool) -> None:
        asked = {"id": identifier}
        event = told(self.machine, no(asked, -1) if error else ok(asked, {}))
        entry = self.waiting.pop(identifier, None)
        if entry is not None:
            assert isinstance(event, Answered)
            assert (event.entry, event.message.kind) == (entry, "error" if error else "result")
        else:
            assert event == (None if identifier in self.cancelled else Offence("unknown-id"))
        self.cancelled.discard(identifier)

    @rule(identifier=some_id)
    def progress(self, identifier: int) -> None:
        event = told(self.machine, progress(identifier))
        if identifier in self.waiting:
            assert isinstance(event, Progressed)
            assert event.entry == self.waiting[identifier]
        elif identifier in self.cancelled:
            assert event == Notified("notifications/progress")
        else:
            assert event == Offence("unknown-token")

    @invariant()
    def agree(self) -> None:
        assert len(self.machine) == len(self.waiting)


TestUpstreamAgainstADict = UpstreamAgainstADict.TestCase
TestUpstreamAgainstADict.settings = settings(max_examples=40, stateful_step_count=25)


def test_the_repr_tells_the_state_and_the_load() -> None:
    machine: Upstream[str] = Upstream(era="auto", client_info=INFO)
    assert repr(machine) == "<Upstream opening, 0 in flight>"
    machine = ready()
    sent(machine, "a")
    assert repr(machine) == "<Upstream modern, 1 in flight>"


def test_an_id_of_more_digits_than_ours_ever_have_is_not_converted() -> None:
    line = b'{"jsonrpc":"2.0","id":%b,"result":{}}'
    assert ready().receive(line % (b"9" * upstream.MAX_ID_DIGITS)) == Offence("unknown-id")
    assert ready().receive(line % (b"9" * 100_000)) == Offence("unknown-id")
