"""Client files and pasted blocks: read as they are, and nothing in them is silently ignored."""

import json
from pathlib import Path

import pytest

from mcphost.errors import PolicyInvalid
from mcphost.policy import Policy, load, loads

PASTED = {
    "type": "stdio",
    "command": "npx-installed-server",
    "args": ["--port", "8080"],
    "env": {"KEY": "${secret:key}"},
    "disabled": False,
    "description": "as other clients write it",
    "autoApprove": [],
    "alwaysAllow": ["now"],
}


def load_with(directory: Path, included: object, text: str = "") -> Policy:
    (directory / "mcp.json").write_text(json.dumps(included))
    policy = directory / "p.yaml"
    policy.write_text("version: 1\ninclude: [mcp.json]\n" + text)
    return load(policy)


def test_an_existing_client_file_is_included_as_it_is(tmp_path: Path) -> None:
    policy = load_with(tmp_path, {"$schema": "x", "mcpServers": {"clock": PASTED}})
    server = policy.servers["clock"]
    assert server.command == "npx-installed-server"
    assert server.args == ("--port", "8080")
    assert server.secrets == {"key"}


def test_an_included_server_knows_its_own_file(tmp_path: Path) -> None:
    policy = load_with(tmp_path, {"mcpServers": {"clock": PASTED}})
    assert policy.place("mcpServers", "clock", "command").file == str(tmp_path / "mcp.json")


def test_an_included_server_can_say_what_only_this_runtime_knows(tmp_path: Path) -> None:
    entry = {"command": "clock", "scope": "shared", "timeouts": {"call": "5s"}, "concurrency": 2}
    server = load_with(tmp_path, {"mcpServers": {"clock": entry}}).servers["clock"]
    assert (server.scope, server.timeouts.call, server.concurrency) == ("shared", 5.0, 2)


def test_a_block_of_a_client_file_can_be_pasted_into_the_policy() -> None:
    policy = loads(f"version: 1\nmcpServers: {json.dumps({'clock': PASTED})}\n", file="p.yaml")
    assert policy.servers["clock"].args == ("--port", "8080")


def test_a_disabled_entry_is_not_run_and_may_still_be_named(tmp_path: Path) -> None:
    included = {"mcpServers": {"old": {"command": "old", "disabled": True}, "clock": {"command": "clock"}}}
    policy = load_with(tmp_path, included, "tenants: {acme: {allow: [old/*, clock/*]}}\n")
    assert list(policy.servers) == ["clock"]


def test_a_name_defined_in_both_files_is_an_error_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        load_with(tmp_path, {"mcpServers": {"clock": PASTED}}, "mcpServers:\n  clock: {command: clock}\n")
    assert f"{tmp_path}/mcp.json:1:17: mcpServers.clock" in str(caught.value)
    assert f"first at {tmp_path}/p.yaml:4:3" in str(caught.value)


def test_two_included_files_can_share_nothing_but_the_runtime(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"mcpServers": {name: {"command": name}}}))
    (tmp_path / "p.yaml").write_text("version: 1\ninclude: [one.json, two.json]\n")
    assert list(load(tmp_path / "p.yaml").servers) == ["one", "two"]


def test_an_included_file_is_bounded_and_text(tmp_path: Path) -> None:
    (tmp_path / "big.json").write_bytes(b" " * (1024 * 1024 + 1))
    (tmp_path / "latin.json").write_bytes(b'{"mcpServers": "\xe9"}')
    (tmp_path / "p.yaml").write_text("version: 1\ninclude: [big.json, latin.json]\n")
    with pytest.raises(PolicyInvalid) as caught:
        load(tmp_path / "p.yaml")
    big, latin = str(caught.value).splitlines()
    assert big.startswith(f"{tmp_path}/p.yaml:2:11: include[0]:")
    assert "is larger than" in big
    assert latin == f"{tmp_path}/latin.json:1:17: the file is not valid UTF-8"


def test_more_files_than_anybody_reviews_are_refused() -> None:
    names = ", ".join(f"{number}.json" for number in range(65))
    with pytest.raises(PolicyInvalid, match="at most 64 files"):
        loads(f"version: 1\ninclude: [{names}]\n", file="p.yaml")
