"""A server's own requests as questions of one result: each is answered once, and with its own answer."""

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import Raw

from mcphost.protocol import inputs, jsonrpc
from mcphost.protocol.asking import Declared
from mcphost.protocol.gathering import MAX_IN_ALL, Gathering
from mcphost.protocol.inputs import MAX_QUESTIONS
from mcphost.protocol.jsonrpc import Message
from mcphost.protocol.rounds import Rounds

EVERYTHING = Declared.read(Raw(b'{"sampling":{},"elicitation":{"form":{},"url":{}},"roots":{}}'))


@dataclass(eq=False)
class Question:
    number: int
    method: str = "elicitation/create"
    params: Raw = field(default_factory=lambda: Raw(b'{"message":"?"}'))


class GatheringAgainstALedger(RuleBasedStateMachine):
    """Questions come, are withdrawn and are answered under any keys, in any order."""

    @initialize()
    def begin(self) -> None:
        self.gathering: Gathering[Question] = Gathering()
        self.open: dict[str, Question] = {}
        self.keys: set[str] = set()
        self.put = 0

    @rule()
    def ask(self) -> None:
        question = Question(self.put)
        fits = len(self.open) < MAX_QUESTIONS and self.put < MAX_IN_ALL
        assert self.gathering.add(question) is fits
        if fits:
            self.put += 1
            (key,) = self.gathering.shown().keys() - self.open.keys()
            assert key not in self.keys
            self.keys.add(key)
            self.open[key] = question

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        known = [*self.open.values(), Question(-1)]
        question = data.draw(st.sampled_from(known))
        self.gathering.withdraw(question)
        self.open = {key: each for key, each in self.open.items() if each is not question}

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        keys = data.draw(st.sets(st.sampled_from([*sorted(self.keys), "question-0", "made up"])))
        odd = data.draw(st.sets(st.sampled_from(sorted(keys)))) if keys else set()
        responses = {key: jsonrpc.raw(5 if key in odd else {"to": key}) for key in keys}
        taken = {question.number: bytes(answer) for question, answer in self.gathering.take(responses)}
        expected = {}
        for key in (keys - odd) & self.open.keys():
            expected[self.open.pop(key).number] = bytes(jsonrpc.raw({"to": key}))
        assert taken == expected

    @rule()
    def give_up(self) -> None:
        assert self.gathering.drain() == list(self.open.values())
        self.open = {}

    @invariant()
    def what_is_shown_is_what_is_open(self) -> None:
        assert list(self.gathering.shown()) == list(self.open)
        assert len(self.gathering) == len(self.open)


TestGatheringAgainstALedger = GatheringAgainstALedger.TestCase
TestGatheringAgainstALedger.settings = settings(max_examples=40)


def test_a_call_puts_no_more_questions_than_it_may_however_fast_they_are_answered() -> None:
    gathering: Gathering[Question] = Gathering()
    for number in range(MAX_IN_ALL):
        assert gathering.add(Question(number))
        gathering.take(dict.fromkeys(gathering.shown(), Raw(b"{}")))
    assert not gathering.add(Question(MAX_IN_ALL))
    assert repr(gathering) == f"<Gathering 0 open of {MAX_IN_ALL}>"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"", {}),
        (b'{"message":"x","unknown":[1]}', {"message": "x", "unknown": [1]}),
        (b'{"mode":"url","elicitationId":"1","url":"u"}', {"mode": "url", "url": "u"}),
        (b'{"_meta":{"own":1}}', {"_meta": {"own": 1}}),
        (b'{"task":{"ttl":1},"_meta":{"progressToken":5,"own":1}}', {"_meta": {"own": 1}}),
    ],
)
def test_a_modern_client_is_shown_nothing_that_only_the_older_era_has(written: bytes, shown: dict) -> None:
    gathering: Gathering[Question] = Gathering()
    gathering.add(Question(1, params=Raw(written)))
    (question,) = gathering.shown().values()
    assert json.loads(bytes(question.params)) == shown


@given(st.lists(st.sampled_from(["elicitation/create", "sampling/createMessage", "roots/list"]), max_size=8))
def test_back_to_back_each_question_gets_the_answer_that_was_given_to_it(methods: list[str]) -> None:
    """A legacy server's questions become a result here; the other machine puts them to a legacy client again."""
    gathering: Gathering[Question] = Gathering()
    for number, method in enumerate(methods):
        gathering.add(Question(number, method, jsonrpc.raw({"n": number})))
    required = inputs.read("tools/call", inputs.write(gathering.shown(), "state"))
    rounds = Rounds(EVERYTHING, "salt")
    asked = rounds.receive(required)
    assert [each.method for each in asked.values()] == methods
    answers = {key: Message("result", "", b"1", each.params) for key, each in asked.items()}
    carried = rounds.retry(answers)
    taken = gathering.take(jsonrpc.fields(carried.get("inputResponses", jsonrpc.EMPTY_OBJECT)))
    assert {question.number: json.loads(bytes(answer)) for question, answer in taken} == {
        number: {"n": number} for number in range(len(methods))
    }
    assert not len(gathering)
