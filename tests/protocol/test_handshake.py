"""Finding the era of a server, whatever it answers and in whatever order."""

import json
from collections.abc import Callable

import pytest

from mcphost.protocol.asking import Declared
from mcphost.protocol.events import Offence, Opened, OpenFailed, Reprobed
from mcphost.protocol.handshake import EraChoice
from mcphost.protocol.upstream import Upstream
from upstream_peers import (
    INFO,
    MODERN,
    Server,
    dual_server,
    legacy_server,
    modern_server,
    no,
    ok,
    opened,
    ready,
    silent_server,
    told,
)


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


# --- a server that contradicts itself -------------------------------------------------------------------


def refused_twice(code: int, era: EraChoice = "auto") -> tuple[Upstream, object]:
    """Discovery refused, then `initialize` with a code; and what the machine makes of it."""
    machine: Upstream[str] = Upstream(era=era, client_info=INFO)
    events = [told(machine, no(json.loads(line), code)) for line in machine.open().splitlines()]
    return machine, events[-1]


def test_a_server_that_refuses_initialize_as_a_modern_one_does_is_discovered_once_more() -> None:
    machine, event = refused_twice(-32022)
    assert isinstance(event, Reprobed)
    again = json.loads(event.line)
    assert again["method"] == "server/discover"
    assert isinstance(told(machine, modern_server(again) or {}), Opened)
    assert machine.facts is not None
    assert machine.facts.era == "modern"


def test_it_is_asked_again_only_once() -> None:
    machine, event = refused_twice(-32022)
    assert isinstance(event, Reprobed)
    failed = told(machine, no(json.loads(event.line), -32601))
    assert isinstance(failed, OpenFailed)
    assert failed.message.count("server/discover") == 2


@pytest.mark.parametrize(("code", "era"), [(-32602, "auto"), (-32601, "auto"), (-32022, "legacy")])
def test_any_other_refusal_and_a_pinned_era_is_not_asked_again(code: int, era: EraChoice) -> None:
    assert isinstance(refused_twice(code, era)[1], OpenFailed)


def test_initialize_declares_what_the_client_can_be_asked_and_discovery_nothing() -> None:
    declared = Declared((("elicitation", ("form", "url")), ("roots", ())))
    machine: Upstream[str] = Upstream(era="auto", client_info=INFO, declared=declared)
    discover, initialize = (json.loads(line)["params"] for line in machine.open().splitlines())
    assert initialize["capabilities"] == {"elicitation": {"form": {}, "url": {}}, "roots": {}}
    assert discover["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {}
