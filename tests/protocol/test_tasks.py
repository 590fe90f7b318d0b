"""Results that tell of tasks: recognised, shown under the client's id, and otherwise left as they are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import jsonrpc, tasks
from mcphost.protocol.naming import BARE, Names

NAMES = Names("__")
TASK = {"resultType": "task", "taskId": "t-1", "status": "working", "ttlMs": None, "x": {"taskId": "kept"}}
texts = st.text(st.characters(exclude_categories=["Cs"]))


def test_a_task_is_known_by_its_type_and_by_nothing_else() -> None:
    assert tasks.created(jsonrpc.raw(TASK)) == "t-1"
    assert tasks.created(Raw(b'{"result\\u0054ype":"\\u0074ask","taskId":"t"}')) == "t"
    for other in (
        {"taskId": "t"},
        {"resultType": "complete", "taskId": "t"},
        {"content": [{"text": '"task"'}]},
    ):
        assert tasks.created(jsonrpc.raw(other)) is None
    for none in (b"[]", b"5", b'"task"'):
        assert tasks.created(Raw(none)) is None


@pytest.mark.parametrize("identifier", [None, 5, "x" * 1025])
def test_a_task_without_a_usable_id_is_the_servers_fault(identifier: object) -> None:
    with pytest.raises(UpstreamProtocolError, match="without an id"):
        tasks.created(jsonrpc.raw({**TASK, "taskId": identifier}))


@given(st.dictionaries(texts, st.integers() | texts, max_size=4))
def test_everything_of_a_task_but_its_id_is_left_as_it_was(more: dict) -> None:
    result = {**TASK, **more, "taskId": "t-1", "result": {"content": []}}
    shown = json.loads(bytes(tasks.shown(jsonrpc.raw(result), "ours", BARE, "srv")))
    assert shown == {**result, "taskId": "ours"}


def test_the_uris_in_what_a_task_came_to_are_exposed() -> None:
    link = {"type": "resource_link", "uri": "file:///a"}
    result = {"resultType": "complete", "taskId": "t-1", "result": {"content": [link]}}
    shown = json.loads(bytes(tasks.shown(jsonrpc.raw(result), "ours", NAMES, "srv")))
    assert shown["result"]["content"] == [{**link, "uri": "srv+file:///a"}]


def test_an_acknowledgement_without_an_id_gets_none() -> None:
    assert bytes(tasks.shown(Raw(b"{}"), "ours", NAMES, "srv")) == b"{}"


@pytest.mark.parametrize(
    ("capabilities", "declared"),
    [({}, False), ({"extensions": {}}, False), ({"extensions": {tasks.EXTENSION: {}}}, True), ({"extensions": 5}, False),
     ({"tasks": {}}, False)],
)  # fmt: skip
def test_the_extension_is_declared_by_name(capabilities: dict, declared: bool) -> None:
    assert tasks.declares({key: jsonrpc.raw(value) for key, value in capabilities.items()}) is declared
