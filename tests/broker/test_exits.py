"""Why workers end and what they used, as metrics and log tell it."""

import pytest

from harness import FIXTURE, Served, fixture_server, make_policy, serving, until

pytestmark = pytest.mark.kernel

ONCE = {"max": 1, "backoff": {"initial": "10ms", "max": "20ms"}}
HOSTILE = FIXTURE.with_name("hostile.py")
MEMORY = 64 << 20


def hostile_server(**settings: object) -> dict:
    return {"command": "python3", "args": [str(HOSTILE)], **settings}


def limited(**limits: object) -> dict:
    return {"default": {"resources": {"limits": limits}}}


def sample(served: Served, name: str, **labels: str) -> float:
    labels = {"server": "fix", "tenant": "acme", **labels}
    return served.runtime.metrics.registry.get_sample_value(name, labels) or 0.0


def exits(served: Served, reason: str) -> float:
    return sample(served, "mcphost_worker_exits_total", reason=reason)


async def test_a_server_that_is_not_ready_in_time_is_ended_for_that() -> None:
    server = fixture_server("--delay-start", "60", timeouts={"start": "500ms"}, restart=ONCE)
    async with serving(make_policy({"fix": server})) as served:
        served.worker_set("fix").want()
        await until(lambda: served.worker_set("fix").state == "failed", "it is failed")
        assert exits(served, "timeout") == 2  # it was tried again once
        assert sample(served, "mcphost_worker_cpu_seconds_total") > 0


async def test_a_server_without_what_is_expected_of_it_is_ended_for_that() -> None:
    server = fixture_server("--no-tools", expect={"capabilities": ["tools"]}, restart=ONCE)
    async with serving(make_policy({"fix": server})) as served:
        served.worker_set("fix").want()
        await until(lambda: served.worker_set("fix").state == "failed", "it is failed")
        assert exits(served, "protocol") == 2


async def test_a_worker_out_of_memory_is_counted_with_what_it_used() -> None:
    limits = limited(memory="64Mi")
    async with serving(make_policy({"fix": hostile_server(restart=ONCE)}, profiles=limits)) as served:
        answer = await served.modern("fix").call("memory_hog", mb=600)
        assert answer.error["data"]["reason"] == "worker-died"
        await until(lambda: exits(served, "oom") == 1, "the exit was counted")
        assert sample(served, "mcphost_worker_oom_kills_total") >= 1
        # Near the cap and not above it.
        assert 0.8 * MEMORY < sample(served, "mcphost_worker_peak_memory_bytes_sum") <= MEMORY


async def test_refused_forks_and_held_back_cpu_are_counted() -> None:
    limits = limited(pids=16, cpu="100m")
    async with serving(make_policy({"fix": hostile_server(restart=ONCE)}, profiles=limits)) as served:
        assert "EAGAIN" in (await served.modern("fix").call("fork_bomb", n=50)).text
        await served.modern("fix").call("exit_mid_frame")
        await until(lambda: exits(served, "exited") == 1, "the exit was counted")
        assert sample(served, "mcphost_worker_pids_denied_total") >= 1
        assert sample(served, "mcphost_worker_throttled_seconds_total") > 0


async def test_a_worker_that_outlives_its_grace_is_ended_for_that() -> None:
    server = hostile_server(timeouts={"stop": "100ms"})
    async with serving(make_policy({"fix": server})) as served:
        assert (await served.modern("fix").call("ignore_sigterm")).text == "ignoring"
    assert exits(served, "timeout") == 1


@pytest.mark.parametrize("reason", ["timeout", "killed", "protocol", "oom"])
async def test_no_other_reason_is_given_to_an_orderly_end(reason: str) -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        await served.modern("fix").call("echo", text="a")
    assert exits(served, reason) == 0
    assert exits(served, "exited") == 1
