"""The layers of running workers, and of the machine, as whoever watches the runtime sees them."""

import os
import signal

import httpx
import pytest

from harness import fixture_server, make_policy, serving, until
from mcphost.telemetry.metrics import Metrics
from sandbox import LAYERS

SERIES = 'mcphost_worker_layer{{layer="{}",server="fix",state="{}",tenant="{}"}} 1.0'


def test_the_next_worker_takes_the_place_of_the_one_before_and_another_tenant_keeps_its_own():
    metrics = Metrics("test")
    metrics.worker_layers("fix", "a", old={}, new={"netns": "enforced"})
    metrics.worker_layers("fix", "b", old={}, new={"netns": "enforced"})
    metrics.worker_layers("fix", "a", old={"netns": "enforced"}, new={"netns": "absent"})
    text = metrics.render().decode()
    assert SERIES.format("netns", "absent", "a") in text
    assert SERIES.format("netns", "enforced", "b") in text
    assert SERIES.format("netns", "enforced", "a") not in text
    metrics.worker_layers("fix", "a", old={"netns": "absent"}, new={})
    assert 'tenant="a"' not in metrics.render().decode()


def test_the_workers_of_sessions_are_counted_together_and_one_that_ends_hides_no_other():
    metrics = Metrics("test")
    for _ in range(2):
        metrics.worker_layers("fix", "a", old={}, new={"netns": "enforced"})
    assert SERIES.format("netns", "enforced", "a").replace("1.0", "2.0") in metrics.render().decode()
    metrics.worker_layers("fix", "a", old={"netns": "enforced"}, new={})
    assert SERIES.format("netns", "enforced", "a") in metrics.render().decode()


@pytest.mark.kernel
async def test_a_workers_layers_are_metrics_for_as_long_as_it_runs():
    async with serving(make_policy({"fix": fixture_server()})) as served:

        def text() -> str:
            return served.runtime.metrics.render().decode()

        assert "mcphost_worker_layer{" not in text()
        await served.modern("fix").call("echo", text="a")
        for layer in LAYERS:
            assert SERIES.format(layer, "enforced", "acme") in text()
        os.kill(served.worker_set("fix").worker.pid, signal.SIGKILL)
        await until(lambda: "mcphost_worker_layer{" not in text(), "its layers are no longer shown")


@pytest.mark.kernel
async def test_the_admin_listener_shows_what_the_machine_has():
    async with serving(make_policy({"fix": fixture_server()})) as served:
        transport = httpx.ASGITransport(app=served.runtime.admin())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as admin:
            answer = (await admin.get("/layers")).json()
            assert {each["layer"]: each["state"] for each in answer["layers"]} == dict.fromkeys(
                LAYERS, "enforced"
            )
            assert {"place", "kernel", "uid", "abilities"} < answer.keys()
            # Looked at once: whoever asks again starts nothing.
            assert (await admin.get("/layers")).json() == answer
