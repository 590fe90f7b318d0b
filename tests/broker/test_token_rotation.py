"""Tokens that come and go: several at a time, each with its own end, and sessions that end with theirs."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from harness import LegacyClient, Served, fixture_server, make_policy, serving, tenant_entry, token_of

pytestmark = pytest.mark.kernel


def policy(state: Path, **expires: str | None) -> dict[str, Any]:
    """A tenant with tokens of these ids; a client of the harness sends one when told that it is its tenant."""
    tokens = [
        {"id": name, "sha256": hashlib.sha256(token_of(name).encode()).hexdigest()}
        | ({"expires": until} if until else {})
        for name, until in expires.items()
    ]
    tenants = {"acme": tenant_entry("acme", tokens=tokens)}
    return make_policy({"fix": fixture_server(start="lazy")}, tenants, runtime={"stateDir": str(state)})


def again(session: LegacyClient, served: Served, token: str) -> LegacyClient:
    """A client that goes on with a session before another runtime, with this token."""
    return LegacyClient(served.http, session.path, token, session.ids, session.session)


async def test_a_token_is_rotated_without_an_interruption_and_takes_its_sessions_with_it(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    async with serving(policy(state, old=None, other=None)) as served:
        session, other = await served.legacy("fix", "old"), await served.legacy("fix", "other")
    async with serving(policy(state, old="2999-01-01", new=None, other=None)) as served:
        assert (await again(session, served, "old").call("echo", text="a")).text == "a"
        assert (await again(session, served, "new").request("ping")).status == 404
        assert (await served.modern("fix", "new").call("echo", text="b")).text == "b"
    async with serving(policy(state, new=None, other=None)) as served:
        assert (await post(again(session, served, "old"))) == 401
        assert (await again(session, served, "new").request("ping")).status == 404
        assert (await again(other, served, "other").call("echo", text="c")).text == "c"


async def test_a_token_past_its_date_is_told_what_one_that_nobody_has_is(tmp_path: Path) -> None:
    dated = policy(tmp_path, past="2001-01-01", ahead="2999-01-01T00:00:00+01:00")
    async with serving(dated) as served:
        answers = []
        for token in ("past", "unknown"):
            client = served.modern("fix", token)
            body = client.body("tools/list", {}, {})
            headers = client.headers("tools/list", None)
            answers.append(await served.http.post(client.path, json=body, headers=headers))
        assert [answer.status_code for answer in answers] == [401, 401]
        assert answers[0].content == answers[1].content
        assert answers[0].headers["www-authenticate"] == answers[1].headers["www-authenticate"]
        assert (await served.modern("fix", "ahead").call("echo", text="a")).text == "a"


async def post(client: LegacyClient) -> int:
    body, headers = client.body("ping", {}, {}), client.headers("ping", None)
    return (await client.http.post(client.path, json=body, headers=headers)).status_code
