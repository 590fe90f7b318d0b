"""What clients can be asked: read from any declaration, canonical, and never more than was declared."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.protocol import jsonrpc
from mcphost.protocol.asking import ASKS, NOTHING, Declared

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
capabilities = st.dictionaries(
    st.sampled_from(["elicitation", "sampling", "roots", "experimental"]),
    json_values | st.dictionaries(st.sampled_from(["form", "url", "tools", "context"]), json_values),
)


def declared(**given_: object) -> Declared:
    return Declared.read(jsonrpc.raw(given_))


def test_an_empty_elicitation_capability_means_forms_only() -> None:
    one = declared(elicitation={})

    assert one == declared(elicitation={"form": {}})
    assert one.permits("elicitation/create", Raw(b'{"message":"m","requestedSchema":{}}'))
    assert not one.permits("elicitation/create", Raw(b'{"mode":"url","url":"https://a"}'))


def test_an_elicitation_by_url_alone_permits_no_form() -> None:
    assert not declared(elicitation={"url": {}}).permits("elicitation/create", Raw(b"{}"))


def test_sampling_with_tools_needs_to_be_declared() -> None:
    with_tools = Raw(b'{"messages":[],"tools":[]}')

    assert declared(sampling={}).permits("sampling/createMessage", Raw(b"{}"))
    assert not declared(sampling={}).permits("sampling/createMessage", with_tools)
    assert declared(sampling={"tools": {}}).permits("sampling/createMessage", with_tools)


@pytest.mark.parametrize("method", [*ASKS, "tools/call", "ping", ""])
def test_a_client_that_declares_nothing_can_be_asked_nothing(method: str) -> None:
    assert not NOTHING.permits(method, Raw(b"{}"))
    assert NOTHING.raw == jsonrpc.EMPTY_OBJECT


@pytest.mark.parametrize("given_", [None, Raw(b""), Raw(b"[]"), Raw(b"null"), Raw(b'{"roots":true}')])
def test_what_is_no_declaration_declares_nothing(given_: Raw | None) -> None:
    assert Declared.read(given_) == NOTHING


@given(capabilities)
def test_declaring_what_was_read_declares_the_same(written: dict[str, object]) -> None:
    one = Declared.read(jsonrpc.raw(written))

    assert Declared.read(one.raw) == one
    assert set(json.loads(bytes(one.raw))) <= {
        name for name, value in written.items() if isinstance(value, dict)
    }


@pytest.mark.parametrize(
    ("method", "params", "required"),
    [
        ("elicitation/create", b"{}", {"elicitation": {}}),
        ("elicitation/create", b'{"mode":"url"}', {"elicitation": {"url": {}}}),
        ("sampling/createMessage", b"{}", {"sampling": {}}),
        ("sampling/createMessage", b'{"toolChoice":{}}', {"sampling": {"tools": {}}}),
        ("roots/list", b"", {"roots": {}}),
    ],
)
def test_what_is_required_is_what_permits_it(method: str, params: bytes, required: dict[str, object]) -> None:
    assert Declared.required(method, Raw(params)) == required
    assert declared(**required).permits(method, Raw(params))
