"""Real clients in the sandbox reach what is listed, over TLS that they verify, and nothing else."""

from dataclasses import replace

import pytest

from egress.conftest import counted
from egress.site import BIG_BYTES, RETRYING
from sandbox import SandboxSpec

pytestmark = [pytest.mark.kernel, pytest.mark.interop, pytest.mark.timeout(120)]
API = ["api.example.test:443"]

HTTPX = "import httpx; r = httpx.get('https://{}/hello', timeout=20); print(r.status_code, r.text)"
URLLIB = "import urllib.request as u; print(u.urlopen('https://{}/hello', timeout=20).read().decode())"
FETCH = "fetch('https://{}/hello').then(r => r.text()).then(console.log, e => console.log('failed', e.cause?.message))"


def clients(host: str) -> dict[str, list[str]]:
    return {
        "curl": ["curl", "-sS", "--max-time", "20", f"https://{host}/hello"],
        "httpx": ["python", "-c", HTTPX.format(host)],
        "urllib": ["python", "-c", URLLIB.format(host)],
        "node": ["node", "-e", FETCH.format(host)],
    }


@pytest.mark.parametrize("client", ["curl", "httpx", "urllib", "node"])
async def test_a_real_client_reaches_a_listed_host(run, metrics, client):
    ran = await run(*clients("api.example.test")[client], egress=API)
    assert "hello api.example.test api.example.test" in ran.text, ran
    assert ran.code == 0
    assert counted(metrics)["done"] == 1


@pytest.mark.parametrize("client", ["curl", "httpx", "urllib", "node"])
async def test_the_same_client_is_told_no_for_a_host_that_is_not_listed(run, metrics, names, client):
    ran = await run(*clients("other.example.test")[client], egress=API)
    assert "hello" not in ran.text
    assert "403" in ran.text or "Proxy response" in ran.text or "failed" in ran.text, ran
    assert counted(metrics) == {"not-listed": 1}
    assert names.asked == []


@pytest.mark.parametrize("client", ["urllib", "node"])
async def test_a_client_gets_out_under_the_strict_list_of_calls_too(run, client):
    def strictly(spec: SandboxSpec) -> SandboxSpec:
        return replace(spec, seccomp="strict")

    ran = await run(*clients("api.example.test")[client], egress=API, change=strictly)
    assert "hello api.example.test" in ran.text, ran


async def test_a_wildcard_reaches_the_names_below_it_over_ipv6(run):
    ran = await run(*clients("www.wild.example.test")["curl"], egress=["*.wild.example.test:443"])
    assert "hello www.wild.example.test" in ran.text


@pytest.mark.parametrize("client", ["curl", "node"])
async def test_a_client_that_is_asked_for_a_second_hello_gets_through(run, metrics, client):
    host = f"api.example.test:{RETRYING}"
    ran = await run(*clients(host)[client], egress=[host])
    assert f"hello {host}" in ran.text, ran
    assert counted(metrics)["done"] == 1


async def test_git_clones_over_https(run, metrics):
    script = "git clone -q https://api.example.test/repository.git /tmp/r && cat /tmp/r/file"
    ran = await run("sh", "-c", script, egress=API)
    assert (ran.code, ran.text) == (0, "from the repository\n")
    assert counted(metrics)["done"] >= 1


async def test_large_bodies_pass_both_ways_and_every_byte_is_counted(run, metrics):
    script = (
        "curl -sS https://api.example.test/big | wc -c;"
        " head -c 3000000 /dev/zero | curl -sS --data-binary @- https://api.example.test/post"
    )
    ran = await run("sh", "-c", script, egress=API)
    assert ran.text.split() == [str(BIG_BYTES), "3000000"]
    found = counted(metrics)
    assert found["received"] > BIG_BYTES
    assert found["sent"] > 3_000_000


async def test_plain_http_is_refused_with_the_reason(run, metrics):
    ran = await run("curl", "-sS", "http://api.example.test/hello", egress=[*API, "api.example.test:80"])
    assert "plain HTTP is not, use https" in ran.text
    assert counted(metrics) == {"plain-http": 1}


async def test_a_client_that_trusts_another_authority_only_does_not_connect(run):
    ran = await run(
        "sh", "-c", "CURL_CA_BUNDLE=/dev/null curl -sS https://api.example.test/hello", egress=API
    )
    assert "certificate" in ran.text
    assert "hello" not in ran.text
