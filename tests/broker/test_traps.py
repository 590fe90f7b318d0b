"""What a client writes inside its JSON never becomes more than one message, or another, at the worker."""

import json

import pytest

from harness import MODERN_META, fixture_server, make_policy, read_answer, serving

pytestmark = pytest.mark.kernel

SMUGGLED = (
    b'{"jsonrpc":"2.0",\n"id":7,\r\n"method":"tools/call","params":{"name":"echo",\n'
    b'"arguments":{"text":"a"\n,"x":\n{"jsonrpc":"2.0"\r,"id":8}},\n"_meta":META}}\n'
)


def with_meta(body: bytes) -> bytes:
    return body.replace(b"META", json.dumps(MODERN_META).encode())


async def test_line_breaks_between_tokens_do_not_end_the_message() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = served.modern("fix")
        headers = client.headers("tools/call", "echo")
        answer = read_answer(
            await served.http.post(client.path, content=with_meta(SMUGGLED), headers=headers)
        )
        assert answer.text == "a"
        seen = (await client.call("last_message")).text
        assert "\n" not in seen
        assert (await client.call("calls")).result["structuredContent"]["echo"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"\xff"}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a\nb"}}}',
        b"{" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"\x00",
        b"",
    ],
)
async def test_what_is_no_json_is_refused_and_reaches_no_worker(body: bytes) -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = served.modern("fix")
        headers = client.headers("tools/call", "echo")
        answer = read_answer(await served.http.post(client.path, content=body, headers=headers))
        assert answer.status == 400
        assert answer.error["code"] in {-32700, -32600}
        assert served.runtime.pool.sets() == []


async def test_of_duplicate_keys_the_one_that_was_judged_is_forwarded() -> None:
    tenants = {"acme": {**make_policy({})["tenants"]["acme"], "allow": ["fix/echo"]}}
    async with serving(make_policy({"fix": fixture_server()}, tenants)) as served:
        client = served.modern("fix")
        for first, last, status in (("crash", "echo", 200), ("echo", "crash", 403)):
            body = (
                f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{first}","name":"{last}",'
                f'"arguments":{{"text":"a"}},"_meta":{json.dumps(MODERN_META)}}}}}'
            )
            headers = client.headers("tools/call", last)
            answer = read_answer(await served.http.post(client.path, content=body, headers=headers))
            assert answer.status == status


async def test_ids_and_progress_tokens_towards_a_worker_are_never_the_clients() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = served.modern("fix")
        body = client.body("tools/call", {"name": "last_message", "arguments": {}}, {"progressToken": "mine"})
        body["id"] = "secret-id"
        headers = client.headers("tools/call", "last_message")
        answer = read_answer(await served.http.post(client.path, json=body, headers=headers))
        assert answer.final["id"] == "secret-id"
        seen = json.loads(answer.text)
        assert isinstance(seen["id"], int)
        assert seen["params"]["_meta"]["progressToken"] == seen["id"]
        assert "secret-id" not in answer.text
        assert "mine" not in answer.text


async def test_fields_that_nobody_knows_reach_the_worker_as_they_are() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = served.modern("fix")
        arguments = {"n": 123456789012345678901234567890, "f": 1.10, "deep": [{"a": None}]}
        answer = await client.request(
            "tools/call",
            {"name": "last_message", "arguments": arguments, "future": {"x": 1}},
            **{
                "example.com/own": "kept",
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            },
        )
        seen = json.loads(answer.text)["params"]
        assert seen["arguments"] == arguments
        assert seen["future"] == {"x": 1}
        assert seen["_meta"]["example.com/own"] == "kept"
        assert seen["_meta"]["traceparent"].startswith("00-0af7")
