"""Volumes of a policy in a running runtime: kept, bounded, apart from other tenants', and refused where not to be had."""

import os
from pathlib import Path

import pytest
import yaml

from harness import fixture_server, make_policy, serving, tenant_entry
from mcphost.errors import PolicyInvalid, StartRefused
from mcphost.policy import loads
from mcphost.preflight import make_plan, refuse_unbounded
from sandbox import LayerStatus, probe_sizes

pytestmark = pytest.mark.kernel
needs_sizes = pytest.mark.skipif(
    probe_sizes("/tmp").state != "enforced", reason=f"needs sized volumes: {probe_sizes('/tmp').reason}"
)

TENANTS = {name: tenant_entry(name) for name in ("acme", "globex")}
LARGE = "x" * (3 * 1024 * 1024)


def policy_with(state: Path, **server: object) -> dict:
    return make_policy({"fix": fixture_server(**server)}, TENANTS, runtime={"stateDir": str(state)})


@needs_sizes
async def test_a_tenant_that_fills_what_is_its_own_is_told_so_and_nobody_else_is_touched(
    tmp_path: Path,
) -> None:
    volumes = [{"name": "cache", "target": "/cache", "mode": "rw", "size": "16Mi"}]
    async with serving(policy_with(tmp_path, data={"size": "16Mi"}, volumes=volumes)) as served:
        acme, globex = served.modern("fix"), served.modern("fix", "globex")
        for place in ("/data", "/cache"):
            for number in range(6):
                answer = await acme.call("write_file", path=f"{place}/{number}", text=LARGE)
            assert "No space left on device" in answer.text
            assert (await globex.call("write_file", path=f"{place}/file", text=LARGE)).text == "written"
            assert (await globex.call("list_dir", path=place)).result["structuredContent"] == {
                "names": ["file"]
            }
    assert sum(path.stat().st_blocks for path in tmp_path.rglob("*")) * 512 < 4 * 17 * 1024 * 1024
    async with serving(policy_with(tmp_path, data={"size": "24Mi"}, volumes=volumes)) as served:
        acme = served.modern("fix")
        assert (await acme.call("write_file", path="/data/more", text=LARGE)).text == "written"
        assert len((await acme.call("read_file", path="/cache/0")).text) == len(LARGE)


async def test_a_kept_volume_outlives_the_runtime_and_one_of_a_shared_server_serves_all(
    tmp_path: Path,
) -> None:
    servers = {
        name: fixture_server(scope=scope, volumes=["kept:/kept:rw"])
        for name, scope in (("own", "tenant"), ("common", "shared"))
    }
    policy = make_policy(servers, TENANTS, runtime={"stateDir": str(tmp_path)})
    async with serving(policy) as served:
        for server in servers:
            await served.modern(server).call("write_file", path="/kept/file", text=server)
    async with serving(policy) as served:
        assert (await served.modern("own").call("read_file", path="/kept/file")).text == "own"
        assert (
            "FileNotFound" in (await served.modern("own", "globex").call("read_file", path="/kept/file")).text
        )
        assert (await served.modern("common", "globex").call("read_file", path="/kept/file")).text == "common"


async def test_a_path_of_the_host_is_read_only_unless_the_policy_says_otherwise(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir(mode=0o777)
        (tmp_path / name).chmod(0o777)
        (tmp_path / name / "file").write_text(name)
    volumes = [f"{tmp_path}/in:/seen", {"source": f"{tmp_path}/out", "target": "/writable", "mode": "rw"}]
    async with serving(make_policy({"fix": fixture_server(volumes=volumes)})) as served:
        client = served.modern("fix")
        assert (await client.call("read_file", path="/seen/file")).text == "in"
        assert (await client.call("write_file", path="/seen/file", text="x")).result["isError"]
        assert (await client.call("write_file", path="/writable/new", text="x")).text == "written"
    assert (tmp_path / "out" / "new").read_text() == "x"


@needs_sizes
async def test_what_was_kept_in_one_form_is_not_left_aside_for_the_other(tmp_path: Path) -> None:
    for first, second in (({}, {"size": "16Mi"}), ({"size": "16Mi"}, {})):
        state = tmp_path / f"state-{len(first)}"
        async with serving(policy_with(state, data=first)) as served:
            await served.modern("fix").call("write_file", path="/data/file", text="kept")
        quick = {"max": 1, "backoff": {"initial": "10ms", "max": "10ms"}}
        async with serving(policy_with(state, data=second, restart=quick)) as served:
            answer = await served.modern("fix").call("read_file", path="/data/file")
            assert answer.error["data"]["reason"] == "worker-unavailable"
            assert "was kept" in served.worker_set("fix").trouble


def planned(policy: dict):
    return make_plan(loads(yaml.safe_dump(policy, width=1000), file="test.yaml"), os.environ)


def test_a_source_that_is_not_there_is_an_error_at_its_place(tmp_path: Path) -> None:
    policy = make_policy({"fix": fixture_server(volumes=[{"source": f"{tmp_path}/none", "target": "/none"}])})
    with pytest.raises(
        PolicyInvalid, match=r"test\.yaml:\d+:\d+: mcpServers\.fix\.volumes\[0\]\.source: there is no"
    ):
        planned(policy)


def test_a_source_that_is_no_file_and_no_directory_is_one_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PolicyInvalid, match="no such file or directory"):
        planned(make_policy({"fix": fixture_server(volumes=[f"{tmp_path}/fifo:/fifo"])}))


@pytest.mark.parametrize("source", ["", "/data", "/data/acme/fix"])
def test_what_is_kept_for_tenants_cannot_be_granted(tmp_path: Path, source: str) -> None:
    place = tmp_path / "state" / source.lstrip("/")
    place.mkdir(parents=True)
    policy = policy_with(tmp_path / "state", volumes=[f"{place}:/stolen"])
    with pytest.raises(PolicyInvalid, match="where the runtime keeps what belongs to tenants"):
        planned(policy)


def test_a_mount_below_a_volume_that_workers_write_is_contested(tmp_path: Path) -> None:
    (tmp_path / "shared" / "inner").mkdir(parents=True)
    servers = {
        "writer": fixture_server(volumes=[f"{tmp_path}/shared:/shared:rw"]),
        "reader": fixture_server(volumes=[f"{tmp_path}/shared/inner:/inner"]),
    }
    with pytest.raises(PolicyInvalid, match="keep them apart"):
        planned(make_policy(servers))


def test_a_size_that_cannot_be_held_stops_the_start_with_its_place_and_the_remedy(tmp_path: Path) -> None:
    volumes = [{"name": "cache", "target": "/cache", "mode": "rw", "size": "16Mi"}]
    plan = planned(policy_with(tmp_path, data={"size": "16Mi"}, volumes=volumes))
    with pytest.raises(StartRefused) as caught:
        refuse_unbounded(plan, LayerStatus("volume-size", "absent", "no loop devices; get some"))
    text = str(caught.value)
    assert "no loop devices; get some" in text
    assert text.count("test.yaml:") == 2
    refuse_unbounded(plan, LayerStatus("volume-size", "enforced", ""))
