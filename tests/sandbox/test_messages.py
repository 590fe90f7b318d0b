"""The protocol between runtime and fork server: what is sent comes out, and nonsense comes out as nonsense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import (
    LAYERS,
    Exited,
    LayerStatus,
    SandboxSetupFailed,
    SandboxSpec,
    SandboxUnsupported,
    Spawned,
    SpawnFailed,
)
from sandbox.messages import (
    Hello,
    Kill,
    MalformedMessage,
    Signal,
    Spawn,
    SpecRefused,
    decode_event,
    decode_hello,
    decode_request,
    encode_event,
    encode_hello,
    encode_request,
)

SPEC = SandboxSpec(name="a", argv=("x",), env=(("A", "ü"),))
STATUS = LayerStatus(LAYERS[0], "absent", "why not")


@pytest.mark.parametrize("request_", [Spawn(1, SPEC), Signal(2, 15), Kill(3)])
def test_a_request_survives_the_wire(request_):
    assert decode_request(encode_request(request_)) == request_


@pytest.mark.parametrize("event", [Spawned(1, 2, 3, (STATUS,)), Exited(2, "oom", None, 9, 5, 0.5, 1, None)])
def test_an_event_survives_the_wire(event):
    assert decode_event(encode_event(event)) == event


def test_a_failed_start_keeps_its_step_and_errno_on_the_wire():
    event = decode_event(encode_event(SpawnFailed(4, SandboxSetupFailed("exec", 2, "the program x"))))
    assert (event.request, event.error.step, event.error.errno, event.error.retryable) == (4, "exec", 2, True)
    assert "the program x" in event.error.message


def test_a_refusal_keeps_its_layers_on_the_wire():
    event = decode_event(encode_event(SpawnFailed(4, SandboxUnsupported((STATUS,)))))
    assert (event.error.layers, event.error.retryable) == ((STATUS,), False)


def test_the_greeting_survives_the_wire():
    assert decode_hello(encode_hello(Hello(1, (STATUS,)))) == Hello(1, (STATUS,))


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_request_or_malformed(packet):
    with pytest.raises((MalformedMessage, SpecRefused)):
        decode_request(packet)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.sampled_from(["spawn", "signal", "kill"]), JSON)
def test_any_body_is_a_request_or_malformed(kind, body):
    import json

    try:
        decode_request(json.dumps({kind: body}).encode())
    except (MalformedMessage, SpecRefused):
        return


def test_a_field_too_many_is_malformed():
    with pytest.raises(MalformedMessage):
        decode_request(b'{"kill":{"worker":1,"also":2}}')


def test_an_invalid_specification_is_refused_with_the_number_of_its_request():
    with pytest.raises(SpecRefused) as caught:
        decode_request(b'{"spawn":{"request":9,"spec":{}}}')
    assert caught.value.request == 9
