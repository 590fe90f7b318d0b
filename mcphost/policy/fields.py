"""The kinds of values that several parts of the policy share, and the base of all its models."""

import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from mcphost.policy.faults import Fault
from mcphost.policy.files import check_encodable

_T = TypeVar("_T")

_SERVER_NAME = r"[A-Za-z][A-Za-z0-9-]*(?:_[A-Za-z0-9-]+)*"
_TENANT_NAME = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_PLAIN_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"

_MAX_SERVER_NAME = 32
# The longest label of a host name (RFC 1035, section 2.3.4): names go into cgroup paths and host names.
_MAX_NAME = 63


class Model(BaseModel):
    """A part of the policy: frozen, strict, camelCase in the file, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


Items = Annotated[tuple[_T, ...], Field(strict=False)]
"""A list in the file, a tuple in Python."""


def _as_text(value: object) -> object:
    """`8080` and `true` without quotes are text where text is wanted: their one spelling is known."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _encodable(text: str) -> str:
    check_encodable(text)
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise Fault("must not be empty")
    return text


_TEXT_SCHEMA = {"type": ["string", "number", "boolean"]}

Text = Annotated[str, BeforeValidator(_as_text), AfterValidator(_encodable), WithJsonSchema(_TEXT_SCHEMA)]
"""Any text, exactly as written."""

FilledText = Annotated[str, BeforeValidator(_as_text), AfterValidator(_encodable), AfterValidator(_filled)]
"""Text with something in it."""

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""How many, at least one."""


def _named(pattern: str, longest: int, explanation: str) -> tuple[AfterValidator, WithJsonSchema]:
    expression = re.compile(pattern)

    def check(name: str) -> str:
        if not expression.fullmatch(name):
            raise Fault("is not usable as a name", allowed=explanation, on_key=True)
        if len(name) > longest:
            raise Fault(f"a name may have at most {longest} characters", on_key=True)
        return name

    schema = {"type": "string", "pattern": f"^{pattern}$", "maxLength": longest}
    return AfterValidator(check), WithJsonSchema(schema)


ServerName = Annotated[
    str,
    *_named(
        _SERVER_NAME,
        _MAX_SERVER_NAME,
        "a letter, then letters, digits, `-` and single `_`, because clients see `name__tool` and `name+uri`",
    ),
]
TenantName = Annotated[
    str,
    *_named(_TENANT_NAME, _MAX_NAME, "lower-case letters, digits and inner `-`"),
]
PlainName = Annotated[
    str,
    *_named(_PLAIN_NAME, _MAX_NAME, "letters, digits and inner `-`, `_` and `.`"),
]
VariableName = Annotated[
    str,
    *_named(_VARIABLE, 255, "the name of an environment variable: letters, digits and `_`"),
]


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise Fault("must be an absolute path")
    if any(part in {".", ".."} for part in path.split("/")):
        raise Fault("must not hold `.` or `..`")
    return re.sub("/+", "/", path).rstrip("/") or "/"


AbsolutePath = Annotated[
    str,
    AfterValidator(_encodable),
    AfterValidator(_absolute),
    WithJsonSchema({"type": "string", "pattern": "^/"}),
]
"""A path from the root, without `.`, `..` and doubled slashes."""
