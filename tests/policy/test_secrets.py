"""Secrets: read once, filled in, and never shown."""

import copy
import hashlib
import os
import pickle
from pathlib import Path

import pytest

from mcphost.errors import PolicyInvalid
from mcphost.policy import Fault, Secret, SecretRef, interpolate, loads, resolve_secrets, secret_names

CANARY = "canary-5f2c"
DIGEST = hashlib.sha256(CANARY.encode()).hexdigest()


def test_a_secret_shows_itself_to_nothing_but_reveal() -> None:
    secret = Secret(CANARY)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        "".join(map(str, [secret])),
        str([secret]),
        str({"a": secret}),
    ]
    assert CANARY not in "".join(shown)
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == CANARY
    assert secret == Secret(CANARY)
    assert secret != Secret("other")
    assert secret != CANARY
    assert len({secret, Secret(CANARY)}) == 1


@pytest.mark.parametrize("copier", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_secret_does_not_leave_by_copying(copier) -> None:
    with pytest.raises(TypeError, match="not copied"):
        copier(Secret(CANARY))


@pytest.mark.parametrize(
    ("content", "value"), [(b"x", "x"), (b"x\n", "x"), (b"x\r\n", "x"), (b"x\n\n", "x\n"), (b" x", " x")]
)
def test_one_line_break_at_the_end_of_a_file_is_not_part_of_it(
    content: bytes, value: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert SecretRef(from_file=str(file)).read({}).reveal() == value


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "is not UTF-8 text"),
        (b"a\0b", "a NUL character"),
        (b"x" * 65_537, "is larger than 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(Fault, match=why) as caught:
        SecretRef(from_file=str(file)).read({})
    assert caught.value.at == ("fromFile",)


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, why in (
        (tmp_path / "fifo", "not a regular file"),
        (tmp_path, "regular"),
        (tmp_path / "no", "no such file"),
    ):
        with pytest.raises(Fault, match=why):
            SecretRef(from_file=str(path)).read({})


def test_a_file_whose_reading_fails_is_told() -> None:
    with pytest.raises(Fault, match="cannot be read: input/output error"):
        SecretRef(from_file="/proc/self/mem").read({})


def test_a_link_to_a_secret_is_followed(tmp_path: Path) -> None:
    (tmp_path / "data").write_text(CANARY)
    (tmp_path / "link").symlink_to("data")
    assert SecretRef(from_file=str(tmp_path / "link")).read({}).reveal() == CANARY


def test_a_variable_must_be_set_and_filled() -> None:
    ref = SecretRef(from_env="KEY")
    assert ref.read({"KEY": CANARY}).reveal() == CANARY
    for environ in ({}, {"KEY": ""}, {"KEY": "\udcff"}):
        with pytest.raises(Fault, match="the variable KEY"):
            ref.read(environ)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("Bearer ${secret:key}", f"Bearer {CANARY}"),
        ("${secret:key}${secret:other.one}", f"{CANARY}$secret"),
        ("$$${secret:key}$$", f"${CANARY}$"),
        ("$${secret:key}", "${secret:key}"),
        ("", ""),
    ],
)
def test_a_template_is_filled_in_once(template: str, value: str) -> None:
    filled = interpolate(template, {"key": Secret(CANARY), "other.one": Secret("$secret")})
    assert filled.reveal() == value
    assert repr(filled) == "Secret(...)"


@pytest.mark.parametrize(
    "template", ["$", "a$b", "${", "${}", "${HOME}", "${secret:}", "${secret:a b}", "${env:X}", "$$$"]
)
def test_a_template_with_anything_else_behind_a_dollar_is_refused(template: str) -> None:
    with pytest.raises(Fault):
        secret_names(template)


def test_a_secret_that_is_not_there_is_named_and_not_left_empty() -> None:
    with pytest.raises(Fault, match="the secret kay is not there") as caught:
        interpolate("${secret:kay}", {"key": Secret(CANARY)})
    assert caught.value.suggestion == "key"


def policy_text(tmp_path: Path) -> str:
    return f"""
version: 1
tenants:
  acme:
    tokens:
      - {{id: hash, sha256: {hashlib.sha256(b"x").hexdigest()}, expires: 2027-06-30}}
      - {{id: file, fromFile: {tmp_path}/token}}
      - {{id: made, generate: true}}
    secrets:
      key: {{fromFile: {tmp_path}/key}}
      other: {{fromEnv: OTHER}}
  globex:
    tokens: [{{id: env, fromEnv: TOKEN}}]
"""


def test_everything_a_policy_refers_to_is_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(CANARY + "\n")
    (tmp_path / "key").write_text(CANARY)
    policy = loads(policy_text(tmp_path), file="p.yaml")
    resolved = resolve_secrets(policy, environ={"OTHER": "o", "TOKEN": "t"})
    assert {name: value.reveal() for name, value in resolved.secrets["acme"].items()} == {
        "key": CANARY,
        "other": "o",
    }
    assert resolved.secrets["globex"] == {}
    assert [(it.tenant, it.id, it.digest.hex()[:8]) for it in resolved.credentials] == [
        ("acme", "hash", hashlib.sha256(b"x").hexdigest()[:8]),
        ("acme", "file", DIGEST[:8]),
        ("globex", "env", hashlib.sha256(b"t").hexdigest()[:8]),
    ]
    assert CANARY not in repr(resolved)
    assert DIGEST not in repr(resolved)
    assert hashlib.sha256(b"x").hexdigest() not in repr(policy)


def test_everything_that_cannot_be_read_is_told_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    policy = loads(policy_text(tmp_path), file="p.yaml")
    with pytest.raises(PolicyInvalid) as caught:
        resolve_secrets(policy, environ={"TOKEN": "t"})
    with pytest.raises(
        PolicyInvalid, match=r"p.yaml:13:33: tenants.globex.tokens\[0\].fromEnv: .* TOKEN is not set"
    ):
        resolve_secrets(policy, environ={})
    assert str(caught.value).splitlines() == [
        f"p.yaml:10:23: tenants.acme.secrets.key.fromFile: the file {tmp_path}/key cannot be read: no such file or directory",
        "p.yaml:11:24: tenants.acme.secrets.other.fromEnv: the variable OTHER is not set",
        "p.yaml:13:14: tenants.globex.tokens[0]: this token is given twice; see tenants.acme.tokens[1] at p.yaml:7:9",
    ]


def test_the_environment_of_a_server_is_not_in_its_repr() -> None:
    policy = loads(f"version: 1\nmcpServers: {{a: {{command: x, env: {{KEY: {CANARY}}}}}}}\n", file="p.yaml")
    assert CANARY not in repr(policy)
    assert CANARY not in str(policy)


def sealed_by(value: str) -> Secret | None:
    policy = loads("version: 1\nruntime: {sealKey: {fromEnv: KEY}}\n", file="p.yaml")
    return resolve_secrets(policy, environ={"KEY": value}).seal_key


def test_the_key_of_handles_is_read_with_the_secrets() -> None:
    secret = sealed_by("k" * 32)
    assert secret is not None
    assert secret.reveal() == "k" * 32
    policy = loads("version: 1\n", file="p.yaml")
    assert resolve_secrets(policy, environ={}).seal_key is None


@pytest.mark.parametrize(("value", "why"), [("k" * 31, "too short to be random"), ("", "is empty")])
def test_a_key_of_handles_that_can_be_guessed_is_refused_without_being_shown(value: str, why: str) -> None:
    with pytest.raises(PolicyInvalid, match=why) as caught:
        sealed_by(value)
    assert str(caught.value).startswith("p.yaml:2:")
    assert "kkk" not in str(caught.value)
