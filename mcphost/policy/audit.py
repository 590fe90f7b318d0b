"""`audit`: where and how it is kept what was called and done."""

from typing import Literal

from mcphost.policy.fields import AbsolutePath, FilledText, Items, Model

# Names of arguments that hold secrets in the tools of many servers; compared without case, `-` and `_`.
DEFAULT_REDACTED = (
    "accessToken", "apiKey", "authorization", "clientSecret", "cookie", "credentials", "password", "passphrase",
    "privateKey", "refreshToken", "secret", "token",
)  # fmt: skip


class AuditSettings(Model):
    """One record for each call and for each act of the runtime, chained by hashes."""

    file: AbsolutePath
    """The file that records are added to; its directory must be there, and be writable for nobody else."""

    arguments: Literal["hash", "none", "full"] = "hash"
    """What is kept of a call's arguments: their SHA-256, nothing, or the hash and all but what `redact` names."""

    redact: Items[FilledText] = DEFAULT_REDACTED
    """With `full`, names of members whose values are left out, at any depth; case, `-` and `_` make no difference."""

    required: bool = True
    """Whether calls are refused while they cannot be recorded; else they go on, and what is left out is counted."""
