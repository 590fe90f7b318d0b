"""The policies and the schema that are shipped."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from pydantic import BaseModel

from mcphost.policy import Policy, json_schema, load
from mcphost.policy.profiles import ResolvedProfile
from mcphost.policy.yamltext import read_yaml

POLICIES = Path(__file__).parents[2] / "policies"
DEV, PROD, SCHEMA = POLICIES / "dev.yaml", POLICIES / "prod.yaml", POLICIES / "schema.json"

# What prod.yaml can only show in a comment: it would be wrong there.
ONLY_DESCRIBED = {"generate"}


def tree_of(path: Path) -> dict[str, object]:
    return read_yaml(path.read_text(), file=path.name).tree


def keys_in(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_in(part)


def models_in(kind: object) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models_in(field.annotation)
    for argument in get_args(kind):
        yield from models_in(argument)


def test_the_smallest_policy_serves_two_bundled_servers_to_one_tenant() -> None:
    policy = load(DEV)
    assert {name: server.scope for name, server in policy.servers.items()} == {
        "clock": "shared",
        "notes": "tenant",
    }
    assert policy.tenants["dev"].tokens[0].generate
    assert str(policy.runtime.listen) == "127.0.0.1:8080"


def test_the_full_policy_loads_without_any_file_it_names() -> None:
    policy = load(PROD)
    assert len(policy.servers) == 2
    assert len(policy.tenants) == 2


def test_the_full_policy_shows_every_setting() -> None:
    shown = set(keys_in(tree_of(PROD)))
    known = {field.alias for model in models_in(Policy) for field in model.model_fields.values()}
    assert known - shown == ONLY_DESCRIBED
    assert all(re.search(rf"#\s+{key}\b", PROD.read_text()) for key in ONLY_DESCRIBED)


def test_the_full_policy_shows_the_values_built_in() -> None:
    assert load(PROD).profile("default") == ResolvedProfile()
    assert load(PROD).runtime.limits == load(DEV).runtime.limits
    prod, dev = load(PROD).servers["notes"], load(DEV).servers["notes"]
    assert prod.restart == dev.restart
    assert prod.concurrency == dev.concurrency
    assert prod.timeouts.model_copy(update={"tools": {}}) == dev.timeouts
    assert load(PROD).tenants["acme"].limits == load(DEV).tenants["dev"].limits


def test_every_setting_is_described_to_editors() -> None:
    schema = json_schema()
    for part in (schema, *schema["$defs"].values()):
        assert all(entry.get("description") or "$ref" in entry for entry in part["properties"].values())


def test_the_schema_in_the_repository_is_the_one_of_the_models() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "mcphost.policy"], capture_output=True, text=True, check=True
    )
    assert SCHEMA.read_text() == printed.stdout, "run: python -m mcphost.policy > policies/schema.json"


@pytest.mark.parametrize("path", [DEV, PROD], ids=["dev", "prod"])
def test_the_schema_accepts_the_policies(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(tree_of(path), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("runtime", "listen"), "8080"),
        (("runtime", "drain"), "10"),
        (("require",), ["usernamespace"]),
        (("mcpServers", "clock", "colour"), "red"),
        (("mcpServers", "clock", "scope"), "sessions"),
        (("mcpServers", "no name"), {"command": "x"}),
        (("tenants", "acme", "limits", "rate"), "many"),
        (("tenants", "acme", "tokens"), [{"sha256": "abc", "id": "a"}]),
    ],
)
def test_the_schema_refuses_what_load_refuses(where: tuple[str, ...], value: object) -> None:
    tree = tree_of(PROD)
    part = tree
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, json_schema())
