"""The servers that come with the runtime, as an ordinary client finds them, in both eras."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

MODES = ["auto", "legacy", "2026-07-28"]


def text_of(result) -> str:
    return result.content[0].text


@pytest.mark.parametrize("mode", MODES)
async def test_the_clock_tells_the_time_of_a_zone(bundled_server, mode):
    async with Client(bundled_server("clock"), mode=mode) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        assert [tool.name for tool in (await client.list_tools()).tools] == ["now", "convert"]
        here = await client.call_tool("now", {})
        there = await client.call_tool("now", {"timezone": "Asia/Kolkata"})
    assert re.fullmatch(r"\w+day, \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 in UTC", text_of(here))
    assert there.structured_content["time"].endswith("+05:30")
    assert there.structured_content["daylightSaving"] is False


@pytest.mark.parametrize("mode", MODES)
async def test_the_clock_converts_a_time_between_zones(bundled_server, mode):
    arguments = {"time": "2026-07-28T14:30", "from": "Europe/Berlin", "to": "America/New_York"}
    async with Client(bundled_server("clock"), mode=mode) as client:
        result = await client.call_tool("convert", arguments)
    assert result.structured_content["to"] == {
        "timezone": "America/New_York",
        "time": "2026-07-28T08:30:00-04:00",
        "weekday": "Tuesday",
        "daylightSaving": True,
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"time": "2026-07-28T14:30", "from": "Mars/Base", "to": "UTC"}, "unknown time zone 'Mars/Base'"),
        ({"time": "2026-07-28T14:30", "from": "UTC", "to": "../../etc/passwd"}, "unknown time zone"),
        ({"time": "2026-07-28T14:30", "from": "UTC", "to": "Europe"}, "unknown time zone 'Europe'"),
        ({"time": "2026-07-28T14:30", "from": "UTC", "to": ""}, "unknown time zone ''"),
        ({"time": "half past two", "from": "UTC", "to": "UTC"}, "'half past two' is no time"),
        ({"time": "2026-07-28T14:30+02:00", "from": "UTC", "to": "UTC"}, "carries an offset"),
        (
            {"time": "2026-03-29T02:30", "from": "Europe/Berlin", "to": "UTC"},
            "does not exist in Europe/Berlin",
        ),
        ({"time": "0001-01-01T00:00", "from": "Asia/Tokyo", "to": "UTC"}, "too far away"),
        ({"time": "9999-12-31T23:00", "from": "UTC", "to": "Asia/Tokyo"}, "too far away"),
        ({"time": "14:30", "from": "UTC"}, "argument 'to' is missing"),
        ({"time": "14:30", "from": "UTC", "to": "UTC", "zone": "UTC"}, "unknown argument 'zone'"),
        ({"time": 14, "from": "UTC", "to": "UTC"}, "argument 'time' must be a string"),
    ],
)
async def test_the_clock_says_what_is_wrong_with_a_question(bundled_server, arguments, said):
    async with Client(bundled_server("clock")) as client:
        result = await client.call_tool("convert", arguments)
    assert result.is_error
    assert said in text_of(result)


async def test_the_clock_takes_the_first_of_a_time_that_comes_twice_and_says_so(bundled_server):
    arguments = {"time": "2026-10-25T02:30", "from": "Europe/Berlin", "to": "UTC"}
    async with Client(bundled_server("clock")) as client:
        result = await client.call_tool("convert", arguments)
    assert result.structured_content["to"]["time"] == "2026-10-25T00:30:00+00:00"
    assert "the first of the two" in text_of(result)


async def test_the_clock_takes_a_time_of_today(bundled_server):
    async with Client(bundled_server("clock")) as client:
        today = (await client.call_tool("now", {})).structured_content["time"][:10]
        result = await client.call_tool("convert", {"time": "12:00", "from": "UTC", "to": "UTC"})
    assert result.structured_content["from"]["time"] >= f"{today}T12:00:00+00:00"


@pytest.mark.parametrize("mode", MODES)
async def test_notes_are_added_listed_read_and_deleted(bundled_server, mode, tmp_path):
    async with Client(bundled_server("notes", "--data", str(tmp_path)), mode=mode) as client:
        assert text_of(await client.call_tool("list", {})) == "There are no notes."
        await client.call_tool("add", {"name": "milk", "text": "two litres\nof it"})
        await client.call_tool("add", {"name": "eggs", "text": "six"})
        await client.call_tool("add", {"name": "eggs", "text": "ten"})
        assert (await client.call_tool("list", {})).structured_content == {"names": ["milk", "eggs"]}
        assert text_of(await client.call_tool("get", {"name": "eggs"})) == "ten"
        await client.call_tool("delete", {"name": "eggs"})
        gone = await client.call_tool("get", {"name": "eggs"})
    assert gone.is_error
    assert text_of(gone) == "there is no note 'eggs'; there are: milk"


@pytest.mark.parametrize("mode", MODES)
async def test_notes_are_resources_and_fill_a_prompt(bundled_server, mode, tmp_path):
    async with Client(bundled_server("notes", "--data", str(tmp_path)), mode=mode) as client:
        empty = await client.get_prompt("summarize_notes")
        await client.call_tool("add", {"name": "milk", "text": "two litres"})
        listed = await client.list_resources()
        read = await client.read_resource("note:///milk")
        templates = await client.list_resource_templates()
        prompt = await client.get_prompt("summarize_notes")
        with pytest.raises(MCPError) as raised:
            await client.read_resource("note:///eggs")
    assert [str(resource.uri) for resource in listed.resources] == ["note:///milk"]
    assert read.contents[0].text == "two litres"
    assert templates.resource_templates[0].uri_template == "note:///{name}"
    assert "There are no notes yet" in empty.messages[0].content.text
    assert "## milk\ntwo litres" in prompt.messages[0].content.text
    assert raised.value.error.code == (-32002 if mode == "legacy" else -32602)


async def test_notes_in_a_folder_outlive_the_server_and_are_shared_by_two(bundled_server, tmp_path):
    server = bundled_server("notes", "--data", str(tmp_path))
    async with Client(server) as first, Client(server) as second:
        await first.call_tool("add", {"name": "a", "text": "from the first"})
        await second.call_tool("add", {"name": "b", "text": "from the second"})
        assert (await first.call_tool("list", {})).structured_content == {"names": ["a", "b"]}
        assert "kept when the server restarts" in first.instructions
    async with Client(server) as later:
        assert text_of(await later.call_tool("get", {"name": "b"})) == "from the second"


async def test_notes_without_a_folder_live_in_memory_and_say_so(bundled_server, tmp_path):
    server = bundled_server("notes", "--data", str(tmp_path / "missing"))
    async with Client(server) as client, Client(server) as other:
        await client.call_tool("add", {"name": "a", "text": "here"})
        assert text_of(await client.call_tool("get", {"name": "a"})) == "here"
        assert (await other.call_tool("get", {"name": "a"})).is_error
        assert "until the server stops" in client.instructions
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", ".hidden", "x" * 65, "ä"])
async def test_a_note_needs_a_plain_name(bundled_server, tmp_path, name):
    async with Client(bundled_server("notes", "--data", str(tmp_path))) as client:
        result = await client.call_tool("add", {"name": name, "text": "x"})
    assert result.is_error
    assert "cannot name a note" in text_of(result)


async def test_a_note_has_a_largest_size(bundled_server, tmp_path):
    async with Client(bundled_server("notes", "--data", str(tmp_path))) as client:
        assert not (await client.call_tool("add", {"name": "a", "text": "x" * 65_536})).is_error
        assert (await client.call_tool("add", {"name": "a", "text": "x" * 65_537})).is_error


async def test_there_is_a_largest_number_of_notes(bundled_server, tmp_path):
    full = {str(number): "" for number in range(1000)}
    (tmp_path / "notes.json").write_text(json.dumps(full))
    async with Client(bundled_server("notes", "--data", str(tmp_path))) as client:
        more = await client.call_tool("add", {"name": "more", "text": ""})
        assert not (await client.call_tool("add", {"name": "7", "text": "changed"})).is_error
    assert "1000 notes already" in text_of(more)


@pytest.mark.parametrize("damage", ["{", "[]", '{"a": 1}'])
async def test_a_damaged_file_of_notes_is_reported_and_left_alone(bundled_server, tmp_path, damage):
    file = tmp_path / "notes.json"
    file.write_text(damage)
    async with Client(bundled_server("notes", "--data", str(tmp_path))) as client:
        for tool, arguments in (("add", {"name": "a", "text": ""}), ("list", {})):
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert "damaged" in text_of(result)
        with pytest.raises(MCPError, match="damaged"):
            await client.list_resources()
    assert file.read_text() == damage


def exchange(server, *lines: str) -> tuple[int, list[dict]]:
    """Write lines to a server, close its input, and give its exit status and what it said."""
    written = "".join(f"{line}\n" for line in lines).encode()
    ended = subprocess.run(
        [server.command, *server.args], input=written, capture_output=True, timeout=20, check=False
    )
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()]


META = (
    '"_meta":{"io.modelcontextprotocol/protocolVersion":"%s","io.modelcontextprotocol/clientCapabilities":{}}'
)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{", -32700),
        ("[]", -32600),
        ("[" * 100_000, -32700),
        ('{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":7}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"tools/list"}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{%s}}' % (META % "2030-01-01"), -32022),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":{%s}}' % (META % "2026-07-28"), -32601),
        (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"no",%s}}'
            % (META % "2026-07-28"),
            -32602,
        ),
        ('{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{%s}}' % (META % "2026-07-28"), -32601),
    ],
)
def test_a_bundled_server_refuses_what_is_no_request_and_goes_on(bundled_server, line, code):
    ping = '{"jsonrpc":"2.0","id":"after","method":"ping"}'
    status, said = exchange(bundled_server("clock"), line, ping)
    assert status == 0
    assert said[0]["error"]["code"] == code
    assert said[1] == {"jsonrpc": "2.0", "id": "after", "result": {}}


def test_a_bundled_server_says_nothing_to_notifications_and_answers(bundled_server):
    notification = '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
    answer = '{"jsonrpc":"2.0","id":1,"result":{}}'
    assert exchange(bundled_server("clock"), notification, answer) == (0, [])


def test_a_bundled_server_ends_over_a_line_without_an_end(bundled_server):
    status, said = exchange(bundled_server("clock"), "x" * (5 << 20))
    assert (status, said) == (1, [])


@pytest.mark.parametrize("module", ["clock", "notes", "stdio"])
def test_a_bundled_server_loads_nothing_of_the_runtime_and_nothing_third_party(module):
    program = f"import sys, mcphost.servers.{module}; print(*sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True, cwd="/"
    )
    plain = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    loaded = {name for name in listed.stdout.split() if name not in plain.stdout.split()}
    own = {name for name in loaded if name.split(".")[0] == "mcphost"}
    assert own <= {"mcphost", *(f"mcphost.servers{end}" for end in ("", ".clock", ".notes", ".stdio"))}
    others = {name.split(".")[0] for name in loaded} - {"mcphost"}
    # sysconfig loads its data from a module named after the machine, which is in no list.
    assert {name for name in others if not name.startswith("_sysconfigdata")} <= set(sys.stdlib_module_names)


def test_the_fixture_and_hostile_servers_need_only_the_standard_library():
    for script in ("fixture.py", "hostile.py"):
        path = Path(__file__).parent / script
        ended = subprocess.run(
            [sys.executable, "-I", "-S", str(path)], stdin=subprocess.DEVNULL, timeout=20, check=False
        )
        assert ended.returncode == 0
