"""All that a policy refers to and does not hold, read at once when the runtime starts."""

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from mcphost.errors import PolicyInvalid, Problem
from mcphost.policy.faults import Fault
from mcphost.policy.models import Policy
from mcphost.policy.places import KeyPath
from mcphost.policy.secrets import Secret, SecretRef
from mcphost.policy.tenants import Token

MIN_SEAL_KEY_CHARACTERS = 32  # 128 bits even where each character is a hexadecimal digit


@dataclass(frozen=True, slots=True)
class Credential:
    """A token that is accepted: the SHA-256 of it, and whose it is."""

    tenant: str
    id: str
    digest: bytes
    expires: dt.datetime | None

    def __repr__(self) -> str:
        return f"Credential({self.tenant!r}, {self.id!r}, expires={self.expires})"


@dataclass(frozen=True, slots=True)
class ResolvedSecrets:
    """The secrets of each tenant by name, every token but those to be generated, and what handles are sealed with."""

    secrets: Mapping[str, Mapping[str, Secret]]
    credentials: tuple[Credential, ...]
    seal_key: Secret | None = None


def resolve_secrets(policy: Policy, *, environ: Mapping[str, str]) -> ResolvedSecrets:
    """Read every secret and token that the policy names, from files and from `environ`.

    Raises:
        PolicyInvalid: some could not be read, or two tokens are the same; all are listed.
    """
    problems: list[Problem] = []
    secrets: dict[str, dict[str, Secret]] = {}
    credentials: dict[bytes, tuple[Credential, KeyPath]] = {}
    for name, tenant in policy.tenants.items():
        secrets[name] = {}
        for key, ref in tenant.secrets.items():
            try:
                secrets[name][key] = ref.read(environ)
            except Fault as fault:
                problems.append(policy.problem(("tenants", name, "secrets", key), fault))
        for index, token in enumerate(tenant.tokens):
            at = ("tenants", name, "tokens", index)
            try:
                digest = _digest(token, environ)
            except Fault as fault:
                problems.append(policy.problem(at, fault))
                continue
            if digest is None:
                continue
            _, first = credentials.setdefault(digest, (Credential(name, token.id, digest, token.expires), at))
            if first != at:
                problems.append(policy.problem(at, Fault("this token is given twice", also=first)))
    seal_key = None
    try:
        seal_key = _seal_key(policy.runtime.seal_key, environ)
    except Fault as fault:
        problems.append(policy.problem(("runtime", "sealKey"), fault))
    if problems:
        raise PolicyInvalid(problems)
    return ResolvedSecrets(
        secrets, tuple(credential for credential, _ in credentials.values()), seal_key=seal_key
    )


def _seal_key(ref: SecretRef | None, environ: Mapping[str, str]) -> Secret | None:
    secret = None if ref is None else ref.read(environ)
    if secret is not None and len(secret.reveal()) < MIN_SEAL_KEY_CHARACTERS:
        raise Fault(
            f"is too short to be random enough; give {MIN_SEAL_KEY_CHARACTERS} characters or more, as "
            "`openssl rand -hex 32` makes"
        )
    return secret


def _digest(token: Token, environ: Mapping[str, str]) -> bytes | None:
    """The digest of a token, or None for one that the runtime makes itself."""
    if token.sha256 is not None:
        return bytes.fromhex(token.sha256)
    if token.source is None:
        return None
    return hashlib.sha256(token.source.read(environ).reveal().encode()).digest()
