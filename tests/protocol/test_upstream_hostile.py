"""What a hostile server says to the machine: any bytes give events or one offence, and nothing grows."""

import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Raw

from mcphost.protocol.attribution import DEAF, Hears
from mcphost.protocol.events import (
    Answered,
    AnsweredLate,
    Asked,
    Dropped,
    Logged,
    Offence,
    Pinged,
    Progressed,
    Refused,
    Reprobed,
)
from mcphost.protocol.framing import LineReader
from mcphost.protocol.handshake import EraChoice
from mcphost.protocol.questions import MAX_QUESTIONS
from mcphost.protocol.upstream import Upstream
from upstream_peers import INFO, LOG, legacy_server, no, ok, progress, question, ready, sent, told

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("aé\n\"\\\u2028"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
members = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": st.integers(-1, 5) | json_values,
        "method": st.sampled_from(
            [
                "ping",
                "notifications/progress",
                "notifications/message",
                "notifications/cancelled",
                "roots/list",
            ]
        )
        | json_values,
        "params": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "progressToken": st.integers(0, 5) | json_values,
                "requestId": st.integers(-1, 5) | json_values,
                "_meta": json_values
                | st.fixed_dictionaries({"io.modelcontextprotocol/subscriptionId": st.integers(0, 5)}),
            },
        ),
        "result": json_values
        | st.fixed_dictionaries({"protocolVersion": json_values, "capabilities": json_values}),
        "error": json_values | st.fixed_dictionaries({"code": json_values, "message": json_values}),
    },
)
lines = st.binary(max_size=40) | members.map(lambda value: json.dumps(value).encode())


ALL = Hears(logs=True, questions=True)


def machine_of(era: EraChoice, early: bool) -> Upstream:
    """One that is opening, or one that is open to everything a request can hear."""
    if early:
        machine: Upstream[str] = Upstream(era=era, client_info=INFO)
        machine.open()
        return machine
    machine = ready(legacy_server) if era == "legacy" else ready()
    sent(machine, "a", ALL)
    sent(machine, "b", DEAF, "subscriptions/listen")
    return machine


@settings(max_examples=150)
@given(st.lists(lines, max_size=8), st.sampled_from(["auto", "modern", "legacy"]), st.booleans())
def test_no_line_ever_raises_or_makes_two_lines_of_ours(
    said: list[bytes], era: EraChoice, early: bool
) -> None:
    machine = machine_of(era, early)
    for line in said:
        event = machine.receive(line)
        match event:
            case Pinged(ours) | Refused(_, _, ours) | Reprobed(ours):
                assert ours.endswith(b"\n")
                assert not set(b"\r\n") & set(ours[:-1])
            case Asked(_, key):
                ours = machine.answer(key, Raw(b'{"a":\r\n1}'))
                assert ours.endswith(b"\n")
                assert not set(b"\r\n") & set(ours[:-1])


@settings(max_examples=60)
@given(st.lists(lines, max_size=6), st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_how_the_bytes_are_cut_never_matters(said: list[bytes], cuts: list[int], early: bool) -> None:
    stream = b"\n".join(said) + b"\n"
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    events = []
    for parts in ([stream], pieces, [stream[index : index + 1] for index in range(len(stream))]):
        machine, reader = machine_of("legacy", early), LineReader(10_000)
        events.append([machine.receive(line) for part in parts for line in reader.feed(part)])
    assert events[0] == events[1] == events[2]


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_garbage_between_answers_hurts_no_call(garbage: list[bytes]) -> None:
    machine = ready()
    identifier = sent(machine, "a")
    for line in garbage:
        assert isinstance(machine.receive(line), Offence)
    assert isinstance(told(machine, {"jsonrpc": "2.0", "id": identifier, "result": {}}), Answered)


class UpstreamAgainstADict(RuleBasedStateMachine):
    """Calls of every kind, cancellations, answers, progress, questions and log messages in any order, against lists."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = ready(legacy_server)
        self.waiting: dict[int, tuple[str, Hears]] = {}
        self.cancelled: dict[int, Hears] = {}
        self.questions: dict[bytes, int] = {}

    some_id = st.integers(0, 8)

    @rule(logs=st.booleans(), questions=st.booleans())
    def call(self, logs: bool, questions: bool) -> None:
        hears = Hears(logs, questions)
        entry = f"call {len(self.waiting)}"
        self.waiting[sent(self.machine, entry, hears)] = entry, hears

    @rule(identifier=some_id)
    def cancel(self, identifier: int) -> None:
        lines, over = self.machine.cancel(identifier, "why")
        assert bool(lines) == (identifier in self.waiting)
        assert set(over) == self.ended_questions(identifier)
        if identifier in self.waiting:
            self.cancelled[identifier] = self.waiting.pop(identifier)[1]

    @rule(identifier=some_id, error=st.booleans())
    def answer(self, identifier: int, error: bool) -> None:
        asked = {"id": identifier}
        event = told(self.machine, no(asked, -1) if error else ok(asked, {}))
        entry, _ = self.waiting.pop(identifier, ("", None))
        if entry:
            assert isinstance(event, Answered)
            assert (event.entry, event.message.kind) == (entry, "error" if error else "result")
            assert set(event.over) == self.ended_questions(identifier)
        else:
            assert event == (AnsweredLate() if identifier in self.cancelled else Offence("unknown-id"))
        self.cancelled.pop(identifier, None)

    @rule(identifier=some_id)
    def progress(self, identifier: int) -> None:
        event = told(self.machine, progress(identifier))
        if identifier in self.waiting:
            assert isinstance(event, Progressed)
            assert event.entry == self.waiting[identifier][0]
        elif identifier in self.cancelled:
            assert event == Dropped("late-notification")
        else:
            assert event == Offence("unknown-token")

    @rule(number=st.integers(0, 40))
    def ask(self, number: int) -> None:
        key = str(number).encode()
        event = told(self.machine, question(number))
        owners = [identifier for identifier, (_, hears) in self.waiting.items() if hears.questions]
        late = any(hears.questions for hears in self.cancelled.values())
        if key in self.questions:
            assert event == Offence("repeated-id")
        elif len(owners) == 1 and not late and len(self.questions) < MAX_QUESTIONS:
            assert isinstance(event, Asked)
            assert event.entry == self.waiting[owners[0]][0]
            self.questions[key] = owners[0]
        else:
            assert isinstance(event, Refused)

    @rule(number=st.integers(0, 40))
    def reply(self, number: int) -> None:
        key = str(number).encode()
        line = self.machine.answer(key, Raw(b"{}"))
        assert bool(line) == (self.questions.pop(key, None) is not None)

    @rule()
    def log(self) -> None:
        event = told(self.machine, LOG)
        alone = len(self.waiting) == 1 and not self.cancelled
        if alone and next(iter(self.waiting.values()))[1].logs:
            assert isinstance(event, Logged)
            assert event.entry == next(iter(self.waiting.values()))[0]
        else:
            assert event == Dropped("unowned-log")

    @invariant()
    def agree(self) -> None:
        assert len(self.machine) == len(self.waiting)
        assert self.machine.open_questions == len(self.questions) <= MAX_QUESTIONS

    def ended_questions(self, identifier: int) -> set[bytes]:
        """The keys of a request's open questions, which are so no longer."""
        keys = {key for key, owner in self.questions.items() if owner == identifier}
        self.questions = {key: owner for key, owner in self.questions.items() if key not in keys}
        return keys


TestUpstreamAgainstADict = UpstreamAgainstADict.TestCase
TestUpstreamAgainstADict.settings = settings(max_examples=60, stateful_step_count=30)
