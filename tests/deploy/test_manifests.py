"""The files of deploy/ agree with each other and with the runtime; engines and clusters themselves do not run here."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mcphost.policy import DEFAULT_REQUIRE, loads

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")


def documents(name: str) -> dict[str, dict]:
    found = yaml.safe_load_all((DEPLOY / "kubernetes" / f"{name}.yaml").read_text())
    return {each["kind"]: each for each in found}


def pod(name: str) -> tuple[dict, dict]:
    spec = documents(name)["Deployment"]["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def test_every_manifest_is_yaml_with_a_kind_and_a_name():
    for file in KUBERNETES:
        for each in yaml.safe_load_all(file.read_text()):
            assert each.keys() >= {"apiVersion", "kind", "metadata"}
            assert each["metadata"]["name"].startswith("mcphost")


@pytest.mark.parametrize("variant", ["plain", "unmasked"])
def test_a_pod_runs_as_nobody_with_nothing_to_gain(variant):
    spec, container = pod(variant)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert spec["automountServiceAccountToken"] is False


def test_the_unmasked_pod_has_what_namespaces_need_and_the_plain_one_nothing_of_it():
    spec, container = pod("unmasked")
    assert spec["hostUsers"] is False
    assert container["securityContext"]["procMount"] == "Unmasked"
    profile = container["securityContext"]["seccompProfile"]
    assert profile == {"type": "Localhost", "localhostProfile": "mcphost.json"}
    spec, container = pod("plain")
    assert "hostUsers" not in spec
    assert "procMount" not in container["securityContext"]
    assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("variant", ["plain", "unmasked"])
def test_the_policy_of_a_pod_is_valid_and_fits_its_ports_volumes_and_service(variant):
    policy = loads(documents(variant)["ConfigMap"]["data"]["policy.yaml"], file="policy.yaml")
    spec, container = pod(variant)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"mcp": policy.runtime.listen.port, "admin": policy.runtime.admin.port}
    mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert mounted[policy.runtime.state_dir] == "state"
    (token,) = policy.tenants["dev"].tokens
    assert mounted[str(Path(token.from_file).parent)] == "tokens"
    assert {each["name"] for each in spec["volumes"]} == set(mounted.values())
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    common, labels = (
        documents("common"),
        documents(variant)["Deployment"]["spec"]["template"]["metadata"]["labels"],
    )
    assert common["Service"]["spec"]["selector"] == labels
    assert common["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert common["NetworkPolicy"]["spec"]["egress"] == []


def test_only_the_plain_pod_asks_for_less_than_the_default_and_for_no_namespace():
    require = {
        name: loads(documents(name)["ConfigMap"]["data"]["policy.yaml"], file="p").require
        for name in ("plain", "unmasked")
    }
    assert tuple(require["unmasked"]) == DEFAULT_REQUIRE
    assert set(require["plain"]) == {"no-new-privs", "landlock", "seccomp", "rlimits"}


def test_compose_starts_the_container_as_the_doctor_asks():
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["mcphost"]
    assert service["user"] == "65532:65532"
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert "systempaths=unconfined" in service["security_opt"]
    (seccomp,) = [
        each.removeprefix("seccomp=") for each in service["security_opt"] if each.startswith("seccomp=")
    ]
    json.loads((DEPLOY / seccomp).read_text())
    assert (ROOT / service["build"]["context"].replace("..", ".") / service["build"]["dockerfile"]).is_file()
    policy = loads((DEPLOY / "policy.container.yaml").read_text(), file="policy.container.yaml")
    assert any(each.endswith(f":{policy.runtime.state_dir}") for each in service["volumes"])
    assert service["ports"][0].endswith(f":{policy.runtime.listen.port}")
    assert policy.tenants["dev"].tokens[0].from_file == f"/run/secrets/{service['secrets'][0]}"


def test_the_image_takes_only_files_that_are_there_and_installs_only_by_hash():
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    assert len(installs) == 3
    for line in installs:
        assert "--require-hashes" in line or "--no-index" in line
        for file in re.findall(r"-r (\S+)", line):
            assert "--hash=sha256:" in (ROOT / file).read_text()


def test_the_image_runs_as_nobody_and_its_health_check_can_fail():
    assert re.search(r"^USER 65532:65532$", DOCKERFILE, re.MULTILINE)
    (words,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    command = json.loads(words)
    assert command[0] == "python"
    # No runtime listens on that port of a fresh network namespace; with one it is what tests/cli asks as well.
    done = subprocess.run(
        [sys.executable, *command[1:-1], command[-1].replace("9090", "1")], capture_output=True, check=False
    )
    assert done.returncode == 1


def test_every_file_says_which_layers_it_gives_and_how_to_see_them():
    for file in [DEPLOY / "mcphost.service", DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", *KUBERNETES]:
        if file.name == "common.yaml":
            continue
        head = file.read_text()[:2500]
        assert "ayer" in head
        assert "doctor" in head, file


def test_the_unit_starts_what_the_package_installs():
    unit = (DEPLOY / "mcphost.service").read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program, command, policy = shlex.split(line)
    assert (Path(program).name, command) == ("mcphost", "run")
    assert policy in unit.split("[Unit]")[0]
