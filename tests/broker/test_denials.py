"""What the sandbox refuses to a worker is counted under its server and tenant, and said in the log now and then."""

import json

from structlog.testing import capture_logs

from harness import fixture_server, make_policy, serving, tenant_entry, until

HOSTILE = fixture_server()
HOSTILE["args"] = [HOSTILE["args"][0].replace("fixture.py", "hostile.py")]


async def test_denied_calls_are_counted_by_server_tenant_and_call_and_logged_once():
    tenants = {name: tenant_entry(name) for name in ("acme", "globex")}
    policy = make_policy({"hostile": HOSTILE, "honest": fixture_server()}, tenants)
    with capture_logs() as logs:
        text = await metrics_after_an_attack(policy, tenants)
    lines = [line for line in text.splitlines() if line.startswith("mcphost_denied_calls_total")]
    assert lines
    assert not [line for line in lines if 'tenant="acme"' not in line or 'server="hostile"' not in line]
    (logged,) = [line for line in logs if line["event"] == "worker_denied_calls"]
    assert (logged["server"], logged["tenant"]) == ("hostile", "acme")
    assert "=1" in logged["calls"]


async def metrics_after_an_attack(policy, tenants) -> str:
    async with serving(policy) as served:
        for tenant in tenants:
            assert (await served.modern("honest", tenant).call("echo", text="x")).text == "x"
        for _ in range(2):
            seen = json.loads((await served.modern("hostile", "acme").call("try_syscalls")).text)
        assert seen["unshare"] == "EPERM"
        count = 'mcphost_denied_calls_total{call="unshare",server="hostile",tenant="acme"} 2.0'
        await until(lambda: count in served.runtime.metrics.render().decode(), "both are counted")
        return served.runtime.metrics.render().decode()
